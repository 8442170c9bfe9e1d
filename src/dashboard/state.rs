//! The state shared by all pages.

use super::{cache::Cached, error::ErrorPage, overview, sign_in::FailedSignIns, sse::LiveFeeds};
use crate::{
    api::ApiState,
    server::queue_monitor::{QueueMonitor, QueuesSnapshot},
};
use landfall_core::app::App;
use poem::{FromRequest, Request, RequestBody, Result};
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// How long the snapshot of the queues is cached.
const QUEUES_CACHE_TTL: Duration = Duration::from_millis(900);

/// How long a page waits for one part of its data; the page is shown without it after that.
pub(super) const PART_TIMEOUT: Duration = Duration::from_secs(2);

/// The dashboard state of one process; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Dashboard(Arc<DashboardInner>);

#[derive(Debug)]
struct DashboardInner {
    api: ApiState,
    queues: QueueMonitor,
    live: LiveFeeds,
    failed_sign_ins: FailedSignIns,
    overview: overview::OverviewCache,
    queues_cache: Cached<Option<QueuesSnapshot>>,
}

impl Dashboard {
    pub(crate) fn new(api: ApiState, queues: QueueMonitor) -> Self {
        Self(Arc::new(DashboardInner {
            api,
            queues,
            live: LiveFeeds::default(),
            failed_sign_ins: FailedSignIns::default(),
            overview: overview::OverviewCache::default(),
            queues_cache: Cached::new(QUEUES_CACHE_TTL),
        }))
    }

    /// The state of the API: health, waiters.
    pub(crate) fn api(&self) -> &ApiState {
        &self.0.api
    }

    pub(crate) fn app(&self) -> &App {
        &self.0.api.app
    }

    /// The queue monitor. Every call may fail, and has a timeout.
    pub(crate) fn queues(&self) -> &QueueMonitor {
        &self.0.queues
    }

    /// Returns the cached snapshot of the queues; `None` while Redis is down.
    pub(super) async fn cached_queues(&self) -> Arc<Option<QueuesSnapshot>> {
        let load = async {
            let load = tokio::time::timeout(PART_TIMEOUT, self.queues().load());
            load.await.ok().and_then(Result::ok)
        };
        self.0.queues_cache.get(load).await
    }

    /// The cached data of the overview.
    pub(super) fn overview(&self) -> &overview::OverviewCache {
        &self.0.overview
    }

    /// Invalidates the caches after a manual change, so that pages show it at once.
    pub(super) async fn invalidate_caches(&self) {
        self.0.queues_cache.invalidate().await;
        self.0.overview.invalidate().await;
    }

    pub(super) fn live(&self) -> &LiveFeeds {
        &self.0.live
    }

    pub(super) fn failed_sign_ins(&self) -> &FailedSignIns {
        &self.0.failed_sign_ins
    }

    /// Cancelled on shutdown.
    pub(super) fn stop(&self) -> &CancellationToken {
        self.0.api.shutdown.stop()
    }
}

impl<'a> FromRequest<'a> for Dashboard {
    async fn from_request(request: &'a Request, _: &mut RequestBody) -> Result<Self> {
        let dashboard = request.data::<Self>().cloned();
        Ok(dashboard.ok_or_else(|| ErrorPage::failed("a page without a dashboard"))?)
    }
}
