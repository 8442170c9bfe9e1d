//! What a file may be called. The name is kept as it was sent, Unicode and all; it never becomes part of a path
//! (see `storage::key` for the form it is reduced to there).

use std::fmt;

/// The longest name, in Unicode characters.
pub const MAX_NAME_CHARS: usize = 255;

/// A file name a client may give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileName(String);

/// Why a name is refused.
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
    /// Takes any printable text that names something.
    ///
    /// # Errors
    /// [`InvalidName`], with what is allowed.
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

    /// What the beginning of a search is compared with.
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
