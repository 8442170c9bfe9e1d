//! The data of the overview, loaded at most once per second for all viewers.

use crate::{
    api::Readiness,
    dashboard::{
        cache::Cached,
        state::{Dashboard, PART_TIMEOUT},
    },
    server::queue_monitor::QueuesSnapshot,
};
use landfall_core::{
    activity::{self, ActivitySeries},
    audit::{self, LastAudit},
    overview::{self, PipelineSnapshot},
};
use sea_orm::DbErr;
use std::{sync::Arc, time::Duration};

/// One consistent load of the data.
#[derive(Debug)]
pub(in crate::dashboard) struct OverviewSnapshot {
    pub(super) readiness: Arc<Readiness>,
    /// `None` while Redis is down.
    pub(super) queues: Arc<Option<QueuesSnapshot>>,
    /// `None` while the database is down.
    pub(super) database: Option<DatabaseSnapshot>,
}

/// The data from the database.
#[derive(Debug)]
pub(super) struct DatabaseSnapshot {
    pub(super) flow: PipelineSnapshot,
    pub(super) minutes: Arc<ActivitySeries>,
    pub(super) audit: Option<LastAudit>,
}

/// The cached data.
#[derive(Debug)]
pub(in crate::dashboard) struct OverviewCache {
    snapshot: Cached<OverviewSnapshot>,
    /// Charts are cached for longer, because their points are minutes apart.
    minutes: Cached<ActivitySeries>,
}

impl Default for OverviewCache {
    fn default() -> Self {
        Self {
            snapshot: Cached::new(Duration::from_millis(900)),
            minutes: Cached::new(Duration::from_secs(5)),
        }
    }
}

impl OverviewCache {
    pub(super) async fn snapshot(&self, dashboard: &Dashboard) -> Arc<OverviewSnapshot> {
        // Boxed because the future is large, and not needed for a cached snapshot.
        self.snapshot.get(Box::pin(self.load(dashboard))).await
    }

    pub(in crate::dashboard) async fn invalidate(&self) {
        self.snapshot.invalidate().await;
    }

    async fn load(&self, dashboard: &Dashboard) -> OverviewSnapshot {
        let app = dashboard.app();
        let (readiness, queues, database) = tokio::join!(
            dashboard.api().health.readiness(app),
            dashboard.cached_queues(),
            self.load_database(dashboard),
        );
        OverviewSnapshot {
            readiness,
            queues,
            database,
        }
    }

    async fn load_database(&self, dashboard: &Dashboard) -> Option<DatabaseSnapshot> {
        match tokio::time::timeout(PART_TIMEOUT, self.database(dashboard)).await {
            Ok(Ok(database)) => Some(database),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the overview is shown without data from the database");
                None
            }
            Err(_) => None,
        }
    }

    async fn database(&self, dashboard: &Dashboard) -> Result<DatabaseSnapshot, DbErr> {
        let app = dashboard.app();
        let db = app.db.read();
        let flow = overview::snapshot(db).await?;
        let audit = audit::latest(db).await?;
        let minutes = async {
            activity::last(db, &app.clock, super::charts::SHOWN)
                .await
                .unwrap_or_default()
        };
        Ok(DatabaseSnapshot {
            flow,
            minutes: self.minutes.get(minutes).await,
            audit,
        })
    }
}
