//! Error responses: problem documents (RFC 9457), and what proxies send instead.

use super::output::plain;
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use std::{
    fmt,
    time::{Duration, SystemTime},
};

/// A response that is not a success.
#[derive(Debug)]
pub(super) struct ErrorResponse {
    pub(super) status: StatusCode,
    /// The `Retry-After` of the response.
    pub(super) retry_after: Option<Duration>,
    body: ErrorBody,
}

#[derive(Debug)]
enum ErrorBody {
    ProblemDocument(ProblemDocument),
    /// The beginning of a body that is not a problem document.
    Other(String),
    /// A page for people, of which nothing is shown: the name of the program that sent it, if it says so.
    Page(Option<String>),
}

#[derive(Debug, Deserialize)]
struct ProblemDocument {
    title: String,
    #[serde(default)]
    detail: String,
    code: String,
    #[serde(default)]
    errors: Vec<FieldFault>,
}

#[derive(Debug, Deserialize)]
struct FieldFault {
    field: String,
    message: String,
}

impl ErrorResponse {
    pub(super) fn new(status: StatusCode, headers: &HeaderMap, text: &str) -> Self {
        let body = match serde_json::from_str(text) {
            Ok(problem) => ErrorBody::ProblemDocument(problem),
            Err(_) if is_page(headers, text) => ErrorBody::Page(program(headers)),
            Err(_) => ErrorBody::Other(beginning(status, headers, text)),
        };
        Self {
            status,
            retry_after: retry_after(headers),
            body,
        }
    }

    /// The problem code; empty if it is not a problem document.
    pub(super) fn code(&self) -> &str {
        match &self.body {
            ErrorBody::ProblemDocument(problem) => &problem.code,
            ErrorBody::Other(_) | ErrorBody::Page(_) => "",
        }
    }

    /// Whether the same request may succeed later.
    pub(super) fn is_temporary(&self) -> bool {
        let never = [
            StatusCode::NOT_IMPLEMENTED,
            StatusCode::HTTP_VERSION_NOT_SUPPORTED,
        ];
        self.status == StatusCode::REQUEST_TIMEOUT
            || self.status == StatusCode::TOO_MANY_REQUESTS
            || (self.status.is_server_error() && !never.contains(&self.status))
            // The first request with this Idempotency-Key lost its connection, and the server is still processing it.
            || self.code() == "in_flight"
    }
}

/// Whether the body is an HTML page, which a Landfall server never sends to a client of its API.
fn is_page(headers: &HeaderMap, text: &str) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE);
    let is_html = content_type.is_some_and(|value| value.as_bytes().starts_with(b"text/html"));
    is_html || text.trim_start().starts_with('<')
}

/// The `Server` header, such as `nginx/1.22.1`.
fn program(headers: &HeaderMap) -> Option<String> {
    let name = headers.get(header::SERVER)?.to_str().ok()?.trim();
    (!name.is_empty()).then(|| name.chars().take(50).collect())
}

/// What a proxy's status means, and which of its settings decides.
fn explain(status: StatusCode) -> &'static str {
    match status.as_u16() {
        413 => {
            "; its maximum size of a request is too small (nginx: client_max_body_size, by default 1 MB)"
        }
        502 => "; it cannot reach the server",
        503 => "; it has no server that is ready",
        504 => "; the server did not answer it in time",
        _ => "",
    }
}

fn beginning(status: StatusCode, headers: &HeaderMap, text: &str) -> String {
    if status.is_redirection() {
        let target = headers
            .get(header::LOCATION)
            .map(|to| String::from_utf8_lossy(to.as_bytes()));
        return format!(
            "a redirect to {}, which a Landfall server does not send",
            target.unwrap_or_default()
        );
    }
    text.trim().chars().take(200).collect()
}

/// `Retry-After` in seconds or as a date (RFC 9110, section 10.2.3).
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

impl fmt::Display for ErrorResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let problem = match &self.body {
            ErrorBody::ProblemDocument(problem) => problem,
            ErrorBody::Page(program) => {
                f.write_str("a proxy in front of the server")?;
                if let Some(program) = program {
                    write!(f, " ({})", plain(program))?;
                }
                let explained = explain(self.status);
                return write!(f, " responded with {}{explained}", self.status);
            }
            ErrorBody::Other(text) if text.is_empty() => {
                return write!(f, "the server responded with {}", self.status);
            }
            ErrorBody::Other(text) => {
                return write!(
                    f,
                    "the server responded with {}: {}",
                    self.status,
                    plain(text)
                );
            }
        };
        f.write_str(&plain(&problem.title))?;
        if !problem.detail.is_empty() {
            write!(f, ": {}", plain(&problem.detail))?;
        }
        write!(f, " ({})", plain(&problem.code))?;
        for fault in &problem.errors {
            write!(f, "\n  {}: {}", plain(&fault.field), plain(&fault.message))?;
        }
        Ok(())
    }
}

impl std::error::Error for ErrorResponse {}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn error(status: u16, text: &str) -> ErrorResponse {
        ErrorResponse::new(
            StatusCode::from_u16(status).unwrap(),
            &HeaderMap::new(),
            text,
        )
    }

    #[test]
    fn problem_shows_title_detail_code_and_fields() {
        let text = r#"{"type":"about:blank","title":"Bad","status":400,"detail":"two\u001b[2J faults","code":"unknown_field",
            "errors":[{"field":"a","message":"is unknown"},{"field":"b","message":"too"}]}"#;
        let error = error(400, text);
        assert_eq!(
            error.to_string(),
            "Bad: two\u{fffd}[2J faults (unknown_field)\n  a: is unknown\n  b: too"
        );
        assert!(!error.is_temporary());
    }

    #[test]
    fn what_is_no_problem_document_shows_its_status_and_beginning() {
        assert_eq!(
            error(502, "").to_string(),
            "the server responded with 502 Bad Gateway"
        );
        assert!(error(502, &"word ".repeat(100)).to_string().len() < 300);
    }

    #[test]
    fn pages_of_proxies_are_named_and_not_shown() {
        let page = "<html>\r\n<head><title>413 Request Entity Too Large</title></head></html>";
        let mut headers = HeaderMap::new();
        headers.insert(header::SERVER, HeaderValue::from_static("nginx/1.22.1"));
        let nginx = ErrorResponse::new(StatusCode::PAYLOAD_TOO_LARGE, &headers, page);
        assert_eq!(
            nginx.to_string(),
            "a proxy in front of the server (nginx/1.22.1) responded with 413 Payload Too Large; its maximum size of a \
             request is too small (nginx: client_max_body_size, by default 1 MB)"
        );
        assert!(!nginx.is_temporary());
        let unnamed = error(502, "  <!DOCTYPE html><p>hunter2");
        assert_eq!(
            unnamed.to_string(),
            "a proxy in front of the server responded with 502 Bad Gateway; it cannot reach the server"
        );
        assert!(unnamed.is_temporary());
    }

    #[test]
    fn throttling_outages_and_requests_in_flight_pass() {
        let in_flight = r#"{"title":"t","code":"in_flight"}"#;
        let conflict = r#"{"title":"t","code":"conflict"}"#;
        for (status, text, passing) in [
            (408, "", true),
            (429, "", true),
            (500, "", true),
            (503, "", true),
            (507, "", true),
            (501, "", false),
            (404, "", false),
            (409, in_flight, true),
            (409, conflict, false),
        ] {
            assert_eq!(
                error(status, text).is_temporary(),
                passing,
                "{status} {text}"
            );
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let of = |text: String| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_str(&text).unwrap());
            retry_after(&headers)
        };
        assert_eq!(of("7".to_owned()), Some(Duration::from_secs(7)));
        let soon = of(httpdate::fmt_http_date(
            SystemTime::now() + Duration::from_secs(60),
        ))
        .unwrap();
        assert!((50..=60).contains(&soon.as_secs()), "{soon:?}");
        assert_eq!(
            of("Wed, 21 Oct 2015 07:28:00 GMT".to_owned()),
            Some(Duration::ZERO)
        );
        assert_eq!(of("soon".to_owned()), None);
    }
}
