//! Decides when webhook secrets are sealed with a new key.
//!
//! Every process records in the database which keys it knows, and renews that record while it runs. As long as a live
//! process does not know `webhooks.secret_key`, secrets stay sealed as they were, and new ones are sealed with the
//! previous key, so that every process can sign. Once all processes know the key, secrets are sealed with it.
//!
//! The record of a killed process counts for thirty seconds and is later deleted by other processes.

use super::sealing::{Sealing, SettleError, settle, verify};
use crate::{clock::Clock, db::Database};
use entity::secret_key_holder::{Column, Entity, Model};
use sea_orm::{
    ColumnTrait, DbErr, EntityTrait, IntoActiveModel, QueryFilter, sea_query::OnConflict,
};
use std::time::Duration;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);
/// How long a process counts as alive after a heartbeat.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(30);
/// After how long the record of a process is deleted by others.
const RETENTION: Duration = Duration::from_secs(300);

/// The record of this process: maintained until dropped or removed.
#[derive(Debug)]
pub struct KeyRecord {
    holder: KeyHolder,
    _heartbeat: AbortOnDropHandle<()>,
}

#[derive(Clone, Debug)]
struct KeyHolder {
    db: Database,
    clock: Clock,
    sealing: Sealing,
    id: Uuid,
    host: String,
}

impl KeyRecord {
    /// Records which keys this process knows, and seals secrets with its key as soon as all processes know it: now, or
    /// later in the background.
    ///
    /// # Errors
    /// [`SettleError::Sealed`] when a secret cannot be opened with a known key, and database errors.
    pub async fn start(
        db: &Database,
        clock: &Clock,
        sealing: &Sealing,
        host: &str,
    ) -> Result<Self, SettleError> {
        let holder = KeyHolder {
            db: db.clone(),
            clock: clock.clone(),
            sealing: sealing.clone(),
            id: Uuid::now_v7(),
            host: host.to_owned(),
        };
        holder.send_heartbeat().await?;
        let first = match verify(db, sealing).await {
            Ok(()) => holder.settle_when_known().await,
            Err(error) => Err(error),
        };
        if let Err(error) = first {
            holder.remove().await;
            return Err(error);
        }
        let heartbeat = tokio::spawn(holder.clone().keep_up());
        Ok(Self {
            holder,
            _heartbeat: AbortOnDropHandle::new(heartbeat),
        })
    }

    /// Deletes the record at shutdown. If that fails, other processes will do it.
    pub async fn remove(self) {
        let Self { holder, _heartbeat } = self;
        drop(_heartbeat);
        holder.remove().await;
    }
}

impl KeyHolder {
    async fn send_heartbeat(&self) -> Result<(), DbErr> {
        let row = Model {
            id: self.id,
            host: self.host.clone(),
            fingerprints: self.sealing.fingerprints().join(","),
            seen_at: self.clock.now(),
        };
        let forgotten = self.clock.before(RETENTION);
        let written = self.db.write(move |transaction| {
            Box::pin(async move {
                let again = OnConflict::column(Column::Id)
                    .update_column(Column::SeenAt)
                    .to_owned();
                Entity::insert(row.into_active_model())
                    .on_conflict(again)
                    .exec_without_returning(transaction)
                    .await?;
                Entity::delete_many()
                    .filter(Column::SeenAt.lt(forgotten))
                    .exec(transaction)
                    .await
            })
        });
        written.await.map(drop)
    }

    async fn keep_up(self) {
        loop {
            tokio::time::sleep(HEARTBEAT_INTERVAL).await;
            let kept = match self.send_heartbeat().await {
                Ok(()) => self.settle_when_known().await,
                Err(error) => Err(error.into()),
            };
            if let Err(error) = kept {
                tracing::debug!(%error, "the record of known webhook keys was not renewed");
            }
        }
    }

    /// Seals secrets with the key once every process knows it; does nothing after that.
    async fn settle_when_known(&self) -> Result<(), SettleError> {
        if self.sealing.is_settled() {
            return Ok(());
        }
        let waiting_for = self.unaware_hosts().await?;
        if !waiting_for.is_empty() {
            if self.sealing.wait_for(&waiting_for) {
                tracing::warn!(
                    hosts = waiting_for.join(", "),
                    "webhook secrets stay as they are until all processes know webhooks.secret_key: restart those on \
                     these hosts with it"
                );
            }
            return Ok(());
        }
        self.sealing.use_key();
        let sealed = settle(&self.db, &self.sealing).await?;
        if sealed > 0 {
            tracing::info!(
                endpoints = sealed,
                "webhook secrets are sealed as webhooks.secret_key says"
            );
        }
        self.sealing.note_settled();
        Ok(())
    }

    /// Returns the hosts of live processes that do not know the key; none without a key, since every process reads
    /// plain secrets.
    async fn unaware_hosts(&self) -> Result<Vec<String>, DbErr> {
        let Some(fingerprint) = self.sealing.fingerprint() else {
            return Ok(Vec::new());
        };
        let alive = Entity::find()
            .filter(Column::SeenAt.gt(self.clock.before(HEARTBEAT_TIMEOUT)))
            .all(self.db.read())
            .await?;
        let mut hosts: Vec<String> = alive
            .into_iter()
            .filter(|holder| {
                !holder
                    .fingerprints
                    .split(',')
                    .any(|known| known == fingerprint)
            })
            .map(|holder| holder.host)
            .collect();
        hosts.sort_unstable();
        hosts.dedup();
        Ok(hosts)
    }

    async fn remove(&self) {
        let id = self.id;
        let removed = self.db.write(move |transaction| {
            Box::pin(async move { Entity::delete_by_id(id).exec(transaction).await })
        });
        if let Err(error) = removed.await {
            tracing::debug!(%error, "the record of known webhook keys could not be removed, other processes will do it");
        }
    }
}
