//! Who may see the figures of `/metrics` and the details of `/readyz`: whoever asks from `metrics.allow_networks`, and
//! bearers of a token with the scope `admin`. A listener made for those who watch (`metrics.bind`) is open to all who
//! reach it.

use super::{auth::identify, problem::Problem, state::ApiState};
use http::header;
use landfall_core::tokens::TokenScope;
use poem::Request;

/// Whether this request may see them.
///
/// # Errors
/// 401 and 403, for those who may not.
pub(super) async fn admit(state: &ApiState, request: &Request) -> Result<(), Problem> {
    if state.watched_by_all || is_near(state, request) {
        return Ok(());
    }
    identify(request, TokenScope::Admin).await.map(drop)
}

/// A proxy on this machine makes strangers look like neighbours: one that says for whom it asks is believed that much.
fn is_near(state: &ApiState, request: &Request) -> bool {
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
