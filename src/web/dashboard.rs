//! What pages work with.

use super::{live::Live, refusal::Refusal, sign_in::FailedSignIns};
use crate::{http::State, workers_view::WorkersView};
use landfall_core::context::Landfall;
use poem::{FromRequest, Request, RequestBody, Result};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// The dashboard of one process; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Dashboard(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    api: State,
    queues: WorkersView,
    live: Live,
    failed_sign_ins: FailedSignIns,
}

impl Dashboard {
    pub(crate) fn new(api: State, queues: WorkersView) -> Self {
        Self(Arc::new(Shared {
            api,
            queues,
            live: Live::default(),
            failed_sign_ins: FailedSignIns::default(),
        }))
    }

    /// What the API shares: health, waiters.
    pub(crate) fn api(&self) -> &State {
        &self.0.api
    }

    pub(crate) fn landfall(&self) -> &Landfall {
        &self.0.api.landfall
    }

    /// What only the queues know. Every call may fail, and ends soon.
    pub(crate) fn queues(&self) -> &WorkersView {
        &self.0.queues
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
        Ok(dashboard.ok_or_else(|| Refusal::failed("a page without a dashboard"))?)
    }
}
