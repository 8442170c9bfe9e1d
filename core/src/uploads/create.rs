//! Beginning an upload: staging first where it must be there, then its rows and its file's in one transaction.

use super::{
    UploadError, finish,
    hold::signed,
    plan::{MAX_CHUNK, MAX_PARTS, chunk_size},
};
use crate::{
    batches, content, context::Landfall, digest::Sha256Digest, files::FileName, idempotency::Keep,
    staging::StagingKey, usage,
};
use entity::{
    BatchId, FileId, Timestamp, UploadId, file,
    upload::{self, Model, UploadKind, UploadStatus},
};
use sea_orm::{ConnectionTrait, DbErr, EntityTrait, IntoActiveModel};
use std::time::Duration;

/// How the bytes will come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// In numbered parts; sizes in bytes, the part size as wished for.
    Parts { total: u64, chunk: Option<u64> },
    /// At an offset; the length in bytes, or none while it is deferred.
    Append { total: Option<u64> },
    /// At an offset, to be joined with others later; has no file of its own.
    Partial { total: Option<u64> },
}

impl Shape {
    fn total(self) -> Option<u64> {
        match self {
            Self::Parts { total, .. } => Some(total),
            Self::Append { total } | Self::Partial { total } => total,
        }
    }

    fn kind(self) -> UploadKind {
        match self {
            Self::Parts { .. } => UploadKind::Parts,
            Self::Append { .. } => UploadKind::Append,
            Self::Partial { .. } => UploadKind::Partial,
        }
    }
}

/// What is known of an upload before its first byte.
#[derive(Clone, Debug)]
pub struct NewUpload {
    pub owner: Option<String>,
    pub original_filename: FileName,
    pub content_type: String,
    pub declared_sha256: Option<Sha256Digest>,
    pub metadata: serde_json::Value,
    pub batch_id: Option<BatchId>,
    /// How long the file is to be kept, counted from its completion.
    pub expires_in: Option<Duration>,
    pub traceparent: Option<String>,
    /// `Upload-Metadata` as it was sent.
    pub tus_metadata: Option<String>,
    /// `Upload-Concat` as it was sent.
    pub tus_concat: Option<String>,
}

/// Begins an upload; one of length 0 is complete at once, but for sessions, which need a byte.
///
/// # Errors
/// [`UploadError::TooLarge`], [`UploadError::Empty`], [`UploadError::NotAllowed`], [`UploadError::Quota`],
/// [`UploadError::Batch`], [`UploadError::Key`] when another request has taken its `Idempotency-Key` over, and what
/// staging and the database answer; nothing is left behind then, but after the database's errors what the sweep removes.
pub async fn create(
    landfall: &Landfall,
    shape: Shape,
    new: NewUpload,
    keep: Option<Keep<Model>>,
) -> Result<Model, UploadError> {
    let limit = largest(landfall, shape);
    match shape.total() {
        Some(total) if total > limit => return Err(UploadError::TooLarge { limit }),
        Some(0) if shape.kind() == UploadKind::Parts => return Err(UploadError::Empty),
        _ => {}
    }
    if shape.kind() != UploadKind::Partial {
        require_allowed(landfall, &new)?;
    }
    let id = FileId::generate();
    let key = StagingKey(id.0);
    // An append brings the staging of its upload with it; parts may come at once, and no bytes bring nothing.
    match (shape, shape.total()) {
        (Shape::Parts { .. }, _) | (_, Some(0)) => landfall.staging.create(key).await?,
        _ => landfall.staging.admit().await?,
    }
    let (now, row) = (landfall.clock.now(), plan(landfall, shape, id, &new));
    let expires_at = new.expires_in.map(|ttl| landfall.clock.after(ttl));
    let (size, quota) = (
        row.total_size_bytes.unwrap_or(0),
        landfall.config.uploads.owner_quota,
    );
    let written = landfall
        .db
        .write(move |transaction| {
            Box::pin(async move {
                usage::add(transaction, new.owner.as_deref(), id.0, size, quota).await?;
                if row.kind != UploadKind::Partial {
                    insert_file(transaction, id, &new, row.total_size_bytes, now, expires_at)
                        .await?;
                }
                insert_upload(transaction, &row).await?;
                let (upload, staged) = match row.total_size_bytes {
                    Some(0) => finish::received(transaction, row, now).await?,
                    _ => (row, None),
                };
                Keep::write(keep, transaction, &upload).await?;
                Ok((upload, staged))
            })
        })
        .await;
    match written {
        Ok((upload, staged)) => {
            if let Some(staged) = staged {
                finish::push(landfall, staged).await;
            }
            Ok(upload)
        }
        // The commit may have succeeded all the same; if it has not, the sweep removes what was staged.
        Err(error @ UploadError::Database(_)) => Err(error),
        Err(error) => {
            if let Err(left) = landfall.staging.delete(key).await {
                tracing::debug!(upload.id = %id, error = %left, "staging of a refused upload is left to the sweep");
            }
            Err(error)
        }
    }
}

/// In bytes. Ten thousand parts of the largest size are more than `uploads.max_file_size` may say.
fn largest(landfall: &Landfall, shape: Shape) -> u64 {
    let most = landfall.config.uploads.max_file_size.0;
    match shape {
        Shape::Parts { .. } => most.min(MAX_CHUNK * MAX_PARTS),
        Shape::Append { .. } | Shape::Partial { .. } => most,
    }
}

pub(super) fn require_allowed(landfall: &Landfall, new: &NewUpload) -> Result<(), UploadError> {
    let lists = &landfall.config.uploads;
    content::require_declared(lists, new.original_filename.as_str(), &new.content_type)?;
    Ok(())
}

fn plan(landfall: &Landfall, shape: Shape, id: FileId, new: &NewUpload) -> Model {
    let (now, config) = (landfall.clock.now(), &landfall.config.uploads);
    let (chunk, parts) = match shape {
        Shape::Parts { total, chunk } => {
            let size = chunk_size(total, chunk.unwrap_or(config.chunk_size.0));
            let parts = i32::try_from(total.div_ceil(size)).unwrap_or(i32::MAX);
            (Some(signed(size)), Some(parts))
        }
        Shape::Append { .. } | Shape::Partial { .. } => (None, None),
    };
    Model {
        id: UploadId(id.0),
        file_id: id,
        owner: new.owner.clone(),
        kind: shape.kind(),
        status: UploadStatus::Init,
        chunk_size_bytes: chunk,
        total_size_bytes: shape.total().map(signed),
        total_parts: parts,
        completed_parts: 0,
        bytes_received: 0,
        tus_metadata: new.tus_metadata.clone(),
        tus_concat: new.tus_concat.clone(),
        staging_state: None,
        hash_state: None,
        fence: 0,
        lease_owner: None,
        lease_expires_at: None,
        created_at: now,
        updated_at: now,
        expires_at: landfall.clock.after(config.session_ttl),
    }
}

pub(super) async fn insert_upload(
    transaction: &impl ConnectionTrait,
    row: &Model,
) -> Result<(), DbErr> {
    upload::Entity::insert(row.clone().into_active_model())
        .exec_without_returning(transaction)
        .await?;
    Ok(())
}

/// The row of a file whose bytes are to come; its batch counts it from now on. The caller counts its size.
pub(super) async fn insert_file(
    transaction: &impl ConnectionTrait,
    id: FileId,
    new: &NewUpload,
    size: Option<i64>,
    now: Timestamp,
    expires_at: Option<Timestamp>,
) -> Result<(), UploadError> {
    if let Some(batch) = new.batch_id {
        batches::join(transaction, batch, new.owner.as_deref(), now).await?;
    }
    let row = file::Model {
        owner: new.owner.clone(),
        search_name: new.original_filename.search_form(),
        original_filename: new.original_filename.as_str().to_owned(),
        content_type: new.content_type.clone(),
        size_bytes: size.unwrap_or(0),
        declared_sha256: new.declared_sha256.map(|digest| digest.to_string()),
        metadata: new.metadata.clone(),
        batch_id: new.batch_id,
        traceparent: new.traceparent.clone(),
        expires_at,
        ..file::Model::begun(id, file::FileStatus::Uploading, now)
    };
    file::Entity::insert(row.into_active_model())
        .exec_without_returning(transaction)
        .await?;
    Ok(())
}
