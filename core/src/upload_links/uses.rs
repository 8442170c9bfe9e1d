//! Counting the uses of a link, and which files and uploads belong to it.

use entity::{
    FileId, UploadId, UploadLinkId, file,
    file::FileStatus,
    upload_link::{Column, Entity, Model},
    upload_link_file,
};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, IntoActiveModel, JoinType, QueryFilter,
    QueryOrder, QuerySelect,
    sea_query::{Expr, ExprTrait},
};
use std::collections::HashMap;

/// Maximum number of partial tus uploads per file of a link: clients use a few in parallel, and start some again.
const MAX_PARTIALS_PER_FILE: i32 = 32;

/// Ids per query.
const PAGE: usize = 500;

/// A link by which a file is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkUse(pub UploadLinkId);

/// Why a link cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UseLinkError {
    #[error("the upload link has expired")]
    Expired,
    #[error("the upload link was revoked")]
    Revoked,
    #[error("the upload link accepts no further file")]
    Used,
    #[error("the upload link has too many partial uploads; concatenate or delete some")]
    TooManyPartials,
    #[error("there is no such upload link")]
    NotFound,
    #[error("the use of the upload link could not be counted")]
    Database(#[from] DbErr),
}

/// Counts one more file, or one more partial upload, with the transaction that inserts its row. Whether the link has
/// expired was checked when the request arrived, so a long upload that began in time is accepted.
///
/// The update locks the row of the link, after batches and quotas and before files, so concurrent claims are counted
/// one after the other.
///
/// # Errors
/// [`UseLinkError`]; the transaction must then be rolled back.
pub(crate) async fn claim(
    transaction: &impl ConnectionTrait,
    LinkUse(link): LinkUse,
    id: FileId,
    is_partial: bool,
) -> Result<(), UseLinkError> {
    let update = Entity::update_many()
        .filter(Column::Id.eq(link))
        .filter(Column::RevokedAt.is_null())
        .filter(Expr::col(Column::UsedFiles).lt(Expr::col(Column::MaxFiles)));
    let update = match is_partial {
        true => update
            .col_expr(
                Column::PartialUploads,
                Expr::col(Column::PartialUploads).add(1),
            )
            .filter(
                Expr::col(Column::PartialUploads)
                    .lt(Expr::col(Column::MaxFiles).mul(MAX_PARTIALS_PER_FILE)),
            ),
        false => update.col_expr(Column::UsedFiles, Expr::col(Column::UsedFiles).add(1)),
    };
    if update.exec(transaction).await?.rows_affected == 0 {
        let found = Entity::find_by_id(link).one(transaction).await?;
        return Err(reason(found));
    }
    let row = upload_link_file::Model {
        file_id: id,
        link_id: link,
        is_partial,
    };
    upload_link_file::Entity::insert(row.into_active_model())
        .exec_without_returning(transaction)
        .await?;
    Ok(())
}

fn reason(found: Option<Model>) -> UseLinkError {
    match found {
        None => UseLinkError::NotFound,
        Some(link) if link.revoked_at.is_some() => UseLinkError::Revoked,
        Some(link) if link.used_files >= link.max_files => UseLinkError::Used,
        Some(_) => UseLinkError::TooManyPartials,
    }
}

/// Gives the uses of cancelled uploads back, with the transaction that cancels them. Uploads without a link are
/// skipped.
///
/// # Errors
/// Database errors.
pub(crate) async fn release(
    transaction: &impl ConnectionTrait,
    uploads: &[UploadId],
) -> Result<(), DbErr> {
    // By link, and (files, partial uploads).
    let mut counts: HashMap<UploadLinkId, (i32, i32)> = HashMap::new();
    for page in uploads.chunks(PAGE) {
        let ids = page.iter().map(|upload| FileId(upload.0));
        let removed = upload_link_file::Entity::delete_many()
            .filter(upload_link_file::Column::FileId.is_in(ids))
            .exec_with_returning(transaction)
            .await?;
        for row in removed {
            let count = counts.entry(row.link_id).or_default();
            match row.is_partial {
                true => count.1 += 1,
                false => count.0 += 1,
            }
        }
    }
    for (link, (files, partials)) in counts {
        Entity::update_many()
            .col_expr(Column::UsedFiles, Expr::col(Column::UsedFiles).sub(files))
            .col_expr(
                Column::PartialUploads,
                Expr::col(Column::PartialUploads).sub(partials),
            )
            .filter(Column::Id.eq(link))
            .exec(transaction)
            .await?;
    }
    Ok(())
}

/// Whether all these uploads were created by the link.
///
/// # Errors
/// Database errors.
pub async fn covers(
    db: &impl ConnectionTrait,
    link: UploadLinkId,
    uploads: &[UploadId],
) -> Result<bool, DbErr> {
    for page in uploads.chunks(PAGE) {
        let ids: std::collections::HashSet<FileId> =
            page.iter().map(|upload| FileId(upload.0)).collect();
        let found: Vec<FileId> = upload_link_file::Entity::find()
            .select_only()
            .column(upload_link_file::Column::FileId)
            .filter(upload_link_file::Column::FileId.is_in(ids.iter().copied()))
            .filter(upload_link_file::Column::LinkId.eq(link))
            .into_tuple()
            .all(db)
            .await?;
        if found.len() < ids.len() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Returns the link that created this upload, if one did.
///
/// # Errors
/// Database errors.
pub(crate) async fn link_of(db: &impl ConnectionTrait, id: FileId) -> Result<Option<Model>, DbErr> {
    let Some(used) = upload_link_file::Entity::find_by_id(id).one(db).await? else {
        return Ok(None);
    };
    Entity::find_by_id(used.link_id).one(db).await
}

/// Returns the files of each link with their statuses, oldest first; at most [`super::MAX_LINK_FILES`] per link.
///
/// # Errors
/// Database errors.
pub async fn files_of(
    db: &impl ConnectionTrait,
    links: &[UploadLinkId],
) -> Result<HashMap<UploadLinkId, Vec<(FileId, FileStatus)>>, DbErr> {
    let mut files: HashMap<_, Vec<_>> = HashMap::new();
    if links.is_empty() {
        return Ok(files);
    }
    let relation = upload_link_file::Entity::belongs_to(file::Entity)
        .from(upload_link_file::Column::FileId)
        .to(file::Column::Id);
    let rows: Vec<(UploadLinkId, FileId, FileStatus)> = upload_link_file::Entity::find()
        .select_only()
        .column(upload_link_file::Column::LinkId)
        .column(upload_link_file::Column::FileId)
        .column(file::Column::Status)
        .join(JoinType::InnerJoin, relation.into())
        .filter(upload_link_file::Column::LinkId.is_in(links.iter().copied()))
        .order_by_asc(upload_link_file::Column::LinkId)
        .order_by_asc(upload_link_file::Column::FileId)
        .into_tuple()
        .all(db)
        .await?;
    for (link, id, status) in rows {
        files.entry(link).or_default().push((id, status));
    }
    Ok(files)
}
