//! Commands that work from the configuration, on database, Redis and storage themselves.

use crate::server::{self, Parts};
use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use landfall_core::{
    clock::Clock,
    config::Config,
    db::Database,
    installation::{self, InstallationParts, MarkedLocation},
    staging::{Staging, StagingError, live_hosts},
    storage::Storage,
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
        /// How many.
        #[arg(default_value_t = 1)]
        steps: u32,
        /// Do not ask.
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
    /// Print the outcome as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct SweepArgs {
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
}

#[expect(clippy::print_stdout, reason = "the answer of the command")]
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
                println!("taken back  {name}");
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

/// Takes nothing from under a process that runs.
async fn require_stopped(db: &Database) -> anyhow::Result<()> {
    let clock = Clock::system();
    db.set_clock(&clock).await?;
    let behind = db.migrations().await?.iter().any(|state| !state.applied);
    match live_hosts(db, &clock).await {
        Ok(hosts) if hosts.is_empty() => Ok(()),
        Ok(hosts) => bail!(
            "a process of this installation runs on {}; stop all of them first",
            hosts.join(", ")
        ),
        // The table where they say so may be one of those that are missing.
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
    eprintln!("These migrations are taken back, with all data in what they added:");
    for state in newest {
        eprintln!("  {}", state.name);
    }
    eprint!("Type `yes` to go on: ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    anyhow::ensure!(answer.trim() == "yes", "nothing was taken back");
    Ok(())
}

#[derive(Debug, Serialize)]
struct Checked {
    name: &'static str,
    ok: bool,
    detail: String,
}

impl Checked {
    async fn of(name: &'static str, work: impl Future<Output = anyhow::Result<String>>) -> Self {
        match work.await {
            Ok(detail) => Self {
                name,
                ok: true,
                detail,
            },
            Err(error) => Self {
                name,
                ok: false,
                detail: format!("{error:#}"),
            },
        }
    }
}

/// Uses every dependency as the service will. An embedded Redis is started for it and ended again.
#[expect(clippy::print_stdout, reason = "the answer of the command")]
pub(super) async fn check(config: Config, args: CheckArgs) -> anyhow::Result<ExitCode> {
    let mut checks = vec![Checked {
        name: "configuration",
        ok: true,
        detail: "every setting is allowed".to_owned(),
    }];
    checks.push(Checked::of("database", check_database(&config)).await);
    checks.push(Checked::of("redis", check_redis(&config)).await);
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
    db.ping().await.context("the database does not answer")?;
    let pending = db
        .migrations()
        .await?
        .iter()
        .filter(|state| !state.applied)
        .count();
    anyhow::ensure!(
        pending == 0,
        "it answers, but lacks {pending} migration(s): run `landfall migrate up` (`landfall up` does so itself)"
    );
    Ok("it answers and is current".to_owned())
}

/// Storage, and staging, which may lie in it.
async fn check_places(config: &Config) -> Vec<Checked> {
    let opened = server::open_storage(config).await;
    let storage = match opened {
        Ok(storage) => storage,
        Err(error) => {
            let failed = async { Err(error) };
            return vec![Checked::of("storage", failed).await];
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
    let mut checks = vec![
        Checked::of("storage", stored).await,
        Checked::of("staging", staged).await,
    ];
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

/// Whether database, staging and storage are of one installation; none where another check tells why they cannot be
/// compared.
async fn identity(config: &Config, staging: &Staging, storage: &Storage) -> Option<Checked> {
    let db = Database::open(&config.database.url, config.database.max_connections)
        .await
        .ok()?;
    let states = db.migrations().await.ok()?;
    let compared = async {
        if states.iter().any(|state| !state.applied) {
            return Ok("they can be compared once the database is migrated".to_owned());
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
            Some(id) => format!("database, staging and storage are of installation {id}"),
            None => "it is new: the first start makes its id".to_owned(),
        })
    };
    Some(Checked::of("installation", compared).await)
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
    let answered = redis.ping().await.context("Redis does not answer");
    let policies = Inspector::new(redis.clone()).eviction_policies().await;
    if let Some((redis, folder)) = embedded {
        redis.stop().await;
        let _ = std::fs::remove_dir_all(folder);
    }
    let answered = format!("it answered in {:.1} ms", answered?.as_secs_f64() * 1000.0);
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

/// One sweep by hand; jobs are pushed to the configured Redis.
#[expect(clippy::print_stdout, reason = "the answer of the command")]
pub(super) async fn sweep(config: Config, args: SweepArgs) -> anyhow::Result<ExitCode> {
    let redis = server::connect_redis(
        &config,
        Some(&server::EmbeddedRedis::url_below(&config.data_dir))
            .filter(|_| config.redis.url.is_none()),
    )?;
    let public_url = server::public_url(&config, config.server.bind)?;
    let Parts { app, .. } = server::assemble(Arc::new(config), redis, public_url).await?;
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
