//! Checks of a request's head that need no route: its size, and the codings of its body.

use crate::api::{
    connection::{MAX_HEAD_LEN, MAX_HEADERS, UnreadHead},
    problem::{Code, Problem},
};
use http::{HeaderName, HeaderValue, Method, header};
use poem::Request;

/// Rejects a request with too many or too large headers, or with a body encoding that is not supported: its bytes would
/// be stored encoded.
///
/// # Errors
/// 431, 501 or 415; 429 while too many other requests have large heads.
pub(super) fn check(request: &Request) -> Result<(), Problem> {
    let unread = request.data::<UnreadHead>();
    if unread == Some(&UnreadHead::NoRoom) {
        let detail = "Too many requests with large headers are in progress. Try again soon.";
        let problem = Problem::new(Code::RateLimited, detail);
        return Err(problem.with_header(header::RETRY_AFTER, HeaderValue::from_static("1")));
    }
    let detail = if unread.is_some() {
        format!("The request line and headers must be at most {MAX_HEAD_LEN} bytes in total.")
    } else if request.headers().len() > MAX_HEADERS {
        format!("A request must have at most {MAX_HEADERS} headers.")
    } else {
        return check_codings(request);
    };
    Err(Problem::new(Code::HeadersTooLarge, detail))
}

/// `Transfer-Encoding` (RFC 9112, section 6.1) and `Content-Encoding` (RFC 9110, section 8.4).
fn check_codings(request: &Request) -> Result<(), Problem> {
    if has_coding_besides(request, header::TRANSFER_ENCODING, "chunked") {
        return Err(Problem::new(
            Code::NotImplemented,
            "The only supported transfer coding is `chunked`.",
        ));
    }
    let has_content = matches!(
        *request.method(),
        Method::POST | Method::PUT | Method::PATCH
    );
    if has_content && has_coding_besides(request, header::CONTENT_ENCODING, "identity") {
        let problem = Problem::new(
            Code::UnsupportedMediaType,
            "A `Content-Encoding` is not supported. Send the bytes unencoded.",
        );
        let accepted = HeaderValue::from_static("identity");
        return Err(problem.with_header(header::ACCEPT_ENCODING, accepted));
    }
    Ok(())
}

fn has_coding_besides(request: &Request, name: HeaderName, plain: &str) -> bool {
    let values = request.headers().get_all(name).iter();
    let texts = values.map(|value| value.to_str().unwrap_or("?").trim());
    let mut codings = texts.flat_map(|text| text.split(',').map(str::trim));
    codings.any(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(plain))
}
