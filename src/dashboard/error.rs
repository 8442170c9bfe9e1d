//! Error pages.
//!
//! Never tells a user why the server failed: the page says that it did, and the log says why, once.

use crate::api::problem::Problem;
use http::{HeaderValue, StatusCode, header, header::HeaderName};
use landfall_core::db;
use poem::{
    Error, Response,
    error::{ParsePathError, ResponseError},
};
use sea_orm::DbErr;
use std::{error::Error as StdError, fmt, time::Duration};

/// The reason why a page is not shown.
#[derive(Debug)]
pub(crate) struct ErrorPage {
    pub(super) status: StatusCode,
    pub(super) title: String,
    pub(super) detail: String,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    cause: Option<Box<dyn StdError + Send + Sync>>,
}

impl ErrorPage {
    pub(crate) fn new(status: StatusCode, title: &str, detail: impl Into<String>) -> Self {
        Self {
            status,
            title: title.to_owned(),
            detail: detail.into(),
            headers: Vec::new(),
            cause: None,
        }
    }

    /// `what` with its article: "a file of this id".
    pub(crate) fn not_found(what: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "Not found",
            format!("There is no {what}, or you may not see it."),
        )
    }

    pub(crate) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "Not allowed", detail)
    }

    pub(crate) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "Bad request", detail)
    }

    /// The current state does not allow it.
    pub(crate) fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "Conflict", detail)
    }

    /// A dependency of the page is unavailable; `what` is a clause: "Redis cannot be reached".
    pub(crate) fn unavailable(
        what: &str,
        cause: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        let mut error_page = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "Temporarily unavailable",
            format!("{what}. Nothing is lost; try again in a moment."),
        );
        error_page.cause = Some(cause.into());
        error_page
    }

    pub(crate) fn failed(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let mut error_page = Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "Internal error",
            "The server log has the details under this response's X-Request-Id.",
        );
        error_page.cause = Some(cause.into());
        error_page
    }

    pub(super) fn limited(wait: Duration) -> Self {
        let seconds = wait.as_secs().max(1);
        let mut error_page = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "Too many attempts",
            format!("Too many failed sign-ins. Try again in {seconds} s."),
        );
        error_page
            .headers
            .push((header::RETRY_AFTER, seconds.into()));
        error_page
    }

    /// Redirects to another page, with GET.
    pub(crate) fn see_other(to: &str) -> Self {
        let mut error_page = Self::new(StatusCode::SEE_OTHER, "See other", "");
        if let Ok(to) = HeaderValue::from_str(to) {
            error_page.headers.push((header::LOCATION, to));
        }
        error_page
    }

    /// Converts an error of a handler or of Poem.
    pub(super) fn of(error: Error) -> Self {
        let status = error.status();
        match error.downcast::<Self>() {
            Ok(error_page) => error_page,
            // An invalid id is an id that does not exist.
            Err(error) if error.is::<ParsePathError>() => Self::not_found("page at this path"),
            Err(_) if status == StatusCode::NOT_FOUND => Self::not_found("page at this path"),
            Err(error) if status.is_client_error() => {
                Self::new(status, "Bad request", error.to_string())
            }
            Err(error) => Self::failed(error.to_string()),
        }
    }

    /// Logs a server failure; the only place that does.
    pub(super) fn log(&self) {
        let Some(cause) = &self.cause else { return };
        let cause: &dyn StdError = &**cause;
        match self.status {
            StatusCode::INTERNAL_SERVER_ERROR => tracing::error!(error = cause, "a page failed"),
            _ => tracing::warn!(error = cause, "a page failed"),
        }
    }
}

impl fmt::Display for ErrorPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.title)
    }
}

impl StdError for ErrorPage {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        let cause = self.cause.as_deref()?;
        Some(cause)
    }
}

impl ResponseError for ErrorPage {
    fn status(&self) -> StatusCode {
        self.status
    }

    fn as_response(&self) -> Response {
        self.status.into()
    }
}

impl From<Problem> for ErrorPage {
    /// Shows a problem of the API as a page.
    fn from(problem: Problem) -> Self {
        let mut error_page = Self::new(
            problem.code.status(),
            problem.code.title(),
            problem.detail.clone(),
        );
        error_page.cause = problem.causes().map(Into::into);
        error_page.headers = problem.headers;
        error_page
    }
}

impl From<DbErr> for ErrorPage {
    fn from(error: DbErr) -> Self {
        match db::is_transient(&error) {
            true => Self::unavailable("The database cannot be reached", error),
            false => Self::failed(error),
        }
    }
}
