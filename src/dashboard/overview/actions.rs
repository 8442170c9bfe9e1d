//! The actions of the overview.

use crate::dashboard::{
    error::ErrorPage,
    repair::{COUNT, done},
    session::User,
    state::Dashboard,
};
use entity::{Timestamp, delivery::DeliveryStatus};
use landfall_core::{
    outbox::{self, RedeliveryError, ReplayRequest},
    pagination::{MAX_LIMIT, PageRequest},
    webhooks,
};
use poem::{Response, Result, handler};
use serde_json::json;

/// Schedules every failed delivery to every enabled endpoint again. If interrupted, it has done part of the work, and
/// can be repeated.
#[handler]
pub(super) async fn redeliver(user: User, dashboard: Dashboard) -> Result<Response> {
    let mut count = 0;
    let mut cursor = None;
    loop {
        let page = PageRequest::decode(MAX_LIMIT, cursor.as_deref()).map_err(ErrorPage::failed)?;
        let endpoints = webhooks::list(&dashboard.app().db, page)
            .await
            .map_err(ErrorPage::failed)?;
        for endpoint in endpoints.items.iter().filter(|endpoint| endpoint.active) {
            count += replay(&dashboard, endpoint.id).await?;
        }
        cursor = endpoints.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    let detail = json!({ COUNT: count });
    let action = "deliveries.redeliver";
    Ok(done(&dashboard, &user, action, "all endpoints", detail, "/").await?)
}

async fn replay(dashboard: &Dashboard, endpoint: entity::WebhookId) -> Result<u64, ErrorPage> {
    let app = dashboard.app();
    let replay = ReplayRequest {
        since: Timestamp::UNIX_EPOCH,
        until: None,
        status: Some(DeliveryStatus::Failed),
    };
    let dispatch = &*app.dispatch;
    match outbox::replay(&app.db, &app.clock, dispatch, endpoint, replay).await {
        Ok(count) => Ok(count),
        // Disabled or deleted in the meantime.
        Err(RedeliveryError::NoSuchEndpoint) => Ok(0),
        Err(RedeliveryError::Database(error)) => Err(error.into()),
        Err(error) => Err(ErrorPage::failed(error)),
    }
}
