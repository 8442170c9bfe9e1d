//! The whole life of a file, from what the tables know: how it was received, who took it ashore, who was told.

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

/// Events of one file that are shown, the newest; a file has no more than three unless more types are invented.
const MAX_EVENTS_SHOWN: u64 = 20;

/// A file and all that is known of it.
#[derive(Clone, Debug)]
pub struct FileHistory {
    pub file: Model,
    /// None when it came in one request, or when the session has been forgotten since.
    pub upload: Option<upload::Model>,
    /// The oldest first.
    pub events: Vec<EventDetail>,
    /// Where the endpoints of the deliveries are, or were.
    pub urls: HashMap<WebhookId, String>,
}

/// Something that happened to a file.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryEntry<'a> {
    pub at: Timestamp,
    pub what: HistoryEvent<'a>,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum HistoryEvent<'a> {
    /// The first request; none: which kind is not known any more, or it was the only one.
    Begun(Option<UploadKind>),
    /// Every byte is durable in staging.
    Staged,
    /// A worker took it; the last one that did.
    Claimed(&'a str),
    /// Hashed, and the object is whole at its key.
    Transferred(Option<&'a str>),
    /// The row and its event were committed.
    Stored,
    /// An event about it was written.
    Announced(&'a EventDetail),
    /// An attempt of a delivery.
    Attempt {
        webhook: WebhookId,
        attempt: &'a attempt::Model,
    },
    /// It failed for good.
    Failed { code: &'a str, message: &'a str },
    /// It was deleted, or its time was over.
    Deleted,
    /// Finalizing is due again at this moment, or was.
    FinalizeDue { attempts: i32 },
    /// A delivery is due at this moment, or was.
    DeliveryDue { webhook: WebhookId, attempts: i32 },
    /// A stored file goes at this moment.
    Expires,
}

impl FileHistory {
    /// What happened, and what is known to come, in the order of time.
    #[must_use]
    pub fn moments(&self) -> Vec<HistoryEntry<'_>> {
        let mut moments = self.of_the_file();
        for event in &self.events {
            moments.push(HistoryEntry {
                at: event.event.created_at,
                what: HistoryEvent::Announced(event),
            });
            for delivery in &event.deliveries {
                let webhook = delivery.delivery.webhook_id;
                moments.extend(delivery.attempts.iter().map(|attempt| HistoryEntry {
                    at: attempt.at,
                    what: HistoryEvent::Attempt { webhook, attempt },
                }));
                let due = delivery.delivery.next_attempt_at;
                let due = due.filter(|_| delivery.delivery.status == DeliveryStatus::Pending);
                moments.extend(due.map(|at| HistoryEntry {
                    at,
                    what: HistoryEvent::DeliveryDue {
                        webhook,
                        attempts: delivery.delivery.attempt_count,
                    },
                }));
            }
        }
        // Stable: what happened at one moment stays in the order of cause and effect.
        moments.sort_by_key(|moment| moment.at);
        moments
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

/// The life of a file, if the scope covers it.
///
/// # Errors
/// The database's.
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
    let told = events.iter().flat_map(|event| &event.deliveries);
    let told = told.map(|delivery| delivery.delivery.webhook_id);
    let urls = webhooks::urls(db, told).await?;
    Ok(Some(FileHistory {
        file,
        upload,
        events,
        urls,
    }))
}
