//! Signing in with a token, and signing out.
//!
//! A session's secret is generated at sign-in, so a cookie planted beforehand is worthless (session fixation). Failed
//! attempts are rate limited per address. Tokens are 256 random bits, so the limit serves to keep the log quiet rather
//! than to prevent guessing.

use super::{error::ErrorPage, layout::Page, repair::see_other, session, state::Dashboard};
use http::{StatusCode, header};
use landfall_core::{config::AuthMode, sessions};
use maud::{Markup, html};
use poem::{Request, Response, Result, handler, web::Form};
use serde::Deserialize;
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Maximum number of failed attempts per address …
const MAX_FAILURES: u32 = 10;

/// … within this time of the first one.
const FAILURE_WINDOW: Duration = Duration::from_secs(60);

/// Maximum number of remembered addresses; beyond it, expired entries are removed first.
const MAX_ADDRESSES: usize = 10_000;

#[derive(Debug, Default, Deserialize)]
pub(super) struct SignInQuery {
    /// The page the user wanted to see.
    #[serde(default)]
    next: String,
}

#[derive(Deserialize)]
pub(super) struct SignInForm {
    token: String,
    #[serde(default)]
    next: String,
}

/// Failed attempts per address.
#[derive(Debug, Default)]
pub(super) struct FailedSignIns(Mutex<HashMap<IpAddr, (Instant, u32)>>);

impl FailedSignIns {
    /// Returns how long this address must wait.
    fn wait(&self, address: Option<IpAddr>) -> Option<Duration> {
        let failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (first, count) = failures.get(&address?)?;
        let left = FAILURE_WINDOW.checked_sub(first.elapsed())?;
        (*count >= MAX_FAILURES).then_some(left)
    }

    fn count(&self, address: Option<IpAddr>) {
        let Some(address) = address else { return };
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= MAX_ADDRESSES {
            failures.retain(|_, (first, _)| first.elapsed() < FAILURE_WINDOW);
        }
        // This many at once are not people; their attempts fail anyway.
        if failures.len() >= MAX_ADDRESSES {
            return;
        }
        let now = Instant::now();
        let entry = failures.entry(address).or_insert((now, 0));
        if entry.0.elapsed() >= FAILURE_WINDOW {
            *entry = (now, 0);
        }
        entry.1 += 1;
    }
}

#[handler]
pub(super) async fn form(
    request: &Request,
    dashboard: Dashboard,
    query: poem::web::Query<SignInQuery>,
) -> Result<Response> {
    let next = local(&query.next);
    let known = session::identity(&dashboard, request.headers()).await?;
    match known {
        Some(_) => Ok(see_other(next)),
        None => Ok(page(next, None).respond(None)),
    }
}

#[handler]
pub(super) async fn enter(
    request: &Request,
    dashboard: Dashboard,
    Form(entry): Form<SignInForm>,
) -> Result<Response> {
    let app = dashboard.app();
    let next = local(&entry.next);
    if app.config.auth.mode == AuthMode::None {
        return Ok(see_other(next));
    }
    let address = request.remote_addr().as_socket_addr().map(|from| from.ip());
    // The token is checked first, so that users who share an address with an attacker are not locked out.
    let started = sessions::begin(&app.db, &app.clock, entry.token.trim())
        .await
        .map_err(ErrorPage::from)?;
    let Some((identity, secret)) = started else {
        if let Some(wait) = dashboard.failed_sign_ins().wait(address) {
            return Err(ErrorPage::limited(wait).into());
        }
        dashboard.failed_sign_ins().count(address);
        let wrong = "Unknown, expired or revoked token.";
        let mut response = page(next, Some(wrong)).respond(None);
        response.set_status(StatusCode::UNAUTHORIZED);
        return Ok(response);
    };
    // The browser's previous session ends.
    if let Some(before) = session::secret_of(&dashboard, request.headers()) {
        sessions::end(&app.db, before)
            .await
            .map_err(ErrorPage::from)?;
    }
    tracing::info!(actor = identity.owner, "signed in");
    let mut response = see_other(next);
    if let Some(cookie) = session::cookie(&dashboard, request, Some(&secret)) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

#[handler]
pub(super) async fn leave(request: &Request, dashboard: Dashboard) -> Result<Response> {
    if let Some(secret) = session::secret_of(&dashboard, request.headers()) {
        sessions::end(&dashboard.app().db, secret)
            .await
            .map_err(ErrorPage::from)?;
    }
    let mut response = see_other("/sign-in");
    if let Some(cookie) = session::cookie(&dashboard, request, None) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

/// Returns a path of this server, or `/`: browsers interpret `//` and `/\` as another host.
fn local(next: &str) -> &str {
    let is_local = next.starts_with('/')
        && !next[1..].starts_with(['/', '\\'])
        && next.bytes().all(|byte| byte.is_ascii_graphic());
    if is_local { next } else { "/" }
}

fn page(next: &str, wrong: Option<&str>) -> Page {
    let body: Markup = html! {
        section.panel.alone {
            h1 { "Sign in" }
            form.stacked method="post" action="/sign-in" {
                label for="token" { "Token" }
                input #token type="password" name="token" required autofocus autocomplete="current-password"
                    spellcheck="false" placeholder="lf_…" aria-describedby="token-hint"
                    aria-invalid=[wrong.map(|_| "true")];
                @if let Some(wrong) = wrong { p.wrong role="alert" { (wrong) } }
                @if next != "/" { input type="hidden" name="next" value=(next); }
                button.go type="submit" { "Sign in" }
            }
            p.dim #token-hint {
                "Create a token on the server: " code { "landfall token create --owner NAME --scope admin" }
                ". The scope " code { "read" } " gives read-only access."
            }
        }
    };
    Page::standalone("Sign in", body)
}

#[cfg(test)]
mod tests {
    use super::local;

    #[test]
    fn a_sign_in_leads_to_pages_of_this_server_alone() {
        assert_eq!(local("/files?status=failed"), "/files?status=failed");
        for other in [
            "",
            "files",
            "//evil.example",
            "/\\evil.example",
            "https://evil.example",
            "/a\r\nb",
        ] {
            assert_eq!(local(other), "/", "{other}");
        }
    }
}
