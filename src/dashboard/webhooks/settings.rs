//! The settings of an endpoint: create, change, rotate the secret. A secret is shown only in the response to the
//! request that generated it.

use crate::dashboard::{
    components::{confirmed_action_button, csrf_field, panel},
    error::ErrorPage,
    files::timeline::host_of,
    layout::{Page, Section},
    repair,
    session::User,
    state::Dashboard,
};
use entity::WebhookId;
use landfall_core::{
    outbox::EventType,
    webhooks::{
        self, MAX_DESCRIPTION_LEN, MAX_URL_LEN, NewWebhook, Webhook, WebhookPatch,
        headers::GivenHeaders, signing::SigningSecret,
    },
};
use maud::{Markup, html};
use poem::{Response, Result, handler, web::Path};
use serde_json::json;
use url::form_urlencoded;
use uuid::Uuid;

/// The submitted form; event types are repeated fields.
#[derive(Debug, Default)]
struct WebhookForm {
    url: String,
    description: String,
    event_types: Vec<String>,
}

impl WebhookForm {
    fn read(form: &[u8]) -> Self {
        let mut given = Self::default();
        for (name, value) in form_urlencoded::parse(form) {
            match &*name {
                "url" => given.url = value.trim().to_owned(),
                "description" => given.description = value.trim().to_owned(),
                "event_type" => given.event_types.push(value.into_owned()),
                _ => {}
            }
        }
        given
    }
}

pub(super) fn new_form(user: &User) -> Markup {
    html! {
        form.stacked #add method="post" action="/webhooks" {
            (csrf_field(user))
            (fields("", "", &[]))
            button.go type="submit" { "Add" }
        }
    }
}

fn fields(url: &str, description: &str, types: &[String]) -> Markup {
    html! {
        label { "URL" input type="url" name="url" value=(url) required maxlength=(MAX_URL_LEN) placeholder="https://example.com/landfall" spellcheck="false"; }
        label { "Description" input name="description" value=(description) maxlength=(MAX_DESCRIPTION_LEN) placeholder="What this endpoint is for"; }
        fieldset {
            legend { "Events " span.dim { "none selected: all" } }
            @for one in EventType::ALL.iter().filter(|one| **one != EventType::WebhookTest) {
                label.check {
                    input type="checkbox" name="event_type" value=(one.as_str()) checked[types.iter().any(|name| name == one.as_str())];
                    (one.as_str())
                }
            }
        }
    }
}

/// The panels below the deliveries: settings, secret, deletion.
pub(super) fn panels(webhook: &Webhook, user: &User) -> Markup {
    let path = format!("/webhooks/{}", webhook.id);
    html! {
        div.grid {
            (panel("Settings", html! {
                form.stacked method="post" action={ (path) "/settings" } {
                    (csrf_field(user))
                    (fields(&webhook.url, &webhook.description, &webhook.event_types))
                    button.go type="submit" { "Save" }
                }
            }))
            (panel("Signing secret", html! {
                div.stacked {
                    p.sub { "Deliveries are signed with a secret that was shown once, when it was created. After a rotation the old secret also signs for one day." }
                    (confirmed_action_button(&format!("{path}/rotate-secret"), "Rotate secret…", "The new secret is shown once, on the next page.", "Rotate secret"))
                    p.sub { "A deleted endpoint receives nothing more, and its pending deliveries fail." }
                    (confirmed_action_button(&format!("{path}/delete"), "Delete…", "This cannot be undone.", "Delete endpoint"))
                }
            }))
        }
    }
}

#[handler]
pub(super) async fn create(user: User, dashboard: Dashboard, form: Vec<u8>) -> Result<Response> {
    let app = dashboard.app();
    let given = WebhookForm::read(&form);
    let new = NewWebhook {
        url: given.url,
        event_types: given.event_types,
        description: given.description,
        secret: None,
        headers: GivenHeaders::default(),
        active: true,
    };
    let sealing = &app.config.webhooks.sealing;
    let created = webhooks::create(&app.db, &app.clock, sealing, new, None)
        .await
        .map_err(ErrorPage::from)?;
    Ok(show_secret(&dashboard, &user, "webhook.create", created).await?)
}

#[handler]
pub(super) async fn rotate(
    user: User,
    dashboard: Dashboard,
    Path(id): Path<Uuid>,
) -> Result<Response> {
    let app = dashboard.app();
    let sealing = &app.config.webhooks.sealing;
    let rotated = webhooks::rotate_secret(&app.db, &app.clock, sealing, WebhookId(id), None).await;
    Ok(show_secret(
        &dashboard,
        &user,
        "webhook.rotate_secret",
        rotated.map_err(ErrorPage::from)?,
    )
    .await?)
}

async fn show_secret(
    dashboard: &Dashboard,
    user: &User,
    action: &'static str,
    (webhook, secret): (Webhook, SigningSecret),
) -> Result<Response, ErrorPage> {
    let path = format!("/webhooks/{}", webhook.id);
    // The log entry is written first, because this response is the page itself and not a redirect.
    repair::done(
        dashboard,
        user,
        action,
        webhook.id.to_string(),
        json!({}),
        &path,
    )
    .await?;
    let body = html! {
        section.panel.alone {
            h1 { "Signing secret of " (host_of(&webhook.url)) }
            p { "Copy it now. It is not shown again." }
            pre.secret tabindex="0" { (secret.expose()) }
            p.sub { "Verify each delivery with it as the Standard Webhooks specification describes." }
            p { a.button.go href=(path) { "I have saved the secret" } }
        }
    };
    Ok(Page::new("New signing secret", Section::Webhooks, body).show(user))
}

#[handler]
pub(super) async fn change(
    user: User,
    dashboard: Dashboard,
    Path(id): Path<Uuid>,
    form: Vec<u8>,
) -> Result<Response> {
    let app = dashboard.app();
    let given = WebhookForm::read(&form);
    let patch = WebhookPatch {
        url: Some(given.url),
        event_types: Some(given.event_types),
        description: Some(given.description),
        headers: None,
        active: None,
    };
    let changed = webhooks::update(
        &app.db,
        &app.clock,
        &app.config.webhooks.sealing,
        WebhookId(id),
        patch,
    )
    .await;
    changed.map_err(ErrorPage::from)?;
    let page = format!("/webhooks/{id}");
    Ok(repair::done(
        &dashboard,
        &user,
        "webhook.change",
        id.to_string(),
        json!({}),
        &page,
    )
    .await?)
}
