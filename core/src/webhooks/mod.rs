//! Webhook endpoints: their URLs, subscriptions and signing secrets.
//!
//! Owns an endpoint from its creation to its deletion, which hides it and fails its pending deliveries. Sends nothing.

mod fields;
pub mod headers;
pub mod key_rotation;
pub mod sealing;
pub mod signing;

use crate::{
    clock::Clock,
    db::Database,
    deliver,
    enqueue::DueDelivery,
    idempotency::{PendingResponse, RecordResponseError},
    outbox::{self, NewEvent, WriteError},
    pagination::{Page, PageRequest},
};
use entity::{EventId, Timestamp, WebhookId, webhook_endpoint as endpoint};
use fields::FieldFaults;
pub use fields::{FieldFault, MAX_DESCRIPTION_LEN, MAX_URL_LEN};
use headers::GivenHeaders;
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, IntoActiveModel, QueryFilter, QueryOrder,
    QuerySelect, UpdateMany, sea_query::Expr,
};
use sealing::Sealing;
use signing::SigningSecret;
use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

/// How long the previous secret still signs after a rotation.
pub const ROTATION_OVERLAP: Duration = Duration::from_secs(24 * 60 * 60);

/// Deliveries of a deleted endpoint failed per transaction …
const PAGE: u64 = 500;

/// … and how many such pages the deletion waits for; the sweep does the rest.
const MAX_PAGES: usize = 10;

/// Why an operation on endpoints failed.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    #[error("the webhook endpoint has invalid fields")]
    Invalid(Vec<FieldFault>),
    #[error("there is no such webhook endpoint")]
    NotFound,
    #[error("writing the test event failed")]
    Event(#[source] WriteError),
    #[error(transparent)]
    Key(#[from] RecordResponseError),
    #[error("the webhook endpoint could not be read or written")]
    Database(#[from] DbErr),
}

/// An endpoint to be created.
#[derive(Clone, Debug)]
pub struct NewWebhook {
    /// `http` or `https`, at most [`MAX_URL_LEN`] characters, without user name, password and fragment.
    pub url: String,
    /// Empty means all.
    pub event_types: Vec<String>,
    /// At most [`MAX_DESCRIPTION_LEN`] characters.
    pub description: String,
    /// `whsec_` and the base64 of 24 to 64 bytes; `None` to generate one.
    pub secret: Option<secrecy::SecretString>,
    /// Sent with every request.
    pub headers: GivenHeaders,
    pub active: bool,
}

/// The fields to change; `None` leaves a field unchanged.
#[derive(Clone, Debug, Default)]
pub struct WebhookPatch {
    pub url: Option<String>,
    pub event_types: Option<Vec<String>>,
    pub description: Option<String>,
    /// Replaces all headers.
    pub headers: Option<GivenHeaders>,
    /// `true` also clears the reason for being disabled and the failures.
    pub active: Option<bool>,
}

/// An endpoint, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    pub id: WebhookId,
    pub url: String,
    /// Empty means all.
    pub event_types: Vec<String>,
    pub description: String,
    /// The names of the headers that are sent with every request, in lower case.
    pub header_names: Vec<String>,
    pub active: bool,
    /// Failed attempts since the last 2xx.
    pub consecutive_failures: u32,
    /// Why Landfall disabled it.
    pub disabled_reason: Option<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl From<endpoint::Model> for Webhook {
    fn from(row: endpoint::Model) -> Self {
        Self {
            id: row.id,
            url: row.url,
            event_types: serde_json::from_value(row.event_types).unwrap_or_default(),
            description: row.description,
            header_names: headers::names(row.headers.as_deref()),
            active: row.active,
            consecutive_failures: u32::try_from(row.consecutive_failures).unwrap_or(0),
            disabled_reason: row.disabled_reason,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// Returns the active endpoints with at least `failures` consecutive failed attempts.
///
/// # Errors
/// Database errors.
pub async fn failing(db: &Database, failures: u32) -> Result<Vec<WebhookId>, DbErr> {
    endpoint::Entity::find()
        .select_only()
        .column(endpoint::Column::Id)
        .filter(endpoint::Column::Active.eq(true))
        .filter(endpoint::Column::DeletedAt.is_null())
        .filter(endpoint::Column::ConsecutiveFailures.gte(i64::from(failures)))
        .into_tuple()
        .all(db.read())
        .await
}

/// Creates an endpoint. The secret must be shown now and is never shown again.
///
/// # Errors
/// [`WebhookError::Invalid`] with every invalid field, [`WebhookError::Key`] when another request has taken over its
/// `Idempotency-Key`, [`WebhookError::Database`].
pub async fn create(
    db: &Database,
    clock: &Clock,
    sealing: &Sealing,
    new: NewWebhook,
    response: Option<PendingResponse<(Webhook, SigningSecret)>>,
) -> Result<(Webhook, SigningSecret), WebhookError> {
    use secrecy::ExposeSecret;
    let now = clock.now();
    let mut faults = FieldFaults::default();
    let secret = faults.secret(new.secret.as_ref().map(|secret| secret.expose_secret()));
    faults.headers(&new.headers);
    let id = WebhookId::generate();
    let row = endpoint::Model {
        id,
        url: faults.url(&new.url),
        event_types: faults.event_types(new.event_types).into(),
        description: faults.description(new.description),
        active: new.active,
        secret: sealing.seal(&id.to_string(), secret.expose()),
        previous_secret: None,
        previous_secret_expires_at: None,
        headers: headers::seal(sealing, id, &new.headers),
        consecutive_failures: 0,
        disabled_reason: None,
        created_at: now,
        updated_at: now,
        deleted_at: None,
    };
    if !faults.0.is_empty() {
        return Err(WebhookError::Invalid(faults.0));
    }
    let stored = row.clone().into_active_model();
    db.write(move |transaction| {
        Box::pin(async move {
            endpoint::Entity::insert(stored)
                .exec_without_returning(transaction)
                .await?;
            let created = (row.into(), secret);
            PendingResponse::write(response, transaction, &created).await?;
            Ok(created)
        })
    })
    .await
}

/// Returns endpoints, newest first.
///
/// # Errors
/// Database errors.
pub async fn list(db: &Database, page: PageRequest) -> Result<Page<Webhook>, WebhookError> {
    let mut select = endpoint::Entity::find()
        .filter(endpoint::Column::DeletedAt.is_null())
        .order_by_desc(endpoint::Column::Id)
        .limit(page.limit + 1);
    if let Some(before) = page.before {
        select = select.filter(endpoint::Column::Id.lt(before));
    }
    let rows = select.all(db.read()).await?;
    Ok(Page::cut(rows, page, |row| row.id.0).map(Webhook::from))
}

/// Returns an endpoint.
///
/// # Errors
/// [`WebhookError::NotFound`], also after it was deleted; [`WebhookError::Database`].
pub async fn get(db: &Database, id: WebhookId) -> Result<Webhook, WebhookError> {
    find(db.read(), id).await
}

/// Returns the URLs of endpoints, including deleted ones.
///
/// # Errors
/// Database errors.
pub async fn urls(
    db: &Database,
    ids: impl IntoIterator<Item = WebhookId>,
) -> Result<HashMap<WebhookId, String>, DbErr> {
    let ids: HashSet<WebhookId> = ids.into_iter().collect();
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<(WebhookId, String)> = endpoint::Entity::find()
        .select_only()
        .column(endpoint::Column::Id)
        .column(endpoint::Column::Url)
        .filter(endpoint::Column::Id.is_in(ids))
        .into_tuple()
        .all(db.read())
        .await?;
    Ok(rows.into_iter().collect())
}

async fn find(connection: &impl ConnectionTrait, id: WebhookId) -> Result<Webhook, WebhookError> {
    endpoint::Entity::find_by_id(id)
        .filter(endpoint::Column::DeletedAt.is_null())
        .one(connection)
        .await?
        .map(Webhook::from)
        .ok_or(WebhookError::NotFound)
}

/// Changes an endpoint. Pending deliveries go to the new URL.
///
/// # Errors
/// As [`create`] and [`get`].
pub async fn update(
    db: &Database,
    clock: &Clock,
    sealing: &Sealing,
    id: WebhookId,
    patch: WebhookPatch,
) -> Result<Webhook, WebhookError> {
    let mut faults = FieldFaults::default();
    let mut change = existing(id).col_expr(endpoint::Column::UpdatedAt, Expr::val(clock.now()));
    if let Some(url) = patch.url {
        change = change.col_expr(endpoint::Column::Url, Expr::val(faults.url(&url)));
    }
    if let Some(types) = patch.event_types {
        let types: serde_json::Value = faults.event_types(types).into();
        change = change.col_expr(endpoint::Column::EventTypes, Expr::val(types));
    }
    if let Some(text) = patch.description {
        let text = faults.description(text);
        change = change.col_expr(endpoint::Column::Description, Expr::val(text));
    }
    if let Some(given) = patch.headers {
        faults.headers(&given);
        let stored = headers::seal(sealing, id, &given);
        change = change.col_expr(endpoint::Column::Headers, Expr::val(stored));
    }
    if let Some(active) = patch.active {
        change = change.col_expr(endpoint::Column::Active, Expr::val(active));
        if active {
            change = change
                .col_expr(endpoint::Column::DisabledReason, Expr::val(None::<String>))
                .col_expr(endpoint::Column::ConsecutiveFailures, Expr::val(0));
        }
    }
    if !faults.0.is_empty() {
        return Err(WebhookError::Invalid(faults.0));
    }
    change_one(db, change).await
}

/// Gives an endpoint a new secret, which must be shown now and is never shown again. The previous one also signs for
/// [`ROTATION_OVERLAP`]; older ones no longer do.
///
/// # Errors
/// [`WebhookError::Key`] when another request has taken over its `Idempotency-Key`, and as [`get`].
pub async fn rotate_secret(
    db: &Database,
    clock: &Clock,
    sealing: &Sealing,
    id: WebhookId,
    response: Option<PendingResponse<(Webhook, SigningSecret)>>,
) -> Result<(Webhook, SigningSecret), WebhookError> {
    let secret = SigningSecret::generate();
    let sealed = sealing.seal(&id.to_string(), secret.expose());
    let change = existing(id)
        .col_expr(
            endpoint::Column::PreviousSecret,
            Expr::col(endpoint::Column::Secret),
        )
        .col_expr(
            endpoint::Column::PreviousSecretExpiresAt,
            Expr::val(clock.after(ROTATION_OVERLAP)),
        )
        .col_expr(endpoint::Column::Secret, Expr::val(sealed))
        .col_expr(endpoint::Column::UpdatedAt, Expr::val(clock.now()));
    db.write(move |transaction| {
        Box::pin(async move {
            let rotated = (changed(transaction, change).await?, secret);
            PendingResponse::write(response, transaction, &rotated).await?;
            Ok(rotated)
        })
    })
    .await
}

/// Deletes an endpoint and its secrets: it can no longer be found, and its pending deliveries fail. After a crash, or
/// if there are more than this call waits for, [`deliver::fail_orphaned`] does the rest.
///
/// # Errors
/// As [`get`].
pub async fn delete(db: &Database, clock: &Clock, id: WebhookId) -> Result<(), WebhookError> {
    let now = clock.now();
    let change = existing(id)
        .col_expr(endpoint::Column::DeletedAt, Expr::val(now))
        .col_expr(endpoint::Column::UpdatedAt, Expr::val(now))
        .col_expr(endpoint::Column::Active, Expr::val(false))
        // Nothing is signed with it any more, so no key needs to be kept for it.
        .col_expr(endpoint::Column::Secret, Expr::val(""))
        .col_expr(endpoint::Column::PreviousSecret, Expr::val(None::<String>))
        .col_expr(endpoint::Column::Headers, Expr::val(None::<String>));
    change_one(db, change).await?;
    for _ in 0..MAX_PAGES {
        if deliver::fail_endpoint_deliveries(db, clock, id, PAGE).await? == 0 {
            break;
        }
    }
    Ok(())
}

/// Writes a `webhook.test` event for this endpoint only, whatever its subscription and even if it is disabled. Returns
/// what the caller must push.
///
/// # Errors
/// [`WebhookError::Event`], and as [`get`].
pub async fn test(
    db: &Database,
    clock: &Clock,
    id: WebhookId,
) -> Result<(EventId, Vec<DueDelivery>), WebhookError> {
    let now = clock.now();
    db.write(move |transaction| {
        Box::pin(async move {
            find(transaction, id).await?;
            let written = outbox::write(transaction, now, NewEvent::webhook_test(id))
                .await
                .map_err(WebhookError::Event)?;
            Ok((written.event_id, written.due))
        })
    })
    .await
}

/// Updates an endpoint that is not deleted.
fn existing(id: WebhookId) -> UpdateMany<endpoint::Entity> {
    endpoint::Entity::update_many()
        .filter(endpoint::Column::Id.eq(id))
        .filter(endpoint::Column::DeletedAt.is_null())
}

async fn change_one(
    db: &Database,
    change: UpdateMany<endpoint::Entity>,
) -> Result<Webhook, WebhookError> {
    db.write(move |transaction| Box::pin(async move { changed(transaction, change).await }))
        .await
}

async fn changed(
    transaction: &impl ConnectionTrait,
    change: UpdateMany<endpoint::Entity>,
) -> Result<Webhook, WebhookError> {
    let rows = change.exec_with_returning(transaction).await?;
    rows.into_iter()
        .next()
        .map(Webhook::from)
        .ok_or(WebhookError::NotFound)
}
