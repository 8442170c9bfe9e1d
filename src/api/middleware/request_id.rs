//! The id of a request, `X-Request-Id`: given by the client or generated, and returned with every response.

use http::{HeaderMap, HeaderValue};
use poem::Request;
use uuid::Uuid;

/// The header with the request's id.
pub const REQUEST_ID: &str = "x-request-id";

/// Maximum length of a client's request id; longer ones are replaced.
const MAX_REQUEST_ID_LEN: usize = 128;

/// The id of a request, given by the client or generated.
#[derive(Clone, Debug)]
pub struct RequestId(pub String);

impl RequestId {
    /// The id the client gave, if it is visible ASCII of a reasonable length, or a new one.
    pub(super) fn of(request: &Request) -> Self {
        let given = request.header(REQUEST_ID).filter(|id| {
            (1..=MAX_REQUEST_ID_LEN).contains(&id.len())
                && id.bytes().all(|byte| byte.is_ascii_graphic())
        });
        Self(given.map_or_else(|| Uuid::now_v7().to_string(), str::to_owned))
    }

    pub(super) fn write_header(&self, headers: &mut HeaderMap) {
        let value = HeaderValue::from_str(&self.0).expect("an id is visible ASCII");
        headers.insert(REQUEST_ID, value);
    }
}
