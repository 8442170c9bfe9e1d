//! Runs a process from start-up to exit.

use super::{
    EmbeddedRedis, ProcessParts, assemble, connect_redis, lock_data_dir, private_files, secret_key,
    serve, serve_metrics, start_line,
};
use crate::api::Shutdown;
use anyhow::Context;
use landfall_core::{
    activity,
    app::App,
    config::Config,
    db::Database,
    installation::{self, MarkedLocation},
    staging::StagingError,
    webhooks::key_rotation::KeyRecord,
};
use landfall_queue::WorkerIdentity;
use landfall_workers::{QueueName, Workers};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
};
use url::{Host, Url};

/// Loopback networks (RFC 6890).
const LOOPBACK: [&str; 2] = ["127.0.0.0/8", "::1/128"];

/// The same number on every supported platform.
const SIGXFSZ: i32 = 25;

/// The roles of a process.
#[derive(Clone, Debug, Default)]
pub struct Roles {
    /// Serve the API.
    pub serve: bool,
    /// Process these queues.
    pub work: Vec<QueueName>,
    /// Overrides the configured concurrency.
    pub concurrency: Option<usize>,
    /// Create what is missing: the data folder, migrations, and an embedded Redis if none is configured.
    pub embedded: bool,
}

impl Roles {
    /// Whether the process reads or writes staging.
    fn stage(&self) -> bool {
        self.serve || self.work.iter().any(|queue| *queue != QueueName::Deliver)
    }
}

/// Starts the roles, prints the address on standard output, and runs until SIGTERM or SIGINT. A process with an API then
/// drains for `server.drain_delay`, and requests and jobs in progress get `server.shutdown_timeout`; a second signal ends
/// the process at once.
///
/// # Errors
/// What prevents the process from starting, or the error that ended a component.
pub async fn run(mut config: Config, roles: Roles) -> anyhow::Result<()> {
    let drain_delay = match roles.serve {
        true => config.server.drain_delay,
        false => Duration::ZERO,
    };
    let shutdown = shut_down_on_signals(drain_delay)?;
    outlive_file_size_limit()?;
    raise_descriptor_limit();
    let _lock = if roles.embedded {
        Some(lock_data_dir(&config.data_dir)?)
    } else {
        None
    };
    secret_key::complete(&mut config, roles.embedded)?;
    if roles.embedded {
        private_files::close_database(&config.data_dir);
        allow_loopback_receivers(&mut config);
        let db = Database::open(&config.database.url, config.database.max_connections).await?;
        db.migrate_up().await?;
    }
    let listener = if roles.serve {
        Some(bind(config.server.bind).await?)
    } else {
        None
    };
    let address = listener
        .as_ref()
        .map(TcpListener::local_addr)
        .transpose()?
        .unwrap_or(config.server.bind);
    let public_url = public_url(&config, address)?;
    let embedded = match (roles.embedded, &config.redis.url) {
        (true, None) => Some(EmbeddedRedis::start(&config.data_dir).await?),
        _ => None,
    };
    let redis = connect_redis(&config, embedded.as_ref().map(EmbeddedRedis::url).as_ref())?;
    let parts = assemble(Arc::new(config), redis, public_url).await?;
    probe_places(&parts.app).await?;
    let host = WorkerIdentity::new("", 1).host;
    let keys = {
        let App {
            db, clock, config, ..
        } = &parts.app;
        KeyRecord::start(db, clock, &config.webhooks.sealing, &host).await?
    };
    let probe = if roles.stage() {
        let app = &parts.app;
        let joined = app.staging.join(&app.db, &app.clock, &host);
        Some(joined.await?)
    } else {
        None
    };
    start_line::log(&parts, &roles, address, embedded.is_some());
    let db = parts.app.db.clone();
    let outcome = run_roles(parts, roles, listener, address, shutdown).await;
    activity::write(&db).await;
    keys.remove().await;
    if let Some(probe) = probe {
        probe.withdraw().await;
    }
    if let Some(redis) = embedded {
        redis.stop().await;
    }
    tracing::info!("stopped");
    outcome
}

/// Uses storage and staging once. If one is unavailable or full, the process starts anyway, does what it can, and
/// reports it in `/readyz`.
async fn probe_places(app: &App) -> anyhow::Result<()> {
    if !is_unmarked(app, MarkedLocation::Storage).await {
        let probed = app.storage.probe().await;
        probed.context("storage cannot be used")?;
    }
    if is_unmarked(app, MarkedLocation::Staging).await {
        return Ok(());
    }
    match app.staging.probe().await {
        Err(StagingError::Full) => {
            let shortage = app.staging.shortage().await.ok().flatten();
            let reason = shortage.map_or_else(
                || "staging is full: its disk has no space left".to_owned(),
                |shortage| shortage.to_string(),
            );
            tracing::warn!(reason, "uploads are rejected until there is space");
            Ok(())
        }
        probed => probed.context("staging cannot be used"),
    }
}

/// Whether the place was checked and has no marker; if it cannot be checked, the probe reports why.
async fn is_unmarked(app: &App, place: MarkedLocation) -> bool {
    matches!(installation::marker_visible(app, place).await, Ok(false))
}

async fn run_roles(
    parts: ProcessParts,
    roles: Roles,
    listener: Option<TcpListener>,
    address: SocketAddr,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let figures = figures(&parts, &roles, shutdown.clone()).await?;
    let workers = {
        let (parts, stop) = (parts.clone(), shutdown.stop().clone());
        let finish_within = parts.app.config.server.shutdown_timeout;
        async move {
            if roles.work.is_empty() {
                return Ok(());
            }
            let workers = Workers {
                name: parts.worker,
                queues: roles.work,
                concurrency: roles.concurrency,
                meter: parts.meter,
                finish_within,
            };
            landfall_workers::run(parts.app, parts.queues, parts.deliverer, workers, stop)
                .await
                .context("the workers ended")
        }
    };
    let api = async move {
        let Some(listener) = listener else {
            return Ok(());
        };
        print_address(address, roles.embedded);
        serve(parts.app, parts.queues, parts.meter, listener, shutdown)
            .await
            .context("the API ended")
    };
    let (api, workers, figures) = tokio::join!(api, workers, figures);
    api.and(workers).and(figures)
}

/// Serves a worker's metrics on `metrics.bind`; a process with an API serves them there.
async fn figures(
    parts: &ProcessParts,
    roles: &Roles,
    shutdown: Shutdown,
) -> anyhow::Result<impl Future<Output = anyhow::Result<()>> + use<>> {
    let listener = match parts.app.config.metrics.bind {
        Some(address) if !roles.serve => {
            let listener = TcpListener::bind(address).await;
            Some(listener.with_context(|| format!("cannot listen on metrics.bind {address}"))?)
        }
        _ => None,
    };
    let ProcessParts {
        app, queues, meter, ..
    } = parts.clone();
    Ok(async move {
        let Some(listener) = listener else {
            return Ok(());
        };
        serve_metrics(app, queues, meter, listener, shutdown)
            .await
            .context("the metrics listener ended")
    })
}

#[expect(
    clippy::print_stdout,
    reason = "the one line on standard output that callers wait for"
)]
fn print_address(address: SocketAddr, embedded: bool) {
    println!("listening on http://{address}");
    if embedded {
        eprintln!("send a first file:  curl -F file=@README.md http://{address}/v1/files");
    }
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on server.bind {address} (is another process there?)")
    })
}

/// Returns the public URL: the configured one, or the one of the listening address.
///
/// # Errors
/// If the address is not a valid URL host.
pub fn public_url(config: &Config, address: SocketAddr) -> anyhow::Result<Url> {
    match &config.server.public_url {
        Some(url) => Ok(url.clone()),
        None => format!("http://{address}/")
            .parse()
            .context("server.public_url cannot be derived from server.bind"),
    }
}

/// Allows webhooks to receivers on the same machine for a first try, unless a proxy makes the server public.
fn allow_loopback_receivers(config: &mut Config) {
    let public_host = config.server.public_url.as_ref().and_then(Url::host);
    let is_public = match public_host {
        Some(Host::Ipv4(address)) => !address.is_loopback(),
        Some(Host::Ipv6(address)) => !address.is_loopback(),
        Some(Host::Domain(name)) => name != "localhost",
        None => false,
    };
    let is_local = config.server.bind.ip().is_loopback()
        && config.server.trusted_proxies.is_empty()
        && !is_public;
    if is_local && config.webhooks.allow_networks.is_empty() {
        config.webhooks.allow_networks =
            LOOPBACK.iter().filter_map(|net| net.parse().ok()).collect();
    }
}

/// Raises the open-file limit: every connection needs a few descriptors, and the default limit is low.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the open-file limit could not be raised");
    }
}

fn shut_down_on_signals(drain_delay: Duration) -> anyhow::Result<Shutdown> {
    let shutdown = Shutdown::default();
    let begun = shutdown.clone();
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    tokio::spawn(async move {
        either(&mut terminate, &mut interrupt).await;
        tracing::info!(
            "stopping: finishing requests and jobs in progress; a second signal ends the process at once"
        );
        tokio::spawn(async move { begun.begin(drain_delay).await });
        either(&mut terminate, &mut interrupt).await;
        std::process::exit(130);
    });
    Ok(shutdown)
}

/// Turns the file size limit (`ulimit -f`) into a write error, like a full disk, instead of ending the process. The
/// handler stays for the life of the process.
fn outlive_file_size_limit() -> anyhow::Result<()> {
    signal(SignalKind::from_raw(SIGXFSZ)).map(drop)?;
    Ok(())
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
