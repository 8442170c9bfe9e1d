//! Finding files: by id, by page, and counted.

use crate::page::{Page, PageRequest};
use entity::{
    BatchId, FileId, Timestamp,
    file::{Column, Entity, FileStatus, Model},
};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbBackend, DbErr, EntityTrait, QueryFilter, QueryOrder,
    QuerySelect,
    sea_query::{Expr, ExprTrait},
};
use std::collections::HashMap;
use uuid::Uuid;

/// Whose rows a caller may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everybody's: an administrator, or an installation without tokens.
    All,
    /// One owner's.
    Owner(String),
}

impl Scope {
    /// True when rows of this owner may be seen.
    #[must_use]
    pub fn covers(&self, owner: Option<&str>) -> bool {
        match self {
            Self::All => true,
            Self::Owner(own) => owner == Some(own),
        }
    }
}

/// Which files a list is of.
#[derive(Clone, Debug, Default)]
pub struct FileFilter {
    pub status: Option<FileStatus>,
    pub batch_id: Option<BatchId>,
    pub sha256: Option<String>,
    pub owner: Option<String>,
    /// An id, a SHA-256, or the beginning of a name in any case.
    pub q: Option<String>,
}

/// One file, if the scope covers it.
///
/// # Errors
/// The database's.
pub async fn get(
    db: &impl ConnectionTrait,
    scope: &Scope,
    id: FileId,
) -> Result<Option<Model>, DbErr> {
    let found = Entity::find_by_id(id).one(db).await?;
    Ok(found.filter(|file| scope.covers(file.owner.as_deref())))
}

/// A page of files, newest first.
///
/// # Errors
/// The database's.
pub async fn list(
    db: &impl ConnectionTrait,
    scope: &Scope,
    filter: &FileFilter,
    request: PageRequest,
) -> Result<Page<Model>, DbErr> {
    let mut query = Entity::find()
        .order_by_desc(Column::Id)
        .limit(request.limit + 1);
    if let Scope::Owner(owner) = scope {
        query = query.filter(Column::Owner.eq(owner));
    }
    if let Some(before) = request.before {
        query = query.filter(Column::Id.lt(FileId(before)));
    }
    if let Some(status) = filter.status {
        query = query.filter(Column::Status.eq(status));
    }
    if let Some(batch) = filter.batch_id {
        query = query.filter(Column::BatchId.eq(batch));
    }
    if let Some(sha256) = &filter.sha256 {
        query = query.filter(Column::Sha256.eq(sha256.to_ascii_lowercase()));
    }
    if let Some(owner) = &filter.owner {
        query = query.filter(Column::Owner.eq(owner));
    }
    if let Some(q) = filter.q.as_deref().map(str::trim).filter(|q| !q.is_empty()) {
        query = query.filter(matches(q, db.get_database_backend()));
    }
    let rows = query.all(db).await?;
    Ok(Page::cut(rows, request, |file| file.id.0))
}

/// A search term is one thing: an id, a digest, or the beginning of a name. Each is a range of one index.
fn matches(q: &str, backend: DbBackend) -> Expr {
    if let Ok(id) = q.parse::<Uuid>() {
        return Column::Id
            .eq(FileId(id))
            .or(Column::BatchId.eq(BatchId(id)));
    }
    if q.len() == 64 && q.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Column::Sha256.eq(q.to_ascii_lowercase());
    }
    let beginning = q.to_lowercase();
    // Every text that begins so sorts between it and it followed by the last character there is.
    let end = format!("{beginning}{}", char::MAX);
    let name = match backend {
        DbBackend::Postgres => Expr::cust("\"files\".\"search_name\" COLLATE \"C\""),
        _ => Expr::col((Entity, Column::SearchName)),
    };
    name.clone().gte(beginning).and(name.lt(end))
}

/// How many files are in each status.
///
/// The counts of statuses that files only pass through are cheap: they are few, and an index begins with the
/// status. `among` chooses which, so that a page need not count every stored file there ever was.
///
/// # Errors
/// The database's.
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

/// Since when the longest waiting file is staged.
///
/// # Errors
/// The database's.
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
