//! Candidates for removal: objects and staged bytes without a row, recorded until a later sweep checks them again.
//!
//! After a crash, the next sweep checks the recorded candidates. Losing one costs a delay, never bytes.

use super::PAGE;
use crate::{clock::Clock, db::Database};
use entity::{
    Timestamp,
    cleanup_candidate::{ActiveModel, Column, Entity, Place},
};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
    sea_query::OnConflict,
};
use std::{collections::HashSet, time::Duration};

/// Records these candidates, and returns those that were first seen at least `grace` ago.
pub(crate) async fn record_seen(
    db: &Database,
    clock: &Clock,
    place: Place,
    names: Vec<String>,
    grace: Duration,
) -> Result<HashSet<String>, DbErr> {
    let mut due = HashSet::new();
    let since = clock.before(grace);
    for page in names.chunks(PAGE as usize) {
        record(db, clock.now(), place, page).await?;
        let found: Vec<String> = Entity::find()
            .select_only()
            .column(Column::Name)
            .filter(Column::Place.eq(place))
            .filter(Column::Name.is_in(page))
            .filter(Column::FirstSeenAt.lte(since))
            .into_tuple()
            .all(db.read())
            .await?;
        due.extend(found);
    }
    Ok(due)
}

async fn record(
    db: &Database,
    now: Timestamp,
    place: Place,
    names: &[String],
) -> Result<(), DbErr> {
    if names.is_empty() {
        return Ok(());
    }
    let rows: Vec<ActiveModel> = names
        .iter()
        .map(|name| ActiveModel {
            place: Set(place),
            name: Set(name.clone()),
            first_seen_at: Set(now),
            last_seen_at: Set(now),
        })
        .collect();
    db.write(move |transaction| {
        Box::pin(async move {
            Entity::insert_many(rows)
                .on_conflict(
                    OnConflict::columns([Column::Place, Column::Name])
                        .update_column(Column::LastSeenAt)
                        .to_owned(),
                )
                .exec_without_returning(transaction)
                .await
                .map(drop)
        })
    })
    .await
}

/// Returns those that are already candidates of this kind.
pub(crate) async fn known(
    db: &Database,
    place: Place,
    names: &[String],
) -> Result<HashSet<String>, DbErr> {
    let mut known = HashSet::new();
    for page in names.chunks(PAGE as usize) {
        let found: Vec<String> = Entity::find()
            .select_only()
            .column(Column::Name)
            .filter(Column::Place.eq(place))
            .filter(Column::Name.is_in(page))
            .into_tuple()
            .all(db.read())
            .await?;
        known.extend(found);
    }
    Ok(known)
}

/// Returns a page of candidates first seen at least `grace` ago, after a name.
pub(crate) async fn due(
    db: &Database,
    clock: &Clock,
    place: Place,
    grace: Duration,
    after: &str,
) -> Result<Vec<String>, DbErr> {
    Entity::find()
        .select_only()
        .column(Column::Name)
        .filter(Column::Place.eq(place))
        .filter(Column::Name.gt(after))
        .filter(Column::FirstSeenAt.lte(clock.before(grace)))
        .order_by_asc(Column::Name)
        .limit(PAGE)
        .into_tuple()
        .all(db.read())
        .await
}

/// Forgets candidates by name: they were removed, or are in use.
pub(crate) async fn forget(db: &Database, place: Place, names: Vec<String>) -> Result<(), DbErr> {
    if names.is_empty() {
        return Ok(());
    }
    db.write(move |transaction| {
        Box::pin(async move {
            Entity::delete_many()
                .filter(Column::Place.eq(place))
                .filter(Column::Name.is_in(names))
                .exec(transaction)
                .await
                .map(drop)
        })
    })
    .await
}

/// Forgets candidates that a complete listing, started at `began`, no longer contains as such: they have vanished, or a
/// row refers to them now.
pub(crate) async fn forget_unseen(
    db: &Database,
    place: Place,
    began: Timestamp,
) -> Result<(), DbErr> {
    let gone = Entity::find()
        .select_only()
        .column(Column::Name)
        .filter(Column::Place.eq(place))
        .filter(Column::LastSeenAt.lt(began))
        .limit(PAGE);
    loop {
        let names: Vec<String> = gone.clone().into_tuple().all(db.read()).await?;
        if names.is_empty() {
            return Ok(());
        }
        forget(db, place, names).await?;
    }
}
