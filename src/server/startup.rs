//! Creates the components of a process from its configuration.

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

/// How often the clock is synchronized with the database: a machine with a wrong clock must not take over leases.
const CLOCK_SYNC_INTERVAL: Duration = Duration::from_secs(10);

/// The components of every process.
#[derive(Clone, Debug)]
pub struct ProcessParts {
    pub app: App,
    pub queues: Queues,
    pub deliverer: Deliverer,
    /// The metrics of this process's work.
    pub meter: Meter,
    /// The owner of this process's leases in the database; unique per start.
    pub worker: String,
}

/// Opens database, storage and staging, and creates the rest. The schema must be up to date.
///
/// # Errors
/// The first component that cannot be used, with the setting to change.
pub async fn assemble(
    config: Arc<Config>,
    redis: Redis,
    public_url: Url,
) -> anyhow::Result<ProcessParts> {
    let mut config = Arc::unwrap_or_clone(config);
    secret_key::complete(&mut config, false)?;
    let config = Arc::new(config);
    let db = Database::open(&config.database.url, config.database.max_connections).await?;
    db.require_current().await?;
    let clock = Clock::system();
    sync_clock(db.clone(), clock.clone()).await?;
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
    Ok(ProcessParts {
        app,
        queues,
        deliverer,
        meter: Meter::default(),
        worker,
    })
}

/// Opens the configured storage.
///
/// # Errors
/// Why it cannot be used, with the setting to change.
pub async fn open_storage(config: &Config) -> anyhow::Result<Storage> {
    let opened = Storage::open(&config.storage).await;
    opened.with_context(|| match config.storage.backend {
        Backend::Fs => format!(
            "storage.path {} cannot be used",
            config.storage.path.display()
        ),
        _ => "storage cannot be used".to_owned(),
    })
}

/// Opens the configured staging.
///
/// # Errors
/// Why it cannot be used, with the setting to change.
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

/// Opens the configured Redis, or the given URL instead; does not connect yet.
///
/// # Errors
/// If the URL is missing or invalid.
pub fn connect_redis(config: &Config, embedded: Option<&SecretString>) -> anyhow::Result<Redis> {
    let url = embedded.or(config.redis.url.as_ref()).context(
        "redis.url is not set; set it (LANDFALL__REDIS__URL), or use `landfall up`, which starts its own Redis",
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

async fn sync_clock(db: Database, clock: Clock) -> anyhow::Result<()> {
    db.set_clock(&clock)
        .await
        .context("the database does not return its time")?;
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(CLOCK_SYNC_INTERVAL).await;
            if let Err(error) = db.set_clock(&clock).await {
                tracing::debug!(%error, "the clock could not be synchronized");
            }
        }
    });
    Ok(())
}
