//! Redelivering an event.

use crate::dashboard::{
    error::ErrorPage,
    files::actions::sentence,
    repair::{self, COUNT},
    session::User,
    state::Dashboard,
};
use entity::{EventId, WebhookId};
use landfall_core::outbox::{self, RedeliveryError};
use poem::{Response, Result, handler, web::Path};
use serde_json::json;
use uuid::Uuid;

#[handler]
pub(super) async fn redeliver_all(
    user: User,
    dashboard: Dashboard,
    Path(id): Path<Uuid>,
) -> Result<Response> {
    Ok(redeliver(&dashboard, &user, EventId(id), None).await?)
}

#[handler]
pub(super) async fn redeliver_one(
    user: User,
    dashboard: Dashboard,
    Path((id, webhook)): Path<(Uuid, Uuid)>,
) -> Result<Response> {
    Ok(redeliver(&dashboard, &user, EventId(id), Some(WebhookId(webhook))).await?)
}

async fn redeliver(
    dashboard: &Dashboard,
    user: &User,
    id: EventId,
    only: Option<WebhookId>,
) -> Result<Response, ErrorPage> {
    let app = dashboard.app();
    let (_, due) = outbox::redeliver(&app.db, &app.clock, id, only).await?;
    app.dispatch.deliver(&due).await;
    let detail = json!({ COUNT: due.len(), "webhook_id": only });
    repair::done(
        dashboard,
        user,
        "event.redeliver",
        id.to_string(),
        detail,
        &format!("/events/{id}"),
    )
    .await
}

impl From<RedeliveryError> for ErrorPage {
    fn from(error: RedeliveryError) -> Self {
        match error {
            RedeliveryError::NoSuchEvent => Self::not_found("event with this id"),
            RedeliveryError::NoSuchEndpoint => {
                Self::conflict("The endpoint is disabled or deleted. Enable it first.")
            }
            RedeliveryError::NotSubscribed => Self::conflict(sentence(&error)),
            RedeliveryError::Database(error) => error.into(),
        }
    }
}
