//! What pages work with.

use super::{cache::Fresh, error::ErrorPage, overview, sign_in::FailedSignIns, sse::Live};
use crate::{
    api::State,
    server::queue_monitor::{QueuesView, WorkersView},
};
use landfall_core::app::App;
use poem::{FromRequest, Request, RequestBody, Result};
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// How long what the queues know is shown.
const QUEUES_SEEN_FOR: Duration = Duration::from_millis(900);

/// How long a page waits for a part of what it shows; it is shown without it then.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// The dashboard of one process; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Dashboard(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    api: State,
    queues: WorkersView,
    live: Live,
    failed_sign_ins: FailedSignIns,
    overview: overview::Seen,
    queues_seen: Fresh<Option<QueuesView>>,
}

impl Dashboard {
    pub(crate) fn new(api: State, queues: WorkersView) -> Self {
        Self(Arc::new(Shared {
            api,
            queues,
            live: Live::default(),
            failed_sign_ins: FailedSignIns::default(),
            overview: overview::Seen::default(),
            queues_seen: Fresh::new(QUEUES_SEEN_FOR),
        }))
    }

    /// What the API shares: health, waiters.
    pub(crate) fn api(&self) -> &State {
        &self.0.api
    }

    pub(crate) fn app(&self) -> &App {
        &self.0.api.app
    }

    /// What only the queues know. Every call may fail, and ends soon.
    pub(crate) fn queues(&self) -> &WorkersView {
        &self.0.queues
    }

    /// Everything the queues know, as of a moment ago; none while Redis is away.
    pub(super) async fn queues_lately(&self) -> Arc<Option<QueuesView>> {
        let look = async {
            let look = tokio::time::timeout(PATIENCE, self.queues().look());
            look.await.ok().and_then(Result::ok)
        };
        self.0.queues_seen.get(look).await
    }

    /// What the overview has seen lately.
    pub(super) fn overview(&self) -> &overview::Seen {
        &self.0.overview
    }

    /// Something was changed by hand: pages show it at once.
    pub(super) async fn forget_seen(&self) {
        self.0.queues_seen.forget().await;
        self.0.overview.forget().await;
    }

    pub(super) fn live(&self) -> &Live {
        &self.0.live
    }

    pub(super) fn failed_sign_ins(&self) -> &FailedSignIns {
        &self.0.failed_sign_ins
    }

    /// Set when the process is to end.
    pub(super) fn stop(&self) -> &CancellationToken {
        &self.0.api.stop
    }
}

impl<'a> FromRequest<'a> for Dashboard {
    async fn from_request(request: &'a Request, _: &mut RequestBody) -> Result<Self> {
        let dashboard = request.data::<Self>().cloned();
        Ok(dashboard.ok_or_else(|| ErrorPage::failed("a page without a dashboard"))?)
    }
}
