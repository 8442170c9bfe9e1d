//! I7: with only the periodic sweep, no due row waits longer than two sweep periods.

use entity::{
    Timestamp,
    delivery::{self, DeliveryStatus},
    file::{self, FileStatus},
};
use landfall_core::app::App;
use sea_orm::{ColumnTrait, DbErr, EntityTrait, QueryFilter};
use std::{collections::BTreeSet, time::Duration};
use tokio::time::Instant;
use uuid::Uuid;

/// How often the rows are read.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Extra time on a busy machine, beyond two sweep periods: the push, the claim, and the time until this is noticed.
const SLACK: Duration = Duration::from_secs(10);

/// The rows that are not final.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outstanding {
    /// Due: a worker can claim these.
    due: BTreeSet<Uuid>,
    /// Under a lease that has not expired.
    leased: BTreeSet<Uuid>,
    /// Scheduled for a retry.
    later: BTreeSet<Uuid>,
}

impl Outstanding {
    async fn read(app: &App) -> Result<Self, DbErr> {
        let now = app.clock.now();
        let mut new = Self::default();
        let moving = [FileStatus::Staged, FileStatus::Finalizing];
        let files = file::Entity::find().filter(file::Column::Status.is_in(moving));
        for file in files.all(app.db.read()).await? {
            new.add(file.id.0, file.next_attempt_at, file.lease_expires_at, now);
        }
        let pending = delivery::Column::Status.eq(DeliveryStatus::Pending);
        let deliveries = delivery::Entity::find().filter(pending);
        for row in deliveries.all(app.db.read()).await? {
            new.add(row.id.0, row.next_attempt_at, row.lease_expires_at, now);
        }
        Ok(new)
    }

    fn add(&mut self, id: Uuid, at: Option<Timestamp>, lease: Option<Timestamp>, now: Timestamp) {
        let rows = match (lease, at) {
            (Some(until), _) if until > now => &mut self.leased,
            (_, Some(at)) if at > now => &mut self.later,
            _ => &mut self.due,
        };
        rows.insert(id);
    }

    fn is_empty(&self) -> bool {
        self.due.is_empty() && self.leased.is_empty() && self.later.is_empty()
    }
}

/// Waits until every file and delivery is final. Rows may be due while workers are busy with others; once nothing
/// changes any more, they must be claimed within two sweep periods.
pub(super) async fn wait(app: &App, within: Duration) {
    let patience = app.config.sweep.interval * 2 + SLACK;
    let (begun, mut still_since) = (Instant::now(), Instant::now());
    let mut before = Outstanding::default();
    let mut ticks = tokio::time::interval(POLL_INTERVAL);
    loop {
        ticks.tick().await;
        let overdue = begun.elapsed() > within;
        let now = match Outstanding::read(app).await {
            Ok(now) => now,
            // The database may be recovering.
            Err(error) => {
                assert!(!overdue, "the rows cannot be read: {error}");
                continue;
            }
        };
        if now.is_empty() {
            return;
        }
        if now != before || now.due.is_empty() {
            still_since = Instant::now();
        }
        assert!(
            still_since.elapsed() <= patience,
            "I7: due for more than two sweep periods, and no worker takes them: {:?}",
            now.due
        );
        assert!(!overdue, "I7: not final after {within:?} of quiet: {now:?}");
        before = now;
    }
}
