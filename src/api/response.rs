//! JSON responses, with the status in the type so that `/openapi.json` includes it.

use super::problem::Problem;
use http::{HeaderValue, StatusCode, header, header::HeaderName};
use poem::{Body, IntoResponse, Response};
use poem_openapi::{
    ApiResponse,
    registry::{MetaMediaType, MetaResponse, MetaResponses, Registry},
    types::Type,
};
use serde::Serialize;
use std::marker::PhantomData;

/// A `T` in JSON with this status.
#[derive(Debug)]
pub(super) struct JsonResponse<T, const STATUS: u16 = 200> {
    pub(super) status: StatusCode,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) body: Vec<u8>,
    /// Whether the response contains a secret, and must be encrypted when it is stored.
    pub(super) is_sealed: bool,
    of: PhantomData<fn() -> T>,
}

impl<T: Serialize, const STATUS: u16> JsonResponse<T, STATUS> {
    /// A response with just the value.
    ///
    /// # Errors
    /// If the value cannot be serialized, which API types always can.
    pub(super) fn new(value: &T) -> Result<Self, Problem> {
        let body = serde_json::to_vec(value).map_err(Problem::failed)?;
        let status = StatusCode::from_u16(STATUS).map_err(Problem::failed)?;
        let json = HeaderValue::from_static("application/json");
        let private = HeaderValue::from_static("private, no-cache");
        let headers = vec![
            (header::CONTENT_TYPE, json),
            (header::CACHE_CONTROL, private),
        ];
        Ok(Self::restored(status, headers, body))
    }

    /// Adds a header.
    ///
    /// # Errors
    /// If the value is not a valid header value.
    pub(super) fn with(mut self, name: HeaderName, value: &str) -> Result<Self, Problem> {
        let value = HeaderValue::from_str(value).map_err(Problem::failed)?;
        self.headers.push((name, value));
        Ok(self)
    }

    /// Marks the response as containing a secret.
    #[must_use]
    pub(super) fn sealed(mut self) -> Self {
        self.is_sealed = true;
        self.headers
            .retain(|(name, _)| *name != header::CACHE_CONTROL);
        let never = HeaderValue::from_static("no-store");
        self.headers.push((header::CACHE_CONTROL, never));
        self
    }

    /// 304: the client already has this (RFC 9110, section 15.4.5).
    #[must_use]
    pub(super) fn not_modified(mut self) -> Self {
        self.status = StatusCode::NOT_MODIFIED;
        self.headers
            .retain(|(name, _)| *name != header::CONTENT_TYPE);
        self.body.clear();
        self
    }
}

impl<T, const STATUS: u16> JsonResponse<T, STATUS> {
    pub(super) fn restored(
        status: StatusCode,
        headers: Vec<(HeaderName, HeaderValue)>,
        body: Vec<u8>,
    ) -> Self {
        Self {
            status,
            headers,
            body,
            is_sealed: false,
            of: PhantomData,
        }
    }
}

impl<T, const STATUS: u16> IntoResponse for JsonResponse<T, STATUS> {
    fn into_response(self) -> Response {
        let mut response = Response::builder()
            .status(self.status)
            .body(Body::from_vec(self.body));
        response.headers_mut().extend(self.headers);
        response
    }
}

impl<T: Type, const STATUS: u16> ApiResponse for JsonResponse<T, STATUS> {
    fn meta() -> MetaResponses {
        MetaResponses {
            responses: vec![MetaResponse {
                description: "",
                status: Some(STATUS),
                status_range: None,
                content: vec![MetaMediaType {
                    content_type: "application/json",
                    schema: T::schema_ref(),
                }],
                headers: Vec::new(),
            }],
        }
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

/// 204 without a body.
#[derive(Clone, Copy, Debug)]
pub(super) struct NoContent;

impl IntoResponse for NoContent {
    fn into_response(self) -> Response {
        StatusCode::NO_CONTENT.into()
    }
}

impl ApiResponse for NoContent {
    fn meta() -> MetaResponses {
        MetaResponses {
            responses: vec![MetaResponse {
                description: "Done.",
                status: Some(204),
                status_range: None,
                content: Vec::new(),
                headers: Vec::new(),
            }],
        }
    }

    fn register(_: &mut Registry) {}
}
