//! What the overview's own buttons do.

use crate::dashboard::{
    error::Refusal,
    repair::{COUNT, done},
    session::Visitor,
    state::Dashboard,
};
use entity::{Timestamp, delivery::DeliveryStatus};
use landfall_core::{
    outbox::{self, RedeliveryError, Replay},
    page::{MAX_LIMIT, PageRequest},
    webhooks,
};
use poem::{Response, Result, handler};
use serde_json::json;

/// Makes every delivery due that was given up, to every endpoint that is switched on. Stopped in the middle it has
/// done a part, and may be pressed again.
#[handler]
pub(super) async fn redeliver(visitor: Visitor, dashboard: Dashboard) -> Result<Response> {
    let mut count = 0;
    let mut cursor = None;
    loop {
        let page = PageRequest::decode(MAX_LIMIT, cursor.as_deref()).map_err(Refusal::failed)?;
        let endpoints = webhooks::list(&dashboard.landfall().db, page)
            .await
            .map_err(Refusal::failed)?;
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

async fn replay(dashboard: &Dashboard, endpoint: entity::WebhookId) -> Result<u64, Refusal> {
    let landfall = dashboard.landfall();
    let replay = Replay {
        since: Timestamp::UNIX_EPOCH,
        until: None,
        status: Some(DeliveryStatus::Failed),
    };
    let dispatch = &*landfall.dispatch;
    match outbox::replay(&landfall.db, &landfall.clock, dispatch, endpoint, replay).await {
        Ok(count) => Ok(count),
        // Switched off or removed meanwhile.
        Err(RedeliveryError::NoSuchEndpoint) => Ok(0),
        Err(RedeliveryError::Database(error)) => Err(error.into()),
        Err(error) => Err(Refusal::failed(error)),
    }
}
