//! Every error of the API (RFC 9457): the table of codes, the problem document, and the conversion of each core error.
//!
//! Never tells a client why the server failed: a 5xx says that it did, and the log says why, once.

mod code;
mod from_core;

use super::schema;
pub use code::Code;
use http::{HeaderValue, StatusCode, header::HeaderName};
use poem::{Body, Response, error::ResponseError};
use poem_openapi::{
    ApiResponse,
    registry::{MetaMediaType, MetaResponse, MetaResponses, Registry},
    types::Type,
};
use std::{error::Error, fmt};

/// Where `docs/errors.md` explains each code.
const ERRORS_URL: &str = "https://github.com/landfall-project/landfall/blob/main/docs/errors.md";

/// An invalid field.
pub use super::schema::FieldError;

/// An error to be sent to the client.
#[derive(Debug)]
pub struct Problem {
    pub code: Code,
    /// For people, about this occurrence. Never contains server internals.
    pub detail: String,
    pub errors: Vec<FieldError>,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    cause: Option<Box<dyn Error + Send + Sync>>,
}

impl Problem {
    /// A problem caused by the client; `detail` says what is allowed.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            errors: Vec::new(),
            headers: Vec::new(),
            cause: None,
        }
    }

    /// An invalid value of a field.
    #[must_use]
    pub fn field(code: Code, field: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        let mut problem = Self::new(code, format!("`{field}`: {message}"));
        problem.errors.push(FieldError::new(field, message));
        problem
    }

    /// A server failure; the cause is only logged.
    #[must_use]
    pub fn failed(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let mut problem = Self::new(
            Code::Internal,
            "Internal error. The server log has the reason under the request id.",
        );
        problem.cause = Some(cause.into());
        problem
    }

    /// A dependency is unavailable; the cause is only logged.
    #[must_use]
    pub fn unavailable(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let mut problem = Self::new(
            Code::Unavailable,
            "A dependency of the server does not respond. Try again soon.",
        );
        problem.cause = Some(cause.into());
        problem.with_header(http::header::RETRY_AFTER, HeaderValue::from_static("1"))
    }

    /// The disk of the database is full; the cause is only logged.
    #[must_use]
    pub fn database_full(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let mut problem = Self::new(
            Code::DatabaseFull,
            "The database's disk is full; nothing was accepted. Try again later.",
        );
        problem.cause = Some(cause.into());
        problem.with_header(http::header::RETRY_AFTER, HeaderValue::from_static("60"))
    }

    /// Another request with the same `Idempotency-Key` is in progress.
    #[must_use]
    pub fn in_flight() -> Self {
        Self::new(
            Code::InFlight,
            "The first request with this Idempotency-Key is still in progress. Try again when it is done.",
        )
        .with_header(http::header::RETRY_AFTER, HeaderValue::from_static("1"))
    }

    /// The resource does not exist, or belongs to another owner.
    #[must_use]
    pub fn not_found(what: &str) -> Self {
        Self::new(Code::NotFound, format!("There is no such {what}."))
    }

    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Returns the chain of causes of a server failure.
    #[must_use]
    pub fn causes(&self) -> Option<String> {
        let mut text = self.cause.as_ref()?.to_string();
        let mut next = self.cause.as_ref()?.source();
        while let Some(cause) = next {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            next = cause.source();
        }
        Some(text)
    }

    /// Converts it to the document sent to the client.
    #[must_use]
    pub fn to_schema(&self) -> schema::Problem {
        schema::Problem {
            kind: format!("{ERRORS_URL}#{}", self.code.as_str()),
            title: self.code.title().to_owned(),
            status: self.code.status().as_u16(),
            detail: self.detail.clone(),
            code: self.code.as_str().to_owned(),
            errors: (!self.errors.is_empty()).then(|| self.errors.clone()),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.detail)
    }
}

impl Error for Problem {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_ref().map(|cause| &**cause as _)
    }
}

impl ResponseError for Problem {
    fn status(&self) -> StatusCode {
        self.code.status()
    }

    fn as_response(&self) -> Response {
        let body = serde_json::to_vec(&self.to_schema()).expect("a problem is JSON");
        let mut response = Response::builder()
            .status(self.code.status())
            .content_type("application/problem+json")
            .header(http::header::CACHE_CONTROL, "no-store")
            .body(Body::from_vec(body));
        for (name, value) in &self.headers {
            response.headers_mut().insert(name.clone(), value.clone());
        }
        response
    }
}

impl ApiResponse for Problem {
    fn meta() -> MetaResponses {
        MetaResponses {
            responses: vec![MetaResponse {
                description: "A problem (RFC 9457); docs/errors.md lists every code.",
                status: None,
                status_range: None,
                content: vec![MetaMediaType {
                    content_type: "application/problem+json",
                    schema: schema::Problem::schema_ref(),
                }],
                headers: Vec::new(),
            }],
        }
    }

    fn register(registry: &mut Registry) {
        schema::Problem::register(registry);
    }
}
