//! `upload_links`: secret URLs by which a backend lets its users upload without a token.

use crate::{BatchId, Timestamp, UploadLinkId};
use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "upload_links")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: UploadLinkId,
    /// The owner of the files that are sent by the link.
    pub owner: Option<String>,
    /// SHA-256 of the secret, lower-case hexadecimal; the secret itself is shown once and not stored.
    pub secret_sha256: String,
    pub max_files: i32,
    /// Files that were accepted or are being uploaded; at most `max_files`.
    pub used_files: i32,
    /// Partial tus uploads that were created and not cancelled.
    pub partial_uploads: i32,
    /// `None` means that only `uploads.max_file_size` applies.
    pub max_size_bytes: Option<i64>,
    /// A JSON array of media types, including `type/*`; empty means that only `uploads.allowed_types` applies.
    pub allowed_types: Json,
    pub batch_id: Option<BatchId>,
    /// A JSON object whose fields every file gets.
    pub metadata: Json,
    /// A JSON array of the origins whose pages may use the link; empty means `server.cors_origins`.
    pub cors_origins: Json,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub revoked_at: Option<Timestamp>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
