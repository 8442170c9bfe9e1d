//! What of the server's JSON an upload looks at; the rest is passed on as it came.

use crate::cli::client::api::CallError;
use base64::{Engine, engine::general_purpose::STANDARD};
use landfall_core::digest::Sha256Digest;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::ops::RangeInclusive;
use uuid::Uuid;

/// A File.
#[derive(Debug, Deserialize)]
pub(super) struct FileView {
    pub(super) id: Uuid,
    pub(super) status: String,
    pub(super) original_filename: String,
    pub(super) sha256: Option<Sha256Text>,
    #[serde(default)]
    pub(super) error: Option<Failure>,
}

/// Why a file failed.
#[derive(Debug, Deserialize)]
pub(super) struct Failure {
    pub(super) code: String,
    pub(super) message: String,
}

/// A digest in hexadecimal.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub(super) struct Sha256Text(pub(super) Sha256Digest);

impl TryFrom<String> for Sha256Text {
    type Error = landfall_core::digest::InvalidSha256;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

impl FileView {
    /// True when the file's state will not change by itself.
    pub(super) fn is_final(&self) -> bool {
        matches!(self.status.as_str(), "stored" | "failed" | "deleted")
    }
}

/// A file as the server has it: what is looked at, and all of it.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) view: FileView,
    pub(super) raw: Box<RawValue>,
}

/// Reads a File.
pub(super) fn taken(text: String) -> Result<Taken, CallError> {
    let read = || {
        Ok(Taken {
            view: serde_json::from_str(&text)?,
            raw: serde_json::from_str(&text)?,
        })
    };
    read().map_err(CallError::Unreadable)
}

/// An upload session.
#[derive(Debug, Deserialize)]
pub(super) struct Session {
    pub(super) id: Uuid,
    pub(super) status: String,
    pub(super) chunk_size_bytes: u64,
    pub(super) total_size_bytes: u64,
    pub(super) total_parts: u32,
    #[serde(default)]
    pub(super) bytes_received: u64,
    /// As `1-50,52,55-100`.
    #[serde(default)]
    pub(super) received_parts: String,
}

impl Session {
    /// True when the server has what it needs, or still takes it.
    pub(super) fn is_alive(&self) -> bool {
        matches!(self.status.as_str(), "init" | "in_progress" | "complete")
    }

    /// The numbers of the parts that the server lacks, as ranges; none when what it has cannot be understood.
    pub(super) fn missing(&self) -> Option<Vec<RangeInclusive<u32>>> {
        let mut missing = Vec::new();
        let mut next = 1_u32;
        for range in self
            .received_parts
            .split(',')
            .map(str::trim)
            .filter(|range| !range.is_empty())
        {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
            if first < next || last < first {
                return None;
            }
            if first > next {
                missing.push(next..=first - 1);
            }
            next = last.checked_add(1)?;
        }
        if next <= self.total_parts {
            missing.push(next..=self.total_parts);
        }
        Some(missing)
    }
}

/// `Content-Digest` (RFC 9530) of a request's body.
pub(super) fn content_digest(digest: Sha256Digest) -> String {
    format!("sha-256=:{}:", STANDARD.encode(digest.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(received_parts: &str) -> Session {
        let json = serde_json::json!({
            "id": Uuid::nil(), "file_id": Uuid::nil(), "status": "in_progress", "chunk_size_bytes": 10,
            "total_size_bytes": 95, "total_parts": 10, "received_parts": received_parts,
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn missing_parts_are_the_gaps() {
        for (received, missing) in [
            ("", vec![1..=10]),
            ("1-10", vec![]),
            ("1-3,5,7-9", vec![4..=4, 6..=6, 10..=10]),
            ("2", vec![1..=1, 3..=10]),
        ] {
            assert_eq!(session(received).missing(), Some(missing), "{received}");
        }
    }

    #[test]
    fn ranges_that_are_none_are_not_guessed_at() {
        for received in ["a", "3-2", "5,1", "1-", "1-4294967295", "-1"] {
            assert_eq!(session(received).missing(), None, "{received}");
        }
    }
}
