//! The parts of a process, made from its configuration.

use super::secret_key;
use anyhow::Context;
use landfall_core::{
    app::App,
    clock::Clock,
    config::{Backend, Config},
    db::Database,
    deliver::Deliverer,
    files::FileIntake,
    installation::{self, InstallationParts},
    staging::Staging,
    storage::Storage,
    uploads::UploadWrites,
};
use landfall_queue::{Redis, WorkerIdentity};
use landfall_workers::{Meter, QueueJobSink, Queues};
use secrecy::{ExposeSecret, SecretString};
use std::{sync::Arc, time::Duration};
use url::Url;
use uuid::Uuid;

/// How often the clock is set by the database's: a machine whose clock is off must not take others' leases.
const SET_CLOCK_EVERY: Duration = Duration::from_secs(10);

/// What every process has.
#[derive(Clone, Debug)]
pub struct Parts {
    pub app: App,
    pub queues: Queues,
    pub deliverer: Deliverer,
    /// What this process counts of its work.
    pub meter: Meter,
    /// Who holds the leases of this process in the database; never the same twice.
    pub worker: String,
}

/// Opens database, storage and staging, and makes the rest. The database must be current.
///
/// # Errors
/// The first part that is not fit for use, with the setting to change.
pub async fn assemble(config: Arc<Config>, redis: Redis, public_url: Url) -> anyhow::Result<Parts> {
    let mut config = Arc::unwrap_or_clone(config);
    secret_key::complete(&mut config, false)?;
    let config = Arc::new(config);
    let db = Database::open(&config.database.url, config.database.max_connections).await?;
    db.require_current().await?;
    let clock = Clock::system();
    follow_database(db.clone(), clock.clone()).await?;
    let storage = open_storage(&config).await?;
    let staging = open_staging(&config, &storage).await?;
    installation::open(InstallationParts {
        db: &db,
        clock: &clock,
        staging: &staging,
        storage: &storage,
    })
    .await?;
    let queues = Queues::new(redis, &config);
    let dispatch = QueueJobSink::new(queues.clone(), clock.clone());
    let worker = worker_name();
    let deliverer = Deliverer::new(&config, &db, &clock, &worker);
    let app = App {
        config,
        intake: FileIntake::start(&db),
        uploads: UploadWrites::start(&db, &clock),
        clock,
        db,
        staging,
        storage,
        dispatch: Arc::new(dispatch),
        public_url,
    };
    Ok(Parts {
        app,
        queues,
        deliverer,
        meter: Meter::default(),
        worker,
    })
}

/// Opens the storage of the configuration.
///
/// # Errors
/// What keeps it from being used, with the setting to change.
pub async fn open_storage(config: &Config) -> anyhow::Result<Storage> {
    let opened = Storage::open(&config.storage).await;
    opened.with_context(|| match config.storage.backend {
        Backend::Fs => format!(
            "storage.path {} cannot be used",
            config.storage.path.display()
        ),
        Backend::S3 => "storage cannot be used".to_owned(),
    })
}

/// Opens the staging of the configuration.
///
/// # Errors
/// What keeps it from being used, with the setting to change.
pub async fn open_staging(config: &Config, storage: &Storage) -> anyhow::Result<Staging> {
    let opened = Staging::open(&config.staging, storage).await;
    opened.with_context(|| match config.staging.backend {
        Backend::Fs => format!(
            "staging.path {} cannot be used",
            config.staging.path.display()
        ),
        Backend::S3 => "staging cannot be used".to_owned(),
    })
}

/// Opens the Redis of the configuration, or of the URL given instead; sends nothing yet.
///
/// # Errors
/// When there is no URL, or it is none.
pub fn connect_redis(config: &Config, embedded: Option<&SecretString>) -> anyhow::Result<Redis> {
    let url = embedded.or(config.redis.url.as_ref()).context(
        "redis.url is not set; set it (LANDFALL__REDIS__URL), or use `landfall up`, which starts a Redis of its own",
    )?;
    Redis::open(url.expose_secret(), &config.redis.prefix).context("redis.url cannot be used")
}

fn worker_name() -> String {
    format!(
        "{}-{}-{}",
        WorkerIdentity::new("", 1).host,
        std::process::id(),
        Uuid::now_v7()
    )
}

async fn follow_database(db: Database, clock: Clock) -> anyhow::Result<()> {
    db.set_clock(&clock)
        .await
        .context("the database does not tell the time")?;
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(SET_CLOCK_EVERY).await;
            if let Err(error) = db.set_clock(&clock).await {
                tracing::debug!(%error, "the clock goes on as it was");
            }
        }
    });
    Ok(())
}
