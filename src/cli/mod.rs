//! The command line.
//!
//! Only results go to standard output; errors and logs go to standard error. Exit status: 0 done, 1 failed, 2 wrong
//! usage.

mod admin;
mod adopt;
mod audit;
mod json_log;
mod logging;
mod token;

use crate::{
    server::{self, Roles},
    telemetry::Traces,
};
use clap::{Args, CommandFactory, Parser, Subcommand};
use landfall_core::config::{Config, ConfigSources};
use landfall_workers::QueueName;
use std::{path::PathBuf, process::ExitCode};

/// Self-hosted file intake: accepts uploads over HTTP, verifies and stores them, and notifies webhooks.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
pub struct Cli {
    /// Configuration file; its settings override the built-in defaults.
    #[arg(long, global = true, env = "LANDFALL_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run everything in one process: API, workers, and an embedded Redis unless one is configured.
    Up,
    /// Run the HTTP API.
    Serve,
    /// Run workers.
    Worker(WorkerArgs),
    /// Migrate the database schema up or down, or show its status.
    Migrate {
        #[command(subcommand)]
        action: admin::MigrateAction,
    },
    /// Check the configuration and use every dependency for real.
    Check(admin::CheckArgs),
    /// Run one sweep now: resume what is stuck and remove leftovers.
    Sweep(admin::SweepArgs),
    /// Compare the database with storage, staging and the outbox. Exit status: 0 clean, 1 problems found, 2 could not run.
    #[command(after_help = audit::INVARIANTS)]
    Audit(audit::AuditArgs),
    /// Make database, staging and storage one installation, after a move or a restore. Stop all other processes first.
    Adopt(adopt::AdoptArgs),
    /// Create, list and revoke tokens.
    Token {
        #[command(subcommand)]
        command: token::TokenCommand,
    },
    #[command(flatten)]
    Client(Box<landfall_client::ClientCommand>),
    /// Print the OpenAPI document of the HTTP API.
    Openapi,
    /// Print a completion script for a shell.
    Completions { shell: clap_complete::Shell },
}

#[derive(Debug, Args)]
pub struct WorkerArgs {
    /// Queues to process.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "finalize,deliver,maintenance"
    )]
    pub queues: Vec<QueueName>,
    /// Concurrent jobs per queue, instead of the configured numbers.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub concurrency: Option<u16>,
}

/// Maximum number of threads for blocking work: files and the DNS resolver. Each uses memory, so a thousand slow
/// uploads must not have one each; even if every delivery waits for the resolver, half of these remain for files.
const MAX_BLOCKING_THREADS: usize = 128;

/// Runs the command.
///
/// # Errors
/// Every failure that leads to exit status 1.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        .build()?;
    let code = runtime.block_on(dispatch(cli));
    // Background tasks are not waited for.
    runtime.shutdown_background();
    code
}

async fn dispatch(cli: Cli) -> anyhow::Result<ExitCode> {
    if let Command::Completions { shell } = cli.command {
        clap_complete::generate(
            shell,
            &mut Cli::command(),
            "landfall",
            &mut std::io::stdout(),
        );
        return Ok(ExitCode::SUCCESS);
    }
    // TLS clients use ring, the only built-in provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match cli.command {
        Command::Openapi => {
            println!("{}", crate::api::spec());
            return Ok(ExitCode::SUCCESS);
        }
        Command::Client(command) => return landfall_client::run(*command).await,
        Command::Audit(args) => return Ok(audit::run(cli.config, args).await),
        _ => {}
    }
    let config = Config::load(ConfigSources::process(cli.config))?;
    let roles = match &cli.command {
        Command::Up => Some(Roles {
            serve: true,
            work: QueueName::ALL.to_vec(),
            embedded: true,
            concurrency: None,
        }),
        Command::Serve => Some(Roles {
            serve: true,
            ..Roles::default()
        }),
        Command::Worker(args) => Some(Roles {
            work: args.queues.clone(),
            concurrency: args.concurrency.map(usize::from),
            ..Roles::default()
        }),
        _ => None,
    };
    if let Some(roles) = roles {
        return serve(config, roles).await;
    }
    logging::start(&config.log, None);
    match cli.command {
        Command::Migrate { action } => admin::migrate(&config, action).await?,
        Command::Token { command } => token::run(&config, command).await?,
        Command::Adopt(args) => adopt::run(&config, args).await?,
        Command::Check(args) => return admin::check(config, args).await,
        Command::Sweep(args) => return admin::sweep(config, args).await,
        Command::Up
        | Command::Serve
        | Command::Worker(_)
        | Command::Completions { .. }
        | Command::Openapi
        | Command::Client(_)
        | Command::Audit(_) => unreachable!("handled above"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs a long-lived process until it is stopped, and exports its spans.
async fn serve(config: Config, roles: Roles) -> anyhow::Result<ExitCode> {
    let traces = Traces::start(&config.traces)?;
    logging::start(&config.log, traces.as_ref());
    let outcome = server::run(config, roles).await;
    if let Some(traces) = traces {
        traces.end().await;
    }
    outcome.map(|()| ExitCode::SUCCESS)
}
