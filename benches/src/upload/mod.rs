//! `landfall-bench upload`: bytes in, by each protocol, as fast as the server takes them.
//!
//! The clock starts when the connections are open and ends with the last acknowledgement; then Landfall is asked for
//! each file until it is stored with the SHA-256 and the size of what was sent. That time is a figure of its own.

mod figures;
mod parts;
mod sending;
mod stored;
mod synced;

use super::{
    connection::{Connection, Target},
    payload::Content,
    processes::Processes,
};
use crate::Cli;
use clap::{Args, CommandFactory, ValueEnum};
use figures::Figures;
use landfall_client::{ServerArgs, output::answer};
use sending::Sending;
use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

#[derive(Debug, Args)]
pub(super) struct UploadArgs {
    /// How bytes are sent.
    #[arg(long, value_enum, default_value_t = Protocol::Raw)]
    protocol: Protocol,
    /// The bytes of each upload.
    #[arg(long, default_value = "1GiB", value_parser = super::bytes)]
    size: u64,
    /// Uploads in all.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    uploads: u32,
    /// Connections that send at once.
    #[arg(long, value_name = "M", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    at_once: u16,
    /// The bytes of each PATCH (by default all) or part (by default what the server chooses).
    #[arg(long, value_name = "SIZE", value_parser = super::bytes)]
    piece: Option<u64>,
    /// A process of the server, to be watched; may be given several times.
    #[arg(long, value_name = "PID")]
    pid: Vec<u32>,
    /// The server is not Landfall: tus uploads are created at --url itself, and none is waited for.
    #[arg(long)]
    foreign: bool,
    /// Sync every file in this folder after the last acknowledgement, and tell the time with that, too: for servers
    /// that acknowledge what they have not synced.
    #[arg(long, value_name = "FOLDER")]
    sync: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Protocol {
    /// The bytes as the body of one `POST /v1/files`.
    #[value(alias = "put")]
    Raw,
    /// A form with the file in it, by `POST /v1/files`.
    Form,
    /// Upload sessions: the parts of one after another, M of them at once.
    Parts,
    /// tus 1.0.0: creation, then PATCHes; of any server.
    Tus,
    /// A plain PUT below --url, as nginx and other WebDAV servers take; never Landfall.
    Plain,
}

impl Protocol {
    fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

impl UploadArgs {
    /// True when the files are looked at until they are stored.
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
            "--foreign goes with --protocol tus or plain: the others are Landfall's own";
        let kind = clap::error::ErrorKind::ArgumentConflict;
        Cli::command().error(kind, WRONG).exit();
    }
    let target = Arc::new(Target::new(server)?);
    let json = args.json;
    let figures = measure(target, args).await?;
    answer(&if json {
        serde_json::to_string(&figures)?
    } else {
        figures.to_string()
    })?;
    Ok(())
}

async fn measure(target: Arc<Target>, args: UploadArgs) -> anyhow::Result<Figures> {
    let content = Content::new();
    let digest = match args.is_landfall() {
        true => {
            let (content, size) = (content.clone(), args.size);
            Some(tokio::task::spawn_blocking(move || content.digest(size)).await?)
        }
        false => None,
    };
    // An address where nothing answers is told before anything else.
    drop(Connection::open(&target).await?);
    let watched = Processes::watch(&args.pid)?;
    let sending = Arc::new(Sending::new(args, content.clone()));
    let args = &sending.args;
    let began = Instant::now();
    let work = at_once(&sending, &target);
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
    let took = Took {
        acknowledged,
        synced,
        stored,
    };
    Ok(Figures::new(&sending, &took, sent.requests, processes))
}

/// What of the work has taken how long, each from the first request on.
#[derive(Debug)]
struct Took {
    acknowledged: Duration,
    synced: Option<Duration>,
    stored: Option<Duration>,
}

/// What came of all uploads.
#[derive(Debug, Default)]
struct Sent {
    /// The ids of Landfall's files.
    files: Vec<String>,
    /// Requests that were answered.
    requests: u64,
}

/// Sends everything; the first fault ends it.
async fn at_once(sending: &Arc<Sending>, target: &Arc<Target>) -> anyhow::Result<Sent> {
    let mut senders = JoinSet::new();
    for _ in 0..sending.args.at_once {
        let (sending, target) = (Arc::clone(sending), Arc::clone(target));
        senders.spawn(async move {
            let mut connection = Connection::open(&target).await?;
            let files = sending.work(&mut connection).await?;
            Ok::<_, anyhow::Error>((files, connection.answered))
        });
    }
    let mut sent = Sent::default();
    while let Some(sender) = senders.join_next().await {
        let (files, requests) = sender??;
        sent.files.extend(files);
        sent.requests += requests;
    }
    Ok(sent)
}
