//! The response for an error: a problem document, and a log line if the server failed.

use crate::api::{
    connection::body,
    problem::{Code, Problem},
    state::ApiState,
};
use http::{HeaderValue, Method, StatusCode, header};
use poem::{
    Error, Response,
    error::{MethodNotAllowedError, NotFoundError, ReadBodyError, ResponseError},
};
use poem_openapi::error::{ContentTypeError, ParseParamError, ParsePathError};

/// The response for an error of a handler or of Poem.
pub(super) fn from_error(error: Error, state: &ApiState, method: &Method, path: &str) -> Response {
    let routes = &state.routes;
    let problem = match error.downcast::<Problem>() {
        Ok(problem) => problem,
        Err(error) if error.is::<MethodNotAllowedError>() => not_allowed(&routes.allowed(path)),
        // An endpoint with protocol-specific error responses.
        Err(error) if error.is_from_response() => return error.into_response(),
        Err(error) => match error.downcast_ref::<ParseParamError>() {
            Some(ParseParamError { name, .. }) => {
                let allowed = routes
                    .parameter(path, method, name)
                    .unwrap_or("is not valid");
                Problem::field(Code::MalformedRequest, name, allowed)
            }
            None => from_poem_error(&error),
        },
    };
    from_problem(problem, state)
}

/// The response for a problem. Logs a server failure; the only place that does.
pub(super) fn from_problem(problem: Problem, state: &ApiState) -> Response {
    if problem.code.status().is_server_error() {
        let causes = problem.causes();
        let causes = causes.as_deref().unwrap_or("none");
        match problem.code {
            Code::Internal => {
                tracing::error!(code = problem.code.as_str(), causes, "request failed")
            }
            // The log has a line about the outage itself.
            _ if state.app.db.is_unreachable() => {
                tracing::debug!(code = problem.code.as_str(), causes, "request failed")
            }
            _ => tracing::warn!(code = problem.code.as_str(), causes, "request failed"),
        }
    }
    problem.as_response()
}

fn not_allowed(allowed: &[Method]) -> Problem {
    let allowed: Vec<&str> = allowed.iter().map(Method::as_str).collect();
    let allowed = allowed.join(", ");
    let problem = Problem::new(
        Code::MethodNotAllowed,
        format!("Allowed methods: {allowed}."),
    );
    match HeaderValue::from_str(&allowed) {
        Ok(value) => problem.with_header(header::ALLOW, value),
        Err(_) => problem,
    }
}

/// Converts errors of Poem and poem-openapi.
fn from_poem_error(error: &Error) -> Problem {
    // An invalid id is an id that does not exist.
    if error.is::<ParsePathError>()
        || error.is::<poem::error::ParsePathError>()
        || error.is::<NotFoundError>()
    {
        return Problem::new(Code::NotFound, "No such path.");
    }
    if let Some(error) = error.downcast_ref::<ContentTypeError>() {
        return Problem::new(Code::UnsupportedMediaType, error.to_string());
    }
    if let Some(ReadBodyError::Io(error)) = error.downcast_ref::<ReadBodyError>() {
        return body::interrupted(error);
    }
    match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(Code::TooLarge, "The body is too large."),
        status if status.is_client_error() => {
            Problem::new(Code::MalformedRequest, "The request is malformed.")
        }
        _ => Problem::failed(error.to_string()),
    }
}
