//! Validation of endpoint fields.

use super::{
    headers::{self, GivenHeaders},
    signing::SigningSecret,
};
use crate::outbox::EventType;
use url::Url;

/// Maximum length of a URL, in characters.
pub const MAX_URL_LEN: usize = 2048;

/// Maximum length of a description, in characters.
pub const MAX_DESCRIPTION_LEN: usize = 1024;

/// An invalid field, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldFault {
    /// The name in the API.
    pub field: &'static str,
    pub message: String,
}

/// Collects invalid fields, so that all of them are reported at once.
#[derive(Debug, Default)]
pub(super) struct FieldFaults(pub(super) Vec<FieldFault>);

impl FieldFaults {
    fn add(&mut self, field: &'static str, message: impl Into<String>) {
        self.0.push(FieldFault {
            field,
            message: message.into(),
        });
    }

    /// Returns the URL as it is stored and requested.
    pub(super) fn url(&mut self, text: &str) -> String {
        match parse_url(text) {
            Ok(url) => url.into(),
            Err(message) => {
                self.add("url", message);
                String::new()
            }
        }
    }

    /// Returns each type once, in the given order.
    pub(super) fn event_types(&mut self, given: Vec<String>) -> Vec<String> {
        let mut types = Vec::with_capacity(given.len().min(EventType::ALL.len()));
        for text in given {
            match text.parse::<EventType>() {
                Ok(_) if types.contains(&text) => {}
                Ok(_) => types.push(text),
                Err(unknown) => self.add("event_types", unknown.to_string()),
            }
        }
        types
    }

    pub(super) fn description(&mut self, text: String) -> String {
        if text.chars().count() > MAX_DESCRIPTION_LEN {
            self.add(
                "description",
                format!("at most {MAX_DESCRIPTION_LEN} characters"),
            );
        } else if text.contains('\0') {
            self.add("description", "NUL is not text");
        }
        text
    }

    pub(super) fn headers(&mut self, given: &GivenHeaders) {
        if let Err(message) = headers::validate(given) {
            self.add("headers", message);
        }
    }

    pub(super) fn secret(&mut self, given: Option<&str>) -> SigningSecret {
        match given.map(SigningSecret::parse) {
            None => SigningSecret::generate(),
            Some(Ok(secret)) => secret,
            Some(Err(invalid)) => {
                self.add("secret", invalid.to_string());
                SigningSecret::generate()
            }
        }
    }
}

fn parse_url(text: &str) -> Result<Url, &'static str> {
    if text.chars().count() > MAX_URL_LEN {
        return Err("at most 2048 characters");
    }
    let url = Url::parse(text).map_err(|_| "an http:// or https:// URL")?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err("an http:// or https:// URL");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("without a user name or password");
    }
    if url.fragment().is_some() {
        return Err("without a fragment");
    }
    // The HTTP client accepts fewer URLs (RFC 9110 instead of WHATWG).
    http::Uri::try_from(url.as_str()).map_err(|_| "characters in it must be percent-encoded")?;
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_can_be_posted_to_are_taken() {
        for good in [
            "http://example.com",
            "https://example.com:8443/hook?a=b",
            "http://127.0.0.1/",
            "https://münchen.example/ä",
            "http://[2001:db8::1]/",
        ] {
            assert!(parse_url(good).is_ok(), "{good}");
        }
        let longest = format!("https://e.example/{}", "a".repeat(MAX_URL_LEN - 18));
        assert!(parse_url(&longest).is_ok());
        assert!(parse_url(&format!("{longest}a")).is_err());
        // Each of these takes six characters once encoded.
        let unicode = format!("https://e.example/{}", "ä".repeat(MAX_URL_LEN - 18));
        assert!(parse_url(&unicode).is_ok());
    }

    #[test]
    fn urls_that_cannot_are_refused() {
        for bad in [
            "",
            "example.com",
            "/hook",
            "ftp://example.com/",
            "file:///etc/passwd",
            "javascript:alert(1)",
            "http://",
            "https://user@example.com/",
            "https://user:password@example.com/",
            "https://:password@example.com/",
            "https://example.com/#fragment",
            "https://exa mple.com/",
        ] {
            assert!(parse_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let mut faults = FieldFaults::default();
        faults.url("nowhere");
        faults.event_types(vec!["file.stored".into(), "file.lost".into()]);
        faults.description("x".repeat(MAX_DESCRIPTION_LEN + 1));
        faults.secret(Some("hunter2"));
        let fields: Vec<_> = faults.0.iter().map(|fault| fault.field).collect();
        assert_eq!(fields, ["url", "event_types", "description", "secret"]);
        assert!(!format!("{faults:?}").contains("hunter2"));
    }
}
