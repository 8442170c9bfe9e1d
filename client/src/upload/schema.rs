//! The fields of the server's JSON that an upload reads; the rest is passed through.

use crate::api::CallError;
use crate::sha256::Sha256Digest;
use base64::{Engine, engine::general_purpose::STANDARD};
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
    pub(super) error: Option<FileFailure>,
}

/// Why a file failed.
#[derive(Debug, Deserialize)]
pub(super) struct FileFailure {
    pub(super) code: String,
    pub(super) message: String,
}

/// A digest in hexadecimal.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub(super) struct Sha256Text(pub(super) Sha256Digest);

impl TryFrom<String> for Sha256Text {
    type Error = crate::sha256::NotSha256;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

impl FileView {
    /// Whether the file's status is final.
    pub(super) fn is_final(&self) -> bool {
        matches!(self.status.as_str(), "stored" | "failed" | "deleted")
    }
}

/// An accepted file: the parsed fields, and the whole JSON.
#[derive(Debug)]
pub(super) struct AcceptedFile {
    pub(super) view: FileView,
    pub(super) raw: Box<RawValue>,
}

/// Parses a File.
pub(super) fn parse_file(text: String) -> Result<AcceptedFile, CallError> {
    let read = || {
        Ok(AcceptedFile {
            view: serde_json::from_str(&text)?,
            raw: serde_json::from_str(&text)?,
        })
    };
    read().map_err(CallError::Unreadable)
}

/// An upload session.
#[derive(Debug, Deserialize)]
pub(super) struct UploadSession {
    pub(super) id: Uuid,
    pub(super) status: String,
    pub(super) chunk_size_bytes: u64,
    pub(super) total_size_bytes: u64,
    pub(super) total_parts: u32,
    #[serde(default)]
    pub(super) bytes_received: u64,
    /// Ranges such as `1-50,52,55-100`.
    #[serde(default)]
    pub(super) received_parts: String,
}

impl UploadSession {
    /// Whether the session is complete or can still be completed.
    pub(super) fn is_alive(&self) -> bool {
        matches!(self.status.as_str(), "init" | "in_progress" | "complete")
    }

    /// Returns the missing parts as ranges; `None` if the received parts are invalid.
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

    fn session(received_parts: &str) -> UploadSession {
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
