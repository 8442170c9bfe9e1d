//! Validators and preconditions (RFC 9110, sections 8.8 and 13).

use chrono::{DateTime, SubsecRound, Utc};
use http::{HeaderMap, header};
use std::time::SystemTime;

/// Whether the client already has the representation with this tag (weak comparison, as `If-None-Match` requires).
#[must_use]
pub(super) fn has_tag(headers: &HeaderMap, etag: &str) -> bool {
    let weak = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let given = headers.get_all(header::IF_NONE_MATCH).iter();
    given
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|tag| tag.trim() == "*" || weak(tag) == weak(etag))
}

/// Whether a GET or HEAD of this representation must be answered with 304. `If-Modified-Since` is ignored if
/// `If-None-Match` is present.
#[must_use]
pub(super) fn is_unmodified(headers: &HeaderMap, etag: &str, modified: DateTime<Utc>) -> bool {
    if headers.contains_key(header::IF_NONE_MATCH) {
        return has_tag(headers, etag);
    }
    date(headers, header::IF_MODIFIED_SINCE).is_some_and(|since| modified.trunc_subsecs(0) <= since)
}

/// Whether a range of this representation may be sent: there is no `If-Range`, or it names exactly this representation
/// (strong comparison).
#[must_use]
pub(super) fn may_send_range(headers: &HeaderMap, etag: &str, modified: DateTime<Utc>) -> bool {
    let Some(value) = headers.get(header::IF_RANGE) else {
        return true;
    };
    match value.to_str() {
        Ok(tag) if tag.starts_with('"') => tag == etag,
        Ok(tag) if tag.starts_with("W/") => false,
        _ => date(headers, header::IF_RANGE).is_some_and(|date| date == modified.trunc_subsecs(0)),
    }
}

/// Formats a time as an HTTP date.
#[must_use]
pub(super) fn http_date(at: DateTime<Utc>) -> String {
    httpdate::fmt_http_date(SystemTime::from(at))
}

fn date(headers: &HeaderMap, name: header::HeaderName) -> Option<DateTime<Utc>> {
    let text = headers.get(name)?.to_str().ok()?;
    httpdate::parse_http_date(text).ok().map(DateTime::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn any_of_the_tags_or_a_star_will_do() {
        for given in ["\"a\"", "W/\"a\"", "\"b\", W/\"a\"", "*"] {
            assert!(
                has_tag(&headers(header::IF_NONE_MATCH, given), "\"a\""),
                "{given}"
            );
        }
        assert!(!has_tag(&headers(header::IF_NONE_MATCH, "\"b\""), "\"a\""));
        assert!(!has_tag(&HeaderMap::new(), "\"a\""));
    }

    #[test]
    fn a_range_needs_the_same_strong_tag_or_date() {
        let modified = DateTime::UNIX_EPOCH + chrono::TimeDelta::milliseconds(1500);
        let may =
            |value: &str| may_send_range(&headers(header::IF_RANGE, value), "\"a\"", modified);
        assert!(may("\"a\""));
        assert!(!may("W/\"a\""));
        assert!(!may("\"b\""));
        assert!(may("Thu, 01 Jan 1970 00:00:01 GMT"));
        assert!(!may("Thu, 01 Jan 1970 00:00:02 GMT"));
        assert!(may_send_range(&HeaderMap::new(), "\"a\"", modified));
    }
}
