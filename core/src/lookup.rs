//! Finds what an id belongs to: one primary-key lookup per table, at a cost independent of their size.

use crate::files::OwnerScope;
use entity::{
    BatchId, DeliveryId, EventId, FileId, UploadId, WebhookId, batch, delivery, file, outbox_event,
    upload, webhook_endpoint,
};
use sea_orm::{ConnectionTrait, DbErr, EntityTrait};
use uuid::Uuid;

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupResult {
    File(FileId),
    /// An upload session, with the id of its file, which it may share with other sessions.
    Upload(FileId),
    Batch(BatchId),
    Event(EventId),
    /// A delivery, with the id of its event.
    Delivery(EventId),
    Webhook(WebhookId),
}

/// Finds the object with this id, if the scope covers it. Events, deliveries and endpoints are visible only to callers
/// that may see everything.
///
/// # Errors
/// Database errors.
pub async fn by_id(
    db: &impl ConnectionTrait,
    scope: &OwnerScope,
    id: Uuid,
) -> Result<Option<LookupResult>, DbErr> {
    if let Some(row) = file::Entity::find_by_id(FileId(id)).one(db).await?
        && scope.covers(row.owner.as_deref())
    {
        return Ok(Some(LookupResult::File(row.id)));
    }
    if let Some(row) = upload::Entity::find_by_id(UploadId(id)).one(db).await?
        && scope.covers(row.owner.as_deref())
    {
        return Ok(Some(LookupResult::Upload(row.file_id)));
    }
    if let Some(row) = batch::Entity::find_by_id(BatchId(id)).one(db).await?
        && scope.covers(row.owner.as_deref())
    {
        return Ok(Some(LookupResult::Batch(row.id)));
    }
    match scope {
        OwnerScope::All => announced(db, id).await,
        OwnerScope::Owner(_) => Ok(None),
    }
}

async fn announced(db: &impl ConnectionTrait, id: Uuid) -> Result<Option<LookupResult>, DbErr> {
    if let Some(row) = outbox_event::Entity::find_by_id(EventId(id))
        .one(db)
        .await?
    {
        return Ok(Some(LookupResult::Event(row.id)));
    }
    if let Some(row) = delivery::Entity::find_by_id(DeliveryId(id)).one(db).await? {
        return Ok(Some(LookupResult::Delivery(row.event_id)));
    }
    let endpoint = webhook_endpoint::Entity::find_by_id(WebhookId(id))
        .one(db)
        .await?;
    let visible = endpoint.filter(|row| row.deleted_at.is_none());
    Ok(visible.map(|row| LookupResult::Webhook(row.id)))
}
