//! `/tokens`: bearer tokens. A token is shown only in the response to the request that created it.

use super::{
    auth::ADMIN,
    components::{
        Tone, col, confirmed_action_button, csrf_field, empty, pager, panel, panel_with, state,
        table,
    },
    error::ErrorPage,
    format::{ago, when},
    layout::{Page, Section},
    listing,
    pages::Pages,
    repair,
    session::User,
    state::Dashboard,
};
use chrono::{DateTime, Utc};
use entity::TokenId;
use http::StatusCode;
use landfall_core::tokens::{self, MAX_OWNER_LEN, Token, TokenError, TokenScope};
use maud::{Markup, html};
use poem::{
    Response, Result, handler,
    web::{Path, Query},
};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;
use url::form_urlencoded;
use uuid::Uuid;

/// Lifetimes offered by the form, in days; 0 means that the token never expires.
const LIFETIMES: [(u64, &str); 5] = [
    (0, "never expires"),
    (1, "1 day"),
    (30, "30 days"),
    (90, "90 days"),
    (365, "1 year"),
];

const SECONDS_PER_DAY: u64 = 24 * 60 * 60;

pub(super) fn pages(pages: Pages) -> Pages {
    pages
        .get("/tokens", ADMIN, list)
        .post("/tokens", ADMIN, create)
        .post("/tokens/:id/revoke", ADMIN, revoke)
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ListTokensQuery {
    cursor: String,
}

#[handler]
async fn list(
    user: User,
    dashboard: Dashboard,
    Query(query): Query<ListTokensQuery>,
) -> Result<Response> {
    let app = dashboard.app();
    let page = listing::page(&query.cursor)?;
    let found = tokens::list(&app.db, page).await.map_err(ErrorPage::from)?;
    let cursor = Some(query.cursor.as_str()).filter(|cursor| !cursor.is_empty());
    let body = html! {
        h1.unseen { "Tokens" }
        (panel_with("Tokens", html! { a href="#add" { "Create a token" } }, html! {
            @if found.items.is_empty() { (empty("No tokens yet.", html! { "Create the first one below." })) }
            @else { (rows(&found.items, app.clock.now())) }
            (pager("/tokens", &[], cursor, found.next_cursor.as_deref()))
        }))
        (panel("Create a token", new_form(&user)))
    };
    Ok(Page::new("Tokens", Section::Tokens, body).show(&user))
}

fn rows(tokens: &[Token], now: DateTime<Utc>) -> Markup {
    let columns = [
        col("Owner"),
        col("Scopes"),
        col("State"),
        col("Created"),
        col("Last used"),
        col(""),
    ];
    let rows = html! {
        @for token in tokens {
            tr {
                td.name { (token.owner) span.sub.mono { (token.id) } }
                td { (scopes(token)) }
                td { (token_state(token, now)) }
                td { (when(token.created_at)) }
                td { @match token.last_used_at { Some(at) => { (ago(at, now)) } None => { span.dim { "never" } } } }
                td {
                    @if token.revoked_at.is_none() {
                        (confirmed_action_button(
                            &format!("/tokens/{}/revoke", token.id),
                            "Revoke…",
                            "Requests with this token are refused from now on. This cannot be undone.",
                            "Revoke token",
                        ))
                    }
                }
            }
        }
    };
    table("Tokens", &columns, rows)
}

fn scopes(token: &Token) -> String {
    let names: Vec<&str> = token.scopes.iter().map(|scope| scope.as_str()).collect();
    names.join(", ")
}

fn token_state(token: &Token, now: DateTime<Utc>) -> Markup {
    match (token.revoked_at, token.expires_at) {
        (Some(_), _) => state("revoked", Tone::Dim),
        (None, Some(at)) if at <= now => state("expired", Tone::Dim),
        (None, Some(at)) => html! { (state("active", Tone::Ok)) span.sub { "until " (when(at)) } },
        (None, None) => state("active", Tone::Ok),
    }
}

fn new_form(user: &User) -> Markup {
    html! {
        form.stacked #add method="post" action="/tokens" {
            (csrf_field(user))
            label { "Owner" input name="owner" required maxlength=(MAX_OWNER_LEN) placeholder="Whose files it uploads and reads" spellcheck="false"; }
            fieldset {
                legend { "Scopes" }
                @for (scope, about) in [
                    (TokenScope::Upload, "upload and delete files of the owner"),
                    (TokenScope::Read, "read files of the owner"),
                    (TokenScope::Admin, "everything, for all owners"),
                ] {
                    label.check {
                        input type="checkbox" name="scope" value=(scope.as_str());
                        (scope.as_str()) span.dim { (about) }
                    }
                }
            }
            label { "Expires"
                select name="days" {
                    @for (days, words) in LIFETIMES { option value=(days) { (words) } }
                }
            }
            button.go type="submit" { "Create" }
        }
    }
}

/// The submitted form; scopes are repeated fields.
#[derive(Debug, Default)]
struct TokenForm {
    owner: String,
    scopes: Vec<TokenScope>,
    lifetime: Option<Duration>,
}

impl TokenForm {
    fn read(form: &[u8]) -> Result<Self, ErrorPage> {
        let mut given = Self::default();
        for (name, value) in form_urlencoded::parse(form) {
            match &*name {
                "owner" => given.owner = value.trim().to_owned(),
                "scope" => {
                    let scope = value.parse::<TokenScope>();
                    let scope =
                        scope.map_err(|unknown| ErrorPage::malformed(unknown.to_string()))?;
                    given.scopes.push(scope);
                }
                "days" => given.lifetime = lifetime(&value)?,
                _ => {}
            }
        }
        Ok(given)
    }
}

fn lifetime(days: &str) -> Result<Option<Duration>, ErrorPage> {
    let mut offered = LIFETIMES.iter();
    let chosen = offered.find(|(offered, _)| offered.to_string() == days);
    match chosen {
        Some((0, _)) => Ok(None),
        Some((days, _)) => Ok(Some(Duration::from_secs(days * SECONDS_PER_DAY))),
        None => Err(ErrorPage::malformed(format!(
            "A token cannot expire after `{days}` days; choose one of the lifetimes of the form."
        ))),
    }
}

#[handler]
async fn create(user: User, dashboard: Dashboard, form: Vec<u8>) -> Result<Response> {
    let app = dashboard.app();
    let given = TokenForm::read(&form)?;
    let created = tokens::create(
        &app.db,
        &app.clock,
        &given.owner,
        &given.scopes,
        given.lifetime,
    );
    let (token, secret) = created.await.map_err(ErrorPage::from)?;
    // The log entry is written first, because this response is the page itself and not a redirect.
    let detail = json!({"owner": token.owner, "scopes": scopes(&token)});
    repair::done(
        &dashboard,
        &user,
        "token.create",
        token.id.to_string(),
        detail,
        "/tokens",
    )
    .await?;
    Ok(show_secret(&user, &token, &secret))
}

fn show_secret(user: &User, token: &Token, secret: &SecretString) -> Response {
    let body = html! {
        section.panel.alone {
            h1 { "Token of " (token.owner) }
            p { "Copy it now. It is not shown again." }
            pre.secret tabindex="0" { (secret.expose_secret()) }
            p.sub { "Send it with each request: " code { "Authorization: Bearer lf_…" } }
            p { a.button.go href="/tokens" { "I have saved the token" } }
        }
    };
    Page::new("New token", Section::Tokens, body).show(user)
}

#[handler]
async fn revoke(user: User, dashboard: Dashboard, Path(id): Path<Uuid>) -> Result<Response> {
    let app = dashboard.app();
    let revoked = tokens::revoke(&app.db, &app.clock, TokenId(id)).await;
    revoked.map_err(ErrorPage::from)?;
    let subject = id.to_string();
    Ok(repair::done(
        &dashboard,
        &user,
        "token.revoke",
        subject,
        json!({}),
        "/tokens",
    )
    .await?)
}

impl From<TokenError> for ErrorPage {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Owner => Self::malformed(format!("The owner {error}.")),
            TokenError::NoScope => Self::malformed("Choose at least one scope."),
            TokenError::NotFound => Self::new(
                StatusCode::NOT_FOUND,
                "No such token",
                "There is no such token, or it is revoked already.",
            ),
            TokenError::Database(error) => error.into(),
            TokenError::Response(error) => Self::failed(error),
        }
    }
}
