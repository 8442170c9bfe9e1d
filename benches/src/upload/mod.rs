//! `landfall-bench upload`: upload throughput of each protocol.
//!
//! The measurement starts when the connections are open and ends with the last response. Then Landfall is polled until
//! every file is stored with the SHA-256 and size of what was sent, which is reported separately.

mod parts;
mod report;
mod sender;
mod stored;
mod synced;

use super::{
    connection::{Connection, Target},
    payload::Content,
    processes::Processes,
};
use crate::Cli;
use clap::{Args, CommandFactory, ValueEnum};
use landfall_client::{ServerArgs, output::print_text};
use report::UploadReport;
use sender::Sender;
use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

#[derive(Debug, Args)]
pub(super) struct UploadArgs {
    /// The protocol.
    #[arg(long, value_enum, default_value_t = Protocol::Raw)]
    protocol: Protocol,
    /// Size of each upload.
    #[arg(long, default_value = "1GiB", value_parser = super::bytes)]
    size: u64,
    /// Total number of uploads.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    uploads: u32,
    /// Number of concurrent connections.
    #[arg(long, value_name = "M", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    at_once: u16,
    /// Size of each PATCH (by default everything) or part (by default chosen by the server).
    #[arg(long, value_name = "SIZE", value_parser = super::bytes)]
    piece: Option<u64>,
    /// Process id of the server to watch; can be repeated.
    #[arg(long, value_name = "PID")]
    pid: Vec<u32>,
    /// The server is not Landfall: create tus uploads at --url itself, and do not wait for files to be stored.
    #[arg(long)]
    foreign: bool,
    /// Sync every file in this folder after the last response, and include the time: for servers that respond before
    /// they have synced.
    #[arg(long, value_name = "FOLDER")]
    sync: Option<PathBuf>,
    /// Print the results as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Protocol {
    /// The body of one `POST /v1/files`.
    #[value(alias = "put")]
    Raw,
    /// A form with one file, by `POST /v1/files`.
    Form,
    /// Upload sessions, one after another, with M concurrent parts.
    Parts,
    /// tus 1.0.0: creation, then PATCHes; for any server.
    Tus,
    /// A plain PUT below --url, for nginx and other WebDAV servers; not for Landfall.
    Plain,
}

impl Protocol {
    fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

impl UploadArgs {
    /// Whether the files are polled until they are stored.
    fn is_landfall(&self) -> bool {
        !self.foreign && self.protocol != Protocol::Plain
    }

    fn bytes(&self) -> u64 {
        u64::from(self.uploads).saturating_mul(self.size)
    }
}

pub(super) async fn run(server: &ServerArgs, args: UploadArgs) -> anyhow::Result<()> {
    if args.foreign && !matches!(args.protocol, Protocol::Tus | Protocol::Plain) {
        const WRONG: &str =
            "--foreign requires --protocol tus or plain: the others are specific to Landfall";
        let kind = clap::error::ErrorKind::ArgumentConflict;
        Cli::command().error(kind, WRONG).exit();
    }
    let target = Arc::new(Target::new(server)?);
    let json = args.json;
    let figures = measure(target, args).await?;
    print_text(&if json {
        serde_json::to_string(&figures)?
    } else {
        figures.to_string()
    })?;
    Ok(())
}

async fn measure(target: Arc<Target>, args: UploadArgs) -> anyhow::Result<UploadReport> {
    let content = Content::new();
    let digest = match args.is_landfall() {
        true => {
            let (content, size) = (content.clone(), args.size);
            Some(tokio::task::spawn_blocking(move || content.digest(size)).await?)
        }
        false => None,
    };
    // Reports an unreachable address first.
    drop(Connection::open(&target).await?);
    let watched = Processes::watch(&args.pid)?;
    let sender = Arc::new(Sender::new(args, content.clone()));
    let args = &sender.args;
    let began = Instant::now();
    let work = at_once(&sender, &target);
    let sent = super::shown(args.bytes(), &content.sent, work).await?;
    let acknowledged = began.elapsed();
    let synced = match args.sync.clone() {
        Some(folder) => {
            let threads = usize::from(args.at_once);
            tokio::task::spawn_blocking(move || synced::sync(&folder, threads)).await??;
            Some(began.elapsed())
        }
        None => None,
    };
    let stored = match digest {
        Some(digest) => {
            stored::all(&target, &sent.files, digest, args).await?;
            Some(began.elapsed())
        }
        None => None,
    };
    let processes = watched.map(Processes::end).transpose()?.unwrap_or_default();
    let took = Timings {
        acknowledged,
        synced,
        stored,
    };
    Ok(UploadReport::new(&sender, &took, sent.requests, processes))
}

/// Durations of the phases, measured from the first request.
#[derive(Debug)]
struct Timings {
    acknowledged: Duration,
    synced: Option<Duration>,
    stored: Option<Duration>,
}

/// The results of all uploads.
#[derive(Debug, Default)]
struct UploadResults {
    /// The ids of Landfall's files.
    files: Vec<String>,
    /// Number of responses.
    requests: u64,
}

/// Sends everything; stops at the first error.
async fn at_once(sender: &Arc<Sender>, target: &Arc<Target>) -> anyhow::Result<UploadResults> {
    let mut senders = JoinSet::new();
    for _ in 0..sender.args.at_once {
        let (sender, target) = (Arc::clone(sender), Arc::clone(target));
        senders.spawn(async move {
            let mut connection = Connection::open(&target).await?;
            let files = sender.work(&mut connection).await?;
            Ok::<_, anyhow::Error>((files, connection.answered))
        });
    }
    let mut sent = UploadResults::default();
    while let Some(sender) = senders.join_next().await {
        let (files, requests) = sender??;
        sent.files.extend(files);
        sent.requests += requests;
    }
    Ok(sent)
}
