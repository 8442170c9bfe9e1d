//! `landfall-bench seed`: fills an installation quickly, to measure lists and pages.

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use landfall::server;
use landfall_bench::{
    seed_jobs,
    seed_rows::{self, SeedAmount},
};
use landfall_core::{clock::Clock, config::Config, db::Database};
use landfall_workers::Queues;

#[derive(Debug, Args)]
pub(super) struct SeedArgs {
    /// Number of files, in all statuses.
    #[arg(long, default_value_t = 1_000_000)]
    files: u64,
    /// Number of events, with their deliveries and attempts.
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// Number of jobs in Redis; with 0 Redis is not used.
    #[arg(long, default_value_t = 100_000)]
    jobs: u64,
}

/// Fills the configured database and Redis. The files have no bytes, and nothing is sent to the endpoints.
pub(super) async fn seed(config: Config, args: SeedArgs) -> anyhow::Result<()> {
    let db = Database::open(&config.database.url, config.database.max_connections).await?;
    db.migrate_up().await?;
    let amount = SeedAmount {
        files: args.files,
        events: args.events,
        until: Clock::system().now(),
    };
    let bar = bar(args.files + args.events, "files and events")?;
    seed_rows::seed(&db, amount, |done| bar.set_position(done)).await?;
    bar.finish();
    // A server does not write where rows exist and the markers are missing.
    eprintln!(
        "run `landfall adopt` before the first start: staging and storage are not this installation's yet"
    );
    if args.jobs == 0 {
        return Ok(());
    }
    let embedded = server::EmbeddedRedis::url_below(&config.data_dir);
    let embedded = Some(&embedded).filter(|_| config.redis.url.is_none());
    let queues = Queues::new(server::connect_redis(&config, embedded)?, &config);
    let bar = self::bar(args.jobs, "jobs")?;
    seed_jobs::seed(&queues, args.jobs, |done| bar.set_position(done)).await?;
    bar.finish();
    Ok(())
}

fn bar(count: u64, what: &'static str) -> anyhow::Result<ProgressBar> {
    let bar = ProgressBar::new(count);
    let template = format!("{{bar:40}} {{human_pos}}/{{human_len}} {what}, {{elapsed}}");
    bar.set_style(ProgressStyle::with_template(&template)?);
    Ok(bar)
}
