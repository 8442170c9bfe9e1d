//! A snapshot of the whole pipeline, from a few queries whose cost is independent of the number of files.
//!
//! Counts stop at a limit; the oldest row of a status is the first of an index. Nothing is locked or written.

use entity::{
    Timestamp, WebhookId,
    file::{self, FileStatus},
    outbox_event::{self, EventStatus},
    webhook_endpoint,
};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
    QueryTrait, Select,
    sea_query::{Expr, ExprTrait, Query},
};

/// Counting stops here.
pub const COUNT_LIMIT: u64 = 10_000;

/// Maximum number of failing endpoints listed.
const MAX_ENDPOINTS_NAMED: u64 = 20;

/// From this many consecutive failures on, an endpoint gets one request at a time (see [`crate::deliver`]).
const FAILING_THRESHOLD: i32 = 5;

/// A count that stops at [`COUNT_LIMIT`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BoundedCount {
    /// At most [`COUNT_LIMIT`].
    pub counted: u64,
    /// Whether the count is exact.
    pub is_whole: bool,
}

/// The number of rows in one status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageCount {
    pub count: BoundedCount,
    /// Since when the oldest of them has been in progress, if there are any.
    pub oldest: Option<Timestamp>,
}

/// An endpoint whose deliveries fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailingEndpoint {
    pub id: WebhookId,
    pub url: String,
    /// Failed attempts since the last 2xx.
    pub failures: u32,
    /// Why Landfall disabled it, if it did.
    pub disabled_reason: Option<String>,
}

/// The current state of the pipeline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PipelineSnapshot {
    pub uploading: StageCount,
    pub staged: StageCount,
    pub finalizing: StageCount,
    pub stored: StageCount,
    pub failed: StageCount,
    pub announced: StageCount,
    /// Events with pending deliveries.
    pub unannounced: StageCount,
    /// Events with a failed delivery.
    pub undeliverable: StageCount,
    /// At most 20.
    pub failing_endpoints: Vec<FailingEndpoint>,
}

impl PipelineSnapshot {
    /// Whether no file was ever received.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let stages = [
            self.uploading,
            self.staged,
            self.finalizing,
            self.stored,
            self.failed,
            self.announced,
            self.unannounced,
        ];
        stages.iter().all(|stage| stage.count.counted == 0)
    }
}

/// Takes a snapshot.
///
/// # Errors
/// Database errors.
pub async fn snapshot(db: &impl ConnectionTrait) -> Result<PipelineSnapshot, DbErr> {
    let (uploading, staged, finalizing, stored, failed) = futures::try_join!(
        files(db, FileStatus::Uploading),
        files(db, FileStatus::Staged),
        files(db, FileStatus::Finalizing),
        files(db, FileStatus::Stored),
        files(db, FileStatus::Failed),
    )?;
    let (announced, unannounced, undeliverable, failing_endpoints) = futures::try_join!(
        events(db, EventStatus::Delivered),
        events(db, EventStatus::Pending),
        events(db, EventStatus::Failed),
        failing(db),
    )?;
    Ok(PipelineSnapshot {
        uploading,
        staged,
        finalizing,
        stored,
        failed,
        announced,
        unannounced,
        undeliverable,
        failing_endpoints,
    })
}

async fn files(db: &impl ConnectionTrait, status: FileStatus) -> Result<StageCount, DbErr> {
    use file::{Column, Entity};
    let of = || Entity::find().filter(Column::Status.eq(status));
    let oldest = of()
        .select_only()
        .column(Column::CreatedAt)
        .order_by_asc(Column::Id)
        .limit(1);
    Ok(StageCount {
        count: count(db, of()).await?,
        oldest: oldest.into_tuple().one(db).await?,
    })
}

async fn events(db: &impl ConnectionTrait, status: EventStatus) -> Result<StageCount, DbErr> {
    use outbox_event::{Column, Entity};
    let of = || Entity::find().filter(Column::Status.eq(status));
    let oldest = of()
        .select_only()
        .column(Column::CreatedAt)
        .order_by_asc(Column::Id)
        .limit(1);
    Ok(StageCount {
        count: count(db, of()).await?,
        oldest: oldest.into_tuple().one(db).await?,
    })
}

/// Installations have dozens of endpoints, not thousands.
async fn failing(db: &impl ConnectionTrait) -> Result<Vec<FailingEndpoint>, DbErr> {
    use webhook_endpoint::{Column, Entity};
    let rows = Entity::find()
        .filter(Column::DeletedAt.is_null())
        .filter(
            Column::Active
                .eq(true)
                .and(Column::ConsecutiveFailures.gte(FAILING_THRESHOLD))
                .or(Column::DisabledReason.is_not_null()),
        )
        .order_by_asc(Column::Id)
        .limit(MAX_ENDPOINTS_NAMED)
        .all(db)
        .await?;
    let each = rows.into_iter().map(|row| FailingEndpoint {
        id: row.id,
        url: row.url,
        failures: row.consecutive_failures.unsigned_abs(),
        disabled_reason: row.disabled_reason,
    });
    Ok(each.collect())
}

async fn count<E: EntityTrait>(
    db: &impl ConnectionTrait,
    select: Select<E>,
) -> Result<BoundedCount, DbErr> {
    let rows = select
        .select_only()
        .expr_as(Expr::val(1), "one")
        .limit(COUNT_LIMIT + 1)
        .into_query();
    let counting = Query::select()
        .expr_as(Expr::cust("COUNT(*)"), "rows")
        .from_subquery(rows, "counted")
        .to_owned();
    let row = db.query_one(&counting).await?;
    let rows: i64 = row.map_or(Ok(0), |row| row.try_get("", "rows"))?;
    let rows = u64::try_from(rows).unwrap_or(0);
    Ok(BoundedCount {
        counted: Ord::min(rows, COUNT_LIMIT),
        is_whole: rows <= COUNT_LIMIT,
    })
}
