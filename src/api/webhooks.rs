//! `/v1/webhooks`.

use super::{
    auth::Admin,
    idempotency::IdempotentRequest,
    json::Json,
    page_stream::PageResponse,
    problem::{Code, Problem},
    response::{JsonResponse, NoContent},
    schema,
    state::ApiState,
};
use entity::{WebhookId, delivery};
use http::header;
use landfall_core::{
    digest::Sha256Digest,
    outbox,
    pagination::{DEFAULT_LIMIT, PageRequest},
    webhooks::{self, NewWebhook, WebhookPatch, headers::GivenHeaders, signing::SigningSecret},
};
use poem::web::Data;
use poem_openapi::{
    OpenApi,
    param::{Path, Query},
};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Webhook endpoints and their deliveries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Webhooks;

#[OpenApi(prefix_path = "/v1")]
impl Webhooks {
    /// Create a webhook endpoint
    ///
    /// The response contains the signing secret. It is not shown again.
    #[oai(path = "/webhooks", method = "post", operation_id = "createWebhook")]
    async fn create(
        &self,
        caller: Admin,
        state: Data<&ApiState>,
        idempotent: IdempotentRequest,
        body: Json<schema::NewWebhook>,
    ) -> Result<JsonResponse<schema::Webhook, 201>, Problem> {
        let Json { value, digest } = body;
        let app = state.app.clone();
        let work = async move |keep| {
            let new = NewWebhook {
                url: value.url,
                event_types: value.event_types.unwrap_or_default(),
                description: value.description.unwrap_or_default(),
                secret: value.secret.map(Into::into),
                headers: given_headers(value.headers.unwrap_or_default()),
                active: value.active.unwrap_or(true),
            };
            let (db, clock) = (&app.db, &app.clock);
            let sealing = &app.config.webhooks.sealing;
            Ok(webhooks::create(db, clock, sealing, new, keep).await?)
        };
        idempotent
            .once(&state, &caller.0, digest, created, work)
            .await
    }

    /// List webhook endpoints
    ///
    /// Newest first.
    #[oai(path = "/webhooks", method = "get", operation_id = "listWebhooks")]
    async fn list(
        &self,
        _caller: Admin,
        state: Data<&ApiState>,
        /// The maximum number of items; 50 by default.
        #[oai(validator(minimum(value = "1"), maximum(value = "200")))]
        limit: Query<Option<u64>>,
        /// The `next_cursor` of the previous page.
        cursor: Query<Option<String>>,
    ) -> Result<PageResponse<schema::Webhook>, Problem> {
        let page = PageRequest::decode(limit.0.unwrap_or(DEFAULT_LIMIT), cursor.0.as_deref())?;
        let db = state.app.db.clone();
        PageResponse::read(page, move |page| {
            let db = db.clone();
            async move { Ok(webhooks::list(&db, page).await?.map(schema::Webhook::from)) }
        })
        .await
    }

    /// Get a webhook endpoint
    #[oai(path = "/webhooks/:id", method = "get", operation_id = "getWebhook")]
    async fn get(
        &self,
        _caller: Admin,
        state: Data<&ApiState>,
        id: Path<Uuid>,
    ) -> Result<JsonResponse<schema::Webhook>, Problem> {
        let webhook = webhooks::get(&state.app.db, WebhookId(id.0)).await?;
        JsonResponse::new(&schema::Webhook::from(webhook))
    }

    /// Update a webhook endpoint
    ///
    /// Pending deliveries go to the new URL.
    #[oai(
        path = "/webhooks/:id",
        method = "patch",
        operation_id = "updateWebhook"
    )]
    async fn update(
        &self,
        _caller: Admin,
        state: Data<&ApiState>,
        id: Path<Uuid>,
        body: Json<schema::WebhookPatch>,
    ) -> Result<JsonResponse<schema::Webhook>, Problem> {
        let patch = WebhookPatch {
            url: body.value.url,
            event_types: body.value.event_types,
            description: body.value.description,
            headers: body.value.headers.map(given_headers),
            active: body.value.active,
        };
        let app = &state.app;
        let id = WebhookId(id.0);
        let webhook =
            webhooks::update(&app.db, &app.clock, &app.config.webhooks.sealing, id, patch).await?;
        JsonResponse::new(&schema::Webhook::from(webhook))
    }

    /// Delete a webhook endpoint
    ///
    /// Its pending deliveries become `failed`.
    #[oai(
        path = "/webhooks/:id",
        method = "delete",
        operation_id = "deleteWebhook"
    )]
    async fn delete(
        &self,
        _caller: Admin,
        state: Data<&ApiState>,
        id: Path<Uuid>,
    ) -> Result<NoContent, Problem> {
        let app = &state.app;
        webhooks::delete(&app.db, &app.clock, WebhookId(id.0)).await?;
        Ok(NoContent)
    }

    /// Rotate the secret of a webhook endpoint
    ///
    /// The old secret also signs for one day.
    #[oai(
        path = "/webhooks/:id/rotate-secret",
        method = "post",
        operation_id = "rotateSecret"
    )]
    async fn rotate_secret(
        &self,
        caller: Admin,
        state: Data<&ApiState>,
        idempotent: IdempotentRequest,
        id: Path<Uuid>,
    ) -> Result<JsonResponse<schema::Webhook>, Problem> {
        let app = state.app.clone();
        let work = async move |keep| {
            let (db, clock) = (&app.db, &app.clock);
            let sealing = &app.config.webhooks.sealing;
            Ok(webhooks::rotate_secret(db, clock, sealing, WebhookId(id.0), keep).await?)
        };
        let nothing = Sha256Digest::compute(b"");
        idempotent
            .once(&state, &caller.0, nothing, rotated, work)
            .await
    }

    /// Send a `webhook.test` event to this endpoint only
    #[oai(
        path = "/webhooks/:id/test",
        method = "post",
        operation_id = "testWebhook"
    )]
    async fn test(
        &self,
        caller: Admin,
        state: Data<&ApiState>,
        idempotent: IdempotentRequest,
        id: Path<Uuid>,
    ) -> Result<JsonResponse<schema::Event, 202>, Problem> {
        let app = state.app.clone();
        let work = async move {
            let id = WebhookId(id.0);
            let (event, due) = webhooks::test(&app.db, &app.clock, id).await?;
            app.dispatch.deliver(&due).await;
            let detail = outbox::get(&app.db, event).await?;
            let detail = detail.ok_or_else(|| Problem::not_found("event"))?;
            JsonResponse::new(&schema::Event::from(detail))?
                .with(header::LOCATION, &format!("/v1/events/{event}"))
        };
        idempotent
            .at_least_once(&state, &caller.0, Sha256Digest::compute(b""), work)
            .await
    }

    /// List deliveries to a webhook endpoint
    ///
    /// Newest first, with their attempts.
    #[oai(
        path = "/webhooks/:id/deliveries",
        method = "get",
        operation_id = "listDeliveries"
    )]
    async fn deliveries(
        &self,
        _caller: Admin,
        state: Data<&ApiState>,
        id: Path<Uuid>,
        status: Query<Option<schema::DeliveryStatus>>,
        /// The maximum number of items; 50 by default.
        #[oai(validator(minimum(value = "1"), maximum(value = "200")))]
        limit: Query<Option<u64>>,
        /// The `next_cursor` of the previous page.
        cursor: Query<Option<String>>,
    ) -> Result<PageResponse<schema::Delivery>, Problem> {
        let page = PageRequest::decode(limit.0.unwrap_or(DEFAULT_LIMIT), cursor.0.as_deref())?;
        let (db, id) = (&state.app.db, WebhookId(id.0));
        webhooks::get(db, id).await?;
        let status = status.0.map(delivery::DeliveryStatus::from);
        let db = db.clone();
        PageResponse::read(page, move |page| {
            let db = db.clone();
            async move {
                let page = outbox::deliveries(&db, id, status, page).await?;
                Ok(page.map(schema::Delivery::from))
            }
        })
        .await
    }

    /// Replay events to a webhook endpoint
    #[oai(
        path = "/webhooks/:id/replay",
        method = "post",
        operation_id = "replayWebhook"
    )]
    async fn replay(
        &self,
        caller: Admin,
        state: Data<&ApiState>,
        idempotent: IdempotentRequest,
        id: Path<Uuid>,
        body: Json<schema::Replay>,
    ) -> Result<JsonResponse<schema::Replayed, 202>, Problem> {
        let Json { value, digest } = body;
        let status = value.status.map(delivery::DeliveryStatus::from);
        if status == Some(delivery::DeliveryStatus::Pending) {
            return Err(Problem::field(
                Code::MalformedRequest,
                "status",
                "pending deliveries are already queued; use delivered or failed",
            ));
        }
        let replay = outbox::ReplayRequest {
            since: value.since,
            until: value.until,
            status,
        };
        let app = state.app.clone();
        let work = async move {
            let id = WebhookId(id.0);
            webhooks::get(&app.db, id).await?;
            let dispatch = &*app.dispatch;
            let count = outbox::replay(&app.db, &app.clock, dispatch, id, replay).await?;
            JsonResponse::new(&schema::Replayed { count })
        };
        idempotent
            .at_least_once(&state, &caller.0, digest, work)
            .await
    }
}

fn given_headers(headers: BTreeMap<String, String>) -> GivenHeaders {
    let headers = headers.into_iter();
    headers.map(|(name, value)| (name, value.into())).collect()
}

type WebhookWithSecret = (webhooks::Webhook, SigningSecret);

fn created(created: &WebhookWithSecret) -> Result<JsonResponse<schema::Webhook, 201>, Problem> {
    let location = format!("/v1/webhooks/{}", created.0.id);
    let response = JsonResponse::new(&with_secret(created))?.sealed();
    response.with(header::LOCATION, &location)
}

fn rotated(rotated: &WebhookWithSecret) -> Result<JsonResponse<schema::Webhook>, Problem> {
    Ok(JsonResponse::new(&with_secret(rotated))?.sealed())
}

fn with_secret((webhook, secret): &WebhookWithSecret) -> schema::Webhook {
    schema::Webhook {
        secret: Some(secret.expose().to_owned()),
        ..webhook.clone().into()
    }
}
