//! The link of a request to `/v1/links/{secret}`: the only credential there.

use crate::api::{
    middleware::{RequestOwner, is_same_origin, real_ip::ForwardedHost},
    problem::{Code, Problem},
    rate_limit::RequestLimits,
    state::ApiState,
};
use http::header;
use landfall_core::{
    config::Origin,
    tokens::{Identity, TokenScope},
    upload_links::{self, UploadLink},
};
use poem::{FromRequest, Request, RequestBody, Result};
use std::sync::Arc;

/// The path of all links.
const LINKS: &str = "/v1/links/";

/// A link that may be used, and what it allows.
#[derive(Clone, Debug)]
pub(in crate::api) struct LinkAccess {
    pub(in crate::api) link: Arc<UploadLink>,
    /// Its owner, who may upload.
    pub(in crate::api) caller: Identity,
    /// The state with the limits of the link.
    pub(in crate::api) state: ApiState,
}

/// Whether the path is of a link, or below one.
pub(in crate::api) fn is_link_path(path: &str) -> bool {
    path.starts_with(LINKS)
}

/// Returns the link in the path of a request, whatever its status, and keeps it for the handler: which origins may read
/// a response, rejections included, depends on the link. If the database fails, the handler tries again.
pub(in crate::api) async fn look_up(
    state: &ApiState,
    request: &mut Request,
) -> Option<Arc<UploadLink>> {
    let found = find(state, request.uri().path()).await.ok().flatten()?;
    let link = Arc::new(found);
    request.set_data(Arc::clone(&link));
    Some(link)
}

async fn find(state: &ApiState, path: &str) -> Result<Option<UploadLink>, Problem> {
    let secret = path
        .strip_prefix(LINKS)
        .and_then(|rest| rest.split('/').next());
    let Some(secret) = secret else {
        return Ok(None);
    };
    Ok(upload_links::find_by_secret(&state.app.db, secret).await?)
}

impl LinkAccess {
    /// Returns the link of a request.
    ///
    /// # Errors
    /// 404 for an unknown link, 403 for a page of another origin, 410 for an expired or revoked link, 429 if its owner
    /// has exceeded the rate limit.
    pub(in crate::api) async fn from_request(request: &Request) -> Result<Self, Problem> {
        let access = Self::from_any_request(request).await?;
        access.link.require_valid(access.state.app.clock.now())?;
        let limits = request.data::<RequestLimits>();
        if let (Some(limits), Some(owner)) = (limits, &access.caller.owner) {
            limits.admit_owner(owner).await?;
        }
        Ok(access)
    }

    /// Returns the link of a request, whatever its status.
    ///
    /// # Errors
    /// 404 for an unknown link, 403 for a page of another origin.
    pub(in crate::api) async fn from_any_request(request: &Request) -> Result<Self, Problem> {
        let state: &ApiState = request
            .data()
            .ok_or_else(|| Problem::failed("a request without state"))?;
        let link = match request.data::<Arc<UploadLink>>() {
            Some(found) => Arc::clone(found),
            None => find(state, request.uri().path())
                .await?
                .map(Arc::new)
                .ok_or_else(|| Problem::not_found("upload link"))?,
        };
        RequestOwner::record(request, link.owner.as_deref());
        require_origin(state, request, &link.cors_origins)?;
        let app = upload_links::with_link_limits(&state.app, &link);
        Ok(Self {
            caller: Identity {
                owner: link.owner.clone(),
                scopes: vec![TokenScope::Upload],
            },
            state: state.with_app(app),
            link,
        })
    }
}

/// Rejects a page of an origin that the link does not list. Clients other than browsers send no origin.
fn require_origin(state: &ApiState, request: &Request, allowed: &[Origin]) -> Result<(), Problem> {
    let Some(origin) = request.headers().get(header::ORIGIN) else {
        return Ok(());
    };
    let is_listed = allowed.iter().any(|allowed| match allowed {
        Origin::Any => true,
        Origin::Of(one) => *one == *origin,
    });
    if allowed.is_empty() || is_listed {
        return Ok(());
    }
    let forwarded = request.data::<ForwardedHost>();
    let names = (
        Some(&state.app.public_url),
        forwarded.map(|ForwardedHost(host)| host.as_str()),
    );
    if is_same_origin(request.headers(), names, &["same-origin"]) {
        return Ok(());
    }
    Err(Problem::new(
        Code::CrossSite,
        "The upload link does not allow pages of this origin. List it in `cors_origins` of the link.",
    ))
}

impl<'a> FromRequest<'a> for LinkAccess {
    async fn from_request(request: &'a Request, _: &mut RequestBody) -> Result<Self> {
        Ok(Self::from_request(request).await?)
    }
}
