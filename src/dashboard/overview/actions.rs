//! What the overview's own buttons do.

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

/// Makes every delivery due that was given up, to every endpoint that is switched on. Stopped in the middle it has
/// done a part, and may be pressed again.
#[handler]
pub(super) async fn redeliver(visitor: User, dashboard: Dashboard) -> Result<Response> {
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
    Ok(done(&dashboard, &visitor, action, "all endpoints", detail, "/").await?)
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
        // Switched off or removed meanwhile.
        Err(RedeliveryError::NoSuchEndpoint) => Ok(0),
        Err(RedeliveryError::Database(error)) => Err(error.into()),
        Err(error) => Err(ErrorPage::failed(error)),
    }
}
