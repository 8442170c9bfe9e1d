//! Lists of files, with everything they can be asked for, each page at a bounded cost.
//!
//! Newest first. Only what begins with a name that thousands have (see [`FEW`]) is listed in the order of the names:
//! sorting all of them by age would cost more with every file.

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

/// So many files may begin with a name and still be listed newest first.
pub const FEW: u64 = 2_000;

/// Which files a list is of.
#[derive(Clone, Debug, Default)]
pub struct FileFilter {
    pub status: Option<FileStatus>,
    /// The code a failed file failed with.
    pub error_code: Option<String>,
    pub batch_id: Option<BatchId>,
    pub sha256: Option<String>,
    pub owner: Option<String>,
    /// An id of a file or of a batch, a SHA-256, or the beginning of a name in any case.
    pub q: Option<String>,
    /// Begun at this moment or later …
    pub since: Option<Timestamp>,
    /// … and before this one.
    pub until: Option<Timestamp>,
}

/// A page of files. With several filters it may be short, or even empty, and still have a next one: of the files
/// that one filter leaves a bounded number is looked at.
///
/// # Errors
/// The database's.
pub async fn list(
    db: &impl ConnectionTrait,
    scope: &OwnerScope,
    filter: &FileFilter,
    request: PageRequest,
) -> Result<Page<Model>, DbErr> {
    let mut asked = FileQuery::of(scope, filter);
    match filter.q.as_deref().map(str::trim).unwrap_or_default() {
        "" => {}
        q if q.parse::<Uuid>().is_ok() => {
            let id = q.parse::<Uuid>().unwrap_or_default();
            match Entity::find_by_id(FileId(id)).one(db).await? {
                Some(_) => asked.one = Some(FileId(id)),
                None => asked.equal.insert(0, Column::BatchId.eq(BatchId(id))),
            }
        }
        q if is_digest(q) => asked
            .equal
            .insert(0, Column::Sha256.eq(q.to_ascii_lowercase())),
        q => {
            return NamePrefix::new(db.get_database_backend(), q)
                .page(db, asked, request)
                .await;
        }
    }
    asked.walk().page(db, request, |file| file.id.0).await
}

fn is_digest(q: &str) -> bool {
    q.len() == 64 && q.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What is asked for besides a name.
struct FileQuery {
    one: Option<FileId>,
    /// The one that leaves the fewest files first.
    equal: Vec<Expr>,
    from: Option<Uuid>,
    until: Option<Uuid>,
}

impl FileQuery {
    fn of(scope: &OwnerScope, filter: &FileFilter) -> Self {
        let mut equal = Vec::new();
        if let Some(sha256) = &filter.sha256 {
            equal.push(Column::Sha256.eq(sha256.to_ascii_lowercase()));
        }
        if let Some(batch) = filter.batch_id {
            equal.push(Column::BatchId.eq(batch));
        }
        // The other statuses are passed through, or rare.
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

/// Files whose name begins so: a range of the index on names.
struct NamePrefix {
    /// Compared byte by byte on both databases, as the index is.
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
            // Every text that begins so sorts between it and it followed by the last character there is.
            end: format!("{beginning}{}", char::MAX),
            beginning,
        }
    }

    async fn page(
        &self,
        db: &impl ConnectionTrait,
        asked: FileQuery,
        request: PageRequest,
    ) -> Result<Page<Model>, DbErr> {
        if self.are_few(db).await? {
            self.newest_first(db, asked, request).await
        } else {
            self.by_name(db, asked, request).await
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
            .offset(FEW)
            .limit(1)
            .into_tuple::<FileId>()
            .one(db);
        Ok(one_too_many.await?.is_none())
    }

    async fn newest_first(
        &self,
        db: &impl ConnectionTrait,
        asked: FileQuery,
        request: PageRequest,
    ) -> Result<Page<Model>, DbErr> {
        let named = self.in_order(None, FEW).into_query();
        let older = request.before.map(|before| Column::Id.lt(before));
        let mut query = within::<Entity>(named, &asked.condition().add_option(older));
        query
            .order_by((Entity, Column::Id), Order::Desc)
            .limit(request.limit + 1);
        Ok(Page::cut(
            all::<Entity>(db, &query).await?,
            request,
            |file| file.id.0,
        ))
    }

    /// A page goes on after the name of the file that the one before ended with.
    async fn by_name(
        &self,
        db: &impl ConnectionTrait,
        asked: FileQuery,
        request: PageRequest,
    ) -> Result<Page<Model>, DbErr> {
        let last = match request.before {
            Some(id) => Entity::find_by_id(FileId(id)).one(db).await?,
            None => None,
        };
        let rest = asked.condition();
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
