//! The operators' log: who repaired or changed what by hand, newest first.
//!
//! Owns the rows of `audit_entries`; they are written and never changed. An entry is written after what it tells
//! has been done: a crash between the two leaves a repair that nobody signed.

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

/// Something that was done by hand.
#[derive(Clone, Debug)]
pub struct OperatorAction {
    /// The owner of the token it was done with.
    pub actor: String,
    /// What was done, as `noun.verb`: `queue.pause`, `event.redeliver`.
    pub action: &'static str,
    /// To what: an id, or the name of a queue.
    pub subject: String,
    /// Figures for people; an object, no secrets, no file names.
    pub detail: serde_json::Value,
}

/// Writes an entry and returns its id.
///
/// # Errors
/// The database's.
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

/// One entry.
///
/// # Errors
/// The database's.
pub async fn get(db: &impl ConnectionTrait, id: Uuid) -> Result<Option<Entry>, DbErr> {
    Entity::find_by_id(id).one(db).await
}

/// A page of entries, newest first: all, or those about one subject.
///
/// # Errors
/// The database's.
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
