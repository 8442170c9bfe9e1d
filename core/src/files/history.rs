//! The history of a file, from the database: how it was received, which workers processed it, which endpoints were
//! notified.

use super::{OwnerScope, get};
use crate::{
    db::Database,
    outbox::{self, EventDetail, EventFilter},
    pagination::PageRequest,
    webhooks,
};
use entity::{
    FileId, Timestamp, WebhookId, attempt,
    delivery::DeliveryStatus,
    file::{FileStatus, Model},
    upload::{self, UploadKind},
};
use sea_orm::{ColumnTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use std::collections::HashMap;

/// Maximum number of events shown per file, the newest. With today's event types a file has at most three.
const MAX_EVENTS_SHOWN: u64 = 20;

/// A file with its upload, events and deliveries.
#[derive(Clone, Debug)]
pub struct FileHistory {
    pub file: Model,
    /// `None` if the file came in a single request, or the upload session has been deleted since.
    pub upload: Option<upload::Model>,
    /// Oldest first.
    pub events: Vec<EventDetail>,
    /// The URLs of the deliveries' endpoints, including deleted ones.
    pub urls: HashMap<WebhookId, String>,
}

/// An entry in the history of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryEntry<'a> {
    pub at: Timestamp,
    pub what: HistoryEvent<'a>,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum HistoryEvent<'a> {
    /// The first request; `None` if the kind of upload is no longer known, or there was only one request.
    Begun(Option<UploadKind>),
    /// All bytes are durable in staging.
    Staged,
    /// The last claim by a worker.
    Claimed(&'a str),
    /// The bytes were hashed and the object is complete at its key.
    Transferred(Option<&'a str>),
    /// The row and its event were committed.
    Stored,
    /// An event about the file was written.
    Announced(&'a EventDetail),
    /// A delivery attempt.
    Attempt {
        webhook: WebhookId,
        attempt: &'a attempt::Model,
    },
    /// It failed permanently.
    Failed { code: &'a str, message: &'a str },
    /// It was deleted or has expired.
    Deleted,
    /// When finalizing is, or was, due again.
    FinalizeDue { attempts: i32 },
    /// When a delivery is, or was, due.
    DeliveryDue { webhook: WebhookId, attempts: i32 },
    /// When the stored file expires.
    Expires,
}

impl FileHistory {
    /// Returns past and scheduled entries in chronological order.
    #[must_use]
    pub fn entries(&self) -> Vec<HistoryEntry<'_>> {
        let mut entries = self.of_the_file();
        for event in &self.events {
            entries.push(HistoryEntry {
                at: event.event.created_at,
                what: HistoryEvent::Announced(event),
            });
            for delivery in &event.deliveries {
                let webhook = delivery.delivery.webhook_id;
                entries.extend(delivery.attempts.iter().map(|attempt| HistoryEntry {
                    at: attempt.at,
                    what: HistoryEvent::Attempt { webhook, attempt },
                }));
                let due = delivery.delivery.next_attempt_at;
                let due = due.filter(|_| delivery.delivery.status == DeliveryStatus::Pending);
                entries.extend(due.map(|at| HistoryEntry {
                    at,
                    what: HistoryEvent::DeliveryDue {
                        webhook,
                        attempts: delivery.delivery.attempt_count,
                    },
                }));
            }
        }
        // The sort is stable, so entries with equal times stay in causal order.
        entries.sort_by_key(|entry| entry.at);
        entries
    }

    fn of_the_file(&self) -> Vec<HistoryEntry<'_>> {
        let file = &self.file;
        let kind = self.upload.as_ref().map(|upload| upload.kind);
        let failed = (file.status == FileStatus::Failed).then(|| HistoryEvent::Failed {
            code: file.error_code.as_deref().unwrap_or_default(),
            message: file.error_message.as_deref().unwrap_or_default(),
        });
        let due = (file.status == FileStatus::Staged).then_some(HistoryEvent::FinalizeDue {
            attempts: file.finalize_attempts,
        });
        let expires = (file.status == FileStatus::Stored).then_some(HistoryEvent::Expires);
        let claimed = file.claimed_by.as_deref().map(HistoryEvent::Claimed);
        [
            (Some(file.created_at), Some(HistoryEvent::Begun(kind))),
            (file.staged_at, Some(HistoryEvent::Staged)),
            (file.claimed_at, claimed),
            (
                file.landed_at,
                Some(HistoryEvent::Transferred(file.storage_key.as_deref())),
            ),
            (file.stored_at, Some(HistoryEvent::Stored)),
            (Some(file.updated_at), failed),
            (file.deleted_at, Some(HistoryEvent::Deleted)),
            (file.next_attempt_at, due),
            (file.expires_at, expires),
        ]
        .into_iter()
        .filter_map(|(at, what)| {
            Some(HistoryEntry {
                at: at?,
                what: what?,
            })
        })
        .collect()
    }
}

/// Returns the history of a file, if the scope covers it.
///
/// # Errors
/// Database errors.
pub async fn history(
    db: &Database,
    scope: &OwnerScope,
    id: FileId,
) -> Result<Option<FileHistory>, DbErr> {
    let Some(file) = get(db.read(), scope, id).await? else {
        return Ok(None);
    };
    let upload = upload::Entity::find()
        .filter(upload::Column::FileId.eq(id))
        .order_by_asc(upload::Column::Id)
        .limit(1)
        .one(db.read())
        .await?;
    let about = EventFilter {
        aggregate_id: Some(id.0),
        ..EventFilter::default()
    };
    let page = PageRequest {
        limit: MAX_EVENTS_SHOWN,
        before: None,
    };
    let mut events = Vec::new();
    for event in outbox::list(db, about, page).await?.items.into_iter().rev() {
        events.extend(outbox::get(db, event.id).await?);
    }
    let webhook_ids = events.iter().flat_map(|event| &event.deliveries);
    let webhook_ids = webhook_ids.map(|delivery| delivery.delivery.webhook_id);
    let urls = webhooks::urls(db, webhook_ids).await?;
    Ok(Some(FileHistory {
        file,
        upload,
        events,
        urls,
    }))
}
