//! Commands that work from the configuration, directly on the database, Redis and storage.

use crate::server::{self, ProcessParts};
use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use landfall_core::{
    clock::Clock,
    config::Config,
    db::Database,
    installation::{self, InstallationParts, MarkedLocation},
    staging::{Staging, StagingError, live_hosts},
    storage::{Capability, CredentialsInfo, Storage, Support},
    sweep,
};
use landfall_queue::Inspector;
use serde::Serialize;
use std::{future::Future, process::ExitCode, sync::Arc};

#[derive(Debug, Subcommand)]
pub enum MigrateAction {
    /// Apply missing migrations.
    Up,
    /// Revert the newest migrations, deleting the data in their tables.
    Down {
        /// Number of migrations to revert.
        #[arg(default_value_t = 1)]
        steps: u32,
        /// Do not ask for confirmation.
        #[arg(long)]
        yes: bool,
    },
    /// List migrations and whether they are applied.
    Status {
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Print the results as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct SweepArgs {
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
}

#[expect(clippy::print_stdout, reason = "the output of the command")]
pub(super) async fn migrate(config: &Config, action: MigrateAction) -> anyhow::Result<()> {
    let db = Database::open(&config.database.url, config.database.max_connections).await?;
    match action {
        MigrateAction::Up => {
            for name in db.migrate_up().await? {
                println!("applied  {name}");
            }
        }
        MigrateAction::Down { steps, yes } => {
            require_stopped(&db).await?;
            if !yes {
                confirm(&db, steps).await?;
            }
            for name in db.migrate_down(steps).await? {
                println!("reverted  {name}");
            }
        }
        MigrateAction::Status { json } => {
            let states = db.migrations().await?;
            if json {
                println!("{}", serde_json::to_string_pretty(&states)?);
            } else {
                for state in states {
                    println!(
                        "{}  {}",
                        if state.applied { "applied" } else { "pending" },
                        state.name
                    );
                }
            }
        }
    }
    Ok(())
}

/// Refuses to revert migrations under running processes.
async fn require_stopped(db: &Database) -> anyhow::Result<()> {
    let clock = Clock::system();
    db.set_clock(&clock).await?;
    let behind = db.migrations().await?.iter().any(|state| !state.applied);
    match live_hosts(db, &clock).await {
        Ok(hosts) if hosts.is_empty() => Ok(()),
        Ok(hosts) => bail!(
            "processes of this installation are running on {}; stop all of them first",
            hosts.join(", ")
        ),
        // The table of processes may itself be missing.
        Err(_) if behind => Ok(()),
        Err(error) => Err(error.into()),
    }
}

async fn confirm(db: &Database, steps: u32) -> anyhow::Result<()> {
    let states = db.migrations().await?;
    let steps = usize::try_from(steps).unwrap_or(usize::MAX);
    let newest = states
        .iter()
        .rev()
        .filter(|state| state.applied)
        .take(steps);
    eprintln!(
        "These migrations will be reverted, and the data in what they added will be deleted:"
    );
    for state in newest {
        eprintln!("  {}", state.name);
    }
    eprint!("Type `yes` to continue: ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    anyhow::ensure!(answer.trim() == "yes", "nothing was reverted");
    Ok(())
}

#[derive(Debug, Serialize)]
struct CheckResult {
    name: &'static str,
    ok: bool,
    detail: String,
    /// What the store is known to support.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    capabilities: Vec<CapabilityResult>,
}

#[derive(Debug, Serialize)]
struct CapabilityResult {
    name: &'static str,
    support: String,
}

impl CheckResult {
    /// Adds where temporary credentials come from, and when they expire.
    fn describe_credentials(&mut self, credentials: CredentialsInfo) {
        if let Some(expires_at) = credentials.expires_at {
            self.detail = format!(
                "{}; credentials from {}, valid until {}",
                self.detail,
                credentials.source,
                expires_at.format("%FT%TZ")
            );
        } else {
            self.detail = format!("{}; credentials from {}", self.detail, credentials.source);
        }
    }

    /// Adds what the store supports, and in the text what it does not.
    fn describe_capabilities(&mut self, capabilities: &[Capability]) {
        for capability in capabilities {
            if capability.support == Support::No {
                self.detail = format!(
                    "{}; without {}: {}",
                    self.detail, capability.name, capability.without
                );
            }
        }
        let result = |capability: &Capability| CapabilityResult {
            name: capability.name,
            support: capability.support.to_string(),
        };
        self.capabilities = capabilities.iter().map(result).collect();
    }

    async fn run(name: &'static str, work: impl Future<Output = anyhow::Result<String>>) -> Self {
        match work.await {
            Ok(detail) => Self {
                name,
                ok: true,
                detail,
                capabilities: Vec::new(),
            },
            Err(error) => Self {
                name,
                ok: false,
                detail: format!("{error:#}"),
                capabilities: Vec::new(),
            },
        }
    }
}

/// Uses every dependency as the service would. Starts an embedded Redis if needed, and stops it again.
#[expect(clippy::print_stdout, reason = "the output of the command")]
pub(super) async fn check(config: Config, args: CheckArgs) -> anyhow::Result<ExitCode> {
    let mut checks = vec![CheckResult {
        name: "configuration",
        ok: true,
        detail: "all settings are valid".to_owned(),
        capabilities: Vec::new(),
    }];
    checks.push(CheckResult::run("database", check_database(&config)).await);
    checks.push(CheckResult::run("redis", check_redis(&config)).await);
    checks.extend(check_places(&config).await);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&checks)?);
    } else {
        for check in &checks {
            println!(
                "{}  {}: {}",
                if check.ok { "ok    " } else { "FAILED" },
                check.name,
                check.detail
            );
        }
    }
    let all = checks.iter().all(|check| check.ok);
    Ok(if all {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn check_database(config: &Config) -> anyhow::Result<String> {
    let db = Database::open(&config.database.url, config.database.max_connections).await?;
    db.ping().await.context("the database does not respond")?;
    let pending = db
        .migrations()
        .await?
        .iter()
        .filter(|state| !state.applied)
        .count();
    anyhow::ensure!(
        pending == 0,
        "it responds, but {pending} migration(s) are missing: run `landfall migrate up` (`landfall up` does so itself)"
    );
    let pooler = db.pooling().description();
    let pooler = pooler.map_or_else(String::new, |pooler| format!(", {pooler}"));
    Ok(format!("it responds and is up to date{pooler}"))
}

/// Checks storage, and staging, which may be inside of it.
async fn check_places(config: &Config) -> Vec<CheckResult> {
    let opened = server::open_storage(config).await;
    let storage = match opened {
        Ok(storage) => storage,
        Err(error) => {
            let failed = async { Err(error) };
            return vec![CheckResult::run("storage", failed).await];
        }
    };
    let stored = async {
        storage.probe().await?;
        Ok("an object was written, read back and deleted".to_owned())
    };
    let staging = server::open_staging(config, &storage).await;
    let staged = async {
        match &staging {
            Ok(staging) => check_staging(staging).await,
            Err(error) => anyhow::bail!("{error:#}"),
        }
    };
    let mut stored = CheckResult::run("storage", stored).await;
    if stored.ok {
        stored.describe_capabilities(&storage.capabilities());
        if let Ok(Some(credentials)) = storage.credentials().await {
            stored.describe_credentials(credentials);
        }
    }
    let mut checks = vec![stored, CheckResult::run("staging", staged).await];
    if checks.iter().all(|check| check.ok)
        && let Ok(staging) = &staging
        && let Some(identity) = identity(config, staging, &storage).await
    {
        checks.push(identity);
    }
    checks
}

async fn check_staging(staging: &Staging) -> anyhow::Result<String> {
    match staging.probe().await {
        Err(StagingError::Full) => match staging.shortage().await? {
            Some(shortage) => anyhow::bail!("{shortage}"),
            None => anyhow::bail!("staging is full: its disk has no space left"),
        },
        probed => probed?,
    }
    Ok("bytes were staged, read back and deleted".to_owned())
}

/// Checks that database, staging and storage belong to one installation; `None` if another check reports why they
/// cannot be compared.
async fn identity(config: &Config, staging: &Staging, storage: &Storage) -> Option<CheckResult> {
    let db = Database::open(&config.database.url, config.database.max_connections)
        .await
        .ok()?;
    let states = db.migrations().await.ok()?;
    let compared = async {
        if states.iter().any(|state| !state.applied) {
            return Ok("unknown until the database is migrated".to_owned());
        }
        let found = installation::inspect(InstallationParts {
            db: &db,
            clock: &Clock::system(),
            staging,
            storage,
        })
        .await?;
        for place in MarkedLocation::ALL {
            found.compare(place).with_context(|| place.to_string())?;
        }
        Ok(match found.id {
            Some(id) => format!("database, staging and storage belong to installation {id}"),
            None => "new: the first start creates its id".to_owned(),
        })
    };
    Some(CheckResult::run("installation", compared).await)
}

async fn check_redis(config: &Config) -> anyhow::Result<String> {
    let embedded = match &config.redis.url {
        Some(_) => None,
        None => {
            let folder = config
                .data_dir
                .join(format!("check-{}", std::process::id()));
            Some((server::EmbeddedRedis::start(&folder).await?, folder))
        }
    };
    let url = embedded.as_ref().map(|(redis, _)| redis.url());
    let redis = server::connect_redis(config, url.as_ref())?;
    let answered = redis.ping().await.context("Redis does not respond");
    let policies = Inspector::new(redis.clone()).eviction_policies().await;
    if let Some((redis, folder)) = embedded {
        redis.stop().await;
        let _ = std::fs::remove_dir_all(folder);
    }
    let answered = format!("it responded in {:.1} ms", answered?.as_secs_f64() * 1000.0);
    let mut evicting = policies.unwrap_or_default();
    evicting.remove("noeviction");
    Ok(match evicting.first() {
        None => answered,
        Some(policy) => format!(
            "{answered}; WARNING: its maxmemory-policy is {policy}, so it may delete jobs when its memory is full: \
             set it to noeviction"
        ),
    })
}

/// Runs one sweep; jobs are pushed to the configured Redis.
#[expect(clippy::print_stdout, reason = "the output of the command")]
pub(super) async fn sweep(config: Config, args: SweepArgs) -> anyhow::Result<ExitCode> {
    let redis = server::connect_redis(
        &config,
        Some(&server::EmbeddedRedis::url_below(&config.data_dir))
            .filter(|_| config.redis.url.is_none()),
    )?;
    let public_url = server::public_url(&config, config.server.bind)?;
    let ProcessParts { app, .. } = server::assemble(Arc::new(config), redis, public_url).await?;
    let report = sweep::sweep(&app).await?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    Ok(if report.faults.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
