//! Who looks at a page, and what they may do there.
//!
//! Without tokens everybody on this machine is an administrator. With tokens a browser signs in with one: its session
//! (see `landfall_core::sessions`) may do what the token may, as in the API: `read` sees figures and its owner's
//! files, `admin` sees and repairs everything.
//!
//! A request that changes something must come from a page of ours: the browser says so (`Sec-Fetch-Site`, `Origin`),
//! the cookie is `SameSite=Strict`, and the form carries a token made of the cookie.

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

/// The cookie a session is in; where the browser came by TLS, one that no other host and no plain page can set (RFC
/// 6265bis, section 4.1.3.2).
const COOKIE: &str = "landfall_session";
const HOST_COOKIE: &str = "__Host-landfall_session";
const SECURE_COOKIE: &str = "__Secure-landfall_session";

/// The field of a form, and the header of a script's request, that the CSRF token is in.
pub(crate) const CSRF_FIELD: &str = "csrf";
pub(crate) const CSRF_HEADER: &str = "x-csrf-token";

/// Longer cookies are none of ours.
const LONGEST_SECRET: usize = 64;

/// Whoever a page is made for.
#[derive(Clone, Debug)]
pub(crate) struct User {
    pub(crate) identity: Identity,
    /// To be sent back with whatever changes something.
    pub(crate) csrf: String,
    /// False when there is nothing to sign out of.
    pub(crate) signed_in: bool,
    /// What was just done by this visitor, to be shown once.
    pub(super) notice: Option<String>,
    /// A cookie to set with the answer.
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

    /// Whether buttons are shown, and work.
    pub(crate) fn may_repair(&self) -> bool {
        self.identity.may(TokenScope::Admin)
    }

    /// Whose files are shown.
    pub(crate) fn sees(&self) -> files::OwnerScope {
        self.identity.sees()
    }

    /// As the log names them.
    pub(crate) fn name(&self) -> &str {
        self.identity.owner.as_deref().unwrap_or("this machine")
    }
}

impl<'a> FromRequest<'a> for User {
    async fn from_request(request: &'a Request, _: &mut RequestBody) -> Result<Self> {
        let visitor = request.data::<Self>().cloned();
        Ok(visitor.ok_or_else(|| ErrorPage::failed("a page without a visitor"))?)
    }
}

/// Who sends this request; none when nobody is signed in.
pub(super) async fn visitor(
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
    // Without tokens the cookie tells this browser's pages from those of other sites, and nothing else.
    let secret = sessions::secret();
    let mut visitor = User::new(identity, secret.expose_secret(), signed_in);
    visitor.set_cookie = cookie(dashboard, request, Some(&secret));
    Ok(Some(visitor))
}

/// Who has this cookie, as the database says now.
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

/// The session's secret, as the browser has it.
pub(super) fn secret_of<'h>(dashboard: &Dashboard, headers: &'h HeaderMap) -> Option<&'h str> {
    let wanted = cookie_name(dashboard, headers);
    let cookies = headers.get_all(header::COOKIE).into_iter();
    let mut pairs = cookies
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'));
    pairs.find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == wanted && (1..=LONGEST_SECRET).contains(&value.len())).then_some(value)
    })
}

/// The header that gives a browser its secret, or takes it back.
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

/// Whether the browser came by TLS. What a proxy says of it is believed of anybody: it can only make the cookie
/// more careful.
fn is_secure(dashboard: &Dashboard, headers: &HeaderMap) -> bool {
    let forwarded = headers.get("x-forwarded-proto");
    dashboard.app().public_url.scheme() == "https"
        || forwarded.is_some_and(|proto| proto == "https")
}

/// Browsers refuse a cookie named `__Host-` unless its path is `/` (RFC 6265bis, section 4.1.3), which it is not when the
/// server works below a path.
fn cookie_name(dashboard: &Dashboard, headers: &HeaderMap) -> &'static str {
    match (is_secure(dashboard, headers), dashboard.api().mount.path()) {
        (false, _) => COOKIE,
        (true, "") => HOST_COOKIE,
        (true, _) => SECURE_COOKIE,
    }
}

/// The token that goes with a secret: who does not have the cookie cannot make it, and it does not give the cookie away.
fn csrf(secret: &str) -> String {
    Sha256Digest::compute(format!("landfall csrf {secret}").as_bytes()).to_string()
}

/// Whether a request was sent by a page of this server, as far as the browser says where it comes from.
pub(super) fn is_own(dashboard: &Dashboard, request: &Request) -> bool {
    let public = &dashboard.app().public_url;
    // A proxy in front may call this server by another name than it was called itself.
    let forwarded = request.data::<ForwardedHost>();
    let forwarded = forwarded.map(|ForwardedHost(host)| host.as_str());
    is_same_origin(
        request.headers(),
        (Some(public), forwarded),
        &["same-origin"],
    )
}
