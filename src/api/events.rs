//! `/v1/events`.

use super::{
    auth::Admin, idempotency::IdempotentRequest, json::OptionalJson, page_stream::PageResponse,
    problem::Problem, response::JsonResponse, schema, state::ApiState,
};
use entity::{EventId, WebhookId, outbox_event};
use http::header;
use landfall_core::{
    db::Database,
    outbox::{self, EventFilter},
    pagination::{DEFAULT_LIMIT, Page, PageRequest},
};
use poem::web::Data;
use poem_openapi::{
    OpenApi,
    param::{Path, Query},
};
use uuid::Uuid;

/// Outbox events and their deliveries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Events;

#[OpenApi(prefix_path = "/v1")]
impl Events {
    /// List events
    ///
    /// Newest first, with their deliveries but without the attempts. A page with several filters may be short and still
    /// have a next page.
    #[oai(path = "/events", method = "get", operation_id = "listEvents")]
    #[expect(clippy::too_many_arguments, reason = "each is a parameter of the API")]
    async fn list(
        &self,
        _caller: Admin,
        state: Data<&ApiState>,
        status: Query<Option<schema::EventStatus>>,
        event_type: Query<Option<String>>,
        /// The id of the file, batch or webhook that the event is about.
        aggregate_id: Query<Option<Uuid>>,
        /// The maximum number of items; 50 by default.
        #[oai(validator(minimum(value = "1"), maximum(value = "200")))]
        limit: Query<Option<u64>>,
        /// The `next_cursor` of the previous page.
        cursor: Query<Option<String>>,
    ) -> Result<PageResponse<schema::Event>, Problem> {
        let page = PageRequest::decode(limit.0.unwrap_or(DEFAULT_LIMIT), cursor.0.as_deref())?;
        let filter = EventFilter {
            status: status.0.map(outbox_event::EventStatus::from),
            event_type: event_type.0,
            aggregate_id: aggregate_id.0,
            ..EventFilter::default()
        };
        let db = state.app.db.clone();
        PageResponse::read(page, move |page| {
            let (db, filter) = (db.clone(), filter.clone());
            async move { with_deliveries(&db, outbox::list(&db, filter, page).await?).await }
        })
        .await
    }

    /// Get an event
    ///
    /// Includes its deliveries and their attempts.
    #[oai(path = "/events/:id", method = "get", operation_id = "getEvent")]
    async fn get(
        &self,
        _caller: Admin,
        state: Data<&ApiState>,
        id: Path<Uuid>,
    ) -> Result<JsonResponse<schema::Event>, Problem> {
        JsonResponse::new(&find(&state.app.db, EventId(id.0)).await?)
    }

    /// Redeliver an event
    ///
    /// To one endpoint, or to all matching ones.
    #[oai(
        path = "/events/:id/redeliver",
        method = "post",
        operation_id = "redeliverEvent"
    )]
    async fn redeliver(
        &self,
        caller: Admin,
        state: Data<&ApiState>,
        idempotent: IdempotentRequest,
        id: Path<Uuid>,
        body: OptionalJson<schema::Redelivery>,
    ) -> Result<JsonResponse<schema::Event, 202>, Problem> {
        let digest = body.0.digest;
        let only = body.0.value.webhook_id.map(WebhookId);
        let app = state.app.clone();
        let work = async move {
            let id = EventId(id.0);
            let (_, due) = outbox::redeliver(&app.db, &app.clock, id, only).await?;
            app.dispatch.deliver(&due).await;
            JsonResponse::new(&find(&app.db, id).await?)?
                .with(header::LOCATION, &format!("/v1/events/{id}"))
        };
        idempotent
            .at_least_once(&state, &caller.0, digest, work)
            .await
    }
}

async fn find(db: &Database, id: EventId) -> Result<schema::Event, Problem> {
    let found = outbox::get(db, id).await?;
    Ok(found.ok_or_else(|| Problem::not_found("event"))?.into())
}

async fn with_deliveries(
    db: &Database,
    page: Page<outbox_event::Model>,
) -> Result<Page<schema::Event>, Problem> {
    let ids: Vec<EventId> = page.items.iter().map(|row| row.id).collect();
    let mut deliveries = outbox::event_deliveries(db, &ids).await?;
    Ok(page.map(|row| {
        let deliveries_of_event = deliveries.remove(&row.id).unwrap_or_default().into_iter();
        let deliveries_of_event =
            deliveries_of_event.map(|row| schema::Delivery::from_row(row, Vec::new()));
        schema::Event::from_row(row, deliveries_of_event.collect())
    }))
}
