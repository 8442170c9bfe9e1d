//! Finding a file, and counting files.

use crate::db::one_row;
use entity::{
    FileId, Timestamp,
    file::{Column, Entity, FileStatus, Model},
};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
};
use std::collections::HashMap;

/// Whose rows a caller may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnerScope {
    /// All rows: for administrators, or an installation without tokens.
    All,
    /// The rows of one owner.
    Owner(String),
}

impl OwnerScope {
    /// Whether rows of this owner are visible.
    #[must_use]
    pub fn covers(&self, owner: Option<&str>) -> bool {
        match self {
            Self::All => true,
            Self::Owner(own) => owner == Some(own),
        }
    }
}

/// Returns a file, if the scope covers it.
///
/// # Errors
/// Database errors.
pub async fn get(
    db: &impl ConnectionTrait,
    scope: &OwnerScope,
    id: FileId,
) -> Result<Option<Model>, DbErr> {
    let found = one_row(Entity::find_by_id(id), db).await?;
    Ok(found.filter(|file| scope.covers(file.owner.as_deref())))
}

/// Counts files by status.
///
/// Counting transitional statuses is cheap: such files are few, and an index starts with the status. `among` selects
/// the statuses, so that a page need not count every stored file.
///
/// # Errors
/// Database errors.
pub async fn counts_by_status(
    db: &impl ConnectionTrait,
    among: &[FileStatus],
) -> Result<HashMap<FileStatus, u64>, DbErr> {
    let rows: Vec<(FileStatus, i64)> = Entity::find()
        .select_only()
        .column(Column::Status)
        .column_as(Column::Id.count(), "count")
        .filter(Column::Status.is_in(among.iter().copied()))
        .group_by(Column::Status)
        .into_tuple()
        .all(db)
        .await?;
    Ok(rows
        .into_iter()
        .map(|(status, count)| (status, u64::try_from(count).unwrap_or(0)))
        .collect())
}

/// Returns since when the file that has waited longest is staged.
///
/// # Errors
/// Database errors.
pub async fn oldest_staged(db: &impl ConnectionTrait) -> Result<Option<Timestamp>, DbErr> {
    Entity::find()
        .select_only()
        .column(Column::StagedAt)
        .filter(Column::Status.eq(FileStatus::Staged))
        .order_by_asc(Column::Id)
        .into_tuple::<Option<Timestamp>>()
        .one(db)
        .await
        .map(Option::flatten)
}
