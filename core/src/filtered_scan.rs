//! Keyset pagination with filters at a bounded cost, however many rows there are: one index is scanned in order, and
//! the remaining conditions are checked on a bounded number of rows.
//!
//! Owns the shape of these queries. Each list decides which condition leads the scan.

use crate::pagination::{Page, PageRequest};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DbErr, EntityTrait, FromQueryResult, QueryFilter,
    QueryOrder, QuerySelect, QueryTrait, Select,
    sea_query::{Asterisk, Order, Query, SelectStatement},
};
use uuid::Uuid;

/// Rows examined by one query of a scan with further conditions.
pub(crate) const WINDOW: u64 = 500;

/// Maximum number of such queries per page. A page that is not full by then continues from there.
const WINDOWS: usize = 4;

/// A list, newest first, of an entity whose primary key is a UUIDv7.
pub(crate) struct KeysetScan<E: EntityTrait> {
    pub(crate) id: E::Column,
    /// Equality conditions on the leading columns of an index that ends with the id; empty to scan the primary key.
    pub(crate) lead: Condition,
    /// The remaining conditions, checked row by row.
    pub(crate) rest: Condition,
    /// Inclusive lower bound of the id.
    pub(crate) from: Option<Uuid>,
    /// Exclusive upper bound of the id.
    pub(crate) until: Option<Uuid>,
}

impl<E> KeysetScan<E>
where
    E: EntityTrait,
    E::Model: FromQueryResult,
{
    /// Returns a page. With remaining conditions it may be short or even empty and still have a next page.
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

/// Filters the rows of a limited query. The limit keeps both databases from examining more rows.
pub(crate) fn within<E: EntityTrait>(window: SelectStatement, rest: &Condition) -> SelectStatement {
    Query::select()
        .column(Asterisk)
        .from_subquery(window, E::default().table_name())
        .cond_where(rest.clone())
        .to_owned()
}

/// Returns all columns of the query's rows.
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
