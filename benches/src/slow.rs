//! `landfall-bench slow`: many concurrent slow uploads; measures the server's memory per upload.

use super::{
    connection::{Connection, Target},
    payload::Content,
    processes::{self, Processes, Usage},
    tus,
};
use anyhow::Context;
use clap::Args;
use landfall_client::{
    ServerArgs,
    output::{fields, print_text},
};
use landfall_core::config::ByteSize;
use serde::Serialize;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

#[derive(Debug, Args)]
pub(super) struct SlowArgs {
    /// Number of concurrent uploads.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    uploads: u32,
    /// Duration of each upload.
    #[arg(long = "for", value_name = "TIME", default_value = "20s", value_parser = time)]
    lasting: Duration,
    /// Bytes per second of each upload.
    #[arg(long, value_name = "SIZE", default_value = "1KiB", value_parser = super::bytes)]
    rate: u64,
    /// Process id of the server to watch; can be repeated.
    #[arg(long, value_name = "PID")]
    pid: Vec<u32>,
    /// The server is not Landfall: create uploads at --url itself.
    #[arg(long)]
    foreign: bool,
    /// Print the results as JSON.
    #[arg(long)]
    json: bool,
}

/// Parses whole seconds, at least two, because one chunk is sent per second.
fn time(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if time.as_secs() >= 2 => Ok(Duration::from_secs(time.as_secs())),
        Ok(_) => Err("must be at least 2s".to_owned()),
        Err(_) => Err("write a time as 20s or 2m".to_owned()),
    }
}

#[derive(Debug, Serialize)]
struct SlowReport {
    uploads: u32,
    bytes_per_second_each: u64,
    size_bytes: u64,
    seconds: f64,
    resident_above_bytes: Option<u64>,
    resident_above_bytes_each: Option<u64>,
    processes: Vec<Usage>,
}

pub(super) async fn run(server: &ServerArgs, args: SlowArgs) -> anyhow::Result<()> {
    let target = Arc::new(Target::new(server)?);
    drop(Connection::open(&target).await?);
    let size = args.rate.saturating_mul(args.lasting.as_secs());
    let watched = Processes::watch(&args.pid)?;
    let content = Content::new();
    let began = Instant::now();
    let all = u64::from(args.uploads).saturating_mul(size);
    super::shown(all, &content.sent, together(&target, &args, &content, size)).await?;
    let seconds = began.elapsed().as_secs_f64();
    let processes = watched.map(Processes::end).transpose()?.unwrap_or_default();
    let above = processes.last().map(|all| all.resident_above_bytes);
    let figures = SlowReport {
        uploads: args.uploads,
        bytes_per_second_each: args.rate,
        size_bytes: size,
        seconds,
        resident_above_bytes: above,
        resident_above_bytes_each: above.map(|above| above / u64::from(args.uploads)),
        processes,
    };
    print_text(&if args.json {
        serde_json::to_string(&figures)?
    } else {
        summary(&figures)
    })?;
    Ok(())
}

/// Runs all uploads, each on its own connection, started evenly over one second so that their chunks are spread.
async fn together(
    target: &Arc<Target>,
    args: &SlowArgs,
    content: &Content,
    size: u64,
) -> anyhow::Result<()> {
    const PAUSE: Duration = Duration::from_secs(1);
    let (first, mut uploads) = (tokio::time::Instant::now(), JoinSet::new());
    for number in 0..args.uploads {
        let (target, content) = (Arc::clone(target), content.clone());
        let (foreign, rate) = (args.foreign, args.rate);
        let begin = first + PAUSE * number / args.uploads;
        uploads.spawn(async move {
            tokio::time::sleep_until(begin).await;
            let mut connection = Connection::open(&target).await?;
            let (creation, name) = (
                tus::creation(&connection, foreign),
                format!("bench-slow-{number}.bin"),
            );
            let location = tus::create(&mut connection, &creation, &name, size).await?;
            let every = tokio::time::interval_at(tokio::time::Instant::now() + PAUSE, PAUSE);
            let payload = content.payload(0..size).paced(rate, every);
            tus::append(&mut connection, &location, 0, payload).await
        });
    }
    while let Some(upload) = uploads.join_next().await {
        upload?.context("a slow upload was not accepted")?;
    }
    Ok(())
}

fn summary(figures: &SlowReport) -> String {
    let what = format!(
        "{} concurrent uploads, {}/s each, {} each in total, in {:.1} s",
        figures.uploads,
        ByteSize(figures.bytes_per_second_each),
        ByteSize(figures.size_bytes),
        figures.seconds
    );
    let mut pairs = vec![("sent", what)];
    let above = figures
        .resident_above_bytes
        .zip(figures.resident_above_bytes_each);
    pairs.extend(above.map(|(all, each)| {
        let (all, each) = (ByteSize(all), ByteSize(each));
        (
            "memory",
            format!("{all} above idle, {each} for each upload"),
        )
    }));
    let mut text = fields(&pairs);
    if !figures.processes.is_empty() {
        let bytes = figures.size_bytes * u64::from(figures.uploads);
        text.push('\n');
        text.push_str(&processes::table(&figures.processes, bytes));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_whole_seconds_from_two_on() {
        assert_eq!(time("20s"), Ok(Duration::from_secs(20)));
        assert_eq!(time("2500ms"), Ok(Duration::from_secs(2)));
        for bad in ["1s", "0s", "20", "soon"] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }
}
