//! Lists that cost the same however many rows there are: one index is walked in its order, and what else is asked
//! for is looked at on the way, at a bounded number of rows.
//!
//! Owns the shape of such a query. Which condition leads the walk is the list's to say.

use crate::pagination::{Page, PageRequest};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DbErr, EntityTrait, FromQueryResult, QueryFilter,
    QueryOrder, QuerySelect, QueryTrait, Select,
    sea_query::{Asterisk, Order, Query, SelectStatement},
};
use uuid::Uuid;

/// Rows looked at by one query of a walk with more than one condition.
pub(crate) const WINDOW: u64 = 500;

/// Such queries for one page; a page that is not full by then leads on from where it stopped looking.
const WINDOWS: usize = 4;

/// A list, newest first, of an entity whose primary key is a UUIDv7.
pub(crate) struct KeysetScan<E: EntityTrait> {
    pub(crate) id: E::Column,
    /// Equalities an index begins with that goes on with the id; none: the primary key is walked.
    pub(crate) lead: Condition,
    /// The rest, looked at row by row.
    pub(crate) rest: Condition,
    /// Only what is at least this id.
    pub(crate) from: Option<Uuid>,
    /// Only what is below this id.
    pub(crate) until: Option<Uuid>,
}

impl<E> KeysetScan<E>
where
    E: EntityTrait,
    E::Model: FromQueryResult,
{
    /// One page. Only with a rest it may be short, or even empty, and still have a next one.
    pub(crate) async fn page(
        &self,
        db: &impl ConnectionTrait,
        request: PageRequest,
        key: impl Fn(&E::Model) -> Uuid,
    ) -> Result<Page<E::Model>, DbErr> {
        let most = request.limit + 1;
        if self.rest.is_empty() {
            let rows = self.walk(request.before).limit(most).all(db).await?;
            return Ok(Page::cut(rows, request, key));
        }
        let (mut found, mut before) = (Vec::new(), request.before);
        for _ in 0..WINDOWS {
            let wanted = most - found.len() as u64;
            found.extend(self.look(db, before, wanted).await?);
            if found.len() as u64 == most {
                return Ok(Page::cut(found, request, key));
            }
            let end = self.walk(before).select_only().column(self.id);
            let end = end.offset(WINDOW - 1).limit(1).into_tuple::<Uuid>();
            before = end.one(db).await?;
            if before.is_none() {
                return Ok(Page::cut(found, request, key));
            }
        }
        Ok(Page::up_to(found, before))
    }

    fn walk(&self, before: Option<Uuid>) -> Select<E> {
        let mut walk = E::find().filter(self.lead.clone()).order_by_desc(self.id);
        if let Some(end) = [before, self.until].into_iter().flatten().min() {
            walk = walk.filter(self.id.lt(end));
        }
        if let Some(from) = self.from {
            walk = walk.filter(self.id.gte(from));
        }
        walk
    }

    async fn look(
        &self,
        db: &impl ConnectionTrait,
        before: Option<Uuid>,
        wanted: u64,
    ) -> Result<Vec<E::Model>, DbErr> {
        let window = self.walk(before).limit(WINDOW).into_query();
        let mut looking = within::<E>(window, &self.rest);
        looking
            .order_by((E::default(), self.id), Order::Desc)
            .limit(wanted);
        all::<E>(db, &looking).await
    }
}

/// Those rows of a limited query that meet a condition. The limit keeps both databases from working on more.
pub(crate) fn within<E: EntityTrait>(window: SelectStatement, rest: &Condition) -> SelectStatement {
    Query::select()
        .column(Asterisk)
        .from_subquery(window, E::default().table_name())
        .cond_where(rest.clone())
        .to_owned()
}

/// The rows of a query of all columns.
pub(crate) async fn all<E>(
    db: &impl ConnectionTrait,
    query: &SelectStatement,
) -> Result<Vec<E::Model>, DbErr>
where
    E: EntityTrait,
    E::Model: FromQueryResult,
{
    let rows = db.query_all(query).await?;
    rows.iter()
        .map(|row| E::Model::from_query_result(row, ""))
        .collect()
}
