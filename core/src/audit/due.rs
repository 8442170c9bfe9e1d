//! I7: nothing that is due has waited longer than two sweep periods.

use super::{Audit, AuditError, AuditStep, Invariant, PAGE, RepairOutcome, Violation};
use crate::{deliver, files, files::OwnerScope};
use entity::{
    FileId, Timestamp,
    file::{Column, Entity, FileStatus},
    upload,
};
use sea_orm::{
    ColumnTrait, Condition, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
    sea_query::{Expr, ExprTrait},
};

/// A row that is still waiting after this many sweep periods was missed.
const OVERDUE_PERIODS: u32 = 2;

/// What a file is waiting for.
#[derive(Clone, Copy, Debug)]
enum DueWork {
    Finalize,
    Takeover,
    Purge,
    /// Kept for a retry that has not come.
    Retention,
    Expiry,
}

impl DueWork {
    const ALL: [Self; 5] = [
        Self::Finalize,
        Self::Takeover,
        Self::Purge,
        Self::Retention,
        Self::Expiry,
    ];

    fn detail(self) -> &'static str {
        match self {
            Self::Finalize => "the staged file is overdue to be finalized",
            Self::Takeover => {
                "the lease of the file's worker expired and no other worker has claimed the file"
            }
            Self::Purge => {
                "the file has failed or was deleted, and its bytes are overdue to be removed"
            }
            Self::Retention => {
                "the retention of the failed file is over, and its bytes are overdue to be removed"
            }
            Self::Expiry => "the stored file is overdue to be deleted",
        }
    }

    /// Matches files that have been waiting for this since before `since`.
    fn condition(self, since: Timestamp) -> Condition {
        let all = Condition::all();
        match self {
            Self::Finalize => {
                let waiting = Column::NextAttemptAt
                    .is_null()
                    .and(Column::StagedAt.lt(since));
                all.add(Column::Status.eq(FileStatus::Staged))
                    .add(waiting.or(Column::NextAttemptAt.lt(since)))
            }
            Self::Takeover => all
                .add(Column::Status.eq(FileStatus::Finalizing))
                .add(Column::LeaseExpiresAt.lt(since)),
            Self::Purge => all
                .add(Expr::cust(files::UNPURGED))
                .add(Column::UpdatedAt.lt(since)),
            // Written out, not bound, as the partial indexes `files_retryable` and `files_expires` have it.
            Self::Retention => all
                .add(Expr::cust("retryable_until IS NOT NULL"))
                .add(Column::RetryableUntil.lt(since)),
            Self::Expiry => all
                .add(Expr::cust("status = 'stored' AND expires_at IS NOT NULL"))
                .add(Column::ExpiresAt.lt(since)),
        }
    }

    /// What the index that leads to them is ordered by, before the id; none when it is the id alone.
    fn since_when(self) -> Option<Column> {
        match self {
            Self::Finalize | Self::Takeover | Self::Purge => None,
            Self::Retention => Some(Column::RetryableUntil),
            Self::Expiry => Some(Column::ExpiresAt),
        }
    }
}

pub(super) async fn check(audit: &mut Audit<'_>) -> Result<(), AuditError> {
    audit.step_started(AuditStep::Due, None);
    let app = audit.app;
    let since = app
        .clock
        .before(OVERDUE_PERIODS * app.config.sweep.interval);
    for waits in DueWork::ALL {
        files_that_wait(audit, waits, since).await?;
    }
    uploads(audit, since).await?;
    deliveries(audit, since).await
}

async fn files_that_wait(
    audit: &mut Audit<'_>,
    waits: DueWork,
    since: Timestamp,
) -> Result<(), AuditError> {
    let app = audit.app;
    let time = waits.since_when();
    let mut after: Option<(FileId, Option<Timestamp>)> = None;
    loop {
        let mut query = Entity::find()
            .select_only()
            .columns([Column::Id, time.unwrap_or(Column::CreatedAt)])
            .filter(waits.condition(since))
            .limit(PAGE);
        if let Some(time) = time {
            query = query.order_by_asc(time);
        }
        query = query.order_by_asc(Column::Id);
        query = match (after, time) {
            (None, _) => query,
            (Some((id, _)), None) => query.filter(Column::Id.gt(id)),
            (Some((id, at)), Some(time)) => query
                .filter(time.gte(at))
                .filter(time.gt(at).or(Column::Id.gt(id))),
        };
        let page: Vec<(FileId, Option<Timestamp>)> = query.into_tuple().all(app.db.read()).await?;
        let Some(last) = page.last() else {
            return Ok(());
        };
        after = Some(*last);
        for (id, _) in &page {
            let repair = match audit.options.repair {
                false => RepairOutcome::NotRequested,
                true => repair(audit, waits, *id).await,
            };
            let violation = Violation::new(Invariant::I7, id, waits.detail());
            audit.found(violation, repair).await?;
        }
        audit.checked_more(page.len());
    }
}

/// Does what the sweep would do.
async fn repair(audit: &Audit<'_>, waits: DueWork, id: FileId) -> RepairOutcome {
    let app = audit.app;
    match waits {
        DueWork::Finalize | DueWork::Takeover => app.dispatch.finalize(&[id]).await,
        DueWork::Purge | DueWork::Retention => app.dispatch.purge(&[id]).await,
        DueWork::Expiry => match files::delete(&app.db, &app.clock, &OwnerScope::All, id).await {
            Ok(written) => {
                let due = written.map(|written| written.due).unwrap_or_default();
                app.dispatch.deliver(&due).await;
                app.dispatch.settled(id).await;
                app.dispatch.purge(&[id]).await;
                return RepairOutcome::Done("it was deleted");
            }
            Err(error) => return RepairOutcome::NotRepaired(super::chain(&error)),
        },
    }
    RepairOutcome::Done("its job was pushed again")
}

/// Open uploads past their expiry. The sweep expires them all at once.
async fn uploads(audit: &mut Audit<'_>, since: Timestamp) -> Result<(), AuditError> {
    use upload::{Column, Entity};
    let app = audit.app;
    let mut after: Option<(entity::UploadId, Timestamp)> = None;
    loop {
        let mut query = Entity::find()
            .select_only()
            .columns([Column::Id, Column::ExpiresAt])
            // Written out, not bound, as the partial index `uploads_open` has it.
            .filter(Expr::cust("status IN ('init', 'in_progress')"))
            .filter(Column::ExpiresAt.lt(since))
            .order_by_asc(Column::ExpiresAt)
            .order_by_asc(Column::Id)
            .limit(PAGE);
        if let Some((id, at)) = after {
            query = query
                .filter(Column::ExpiresAt.gte(at))
                .filter(Column::ExpiresAt.gt(at).or(Column::Id.gt(id)));
        }
        let page: Vec<(entity::UploadId, Timestamp)> =
            query.into_tuple().all(app.db.read()).await?;
        let Some(last) = page.last() else {
            return Ok(());
        };
        after = Some(*last);
        let expired: Result<u64, _> = match audit.options.repair {
            true => crate::uploads::expire_due(app).await,
            false => Ok(0),
        };
        for (id, _) in &page {
            let repair = match (audit.options.repair, &expired) {
                (false, _) => RepairOutcome::NotRequested,
                (true, Ok(_)) => RepairOutcome::Done("it was expired"),
                (true, Err(error)) => RepairOutcome::NotRepaired(super::chain(error)),
            };
            let detail = "the upload is overdue to be expired";
            audit
                .found(Violation::new(Invariant::I7, id, detail), repair)
                .await?;
        }
        audit.checked_more(page.len());
    }
}

async fn deliveries(audit: &mut Audit<'_>, since: Timestamp) -> Result<(), AuditError> {
    let app = audit.app;
    let mut after = None;
    loop {
        let page = deliver::due(&app.db, since, after, PAGE).await?;
        let repair = match audit.options.repair {
            false => RepairOutcome::NotRequested,
            true => {
                app.dispatch.deliver(&page.due).await;
                RepairOutcome::Done("its job was pushed again")
            }
        };
        for due in &page.due {
            let detail = "the delivery is overdue to be attempted";
            audit
                .found(
                    Violation::new(Invariant::I7, due.id, detail),
                    repair.clone(),
                )
                .await?;
        }
        audit.checked_more(page.due.len());
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}
