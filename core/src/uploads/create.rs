//! Creates an upload: first an empty segment if there will be no bytes, then its rows and that of its file in one
//! transaction.

use super::{
    UploadError,
    complete::{self, StagedFile},
    part_plan::{MAX_PART_SIZE, MAX_PARTS, chunk_size},
    write_lease::signed,
};
use crate::{
    app::App,
    batches,
    clock::later,
    digest::Sha256Digest,
    files::FileName,
    idempotency::PendingResponse,
    media_policy,
    quota::{self, QuotaAddition},
    staging::{SegmentWriter, StagingKey, WriteOptions},
    upload_links::{self, LinkUse},
};
use entity::{
    BatchId, FileId, UploadId, file,
    upload::{self, Model, UploadKind, UploadStatus},
};
use futures::stream;
use sea_orm::{ConnectionTrait, DbErr, EntityTrait, IntoActiveModel};
use std::{convert::Infallible, time::Duration};

/// How the bytes will be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadShape {
    /// In numbered parts; sizes in bytes, `chunk` as requested.
    Parts { total: u64, chunk: Option<u64> },
    /// At an offset; the length in bytes, or `None` while it is deferred.
    Append { total: Option<u64> },
    /// At an offset, to be concatenated later; has no file of its own.
    Partial { total: Option<u64> },
}

impl UploadShape {
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

/// A new upload.
#[derive(Clone, Debug)]
pub struct NewUpload {
    pub owner: Option<String>,
    pub original_filename: FileName,
    pub content_type: String,
    pub declared_sha256: Option<Sha256Digest>,
    pub metadata: serde_json::Value,
    pub batch_id: Option<BatchId>,
    /// How long the file is kept after its completion.
    pub expires_in: Option<Duration>,
    pub traceparent: Option<String>,
    /// The `Upload-Metadata` header as sent.
    pub tus_metadata: Option<String>,
    /// The `Upload-Concat` header as sent.
    pub tus_concat: Option<String>,
    /// The upload link it is sent by.
    pub link: Option<LinkUse>,
}

/// Creates an upload. One of length 0 is complete at once, except for sessions, which need at least one byte.
///
/// # Errors
/// [`UploadError::TooLarge`], [`UploadError::Empty`], [`UploadError::NotAllowed`], [`UploadError::Quota`],
/// [`UploadError::Batch`], [`UploadError::Link`], [`UploadError::Key`] when another request has taken over its `Idempotency-Key`, and errors
/// of staging and the database. Nothing is left behind then, except after a database error, when the sweep cleans up.
pub async fn create(
    app: &App,
    shape: UploadShape,
    new: NewUpload,
    response: Option<PendingResponse<Model>>,
) -> Result<Model, UploadError> {
    let limit = largest(app, shape);
    match shape.total() {
        Some(total) if total > limit => return Err(UploadError::TooLarge { limit }),
        Some(0) if shape.kind() == UploadKind::Parts => return Err(UploadError::Empty),
        _ => {}
    }
    if shape.kind() != UploadKind::Partial {
        require_allowed(app, &new)?;
        if shape.total() == Some(0) {
            require_allowed_empty(app, &new)?;
        }
    }
    let id = FileId::generate();
    let key = StagingKey::segment(id.0, 0, SegmentWriter::Fence(0));
    // Bytes bring their own segments; without bytes there is none.
    let is_empty = shape.total() == Some(0);
    match is_empty {
        true => stage_empty_segment(app, key).await?,
        false => app.staging.admit().await?,
    }
    let mut upload = plan(app, shape, id, &new);
    if is_empty {
        (upload.segment_start, upload.segment_fence) = (Some(0), Some(0));
    }
    let has_file = upload.kind != UploadKind::Partial;
    let file = has_file.then(|| file_row(&upload, &new));
    let begun = NewUploadRows {
        upload,
        file,
        link: new.link,
    };
    let written = match may_be_refused(app, &begun) || response.is_some() {
        true => begin_alone(app, begun, response).await,
        false => begin_with_others(app, begun).await,
    };
    match written {
        Ok((upload, staged)) => {
            if let Some(staged) = staged {
                complete::push(app, staged).await;
            }
            Ok(upload)
        }
        // The commit may have succeeded anyway; if not, the sweep removes what was staged.
        Err(error @ UploadError::Database(_)) => Err(error),
        Err(error) if !is_empty => Err(error),
        Err(error) => {
            if let Err(left) = app.staging.delete(&[key]).await {
                tracing::debug!(upload.id = %id, error = %left, "the staged bytes of a rejected upload are left to the sweep");
            }
            Err(error)
        }
    }
}

/// Stages an empty segment.
pub(super) async fn stage_empty_segment(app: &App, key: StagingKey) -> Result<(), UploadError> {
    let nothing = stream::empty::<Result<_, Infallible>>();
    app.staging
        .write(key, nothing, WriteOptions::default())
        .await?;
    Ok(())
}

/// Maximum length, in bytes. Ten thousand parts of the maximum size exceed any possible `uploads.max_file_size`.
fn largest(app: &App, shape: UploadShape) -> u64 {
    let most = app.config.uploads.max_file_size.0;
    match shape {
        UploadShape::Parts { .. } => most.min(MAX_PART_SIZE * MAX_PARTS),
        UploadShape::Append { .. } | UploadShape::Partial { .. } => most,
    }
}

pub(super) fn require_allowed(app: &App, new: &NewUpload) -> Result<(), UploadError> {
    let lists = &app.config.uploads;
    media_policy::require_declared(lists, new.original_filename.as_str(), &new.content_type)?;
    Ok(())
}

/// An empty file is checked now, because no bytes will follow.
fn require_allowed_empty(app: &App, new: &NewUpload) -> Result<(), UploadError> {
    let (name, declared) = (new.original_filename.as_str(), &new.content_type);
    media_policy::judge(
        &app.config.uploads,
        name,
        declared,
        &[],
        media_policy::HeadExtent::All,
    )?;
    Ok(())
}

fn plan(app: &App, shape: UploadShape, id: FileId, new: &NewUpload) -> Model {
    let (now, config) = (app.clock.now(), &app.config.uploads);
    let (chunk, parts) = match shape {
        UploadShape::Parts { total, chunk } => {
            let size = chunk_size(total, chunk.unwrap_or(config.chunk_size.0));
            let parts = i32::try_from(total.div_ceil(size)).unwrap_or(i32::MAX);
            (Some(signed(size)), Some(parts))
        }
        UploadShape::Append { .. } | UploadShape::Partial { .. } => (None, None),
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
        segment_start: None,
        segment_fence: None,
        hash_state: None,
        fence: 0,
        lease_owner: None,
        lease_expires_at: None,
        created_at: now,
        updated_at: now,
        expires_at: app.clock.after(config.session_ttl),
    }
}

/// The rows of a new upload.
#[derive(Clone, Debug)]
pub(super) struct NewUploadRows {
    pub(super) upload: Model,
    /// `None` for a partial upload.
    pub(super) file: Option<file::Model>,
    pub(super) link: Option<LinkUse>,
}

impl NewUploadRows {
    /// The batch of its file.
    pub(super) fn batch(&self) -> Option<BatchId> {
        self.file.as_ref()?.batch_id
    }
}

/// Whether the insert may be rejected or needs more than the two rows: the owner's quota or an upload link applies, or an
/// upload without bytes is complete at once.
fn may_be_refused(app: &App, begun: &NewUploadRows) -> bool {
    let has_quota = begun.upload.owner.is_some() && app.config.uploads.owner_quota.is_some();
    let is_bounded = has_quota || begun.link.is_some();
    is_bounded || begun.upload.total_size_bytes == Some(0)
}

async fn begin_with_others(
    app: &App,
    begun: NewUploadRows,
) -> Result<(Model, Option<StagedFile>), UploadError> {
    let upload = begun.upload.clone();
    app.uploads.begin(begun).await?;
    Ok((upload, None))
}

async fn begin_alone(
    app: &App,
    begun: NewUploadRows,
    response: Option<PendingResponse<Model>>,
) -> Result<(Model, Option<StagedFile>), UploadError> {
    let quota = app.config.uploads.owner_quota;
    let write = app.db.write(move |transaction| {
        Box::pin(async move {
            let NewUploadRows { upload, file, link } = begun;
            if let Some(file) = &file {
                join_batch(transaction, file).await?;
            }
            let addition = QuotaAddition {
                owner: upload.owner.as_deref(),
                id: upload.id.0,
                bytes: quota::initial_usage(&upload, file.as_ref()),
                quota,
                reserved: None,
                now: upload.created_at,
            };
            quota::add(transaction, addition).await?;
            if let Some(link) = link {
                let is_partial = file.is_none();
                upload_links::claim(transaction, link, upload.file_id, is_partial).await?;
            }
            insert_files(transaction, &file).await?;
            insert_uploads(transaction, [&upload]).await?;
            let (upload, staged) = match upload.total_size_bytes {
                Some(0) => {
                    let now = upload.created_at;
                    complete::received(transaction, upload, now).await?
                }
                _ => (upload, None),
            };
            PendingResponse::write(response, transaction, &upload).await?;
            Ok((upload, staged))
        })
    });
    write.await
}

pub(super) async fn insert_uploads<'a>(
    transaction: &impl ConnectionTrait,
    rows: impl IntoIterator<Item = &'a Model>,
) -> Result<(), DbErr> {
    let rows = rows.into_iter().cloned();
    upload::Entity::insert_many(rows.map(IntoActiveModel::into_active_model))
        .exec_without_returning(transaction)
        .await?;
    Ok(())
}

/// The row of a file whose bytes are still to come.
pub(super) fn file_row(upload: &Model, new: &NewUpload) -> file::Model {
    file::Model {
        owner: new.owner.clone(),
        search_name: new.original_filename.search_form(),
        original_filename: new.original_filename.as_str().to_owned(),
        content_type: new.content_type.clone(),
        size_bytes: upload.total_size_bytes.unwrap_or(0),
        declared_sha256: new.declared_sha256.map(|digest| digest.to_string()),
        metadata: new.metadata.clone(),
        batch_id: new.batch_id,
        traceparent: new.traceparent.clone(),
        expires_at: new.expires_in.map(|ttl| later(upload.created_at, ttl)),
        ..file::Model::begun(
            upload.file_id,
            file::FileStatus::Uploading,
            upload.created_at,
        )
    }
}

/// Counts the file in its batch, if it has one.
pub(super) async fn join_batch(
    transaction: &impl ConnectionTrait,
    file: &file::Model,
) -> Result<(), UploadError> {
    if let Some(batch) = file.batch_id {
        batches::join(transaction, batch, file.owner.as_deref(), file.created_at).await?;
    }
    Ok(())
}

/// Inserts files; the caller must count their sizes.
pub(super) async fn insert_files<'a>(
    transaction: &impl ConnectionTrait,
    rows: impl IntoIterator<Item = &'a file::Model>,
) -> Result<(), DbErr> {
    let rows: Vec<_> = rows.into_iter().cloned().collect();
    if rows.is_empty() {
        return Ok(());
    }
    file::Entity::insert_many(rows.into_iter().map(IntoActiveModel::into_active_model))
        .exec_without_returning(transaction)
        .await?;
    Ok(())
}
