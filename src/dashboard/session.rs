//! The user of a page, and what they may do.
//!
//! Without tokens everyone on this machine is an administrator. With tokens a browser signs in with one. Its session
//! (see `landfall_core::sessions`) may do what the token may, as in the API: `read` sees figures and the files of its
//! owner, `admin` sees and repairs everything.
//!
//! A request that changes something must come from a page of this server: the browser says so (`Sec-Fetch-Site`,
//! `Origin`), the cookie is `SameSite=Strict`, and the form contains a CSRF token derived from the cookie.

use super::{error::ErrorPage, state::Dashboard};
use crate::api::{ForwardedHost, is_same_origin};
use http::{HeaderMap, HeaderValue, header};
use landfall_core::{
    config::AuthMode,
    digest::Sha256Digest,
    files, sessions,
    tokens::{Identity, TokenScope},
};
use poem::{FromRequest, Request, RequestBody, Result};
use secrecy::{ExposeSecret, SecretString};

/// The session cookie. Over TLS it has a prefix, so that no other host and no plain HTTP page can set it (RFC 6265bis,
/// section 4.1.3.2).
const COOKIE: &str = "landfall_session";
const HOST_COOKIE: &str = "__Host-landfall_session";
const SECURE_COOKIE: &str = "__Secure-landfall_session";

/// The form field and the request header with the CSRF token.
pub(crate) const CSRF_FIELD: &str = "csrf";
pub(crate) const CSRF_HEADER: &str = "x-csrf-token";

/// Maximum length of our cookie value; longer ones are ignored.
const MAX_SECRET_LEN: usize = 64;

/// The user a page is rendered for.
#[derive(Clone, Debug)]
pub(crate) struct User {
    pub(crate) identity: Identity,
    /// The CSRF token, required for changes.
    pub(crate) csrf: String,
    /// Whether the user has a session to sign out of.
    pub(crate) signed_in: bool,
    /// The notice of what this user has just done.
    pub(super) notice: Option<String>,
    /// A cookie to set in the response.
    pub(super) set_cookie: Option<HeaderValue>,
}

impl User {
    fn new(identity: Identity, secret: &str, signed_in: bool) -> Self {
        Self {
            identity,
            csrf: csrf(secret),
            signed_in,
            notice: None,
            set_cookie: None,
        }
    }

    /// Whether the user may make changes.
    pub(crate) fn may_repair(&self) -> bool {
        self.identity.may(TokenScope::Admin)
    }

    /// The files the user may see.
    pub(crate) fn sees(&self) -> files::OwnerScope {
        self.identity.sees()
    }

    /// The user's name in the operator log.
    pub(crate) fn name(&self) -> &str {
        self.identity.owner.as_deref().unwrap_or("this machine")
    }
}

impl<'a> FromRequest<'a> for User {
    async fn from_request(request: &'a Request, _: &mut RequestBody) -> Result<Self> {
        let user = request.data::<Self>().cloned();
        Ok(user.ok_or_else(|| ErrorPage::failed("a page without a user"))?)
    }
}

/// Returns the user of a request; `None` if not signed in.
pub(super) async fn user(
    dashboard: &Dashboard,
    request: &Request,
) -> Result<Option<User>, ErrorPage> {
    let Some(identity) = identity(dashboard, request.headers()).await? else {
        return Ok(None);
    };
    let signed_in = dashboard.app().config.auth.mode != AuthMode::None;
    if let Some(secret) = secret_of(dashboard, request.headers()) {
        return Ok(Some(User::new(identity, secret, signed_in)));
    }
    // Without tokens the cookie only distinguishes this browser's pages from those of other sites.
    let secret = sessions::secret();
    let mut user = User::new(identity, secret.expose_secret(), signed_in);
    user.set_cookie = cookie(dashboard, request, Some(&secret));
    Ok(Some(user))
}

/// Returns the current identity of a session.
pub(super) async fn identity(
    dashboard: &Dashboard,
    headers: &HeaderMap,
) -> Result<Option<Identity>, ErrorPage> {
    let app = dashboard.app();
    if app.config.auth.mode == AuthMode::None {
        return Ok(Some(Identity::anonymous()));
    }
    match secret_of(dashboard, headers) {
        Some(secret) => Ok(sessions::identify(&app.db, &app.clock, secret).await?),
        None => Ok(None),
    }
}

/// Returns the session's secret from the cookie.
pub(super) fn secret_of<'h>(dashboard: &Dashboard, headers: &'h HeaderMap) -> Option<&'h str> {
    let wanted = cookie_name(dashboard, headers);
    let cookies = headers.get_all(header::COOKIE).into_iter();
    let mut pairs = cookies
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'));
    pairs.find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == wanted && (1..=MAX_SECRET_LEN).contains(&value.len())).then_some(value)
    })
}

/// Returns the header that sets or clears the cookie.
pub(super) fn cookie(
    dashboard: &Dashboard,
    request: &Request,
    secret: Option<&SecretString>,
) -> Option<HeaderValue> {
    let is_secure = is_secure(dashboard, request.headers());
    let name = cookie_name(dashboard, request.headers());
    let secure = if is_secure { "; Secure" } else { "" };
    let (value, lasts) = match secret {
        Some(secret) => (secret.expose_secret(), sessions::LIFETIME.as_secs()),
        None => ("", 0),
    };
    let path = dashboard.api().mount.path();
    let text =
        format!("{name}={value}; Path={path}/; Max-Age={lasts}; HttpOnly; SameSite=Strict{secure}");
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Whether the browser used TLS. The forwarded scheme is believed from any client, because it can only make the cookie
/// stricter.
fn is_secure(dashboard: &Dashboard, headers: &HeaderMap) -> bool {
    let forwarded = headers.get("x-forwarded-proto");
    dashboard.app().public_url.scheme() == "https"
        || forwarded.is_some_and(|proto| proto == "https")
}

/// Browsers reject a `__Host-` cookie unless its path is `/` (RFC 6265bis, section 4.1.3), so it is not used if the
/// server works under a path.
fn cookie_name(dashboard: &Dashboard, headers: &HeaderMap) -> &'static str {
    match (is_secure(dashboard, headers), dashboard.api().mount.path()) {
        (false, _) => COOKIE,
        (true, "") => HOST_COOKIE,
        (true, _) => SECURE_COOKIE,
    }
}

/// The CSRF token of a secret: it cannot be computed without the cookie, and does not reveal the cookie.
fn csrf(secret: &str) -> String {
    Sha256Digest::compute(format!("landfall csrf {secret}").as_bytes()).to_string()
}

/// Whether a page of this server sent the request, according to the browser.
pub(super) fn is_own(dashboard: &Dashboard, request: &Request) -> bool {
    let public = &dashboard.app().public_url;
    // A proxy may address this server by another name than the browser used.
    let forwarded = request.data::<ForwardedHost>();
    let forwarded = forwarded.map(|ForwardedHost(host)| host.as_str());
    is_same_origin(
        request.headers(),
        (Some(public), forwarded),
        &["same-origin"],
    )
}
