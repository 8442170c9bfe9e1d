//! `landfall bench seed`: a full installation in a minute, to measure lists and pages on.

use crate::server;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use landfall_core::{
    clock::Clock,
    config::Config,
    db::Database,
    seed::{self, SeedAmount},
};
use landfall_workers::Queues;

#[derive(Debug, Args)]
pub(super) struct SeedArgs {
    /// Files, in every status.
    #[arg(long, default_value_t = 1_000_000)]
    files: u64,
    /// Events, with their deliveries and attempts.
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// Jobs in Redis; with 0 it is left alone.
    #[arg(long, default_value_t = 100_000)]
    jobs: u64,
}

/// Fills the configured database and Redis. Behind the files there are no bytes, and nothing is ever sent to the
/// endpoints.
pub(super) async fn seed(config: Config, args: SeedArgs) -> anyhow::Result<()> {
    let db = Database::open(&config.database.url, config.database.max_connections).await?;
    db.migrate_up().await?;
    let amount = SeedAmount {
        files: args.files,
        events: args.events,
        until: Clock::system().now(),
    };
    let bar = bar(args.files + args.events, "files and events")?;
    seed::seed(&db, amount, |done| bar.set_position(done)).await?;
    bar.finish();
    if args.jobs == 0 {
        return Ok(());
    }
    let embedded = server::EmbeddedRedis::url_below(&config.data_dir);
    let embedded = Some(&embedded).filter(|_| config.redis.url.is_none());
    let queues = Queues::new(server::connect_redis(&config, embedded)?, &config);
    let bar = self::bar(args.jobs, "jobs")?;
    landfall_workers::seed::seed(&queues, args.jobs, |done| bar.set_position(done)).await?;
    bar.finish();
    Ok(())
}

fn bar(count: u64, what: &'static str) -> anyhow::Result<ProgressBar> {
    let bar = ProgressBar::new(count);
    let template = format!("{{bar:40}} {{human_pos}}/{{human_len}} {what}, {{elapsed}}");
    bar.set_style(ProgressStyle::with_template(&template)?);
    Ok(bar)
}
