//! Access to `/metrics` and to the details of `/readyz`: clients in `metrics.allow_networks`, and bearers of a token
//! with the scope `admin`. A dedicated listener (`metrics.bind`) is open to everyone who can reach it.

use super::{auth::identify, problem::Problem, state::ApiState};
use http::header;
use landfall_core::tokens::TokenScope;
use poem::Request;

/// Checks whether this request may see them.
///
/// # Errors
/// 401 or 403 if it may not.
pub(super) async fn admit(state: &ApiState, request: &Request) -> Result<(), Problem> {
    if state.metrics_open || is_allowed_network(state, request) {
        return Ok(());
    }
    identify(request, TokenScope::Admin).await.map(drop)
}

/// A proxy on this machine makes remote clients look local, so a request that was forwarded does not count as local.
fn is_allowed_network(state: &ApiState, request: &Request) -> bool {
    let Some(peer) = request.remote_addr().as_socket_addr() else {
        return false;
    };
    let address = peer.ip().to_canonical();
    let headers = request.headers();
    let forwarded =
        headers.contains_key("x-forwarded-for") || headers.contains_key(header::FORWARDED);
    let networks = &state.app.config.metrics.allow_networks;
    let is_listed = networks.iter().any(|network| network.contains(&address));
    is_listed && !(forwarded && address.is_loopback())
}
