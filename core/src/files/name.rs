//! File names. A name is stored as it was sent, including Unicode, and never becomes part of a path;
//! [`crate::storage::safe_name`] derives the form used in storage keys.

use std::fmt;

/// Maximum length of a name, in Unicode characters.
pub const MAX_NAME_CHARS: usize = 255;

/// A valid file name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileName(String);

/// Why a name is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    #[error("the file has no name; send one")]
    Empty,
    #[error("the file's name has {0} characters; allowed are {MAX_NAME_CHARS}")]
    TooLong(usize),
    #[error("the file's name has the control character U+{0:04X}; allowed is any printable text")]
    Control(u32),
    #[error("the file's name `{0}` names a folder, not a file")]
    OnlyDots(String),
}

impl FileName {
    /// Accepts any printable text that can be the name of a file.
    ///
    /// # Errors
    /// [`InvalidName`], which says what is allowed.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        if text.trim().is_empty() {
            return Err(InvalidName::Empty);
        }
        let length = text.chars().count();
        if length > MAX_NAME_CHARS {
            return Err(InvalidName::TooLong(length));
        }
        if let Some(control) = text.chars().find(|c| c.is_control()) {
            return Err(InvalidName::Control(u32::from(control)));
        }
        if text.chars().all(|c| matches!(c, '.' | '/' | '\\' | ' ')) {
            return Err(InvalidName::OnlyDots(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }

    /// The name as it was sent.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The form that searches compare prefixes with.
    #[must_use]
    pub fn search_form(&self) -> String {
        self.0.to_lowercase()
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
