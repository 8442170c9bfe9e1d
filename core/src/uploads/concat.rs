//! Concatenates partial uploads into a final one (tus concatenation), whether they are complete or not.
//!
//! No bytes are moved: the file's pieces are the segments of the partial uploads, and finalize reads them one after the
//! other. The id of a final upload is derived from those of its parts, so that a repeated request finds the first one's
//! upload.

use super::{
    NewUpload, UploadError,
    complete::{self, ReceivedFile, StagedFile, all_segments, only_segment, stage_file},
    create::{file_row, insert_files, join_batch, require_allowed},
    query::accepts_bytes,
    write_lease::{open, signed},
};
use crate::quota::{self, QuotaAddition};
use crate::{
    app::App,
    files::{OwnerScope, StagedItem},
    upload_links,
};
use entity::{
    FileId, Timestamp, UploadId,
    upload::{Column, Entity, Model, UploadKind, UploadStatus},
};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, IntoActiveModel, QueryFilter,
    sea_query::{Expr, ExprTrait, OnConflict},
};
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};

/// Maximum number of partial uploads of a final upload: the maximum number of parts of an S3 object.
pub const MAX_PARTIALS: usize = 10_000;

/// Partial uploads per query.
const PAGE: usize = 1000;

/// Creates a final upload from partial ones, in order. If all are complete, its file is staged at once, otherwise with
/// the last byte of the last of them. The same list again returns the same upload.
///
/// # Errors
/// [`UploadError::CannotJoin`] for a list that is empty, too long, contains an upload twice, or one that is unknown,
/// another owner's, not partial, cancelled or part of another final upload; [`UploadError::TooLarge`],
/// [`UploadError::NotAllowed`], [`UploadError::Batch`], [`UploadError::Link`].
pub async fn concatenate(
    app: &App,
    scope: &OwnerScope,
    partials: Vec<UploadId>,
    new: NewUpload,
) -> Result<Model, UploadError> {
    check_list(&partials)?;
    let id = final_id(new.owner.as_deref(), &partials);
    if let Some(known) = Entity::find_by_id(id).one(app.db.read()).await? {
        return Ok(known);
    }
    require_allowed(app, &new)?;
    let found = load(app.db.read(), &partials).await?;
    let total = check(scope, &partials, &found)?;
    let limit = app.config.uploads.max_file_size.0;
    if total.known > limit {
        return Err(UploadError::TooLarge { limit });
    }
    let row = plan(app, id, &partials, total.whole(), &new);
    let file = file_row(&row, &new);
    let (now, quota, link) = (row.created_at, app.config.uploads.owner_quota, new.link);
    let texts: i64 = found.iter().map(quota::staged_text_size).sum();
    let staged = app
        .db
        .write(move |transaction| {
            Box::pin(async move {
                if !insert_once(transaction, &row).await? {
                    return Ok(None);
                }
                join_batch(transaction, &file).await?;
                // The bytes of the partial uploads are counted already; from now on they count for the file.
                let addition = QuotaAddition {
                    owner: file.owner.as_deref(),
                    id: file.id.0,
                    bytes: quota::metadata_size(&file.metadata).saturating_sub(texts),
                    quota,
                    reserved: None,
                    now,
                };
                quota::add(transaction, addition).await?;
                if let Some(link) = link {
                    upload_links::claim(transaction, link, file.id, false).await?;
                }
                insert_files(transaction, [&file]).await?;
                take_partials(transaction, &partials, row.file_id, now).await?;
                complete_if_whole(transaction, id, now).await
            })
        })
        .await?;
    if let Some(staged) = staged {
        complete::push(app, staged).await;
    }
    let made = Entity::find_by_id(id).one(app.db.read()).await?;
    made.ok_or(UploadError::NotFound)
}

fn check_list(partials: &[UploadId]) -> Result<(), UploadError> {
    let refuse = |why: String| Err(UploadError::CannotJoin(why));
    if partials.is_empty() {
        return refuse("a final upload names its partial uploads".to_owned());
    }
    if partials.len() > MAX_PARTIALS {
        return refuse(format!(
            "a final upload has at most {MAX_PARTIALS} partial uploads"
        ));
    }
    let distinct: HashSet<_> = partials.iter().collect();
    if distinct.len() < partials.len() {
        return refuse("a partial upload can be joined once".to_owned());
    }
    Ok(())
}

/// A UUIDv7 (RFC 9562) with the timestamp of the newest partial upload, and a digest of all ids instead of random bits:
/// the primary key prevents a second final upload of the same parts.
fn final_id(owner: Option<&str>, partials: &[UploadId]) -> UploadId {
    let mut hasher = Sha256::new();
    hasher.update(b"landfall final upload\0");
    hasher.update(owner.unwrap_or_default());
    for partial in partials {
        hasher.update(partial.0.as_bytes());
    }
    let digest = hasher.finalize();
    let mut random = [0; 10];
    random.copy_from_slice(&digest[..10]);
    let youngest = partials
        .iter()
        .map(|partial| partial.0.as_u128() >> 80)
        .max();
    let milliseconds = u64::try_from(youngest.unwrap_or(0)).unwrap_or(0);
    UploadId(uuid::Builder::from_unix_timestamp_millis(milliseconds, &random).into_uuid())
}

async fn load(db: &impl ConnectionTrait, partials: &[UploadId]) -> Result<Vec<Model>, DbErr> {
    let mut found = Vec::with_capacity(partials.len());
    for page in partials.chunks(PAGE) {
        let rows = Entity::find()
            .filter(Column::Id.is_in(page.iter().copied()))
            .all(db)
            .await?;
        found.extend(rows);
    }
    Ok(found)
}

/// Total length of the partial uploads, as far as it is known, in bytes.
#[derive(Clone, Copy, Debug, Default)]
struct TotalLength {
    known: u64,
    /// Whether the length of some is deferred.
    deferred: bool,
}

impl TotalLength {
    fn add(&mut self, partial: &Model) {
        match partial.total_size_bytes {
            Some(size) => self.known = self.known.saturating_add(size.unsigned_abs()),
            None => self.deferred = true,
        }
    }

    fn whole(self) -> Option<u64> {
        Some(self.known).filter(|_| !self.deferred)
    }
}

fn check(
    scope: &OwnerScope,
    partials: &[UploadId],
    found: &[Model],
) -> Result<TotalLength, UploadError> {
    let rows: HashMap<UploadId, &Model> = found.iter().map(|row| (row.id, row)).collect();
    let mut total = TotalLength::default();
    for id in partials {
        let refuse = |why: &str| UploadError::CannotJoin(format!("the partial upload {id} {why}"));
        let row = rows
            .get(id)
            .filter(|row| scope.covers(row.owner.as_deref()))
            .filter(|row| row.kind == UploadKind::Partial)
            .ok_or_else(|| refuse("is not there"))?;
        if !accepts_bytes(row.status) && row.status != UploadStatus::Complete {
            return Err(refuse("is closed"));
        }
        total.add(row);
    }
    Ok(total)
}

fn plan(
    app: &App,
    id: UploadId,
    partials: &[UploadId],
    total: Option<u64>,
    new: &NewUpload,
) -> Model {
    let now = app.clock.now();
    let order: Vec<String> = partials.iter().map(UploadId::to_string).collect();
    Model {
        id,
        file_id: FileId(id.0),
        owner: new.owner.clone(),
        kind: UploadKind::Final,
        status: UploadStatus::Init,
        chunk_size_bytes: None,
        total_size_bytes: total.map(signed),
        total_parts: None,
        completed_parts: 0,
        bytes_received: 0,
        tus_metadata: new.tus_metadata.clone(),
        tus_concat: new.tus_concat.clone(),
        staging_state: Some(order.into()),
        segment_start: None,
        segment_fence: None,
        hash_state: None,
        fence: 0,
        lease_owner: None,
        lease_expires_at: None,
        created_at: now,
        updated_at: now,
        expires_at: app.clock.after(app.config.uploads.session_ttl),
    }
}

/// Returns false when another request has created the same upload in the meantime.
async fn insert_once(transaction: &impl ConnectionTrait, row: &Model) -> Result<bool, DbErr> {
    let written = Entity::insert(row.clone().into_active_model())
        .on_conflict(OnConflict::column(Column::Id).do_nothing().to_owned())
        .exec_without_returning(transaction)
        .await?;
    Ok(written == 1)
}

/// Assigns the partial uploads to their file, each to only one.
async fn take_partials(
    transaction: &impl ConnectionTrait,
    partials: &[UploadId],
    file: FileId,
    now: Timestamp,
) -> Result<(), UploadError> {
    let mut taken = 0;
    for page in partials.chunks(PAGE) {
        let free = Expr::col(Column::FileId).equals(Column::Id);
        let changed = Entity::update_many()
            .col_expr(Column::FileId, Expr::value(file))
            .col_expr(Column::UpdatedAt, Expr::value(now))
            .filter(Column::Id.is_in(page.iter().copied()))
            .filter(Column::Kind.eq(UploadKind::Partial))
            .filter(Column::Status.is_in([
                UploadStatus::Init,
                UploadStatus::InProgress,
                UploadStatus::Complete,
            ]))
            .filter(free)
            .exec(transaction)
            .await?;
        taken += changed.rows_affected;
    }
    if taken == partials.len() as u64 {
        Ok(())
    } else {
        Err(UploadError::CannotJoin(
            "one of the partial uploads is part of another final upload".to_owned(),
        ))
    }
}

/// Called when the length of a partial upload becomes known. Its final upload, if any, must not exceed the maximum file
/// size.
pub(super) async fn length_known(
    transaction: &impl ConnectionTrait,
    partial: &Model,
    limit: u64,
) -> Result<(), UploadError> {
    if partial.kind != UploadKind::Partial || partial.file_id.0 == partial.id.0 {
        return Ok(());
    }
    let id = UploadId(partial.file_id.0);
    let Some(upload) = Entity::find_by_id(id).one(transaction).await? else {
        return Ok(());
    };
    let mut total = TotalLength::default();
    for row in load(transaction, &order_of(&upload)?).await? {
        total.add(&row);
    }
    if total.known > limit {
        return Err(UploadError::TooLarge { limit });
    }
    open(id)
        .col_expr(
            Column::TotalSizeBytes,
            Expr::value(total.whole().map(signed)),
        )
        .exec(transaction)
        .await?;
    Ok(())
}

/// Called when a partial upload is complete. Its final upload, if any, is complete if this was the last.
pub(super) async fn partial_received(
    transaction: &impl ConnectionTrait,
    partial: &Model,
    now: Timestamp,
) -> Result<Option<StagedFile>, UploadError> {
    if partial.file_id.0 == partial.id.0 {
        return Ok(None);
    }
    complete_if_whole(transaction, UploadId(partial.file_id.0), now).await
}

/// Stages the file of a final upload when all its partial uploads are complete.
///
/// The first statement locks the row of the final upload, so that of two partial uploads that end at once, the second
/// sees the first.
async fn complete_if_whole(
    transaction: &impl ConnectionTrait,
    id: UploadId,
    now: Timestamp,
) -> Result<Option<StagedFile>, UploadError> {
    let rows = open(id)
        .col_expr(Column::UpdatedAt, Expr::value(now))
        .exec_with_returning(transaction)
        .await?;
    let Some(upload) = rows.into_iter().next() else {
        return Ok(None);
    };
    let order = order_of(&upload)?;
    let complete: HashMap<UploadId, Model> = load(transaction, &order)
        .await?
        .into_iter()
        .filter(|partial| partial.status == UploadStatus::Complete)
        .map(|partial| (partial.id, partial))
        .collect();
    if complete.len() < order.len() {
        return Ok(None);
    }
    let mut items: Vec<StagedItem> = order
        .iter()
        .filter_map(|id| complete.get(id))
        .map(|partial| only_segment(partial).map_or_else(|| all_segments(partial), Into::into))
        .collect();
    let total: u64 = items.iter().map(StagedItem::size).sum();
    // Empty segments add nothing, but a file needs at least one.
    if total > 0 {
        items.retain(|item| item.size() > 0);
    } else {
        items.truncate(1);
    }
    open(id)
        .col_expr(Column::Status, Expr::value(UploadStatus::Complete))
        .col_expr(Column::TotalSizeBytes, Expr::value(signed(total)))
        .col_expr(Column::BytesReceived, Expr::value(signed(total)))
        .exec(transaction)
        .await?;
    let whole = ReceivedFile {
        file: upload.file_id,
        items,
        sha256: None,
    };
    stage_file(transaction, whole, now).await
}

fn order_of(upload: &Model) -> Result<Vec<UploadId>, DbErr> {
    let refused = || DbErr::Custom(format!("upload {} does not say what it joins", upload.id));
    let state = upload.staging_state.clone().ok_or_else(refused)?;
    serde_json::from_value(state).map_err(|_| refused())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn final_id_depends_on_owner_and_order_and_on_nothing_else() {
        let (one, two) = (UploadId::generate(), UploadId::generate());
        let id = final_id(None, &[one, two]);
        assert_eq!(id, final_id(None, &[one, two]));
        assert_ne!(id, final_id(None, &[two, one]));
        assert_ne!(id, final_id(Some("somebody"), &[one, two]));
        assert_eq!(id.0.get_version_num(), 7);
        assert_eq!(id.0.as_u128() >> 80, two.0.as_u128() >> 80);
    }
}
