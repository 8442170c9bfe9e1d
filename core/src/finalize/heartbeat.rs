//! The heartbeat of a worker process: a row of `worker_processes` that distinguishes a process that died from one that
//! only lost a lease.
//!
//! A process that shuts down cleanly deletes its row. The row of a killed process stays, and other processes delete it
//! a day later.
//! day later.

use crate::{clock::Clock, db::Database};
use entity::{
    FileId, Timestamp,
    worker_process::{Column, Entity, Model},
};
use sea_orm::{
    ColumnTrait, DbErr, EntityTrait, IntoActiveModel, QueryFilter, sea_query::OnConflict,
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio_util::task::AbortOnDropHandle;

/// How soon a failed heartbeat is retried: after a database outage, others must quickly see that this process is alive.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// How long the row of a dead process is kept.
const RETENTION: Duration = Duration::from_secs(24 * 60 * 60);

/// Sends heartbeats until dropped.
#[derive(Debug)]
pub(super) struct Heartbeat {
    process: ProcessRecord,
    task: AbortOnDropHandle<()>,
}

#[derive(Clone, Debug)]
struct ProcessRecord {
    db: Database,
    clock: Clock,
    name: Arc<str>,
    started_at: Timestamp,
    alone_file: Arc<Mutex<Option<FileId>>>,
}

impl Heartbeat {
    /// Sends three heartbeats per lease duration. Must be called within a Tokio runtime.
    pub(super) fn start(db: &Database, clock: &Clock, name: &Arc<str>, lease: Duration) -> Self {
        let process = ProcessRecord {
            db: db.clone(),
            clock: clock.clone(),
            name: Arc::clone(name),
            started_at: clock.now(),
            alone_file: Arc::default(),
        };
        let beating = process.clone();
        let task = tokio::spawn(async move {
            loop {
                let pause = match beating.send().await {
                    Ok(()) => lease / 3,
                    Err(error) => {
                        tracing::debug!(%error, "the heartbeat could not be recorded");
                        RETRY_INTERVAL
                    }
                };
                tokio::time::sleep(pause).await;
            }
        });
        Self {
            process,
            task: AbortOnDropHandle::new(task),
        }
    }

    /// Records which suspect file, if any, this process is running alone.
    pub(super) async fn set_alone(&self, file: Option<FileId>) -> Result<(), DbErr> {
        *self
            .process
            .alone_file
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = file;
        self.process.send().await
    }

    /// Deletes the row at shutdown.
    pub(super) async fn end(&self) -> Result<(), DbErr> {
        self.task.abort();
        let name = self.process.name.to_string();
        self.process
            .db
            .write(move |transaction| {
                Box::pin(
                    async move { Entity::delete_by_id(name).exec(transaction).await.map(drop) },
                )
            })
            .await
    }
}

impl ProcessRecord {
    async fn send(&self) -> Result<(), DbErr> {
        let alone_file = *self
            .alone_file
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let row = Model {
            name: self.name.to_string(),
            started_at: self.started_at,
            beat_at: self.clock.now(),
            alone_file,
        };
        let forgotten = self.clock.before(RETENTION);
        self.db
            .write(move |transaction| {
                Box::pin(async move {
                    let again = OnConflict::column(Column::Name)
                        .update_columns([Column::BeatAt, Column::AloneFile])
                        .to_owned();
                    Entity::insert(row.into_active_model())
                        .on_conflict(again)
                        .exec_without_returning(transaction)
                        .await?;
                    Entity::delete_many()
                        .filter(Column::BeatAt.lt(forgotten))
                        .exec(transaction)
                        .await
                        .map(drop)
                })
            })
            .await
    }
}
