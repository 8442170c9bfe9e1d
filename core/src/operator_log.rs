//! The operator log: who changed or repaired what manually, newest first.
//!
//! Owns the rows of `audit_entries`, which are never changed. An entry is written after the action, so a crash between
//! the two leaves an action without an entry.

use crate::{
    clock::Clock,
    db::Database,
    pagination::{Page, PageRequest},
};
use entity::audit_entry::{Column, Entity, Model};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, IntoActiveModel, QueryFilter, QueryOrder,
    QuerySelect,
};
use uuid::Uuid;

pub use entity::audit_entry::Model as Entry;

/// A manual action.
#[derive(Clone, Debug)]
pub struct OperatorAction {
    /// The owner of the token that was used.
    pub actor: String,
    /// The action as `noun.verb`, such as `queue.pause` or `event.redeliver`.
    pub action: &'static str,
    /// What was acted on: an id, or the name of a queue.
    pub subject: String,
    /// Further figures as an object; no secrets, no file names.
    pub detail: serde_json::Value,
}

/// Writes an entry and returns its id.
///
/// # Errors
/// Database errors.
pub async fn record(db: &Database, clock: &Clock, repair: OperatorAction) -> Result<Uuid, DbErr> {
    let row = Model {
        id: Uuid::now_v7(),
        at: clock.now(),
        actor: repair.actor,
        action: repair.action.to_owned(),
        subject: repair.subject,
        detail: repair.detail,
    };
    let id = row.id;
    db.write(move |transaction| {
        Box::pin(async move {
            Entity::insert(row.into_active_model())
                .exec_without_returning(transaction)
                .await?;
            Ok(id)
        })
    })
    .await
}

/// Returns an entry.
///
/// # Errors
/// Database errors.
pub async fn get(db: &impl ConnectionTrait, id: Uuid) -> Result<Option<Entry>, DbErr> {
    Entity::find_by_id(id).one(db).await
}

/// Returns a page of entries, newest first: all, or those about one subject.
///
/// # Errors
/// Database errors.
pub async fn list(
    db: &impl ConnectionTrait,
    subject: Option<&str>,
    page: PageRequest,
) -> Result<Page<Entry>, DbErr> {
    let mut select = Entity::find()
        .order_by_desc(Column::Id)
        .limit(page.limit + 1);
    if let Some(subject) = subject {
        select = select.filter(Column::Subject.eq(subject));
    }
    if let Some(before) = page.before {
        select = select.filter(Column::Id.lt(before));
    }
    Ok(Page::cut(select.all(db).await?, page, |row| row.id))
}
