//! Running a process from the first line it prints to its exit.

use super::{
    EmbeddedRedis, Parts, assemble, connect_redis, lock_data_dir, private_files, secret_key, serve,
    serve_metrics,
};
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
use std::{net::SocketAddr, sync::Arc};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
};
use tokio_util::sync::CancellationToken;
use url::{Host, Url};

/// What is on this machine alone (RFC 6890).
const LOOPBACK: [&str; 2] = ["127.0.0.0/8", "::1/128"];

/// The same number on every platform this runs on.
const SIGXFSZ: i32 = 25;

/// What a process does.
#[derive(Clone, Debug, Default)]
pub struct Roles {
    /// Serve the API.
    pub serve: bool,
    /// Work on these queues.
    pub work: Vec<QueueName>,
    /// Instead of the configured numbers.
    pub concurrency: Option<usize>,
    /// Bring what is missing: the data folder, migrations, and a Redis if none is configured.
    pub embedded: bool,
}

impl Roles {
    /// True when the process reads or writes staging.
    fn stage(&self) -> bool {
        self.serve || self.work.iter().any(|queue| *queue != QueueName::Deliver)
    }
}

/// Starts the roles, says so on standard output, and runs until SIGTERM or SIGINT. Requests and jobs that are under
/// way then have `server.shutdown_timeout`; a second signal ends the process at once.
///
/// # Errors
/// What keeps the process from starting, or what a part of it died of.
pub async fn run(mut config: Config, roles: Roles) -> anyhow::Result<()> {
    let stop = stop_on_signals()?;
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
    let db = parts.app.db.clone();
    let outcome = run_roles(parts, roles, listener, address, stop).await;
    activity::write(&db).await;
    keys.remove().await;
    if let Some(probe) = probe {
        probe.withdraw().await;
    }
    if let Some(redis) = embedded {
        redis.stop().await;
    }
    outcome
}

/// Really uses storage and staging once. What is away or full may be there, or have room, a moment later: such a
/// process starts, works on what it can, and says in `/readyz` what is missing.
async fn probe_places(app: &App) -> anyhow::Result<()> {
    if !is_unmarked(app, MarkedLocation::Storage).await {
        let probed = app.storage.probe().await;
        probed.context("storage is not fit for use")?;
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
            tracing::warn!(reason, "uploads are refused until there is room");
            Ok(())
        }
        probed => probed.context("staging is not fit for use"),
    }
}

/// True when the place was looked at and has no marker; a probe tells better why one cannot be looked at.
async fn is_unmarked(app: &App, place: MarkedLocation) -> bool {
    matches!(installation::marker_visible(app, place).await, Ok(false))
}

async fn run_roles(
    parts: Parts,
    roles: Roles,
    listener: Option<TcpListener>,
    address: SocketAddr,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let figures = figures(&parts, &roles, stop.clone()).await?;
    let workers = {
        let (parts, stop) = (parts.clone(), stop.clone());
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
        say_where(address, roles.embedded);
        serve(parts.app, parts.queues, parts.meter, listener, stop)
            .await
            .context("the API ended")
    };
    let (api, workers, figures) = tokio::join!(api, workers, figures);
    api.and(workers).and(figures)
}

/// What a worker tells of itself where `metrics.bind` says; a process with an API tells it there.
async fn figures(
    parts: &Parts,
    roles: &Roles,
    stop: CancellationToken,
) -> anyhow::Result<impl Future<Output = anyhow::Result<()>> + use<>> {
    let listener = match parts.app.config.metrics.bind {
        Some(address) if !roles.serve => {
            let listener = TcpListener::bind(address).await;
            Some(listener.with_context(|| format!("cannot listen on metrics.bind {address}"))?)
        }
        _ => None,
    };
    let Parts {
        app, queues, meter, ..
    } = parts.clone();
    Ok(async move {
        let Some(listener) = listener else {
            return Ok(());
        };
        serve_metrics(app, queues, meter, listener, stop)
            .await
            .context("the answers to /metrics ended")
    })
}

#[expect(
    clippy::print_stdout,
    reason = "the one line on standard output others wait for"
)]
fn say_where(address: SocketAddr, embedded: bool) {
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

/// What clients call this server: as configured, or made of the address it listens on.
///
/// # Errors
/// When no URL can be made of the address.
pub fn public_url(config: &Config, address: SocketAddr) -> anyhow::Result<Url> {
    match &config.server.public_url {
        Some(url) => Ok(url.clone()),
        None => format!("http://{address}/")
            .parse()
            .context("server.public_url cannot be made of server.bind"),
    }
}

/// Lets a first try send webhooks to a receiver on the same machine, unless a proxy makes the server public.
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

/// Every connection needs a few file descriptors, and systems allow few at first and many when asked.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

fn stop_on_signals() -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let tell = stop.clone();
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    tokio::spawn(async move {
        either(&mut terminate, &mut interrupt).await;
        tracing::info!("stopping: finishing what is under way; a second signal ends at once");
        tell.cancel();
        either(&mut terminate, &mut interrupt).await;
        std::process::exit(130);
    });
    Ok(stop)
}

/// A file that may not grow (`ulimit -f`) is an error of the write then, as a full disk is, and not the end of the
/// process. The handler stays for the life of the process.
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
