//! The effective method of a request: what `X-HTTP-Method-Override` of a POST asks for (tus 1.0.0, section 3.2).
//!
//! It is put in place before anything else looks at the request, so that routes, scopes, limits, CSRF and CORS all
//! decide by the same method. Only POST may be overridden: a method that limits and forgery checks let pass must not
//! become one that they would have stopped.

use crate::api::problem::{Code, Problem};
use http::{HeaderMap, HeaderName, Method};
use poem::Request;

pub(super) const METHOD_OVERRIDE: HeaderName = HeaderName::from_static("x-http-method-override");

/// Where the header is part of the protocol; elsewhere it means nothing.
const TUS_PATHS: [&str; 2] = ["/v1/tus", "/upload/tus"];

const METHODS: [Method; 6] = [
    Method::POST,
    Method::HEAD,
    Method::PATCH,
    Method::DELETE,
    Method::GET,
    Method::OPTIONS,
];

/// True of `/v1/tus`, of the same endpoint in the dashboard, and of each upload below them.
pub(super) fn speaks_tus(path: &str) -> bool {
    TUS_PATHS.iter().any(|base| {
        let rest = path.strip_prefix(base);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// Gives the request the method it asks for.
///
/// # Errors
/// 400 when another method than POST is overridden, or by something that is no method of tus.
pub(super) fn apply(request: &mut Request) -> Result<(), Problem> {
    if !speaks_tus(request.uri().path()) {
        return Ok(());
    }
    let Some(wanted) = wanted(request.headers())? else {
        return Ok(());
    };
    if wanted != *request.method() && *request.method() != Method::POST {
        return Err(refused("may override POST alone"));
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
        return Err(refused("is given more than once"));
    }
    let text = value.to_str().unwrap_or_default().trim();
    let known = METHODS
        .into_iter()
        .find(|method| text.eq_ignore_ascii_case(method.as_str()));
    match known {
        Some(method) => Ok(Some(method)),
        None => Err(refused("is POST, HEAD, PATCH, DELETE, GET or OPTIONS")),
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
