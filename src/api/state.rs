//! The state shared by all handlers.

use super::{
    health::HealthCheck, long_poll::Waiters, metrics::Metrics, middleware::HostPolicy,
    mount::Mount, rate_limit::Counters, routes::Routes, shutdown::Shutdown,
};
use landfall_core::{app::App, jwt::JwtVerifier};
use std::{ops::Deref, sync::Arc};

/// The API of one process; cheap to clone.
#[derive(Clone, Debug)]
pub struct ApiState {
    /// As configured, or with the limits of the upload link of a request.
    pub app: App,
    /// Verifies JWTs, if they are accepted.
    pub(super) jwt: Option<JwtVerifier>,
    shared: Arc<SharedState>,
}

/// The dependencies of the handlers.
#[derive(Debug)]
pub struct SharedState {
    pub app: App,
    pub mount: Mount,
    pub waiters: Waiters,
    pub health: HealthCheck,
    pub counters: Arc<dyn Counters>,
    pub metrics: Metrics,
    pub routes: Routes,
    pub hosts: HostPolicy,
    /// Whether everyone who can reach this listener may see metrics and details.
    pub metrics_open: bool,
    /// Waiting requests respond at once when the process stops.
    pub shutdown: Shutdown,
}

impl ApiState {
    pub(crate) fn new(shared: SharedState) -> Self {
        let config = shared.app.config.auth.jwt.as_ref();
        Self {
            app: shared.app.clone(),
            jwt: config.map(|config| JwtVerifier::new(config, &shared.app.clock)),
            shared: Arc::new(shared),
        }
    }

    /// The state with another app, for one request.
    pub(crate) fn with_app(&self, app: App) -> Self {
        Self {
            app,
            jwt: self.jwt.clone(),
            shared: Arc::clone(&self.shared),
        }
    }
}

impl Deref for ApiState {
    type Target = SharedState;

    fn deref(&self) -> &SharedState {
        &self.shared
    }
}
