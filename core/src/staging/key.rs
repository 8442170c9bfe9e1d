//! What staged bytes are called.

use std::{fmt, str::FromStr};
use uuid::Uuid;

/// The name of bytes in staging: a UUID, so that nothing else in the folder or bucket is taken for staging.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StagingKey(pub Uuid);

impl StagingKey {
    /// A key nobody has; later than every key this process made before.
    #[must_use]
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for StagingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

/// Not a UUID as staging writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a staging key")]
pub struct NotAStagingKey;

impl FromStr for StagingKey {
    type Err = NotAStagingKey;

    /// Takes the one spelling that [`fmt::Display`] gives.
    fn from_str(text: &str) -> Result<Self, NotAStagingKey> {
        let key = text.parse().map(Self).map_err(|_| NotAStagingKey)?;
        if key.to_string() == text {
            Ok(key)
        } else {
            Err(NotAStagingKey)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_written_form_is_a_key() {
        let key = StagingKey::generate();
        assert_eq!(key.to_string().parse(), Ok(key));
        for other in [
            "",
            "notes.txt",
            &key.to_string().to_uppercase(),
            &key.0.simple().to_string(),
            "../0192f0c1-0000-7000-8000-000000000000",
        ] {
            assert_eq!(other.parse::<StagingKey>(), Err(NotAStagingKey), "{other}");
        }
    }
}
