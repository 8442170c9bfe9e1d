//! The effective method of a request: a POST may override its method with `X-HTTP-Method-Override` (tus 1.0.0, section
//! 3.2).
//!
//! It is applied before anything else reads the request, so that routes, scopes, rate limits, CSRF and CORS all use the
//! same method. Only POST can be overridden: a method that passes rate limits and CSRF checks must not become one they
//! would have rejected.

use crate::api::{
    problem::{Code, Problem},
    tus::is_tus_path,
};
use http::{HeaderMap, HeaderName, Method};
use poem::Request;

pub(super) const METHOD_OVERRIDE: HeaderName = HeaderName::from_static("x-http-method-override");

/// The endpoint in the dashboard.
const DASHBOARD_PATH: &str = "/upload/tus";

const METHODS: [Method; 6] = [
    Method::POST,
    Method::HEAD,
    Method::PATCH,
    Method::DELETE,
    Method::GET,
    Method::OPTIONS,
];

/// Whether the header is part of the protocol: at `/v1/tus`, the same endpoint below an upload link or in the dashboard,
/// or an upload below one of them. It is ignored elsewhere.
pub(super) fn speaks_tus(path: &str) -> bool {
    let rest = path.strip_prefix(DASHBOARD_PATH);
    is_tus_path(path) || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Replaces the request's method with the requested one.
///
/// # Errors
/// 400 if the method is not POST, or the override is not a tus method.
pub(super) fn apply(request: &mut Request) -> Result<(), Problem> {
    if !speaks_tus(request.uri().path()) {
        return Ok(());
    }
    let Some(wanted) = wanted(request.headers())? else {
        return Ok(());
    };
    if wanted != *request.method() && *request.method() != Method::POST {
        return Err(refused("is only allowed with POST"));
    }
    request.headers_mut().remove(METHOD_OVERRIDE);
    request.set_method(wanted);
    Ok(())
}

fn wanted(headers: &HeaderMap) -> Result<Option<Method>, Problem> {
    let mut values = headers.get_all(METHOD_OVERRIDE).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(refused("must be given once"));
    }
    let text = value.to_str().unwrap_or_default().trim();
    let known = METHODS
        .into_iter()
        .find(|method| text.eq_ignore_ascii_case(method.as_str()));
    match known {
        Some(method) => Ok(Some(method)),
        None => Err(refused("must be POST, HEAD, PATCH, DELETE, GET or OPTIONS")),
    }
}

fn refused(message: &str) -> Problem {
    Problem::field(Code::MalformedRequest, "X-HTTP-Method-Override", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn effective(method: Method, path: &str, wanted: &str) -> Result<Method, Problem> {
        let mut request = Request::builder()
            .method(method)
            .uri(path.parse().unwrap())
            .header(METHOD_OVERRIDE, wanted)
            .finish();
        apply(&mut request).map(|()| request.method().clone())
    }

    #[test]
    fn post_alone_becomes_another_method() {
        let path = "/v1/tus/1";
        for method in METHODS {
            let became = effective(Method::POST, path, &method.as_str().to_lowercase());
            assert_eq!(became.unwrap(), method);
            assert_eq!(
                effective(method.clone(), path, method.as_str()).unwrap(),
                method
            );
        }
        for method in [Method::OPTIONS, Method::HEAD, Method::GET, Method::PATCH] {
            assert!(effective(method, path, "DELETE").is_err());
        }
        assert!(effective(Method::POST, path, "PUT").is_err());
    }

    #[test]
    fn elsewhere_it_means_nothing() {
        for path in ["/v1/files", "/v1/tusk", "/jobs"] {
            let became = effective(Method::POST, path, "DELETE");
            assert_eq!(became.unwrap(), Method::POST, "{path}");
        }
        let became = effective(Method::POST, "/upload/tus/1", "DELETE");
        assert_eq!(became.unwrap(), Method::DELETE);
    }
}
