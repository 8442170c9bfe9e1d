//! Everything the overview shows, as one look sees it: once a second at most, for whoever asks.

use crate::{
    api::Readiness,
    dashboard::{
        cache::Fresh,
        state::{Dashboard, PATIENCE},
    },
    server::queue_monitor::QueuesView,
};
use landfall_core::{
    activity::{self, ActivitySeries},
    audit::{self, LastAudit},
    overview::{self, PipelineSnapshot},
};
use sea_orm::DbErr;
use std::{sync::Arc, time::Duration};

/// As one look sees it.
#[derive(Debug)]
pub(in crate::dashboard) struct Picture {
    pub(super) readiness: Arc<Readiness>,
    /// None while Redis is away.
    pub(super) queues: Arc<Option<QueuesView>>,
    /// None while the database is away.
    pub(super) known: Option<Known>,
}

/// What the database knows.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) flow: PipelineSnapshot,
    pub(super) minutes: Arc<ActivitySeries>,
    pub(super) audit: Option<LastAudit>,
}

/// What was seen lately.
#[derive(Debug)]
pub(in crate::dashboard) struct Seen {
    picture: Fresh<Picture>,
    /// A chart's points are minutes apart.
    minutes: Fresh<ActivitySeries>,
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            picture: Fresh::new(Duration::from_millis(900)),
            minutes: Fresh::new(Duration::from_secs(5)),
        }
    }
}

impl Seen {
    pub(super) async fn picture(&self, dashboard: &Dashboard) -> Arc<Picture> {
        // Boxed: it asks many at once, and a picture that is fresh needs none of that.
        self.picture.get(Box::pin(self.look(dashboard))).await
    }

    pub(in crate::dashboard) async fn forget(&self) {
        self.picture.forget().await;
    }

    async fn look(&self, dashboard: &Dashboard) -> Picture {
        let app = dashboard.app();
        let (readiness, queues, known) = tokio::join!(
            dashboard.api().health.readiness(app),
            dashboard.queues_lately(),
            self.known_soon(dashboard),
        );
        Picture {
            readiness,
            queues,
            known,
        }
    }

    async fn known_soon(&self, dashboard: &Dashboard) -> Option<Known> {
        match tokio::time::timeout(PATIENCE, self.known(dashboard)).await {
            Ok(Ok(known)) => Some(known),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the overview is shown without what the database knows");
                None
            }
            Err(_) => None,
        }
    }

    async fn known(&self, dashboard: &Dashboard) -> Result<Known, DbErr> {
        let app = dashboard.app();
        let db = app.db.read();
        let flow = overview::snapshot(db).await?;
        let audit = audit::latest(db).await?;
        let minutes = async {
            activity::last(db, &app.clock, super::charts::SHOWN)
                .await
                .unwrap_or_default()
        };
        Ok(Known {
            flow,
            minutes: self.minutes.get(minutes).await,
            audit,
        })
    }
}
