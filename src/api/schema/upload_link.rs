//! Upload links.

use super::FileStatus;
use chrono::{DateTime, Utc};
use entity::{FileId, file};
use landfall_core::upload_links;
use poem_openapi::{Enum, Object, types::Example};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// The status of an upload link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Enum)]
#[serde(rename_all = "snake_case")]
#[oai(rename_all = "snake_case")]
pub enum UploadLinkStatus {
    Open,
    Used,
    Expired,
    Revoked,
}

impl From<upload_links::UploadLinkStatus> for UploadLinkStatus {
    fn from(status: upload_links::UploadLinkStatus) -> Self {
        match status {
            upload_links::UploadLinkStatus::Open => Self::Open,
            upload_links::UploadLinkStatus::Used => Self::Used,
            upload_links::UploadLinkStatus::Expired => Self::Expired,
            upload_links::UploadLinkStatus::Revoked => Self::Revoked,
        }
    }
}

/// A file that was sent by an upload link.
#[derive(Clone, Debug, Serialize, Object)]
pub struct LinkFile {
    pub id: Uuid,
    pub status: FileStatus,
}

impl LinkFile {
    /// Converts the files of one link.
    #[must_use]
    pub fn from_rows(rows: Vec<(FileId, file::FileStatus)>) -> Vec<Self> {
        let file = |(id, status): (FileId, file::FileStatus)| Self {
            id: id.0,
            status: status.into(),
        };
        rows.into_iter().map(file).collect()
    }
}

/// An upload link: a URL by which files can be sent without a token.
#[derive(Clone, Debug, Serialize, Object)]
#[oai(example)]
pub struct UploadLink {
    pub id: Uuid,
    /// Where to send a file; contains the secret, so it is only in the response that creates the link, null elsewhere.
    #[oai(nullable)]
    pub url: Option<String>,
    /// The tus endpoint of the link; only in the response that creates it, null elsewhere.
    #[oai(nullable)]
    pub tus_url: Option<String>,
    pub status: UploadLinkStatus,
    pub max_files: u32,
    /// The maximum size of a file; null if only the server's applies.
    #[oai(nullable)]
    pub max_size_bytes: Option<u64>,
    /// The allowed media types; empty if only the server's list applies.
    pub allowed_types: Vec<String>,
    /// The batch that the files join.
    #[oai(nullable)]
    pub batch_id: Option<Uuid>,
    /// The metadata that every file gets.
    pub metadata: Value,
    /// The owner of the files; null without tokens.
    #[oai(nullable)]
    pub owner: Option<String>,
    /// The files that were accepted or are being uploaded.
    pub files: Vec<LinkFile>,
    pub created_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
}

impl UploadLink {
    /// Converts a link and its files, without its URL.
    #[must_use]
    pub fn from_link(
        link: upload_links::UploadLink,
        files: Vec<LinkFile>,
        now: DateTime<Utc>,
    ) -> Self {
        Self {
            id: link.id.0,
            url: None,
            tus_url: None,
            status: link.status_at(now).into(),
            max_files: link.max_files,
            max_size_bytes: link.max_size,
            allowed_types: link.allowed_types,
            batch_id: link.batch_id.map(|id| id.0),
            metadata: link.metadata,
            owner: link.owner,
            files,
            created_at: link.created_at,
            expires_at: link.expires_at,
        }
    }
}

impl Example for UploadLink {
    fn example() -> Self {
        let at = DateTime::UNIX_EPOCH + chrono::TimeDelta::days(20_000);
        Self {
            id: Uuid::from_u128(0x0192_8f4e_7000_7c11_9a2b_3c4d_5e6f_7083),
            url: None,
            tus_url: None,
            status: UploadLinkStatus::Used,
            max_files: 1,
            max_size_bytes: Some(10_485_760),
            allowed_types: vec!["image/*".to_owned()],
            batch_id: None,
            metadata: serde_json::json!({ "user": "42" }),
            owner: Some("web".to_owned()),
            files: vec![LinkFile {
                id: Uuid::from_u128(0x0192_8f4e_6f00_7a3b_8c1d_2e3f_4a5b_6c7d),
                status: FileStatus::Stored,
            }],
            created_at: at,
            expires_at: at + chrono::TimeDelta::hours(1),
        }
    }
}

/// An upload link to create.
#[derive(Clone, Debug, Default, Deserialize, Object)]
#[oai(example)]
pub struct NewUploadLink {
    /// Lifetime in seconds, 60 to 604800; 3600 if absent.
    #[serde(default)]
    #[oai(nullable)]
    pub expires_in: Option<u64>,
    /// How many files may be sent, 1 to 1000; 1 if absent.
    #[serde(default)]
    #[oai(nullable)]
    pub max_files: Option<u64>,
    /// The maximum size of a file, at least 1.
    #[serde(default)]
    #[oai(nullable)]
    pub max_size_bytes: Option<u64>,
    /// Media types such as `image/png` or `image/*`; empty or absent for all that the server allows.
    #[serde(default)]
    #[oai(nullable)]
    pub allowed_types: Option<Vec<String>>,
    /// The open batch that the files join.
    #[serde(default)]
    #[oai(nullable)]
    pub batch_id: Option<Uuid>,
    /// A JSON object of up to 16 KiB that every file gets; the client cannot change these fields.
    #[serde(default)]
    #[oai(nullable)]
    pub metadata: Option<Value>,
    /// The origins whose pages may use the link; empty or absent for `server.cors_origins`.
    #[serde(default)]
    #[oai(nullable)]
    pub cors_origins: Option<Vec<String>>,
}

impl Example for NewUploadLink {
    fn example() -> Self {
        Self {
            expires_in: Some(600),
            max_files: None,
            max_size_bytes: Some(10_485_760),
            allowed_types: Some(vec!["image/*".to_owned()]),
            batch_id: None,
            metadata: Some(serde_json::json!({ "user": "42" })),
            cors_origins: Some(vec!["https://app.example.com".to_owned()]),
        }
    }
}

/// What the holder of an upload link may know about it.
#[derive(Clone, Debug, Serialize, Object)]
#[oai(example)]
pub struct UploadLinkState {
    pub id: Uuid,
    pub status: UploadLinkStatus,
    pub max_files: u32,
    /// The maximum size of a file; null if only the server's applies.
    #[oai(nullable)]
    pub max_size_bytes: Option<u64>,
    /// The allowed media types; empty if only the server's list applies.
    pub allowed_types: Vec<String>,
    /// The files that were sent by the link.
    pub files: Vec<LinkFile>,
    pub expires_at: DateTime<Utc>,
}

impl From<UploadLink> for UploadLinkState {
    fn from(link: UploadLink) -> Self {
        Self {
            id: link.id,
            status: link.status,
            max_files: link.max_files,
            max_size_bytes: link.max_size_bytes,
            allowed_types: link.allowed_types,
            files: link.files,
            expires_at: link.expires_at,
        }
    }
}

impl Example for UploadLinkState {
    fn example() -> Self {
        UploadLink::example().into()
    }
}
