//! Checks that all processes of an installation share the same staging.
//!
//! Each process puts a file with a unique name into its staging folder, records it in the database, and looks in its
//! folder for the files of the other live processes. Whatever one process stages another must find: the workers the
//! bytes received by the API, and any process the earlier bytes of an upload.
//!
//! A killed process leaves its row and its file. The row counts for fifteen seconds, during which it only blocks a new
//! process if it is renewed; live processes remove both after a few minutes.

use super::{Staging, StagingBackend, StagingError};
use crate::{clock::Clock, db::Database};
use entity::{
    Timestamp,
    staging_probe::{Column, Entity, Model},
};
use sea_orm::{
    ColumnTrait, DbErr, EntityTrait, IntoActiveModel, QueryFilter, QuerySelect,
    sea_query::OnConflict,
};
use std::{collections::HashMap, time::Duration};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

/// How often a process renews its row.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
/// How long a process counts as alive after that.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(15);
/// After how long its row and file are removed by other processes.
const RETENTION: Duration = Duration::from_secs(300);
/// Number of rows removed at once.
const PAGE: u64 = 100;
/// How often a missing file is looked for again.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Why a process cannot work with the others.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error(
        "staging is not shared: this process stages {own}, and a running process on {host} stages {other}; let all \
         of them use one folder (staging.path), or set staging.backend to `s3`"
    )]
    NotShared {
        own: String,
        /// The host of the other process.
        host: String,
        other: String,
    },
    #[error("the probe of staging failed")]
    Staging(#[from] StagingError),
    #[error("the probe of staging could not be recorded")]
    Database(#[from] DbErr),
}

/// The probe of a process: maintained until dropped or withdrawn.
#[derive(Debug)]
pub struct StagingProbe {
    worker: ProbeTask,
    _beating: AbortOnDropHandle<()>,
}

#[derive(Clone, Debug)]
struct ProbeTask {
    db: Database,
    clock: Clock,
    staging: Staging,
    id: Uuid,
    host: String,
}

impl Staging {
    /// Sets up the probe of this process, and looks for those of the others.
    ///
    /// # Errors
    /// [`ProbeError::NotShared`] when a live process stages elsewhere. This is only reported once that process has
    /// proved, within up to five seconds, that it is alive.
    pub async fn join(
        &self,
        db: &Database,
        clock: &Clock,
        host: &str,
    ) -> Result<StagingProbe, ProbeError> {
        let worker = ProbeTask {
            db: db.clone(),
            clock: clock.clone(),
            staging: self.clone(),
            id: Uuid::now_v7(),
            host: host.to_owned(),
        };
        worker.send_heartbeat().await?;
        // Of two processes that start at once, each must see that the other is alive.
        let beating =
            AbortOnDropHandle::new(tokio::spawn(worker.clone().keep_sending_heartbeats()));
        let probe = StagingProbe {
            worker,
            _beating: beating,
        };
        match probe.worker.require_shared().await {
            Ok(()) => Ok(probe),
            Err(error) => {
                probe.withdraw().await;
                Err(error)
            }
        }
    }
}

/// Returns the hosts on which processes of this installation are alive, according to the database; each once.
///
/// # Errors
/// Database errors.
pub async fn live_hosts(db: &Database, clock: &Clock) -> Result<Vec<String>, DbErr> {
    Entity::find()
        .select_only()
        .column(Column::Host)
        .distinct()
        .filter(Column::BeatAt.gt(clock.before(HEARTBEAT_TIMEOUT)))
        .into_tuple()
        .all(db.read())
        .await
}

impl StagingProbe {
    /// Removes the probe at shutdown. If that fails, other processes will do it.
    pub async fn withdraw(self) {
        let Self { worker, _beating } = self;
        drop(_beating);
        if let Err(error) = worker.remove(&[worker.id]).await {
            tracing::debug!(%error, "the probe of staging could not be removed, other processes will do it");
        }
    }
}

impl ProbeTask {
    /// Renews the row. The file comes first, because other processes look for it once they see the row.
    async fn send_heartbeat(&self) -> Result<(), ProbeError> {
        let (backend, path) = match &self.staging.backend {
            StagingBackend::Fs(fs) => {
                fs.mark(&name(self.id)).await?;
                ("fs", fs.root().display().to_string())
            }
            StagingBackend::S3(_) => ("s3", "in its bucket".to_owned()),
        };
        let row = Model {
            id: self.id,
            host: self.host.clone(),
            backend: backend.to_owned(),
            path,
            beat_at: self.clock.now(),
        };
        let written = self.db.write(move |transaction| {
            Box::pin(async move {
                let again = OnConflict::column(Column::Id)
                    .update_column(Column::BeatAt)
                    .to_owned();
                Entity::insert(row.into_active_model())
                    .on_conflict(again)
                    .exec_without_returning(transaction)
                    .await
            })
        });
        written.await?;
        Ok(())
    }

    async fn keep_sending_heartbeats(self) {
        loop {
            tokio::time::sleep(HEARTBEAT_INTERVAL).await;
            let beaten = match self.send_heartbeat().await {
                Ok(()) => self.remove_dead().await,
                failed => failed,
            };
            if let Err(error) = beaten {
                tracing::debug!(%error, "the probe of staging was not renewed");
            }
        }
    }

    async fn require_shared(&self) -> Result<(), ProbeError> {
        let mut first_seen: HashMap<Uuid, Timestamp> = HashMap::new();
        loop {
            let mut all_seen = true;
            for other in self.living().await? {
                if self.can_see(&other).await? {
                    continue;
                }
                all_seen = false;
                let before = *first_seen.entry(other.id).or_insert(other.beat_at);
                if other.beat_at > before {
                    return Err(self.not_shared_error(&other));
                }
            }
            if all_seen {
                return Ok(());
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    async fn living(&self) -> Result<Vec<Model>, DbErr> {
        Entity::find()
            .filter(Column::Id.ne(self.id))
            .filter(Column::BeatAt.gt(self.clock.before(HEARTBEAT_TIMEOUT)))
            .all(self.db.read())
            .await
    }

    async fn can_see(&self, other: &Model) -> Result<bool, StagingError> {
        match (&self.staging.backend, other.backend.as_str()) {
            (StagingBackend::Fs(fs), "fs") => fs.has_mark(&name(other.id)).await,
            (StagingBackend::S3(_), "s3") => Ok(true),
            _ => Ok(false),
        }
    }

    fn not_shared_error(&self, other: &Model) -> ProbeError {
        let in_folder = |backend: &str, path: &str| match backend {
            "fs" => format!("in the folder {path}"),
            _ => path.to_owned(),
        };
        ProbeError::NotShared {
            own: match &self.staging.backend {
                StagingBackend::Fs(fs) => in_folder("fs", &fs.root().display().to_string()),
                StagingBackend::S3(_) => "in its bucket".to_owned(),
            },
            host: other.host.clone(),
            other: in_folder(&other.backend, &other.path),
        }
    }

    async fn remove_dead(&self) -> Result<(), ProbeError> {
        let dead: Vec<Uuid> = Entity::find()
            .select_only()
            .column(Column::Id)
            .filter(Column::BeatAt.lt(self.clock.before(RETENTION)))
            .limit(PAGE)
            .into_tuple()
            .all(self.db.read())
            .await?;
        if dead.is_empty() {
            return Ok(());
        }
        self.remove(&dead).await
    }

    async fn remove(&self, ids: &[Uuid]) -> Result<(), ProbeError> {
        if let StagingBackend::Fs(fs) = &self.staging.backend {
            for id in ids {
                fs.unmark(&name(*id)).await?;
            }
        }
        let ids = ids.to_vec();
        let deleted = self.db.write(move |transaction| {
            Box::pin(async move {
                Entity::delete_many()
                    .filter(Column::Id.is_in(ids))
                    .exec(transaction)
                    .await
            })
        });
        deleted.await?;
        Ok(())
    }
}

/// Not a valid staging key, so listings never contain it.
fn name(id: Uuid) -> String {
    format!("probe-{id}")
}
