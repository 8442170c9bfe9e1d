//! Problems (RFC 9457).

use poem_openapi::Object;
use serde::Serialize;

/// A problem document: what went wrong with a request. `code` is stable; `detail` is for people.
#[derive(Clone, Debug, Serialize, Object)]
pub struct Problem {
    /// A URL that explains the code.
    #[serde(rename = "type")]
    #[oai(rename = "type")]
    pub kind: String,
    /// The same for every problem of this code.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What went wrong this time.
    pub detail: String,
    /// What went wrong, for programs.
    pub code: String,
    /// The invalid fields, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errors: Option<Vec<FieldError>>,
}

/// An invalid field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Object)]
pub struct FieldError {
    /// The name of the field; for a nested one the path with dots.
    pub field: String,
    /// What is wrong with the field, and what is allowed.
    pub message: String,
}

impl FieldError {
    /// Creates a field error.
    #[must_use]
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            message: message.into(),
        }
    }
}
