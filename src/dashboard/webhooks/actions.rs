//! Actions on an endpoint.

use crate::dashboard::{error::ErrorPage, repair, session::User, state::Dashboard};
use entity::WebhookId;
use landfall_core::webhooks::{self, WebhookPatch};
use poem::{Response, Result, handler, web::Path};
use serde_json::json;
use uuid::Uuid;

/// Redirects to the new event, whose attempt then appears.
#[handler]
pub(super) async fn test(
    user: User,
    dashboard: Dashboard,
    Path(id): Path<Uuid>,
) -> Result<Response> {
    let app = dashboard.app();
    let written = webhooks::test(&app.db, &app.clock, WebhookId(id)).await;
    let (event, due) = written.map_err(ErrorPage::from)?;
    app.dispatch.deliver(&due).await;
    let page = format!("/events/{event}");
    Ok(repair::done(
        &dashboard,
        &user,
        "webhook.test",
        id.to_string(),
        json!({ "event_id": event }),
        &page,
    )
    .await?)
}

#[handler]
pub(super) async fn switch_on(
    user: User,
    dashboard: Dashboard,
    Path(id): Path<Uuid>,
) -> Result<Response> {
    Ok(switch(&dashboard, &user, id, true).await?)
}

#[handler]
pub(super) async fn switch_off(
    user: User,
    dashboard: Dashboard,
    Path(id): Path<Uuid>,
) -> Result<Response> {
    Ok(switch(&dashboard, &user, id, false).await?)
}

async fn switch(
    dashboard: &Dashboard,
    user: &User,
    id: Uuid,
    active: bool,
) -> Result<Response, ErrorPage> {
    let app = dashboard.app();
    let patch = WebhookPatch {
        active: Some(active),
        ..WebhookPatch::default()
    };
    let sealing = &app.config.webhooks.sealing;
    webhooks::update(&app.db, &app.clock, sealing, WebhookId(id), patch).await?;
    let action = if active {
        "webhook.switch_on"
    } else {
        "webhook.switch_off"
    };
    repair::done(
        dashboard,
        user,
        action,
        id.to_string(),
        json!({}),
        &format!("/webhooks/{id}"),
    )
    .await
}

#[handler]
pub(super) async fn delete(
    user: User,
    dashboard: Dashboard,
    Path(id): Path<Uuid>,
) -> Result<Response> {
    let app = dashboard.app();
    webhooks::delete(&app.db, &app.clock, WebhookId(id))
        .await
        .map_err(ErrorPage::from)?;
    let done = repair::done(
        &dashboard,
        &user,
        "webhook.delete",
        id.to_string(),
        json!({}),
        "/webhooks",
    )
    .await?;
    Ok(done)
}
