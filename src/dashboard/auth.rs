//! Authentication and authorization for every page: who the user is, whether they may see the page, where the request
//! comes from, and what a browser may do with the response. No page can be reached without it.

use super::{
    error::ErrorPage,
    layout::{Page, notice_of},
    session::{self, CSRF_FIELD, CSRF_HEADER, User},
    state::Dashboard,
};
use crate::api::{ReadError, RequestLimits, RequestOwner, read_whole};
use http::{HeaderValue, Method, StatusCode, header};
use landfall_core::tokens::TokenScope;
use poem::{Body, Endpoint, IntoResponse, Request, Response, Result, endpoint::BoxEndpoint};
use url::form_urlencoded;

/// Content-Security-Policy: scripts and styles are our own files; nothing is loaded from, sent to or framed by other
/// origins.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Maximum size of a dashboard form, in bytes.
const MAX_FORM_LEN: usize = 64 * 1024;

/// What a user needs to see a page. Changes also require `admin`, unless the access is `Open` or `Upload`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Nothing: assets and the sign-in page.
    Open,
    /// A session.
    SignedIn,
    /// A scope.
    Scope(TokenScope),
    /// The scope `upload`, which also suffices to send files.
    Upload,
}

/// Sees figures and the files of its owner.
pub(crate) const READ: Access = Access::Scope(TokenScope::Read);
/// Sees everything.
pub(crate) const ADMIN: Access = Access::Scope(TokenScope::Admin);

/// How a request body is read before the page's handler is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyKind {
    /// It is read here, up to [`MAX_FORM_LEN`]; handlers of GET pages never see a body.
    Form,
    /// The handler streams it and limits its size. Such pages are called by scripts, with the CSRF token in a header.
    Stream,
}

/// A page's handler, wrapped in its checks.
pub(super) struct GuardedPage {
    pub(super) dashboard: Dashboard,
    pub(super) need: Access,
    pub(super) body: BodyKind,
    pub(super) page: BoxEndpoint<'static, Response>,
}

impl Endpoint for GuardedPage {
    type Output = Response;

    async fn call(&self, mut request: Request) -> Result<Response> {
        let mut user = None;
        let outcome = self.pass(&mut request, &mut user).await;
        let outcome = match outcome {
            Ok(()) => {
                request.set_data(self.dashboard.clone());
                self.page.call(request).await.map_err(ErrorPage::of)
            }
            Err(error_page) => Err(error_page),
        };
        let mut response = outcome.unwrap_or_else(|error_page| refuse(error_page, user.as_ref()));
        if let Some(cookie) = user.and_then(|user| user.set_cookie) {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
        protect(&mut response);
        Ok(response)
    }
}

impl GuardedPage {
    async fn pass(&self, request: &mut Request, user: &mut Option<User>) -> Result<(), ErrorPage> {
        let changes = !is_safe(request.method());
        if changes && !session::is_own(&self.dashboard, request) {
            return Err(cross_origin());
        }
        if self.need == Access::Open {
            return self.read_form(request, changes).await;
        }
        let found = session::user(&self.dashboard, request).await?;
        let mut found = found.ok_or_else(|| sign_in_first(request))?;
        RequestOwner::record(request, found.identity.owner.as_deref());
        admit(request, &found).await?;
        found.notice = notice_of(&self.dashboard, request, &found).await?;
        *user = Some(found.clone());
        if let Access::Scope(scope) = self.need {
            require(&found, scope)?;
            if changes {
                require(&found, TokenScope::Admin)?;
            }
        }
        if self.need == Access::Upload {
            require(&found, TokenScope::Upload)?;
        }
        self.read_form(request, changes).await?;
        if changes {
            check_csrf(request, self.body, &found).await?;
        }
        request.set_data(found);
        Ok(())
    }

    /// Limits the body of every page except streaming ones, in bytes and in time. The body of a GET request is not
    /// read.
    async fn read_form(&self, request: &mut Request, changes: bool) -> Result<(), ErrorPage> {
        if self.body == BodyKind::Stream {
            return Ok(());
        }
        let body = request.take_body();
        if !changes {
            return Ok(());
        }
        let within = self.dashboard.app().config.server.idle_timeout;
        let read = read_whole(body, MAX_FORM_LEN, within).await;
        let bytes = read.map_err(|error| match error {
            ReadError::TooLarge => ErrorPage::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "Too large",
                "The form is too large.",
            ),
            ReadError::TooSlow | ReadError::BrokenOff(_) => {
                ErrorPage::malformed("The form did not arrive completely.")
            }
        })?;
        request.set_body(Body::from_bytes(bytes));
        Ok(())
    }
}

/// Applies the rate limits of the user's token, as in the API.
async fn admit(request: &Request, user: &User) -> Result<(), ErrorPage> {
    match (request.data::<RequestLimits>(), &user.identity.owner) {
        (Some(limits), Some(owner)) => Ok(limits.admit_owner(owner).await?),
        _ => Ok(()),
    }
}

fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

fn require(user: &User, scope: TokenScope) -> Result<(), ErrorPage> {
    if user.identity.may(scope) {
        return Ok(());
    }
    Err(ErrorPage::forbidden(format!(
        "This requires a token with the scope `{scope}`."
    )))
}

/// Redirects a page to the sign-in and back; a stream, which cannot be redirected, just ends.
fn sign_in_first(request: &Request) -> ErrorPage {
    let uri = request.uri();
    if uri.path().starts_with("/live/") {
        return ErrorPage::new(StatusCode::UNAUTHORIZED, "Signed out", "Sign in again.");
    }
    let here = uri.path_and_query().map_or("/", |path| path.as_str());
    if !is_safe(request.method()) || here == "/" {
        return ErrorPage::see_other("/sign-in");
    }
    let next: String = form_urlencoded::byte_serialize(here.as_bytes()).collect();
    ErrorPage::see_other(&format!("/sign-in?next={next}"))
}

fn cross_origin() -> ErrorPage {
    ErrorPage::forbidden(
        "The request did not come from this dashboard. Reload the page and try again.",
    )
}

/// The token is in a header, or in the form, which is read and put back for the handler. A streamed body has no form.
async fn check_csrf(request: &mut Request, body: BodyKind, user: &User) -> Result<(), ErrorPage> {
    if let Some(token) = request.header(CSRF_HEADER) {
        return same(token, &user.csrf);
    }
    if body == BodyKind::Stream {
        return Err(cross_origin());
    }
    let body = request.take_body().into_bytes_limit(MAX_FORM_LEN).await;
    let body = body.map_err(|_| ErrorPage::malformed("The form is incomplete."))?;
    let token = form_urlencoded::parse(&body).find(|(name, _)| name == CSRF_FIELD);
    let token = token.map(|(_, value)| value.into_owned());
    request.set_body(Body::from_bytes(body));
    same(token.as_deref().unwrap_or_default(), &user.csrf)
}

/// Both are digests of a secret, so a timing difference reveals nothing useful.
fn same(given: &str, expected: &str) -> Result<(), ErrorPage> {
    match given == expected {
        true => Ok(()),
        false => Err(cross_origin()),
    }
}

fn refuse(error_page: ErrorPage, user: Option<&User>) -> Response {
    error_page.log();
    let mut response = match error_page.status.is_redirection() {
        true => error_page.status.into_response(),
        false => Page::from_error(&error_page).respond(user),
    };
    response.set_status(error_page.status);
    for (name, value) in error_page.headers {
        response.headers_mut().insert(name, value);
    }
    response
}

fn protect(response: &mut Response) {
    let headers = response.headers_mut();
    // A download has its own policy, which allows its content nothing.
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static(POLICY));
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(
        "cross-origin-opener-policy",
        HeaderValue::from_static("same-origin"),
    );
    // A page is specific to one user and one moment.
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}
