//! Lists of files with all their filters; each page has a bounded cost.
//!
//! Lists are sorted newest first. Only when a name prefix matches more than [`NEWEST_FIRST_LIMIT`] files is the list
//! sorted by name instead, because sorting all matches by age would get more expensive with every file.

use super::OwnerScope;
use crate::{
    filtered_scan::{KeysetScan, WINDOW, all, within},
    pagination::{Page, PageRequest, first_id_at},
};
use entity::{
    BatchId, FileId, Timestamp,
    file::{Column, Entity, FileStatus, Model},
};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DbBackend, DbErr, EntityTrait, QueryFilter,
    QueryOrder, QuerySelect, QueryTrait,
    sea_query::{Expr, ExprTrait, Order},
};
use uuid::Uuid;

/// Up to this many files matching a name prefix are still listed newest first.
pub const NEWEST_FIRST_LIMIT: u64 = 2_000;

/// The filters of a file list.
#[derive(Clone, Debug, Default)]
pub struct FileFilter {
    pub status: Option<FileStatus>,
    /// The error code of failed files.
    pub error_code: Option<String>,
    pub batch_id: Option<BatchId>,
    pub sha256: Option<String>,
    pub owner: Option<String>,
    /// The id of a file or batch, a SHA-256, or a case-insensitive name prefix.
    pub q: Option<String>,
    /// Only files created at or after this time …
    pub since: Option<Timestamp>,
    /// … and before this time.
    pub until: Option<Timestamp>,
}

/// Returns a page of files. With several filters a page may be short or even empty and still have a next page, because
/// only a bounded number of the rows that match the first filter is examined.
///
/// # Errors
/// Database errors.
pub async fn list(
    db: &impl ConnectionTrait,
    scope: &OwnerScope,
    filter: &FileFilter,
    request: PageRequest,
) -> Result<Page<Model>, DbErr> {
    let mut file_query = FileQuery::from_filter(scope, filter);
    match filter.q.as_deref().map(str::trim).unwrap_or_default() {
        "" => {}
        q if q.parse::<Uuid>().is_ok() => {
            let id = q.parse::<Uuid>().unwrap_or_default();
            match Entity::find_by_id(FileId(id)).one(db).await? {
                Some(_) => file_query.one = Some(FileId(id)),
                None => file_query.equal.insert(0, Column::BatchId.eq(BatchId(id))),
            }
        }
        q if is_digest(q) => file_query
            .equal
            .insert(0, Column::Sha256.eq(q.to_ascii_lowercase())),
        q => {
            return NamePrefix::new(db.get_database_backend(), q)
                .page(db, file_query, request)
                .await;
        }
    }
    file_query.walk().page(db, request, |file| file.id.0).await
}

fn is_digest(q: &str) -> bool {
    q.len() == 64 && q.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The filters other than the name.
struct FileQuery {
    one: Option<FileId>,
    /// The most selective condition first.
    equal: Vec<Expr>,
    from: Option<Uuid>,
    until: Option<Uuid>,
}

impl FileQuery {
    fn from_filter(scope: &OwnerScope, filter: &FileFilter) -> Self {
        let mut equal = Vec::new();
        if let Some(sha256) = &filter.sha256 {
            equal.push(Column::Sha256.eq(sha256.to_ascii_lowercase()));
        }
        if let Some(batch) = filter.batch_id {
            equal.push(Column::BatchId.eq(batch));
        }
        // The other statuses are transitional or rare.
        let many = matches!(
            filter.status,
            Some(FileStatus::Stored | FileStatus::Deleted)
        );
        let status = filter.status.map(|status| Column::Status.eq(status));
        if !many {
            equal.extend(status.clone());
        }
        if let OwnerScope::Owner(owner) = scope {
            equal.push(Column::Owner.eq(owner));
        }
        if let Some(owner) = &filter.owner {
            equal.push(Column::Owner.eq(owner));
        }
        if many {
            equal.extend(status);
        }
        if let Some(code) = &filter.error_code {
            equal.push(Column::ErrorCode.eq(code));
        }
        Self {
            one: None,
            equal,
            from: filter.since.map(first_id_at),
            until: filter.until.map(first_id_at),
        }
    }

    fn walk(self) -> KeysetScan<Entity> {
        let mut equal = self.equal.into_iter();
        let lead = match self.one {
            Some(id) => Some(Column::Id.eq(id)),
            None => equal.next(),
        };
        KeysetScan {
            id: Column::Id,
            lead: Condition::all().add_option(lead),
            rest: equal.fold(Condition::all(), Condition::add),
            from: self.from,
            until: self.until,
        }
    }

    fn condition(self) -> Condition {
        let all = self
            .equal
            .into_iter()
            .fold(Condition::all(), Condition::add);
        all.add_option(self.from.map(|from| Column::Id.gte(from)))
            .add_option(self.until.map(|until| Column::Id.lt(until)))
    }
}

/// A name prefix: a range of the index on names.
struct NamePrefix {
    /// Compared byte by byte on both databases, like the index.
    column: Expr,
    beginning: String,
    end: String,
}

impl NamePrefix {
    fn new(backend: DbBackend, q: &str) -> Self {
        let beginning = q.to_lowercase();
        Self {
            column: match backend {
                DbBackend::Postgres => Expr::cust("\"files\".\"search_name\" COLLATE \"C\""),
                _ => Expr::col((Entity, Column::SearchName)),
            },
            // Every string with this prefix sorts between the prefix and the prefix followed by the last character.
            end: format!("{beginning}{}", char::MAX),
            beginning,
        }
    }

    async fn page(
        &self,
        db: &impl ConnectionTrait,
        file_query: FileQuery,
        request: PageRequest,
    ) -> Result<Page<Model>, DbErr> {
        if self.are_few(db).await? {
            self.newest_first(db, file_query, request).await
        } else {
            self.by_name(db, file_query, request).await
        }
    }

    fn range(&self) -> Condition {
        Condition::all()
            .add(self.column.clone().gte(self.beginning.as_str()))
            .add(self.column.clone().lt(self.end.as_str()))
    }

    async fn are_few(&self, db: &impl ConnectionTrait) -> Result<bool, DbErr> {
        let one_too_many = Entity::find()
            .select_only()
            .column(Column::Id)
            .filter(self.range())
            .order_by_asc(self.column.clone())
            .offset(NEWEST_FIRST_LIMIT)
            .limit(1)
            .into_tuple::<FileId>()
            .one(db);
        Ok(one_too_many.await?.is_none())
    }

    async fn newest_first(
        &self,
        db: &impl ConnectionTrait,
        file_query: FileQuery,
        request: PageRequest,
    ) -> Result<Page<Model>, DbErr> {
        let named = self.in_order(None, NEWEST_FIRST_LIMIT).into_query();
        let older = request.before.map(|before| Column::Id.lt(before));
        let mut query = within::<Entity>(named, &file_query.condition().add_option(older));
        query
            .order_by((Entity, Column::Id), Order::Desc)
            .limit(request.limit + 1);
        Ok(Page::cut(
            all::<Entity>(db, &query).await?,
            request,
            |file| file.id.0,
        ))
    }

    /// Each page continues after the name of the last file of the page before.
    async fn by_name(
        &self,
        db: &impl ConnectionTrait,
        file_query: FileQuery,
        request: PageRequest,
    ) -> Result<Page<Model>, DbErr> {
        let last = match request.before {
            Some(id) => Entity::find_by_id(FileId(id)).one(db).await?,
            None => None,
        };
        let rest = file_query.condition();
        let most = request.limit + 1;
        if rest.is_empty() {
            let rows = self.in_order(last.as_ref(), most).all(db).await?;
            return Ok(Page::cut(rows, request, |file| file.id.0));
        }
        let window = self.in_order(last.as_ref(), WINDOW);
        let mut query = within::<Entity>(window.clone().into_query(), &rest);
        query.limit(most);
        let found = all::<Entity>(db, &query).await?;
        if found.len() as u64 == most {
            return Ok(Page::cut(found, request, |file| file.id.0));
        }
        let end = window
            .select_only()
            .column(Column::Id)
            .offset(WINDOW - 1)
            .limit(1);
        Ok(Page::up_to(found, end.into_tuple().one(db).await?))
    }

    fn in_order(&self, after: Option<&Model>, limit: u64) -> sea_orm::Select<Entity> {
        let mut names = Entity::find()
            .filter(self.range())
            .order_by_asc(self.column.clone())
            .order_by_asc(Column::Id)
            .limit(limit);
        if let Some(last) = after {
            let place = Expr::tuple([self.column.clone(), Expr::col((Entity, Column::Id))]);
            let there = Expr::tuple([Expr::val(last.search_name.as_str()), Expr::val(last.id)]);
            names = names.filter(place.gt(there));
        }
        names
    }
}
