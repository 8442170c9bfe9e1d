//! Additional headers of an endpoint (`headers`), such as an `Authorization` that its receiver or a gateway requires.
//!
//! Values are sealed like secrets, each bound to its endpoint and its name, and never shown again; names are stored as they
//! are.

use super::sealing::{SealError, Sealing};
use entity::WebhookId;
use http::{HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use std::collections::BTreeMap;

/// Maximum number of headers.
pub const MAX_HEADERS: usize = 20;

/// Maximum length of a name, in characters.
pub const MAX_NAME_LEN: usize = 128;

/// Maximum length of a value, in characters.
pub const MAX_VALUE_LEN: usize = 4096;

/// Maximum length of all names and values together, in characters: servers bound the size of a request's head.
pub const MAX_TOTAL_LEN: usize = 8192;

/// Headers that belong to the request itself, or to one connection (RFC 9110, section 7.6.1).
const RESERVED: [&str; 17] = [
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "date",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];

/// Beginnings of names that are reserved, too: those of the signature, and those for proxies.
const RESERVED_PREFIXES: [&str; 2] = ["webhook-", "proxy-"];

/// Headers as given: names in any case.
pub type GivenHeaders = BTreeMap<String, SecretString>;

/// Checks the headers.
///
/// # Errors
/// What is wrong with the first that cannot be sent; values are not part of the message.
pub(super) fn validate(given: &GivenHeaders) -> Result<(), String> {
    if given.len() > MAX_HEADERS {
        return Err(format!("at most {MAX_HEADERS} headers"));
    }
    let mut names = Vec::with_capacity(given.len());
    let mut total = 0;
    for (name, value) in given {
        let value = value.expose_secret();
        validate_name(name)?;
        validate_value(value).map_err(|problem| format!("the value of `{name}` {problem}"))?;
        total += name.len() + value.len();
        let name = name.to_ascii_lowercase();
        if names.contains(&name) {
            return Err(format!("`{name}` is given twice"));
        }
        names.push(name);
    }
    match total > MAX_TOTAL_LEN {
        true => Err(format!("at most {MAX_TOTAL_LEN} characters in total")),
        false => Ok(()),
    }
}

fn validate_name(name: &str) -> Result<(), String> {
    if name.len() > MAX_NAME_LEN {
        return Err(format!("a name has at most {MAX_NAME_LEN} characters"));
    }
    let Ok(parsed) = name.parse::<HeaderName>() else {
        let shown: String = name.escape_default().collect();
        return Err(format!("`{shown}` is not the name of a header"));
    };
    let name = parsed.as_str();
    let is_reserved = RESERVED.contains(&name)
        || RESERVED_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix));
    match is_reserved {
        true => Err(format!("`{name}` is reserved")),
        false => Ok(()),
    }
}

fn validate_value(value: &str) -> Result<(), String> {
    if value.is_empty() || value.len() > MAX_VALUE_LEN {
        return Err(format!("must have 1 to {MAX_VALUE_LEN} characters"));
    }
    // Receivers remove it, so what they compare would differ.
    if value.trim() != value {
        return Err("must not begin or end with white space".to_owned());
    }
    match value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        true => Ok(()),
        false => Err("must be visible ASCII characters and spaces".to_owned()),
    }
}

/// Returns the headers as they are stored; `None` if there are none.
pub(super) fn seal(sealing: &Sealing, id: WebhookId, given: &GivenHeaders) -> Option<String> {
    let sealed: BTreeMap<String, String> = given
        .iter()
        .map(|(name, value)| {
            let name = name.to_ascii_lowercase();
            let value = sealing.seal(&bound_to(id, &name), value.expose_secret());
            (name, value)
        })
        .collect();
    store(&sealed)
}

/// Returns the names, in order.
pub(super) fn names(stored: Option<&str>) -> Vec<String> {
    stored_headers(stored).into_keys().collect()
}

/// Returns the headers as they are sent.
///
/// # Errors
/// If a value cannot be opened.
pub(crate) fn open(
    sealing: &Sealing,
    id: WebhookId,
    stored: Option<&str>,
) -> Result<HeaderMap, SealError> {
    let mut headers = HeaderMap::new();
    for (name, value) in stored_headers(stored) {
        let value = sealing.open(&bound_to(id, &name), &value)?;
        // Both were checked when they were stored.
        if let (Ok(name), Ok(mut value)) =
            (name.parse::<HeaderName>(), HeaderValue::try_from(value))
        {
            value.set_sensitive(true);
            headers.insert(name, value);
        }
    }
    Ok(headers)
}

/// Returns the headers sealed with the current key; `None` if they are.
///
/// # Errors
/// If a value cannot be opened.
pub(super) fn renewed(
    sealing: &Sealing,
    id: WebhookId,
    stored: Option<&str>,
) -> Result<Option<String>, SealError> {
    let mut headers = stored_headers(stored);
    let mut is_changed = false;
    for (name, value) in &mut headers {
        if let Some(renewed) = sealing.renewed(&bound_to(id, name), value)? {
            *value = renewed;
            is_changed = true;
        }
    }
    Ok(is_changed.then(|| store(&headers)).flatten())
}

fn bound_to(id: WebhookId, name: &str) -> String {
    format!("{id}:{name}")
}

fn store(headers: &BTreeMap<String, String>) -> Option<String> {
    (!headers.is_empty()).then(|| serde_json::to_string(headers).expect("texts are JSON"))
}

fn stored_headers(stored: Option<&str>) -> BTreeMap<String, String> {
    stored
        .and_then(|stored| serde_json::from_str(stored).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(headers: &[(&str, &str)]) -> GivenHeaders {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).into());
        headers.iter().map(owned).collect()
    }

    #[test]
    fn headers_that_can_be_sent_are_accepted() {
        for headers in [
            &[][..],
            &[("Authorization", "Bearer a.b-c_d")],
            &[
                ("X-Api-Key", "k"),
                ("CF-Access-Client-Id", "with spaces, and \"quotes\""),
            ],
            &[("user-agent", "our gateway wants this")],
        ] {
            assert_eq!(validate(&given(headers)), Ok(()), "{headers:?}");
        }
        let most: Vec<(String, SecretString)> = (0..MAX_HEADERS)
            .map(|number| (format!("x-{number}"), "v".into()))
            .collect();
        assert_eq!(validate(&most.into_iter().collect()), Ok(()));
    }

    #[test]
    fn reserved_malformed_and_large_ones_are_refused() {
        let long = "v".repeat(MAX_VALUE_LEN + 1);
        let half = "v".repeat(MAX_VALUE_LEN);
        for headers in [
            &[("Webhook-Id", "v")][..],
            &[("webhook-anything", "v")],
            &[("Host", "v")],
            &[("content-length", "1")],
            &[("Content-Type", "v")],
            &[("Transfer-Encoding", "chunked")],
            &[("Proxy-Authorization", "v")],
            &[("", "v")],
            &[("x y", "v")],
            &[("x:", "v")],
            &[("x\r\nevil", "v")],
            &[("ä", "v")],
            &[("x", "")],
            &[("x", "v\r\nevil: 1")],
            &[("x", "v\nw")],
            &[("x", "v\0")],
            &[("x", "ä")],
            &[("x", " v")],
            &[("x", "v ")],
            &[("x", &long)],
            &[("x", &half), ("y", &half)],
            &[("X-A", "v"), ("x-a", "w")],
        ] {
            assert!(validate(&given(headers)).is_err(), "{headers:?}");
        }
        let many: Vec<(String, SecretString)> = (0..=MAX_HEADERS)
            .map(|number| (format!("x-{number}"), "v".into()))
            .collect();
        assert!(validate(&many.into_iter().collect()).is_err());
        let refused = validate(&given(&[("x", "hunter2\n")])).unwrap_err();
        assert!(!refused.contains("hunter2"), "{refused}");
    }

    #[test]
    fn values_are_bound_to_endpoint_and_name() {
        let key = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
        let sealing = Sealing::new(Some(key.parse().unwrap()), None);
        let id = WebhookId::generate();
        let stored = seal(&sealing, id, &given(&[("X-Key", "hunter2")])).unwrap();
        assert!(!stored.contains("hunter2"), "{stored}");
        assert_eq!(names(Some(&stored)), ["x-key"]);
        let opened = open(&sealing, id, Some(&stored)).unwrap();
        assert_eq!(opened["x-key"], "hunter2");
        let renamed = stored.replace("x-key", "x-other");
        assert!(open(&sealing, id, Some(&renamed)).is_err());
        assert!(open(&sealing, WebhookId::generate(), Some(&stored)).is_err());
        assert_eq!(renewed(&sealing, id, Some(&stored)), Ok(None));
        let plain = renewed(
            &Sealing::new(None, Some(key.parse().unwrap())),
            id,
            Some(&stored),
        );
        assert_eq!(plain.unwrap().unwrap(), r#"{"x-key":"hunter2"}"#);
    }
}
