//! `landfall upload`: uploads files, several at once, each verified by its SHA-256.
//!
//! Standard output has one line per accepted file, in the order of the arguments; errors go to standard error, and one
//! failing file does not stop the others. Memory is bounded by the number of parallel transfers, not by file sizes.

mod job;
mod progress;
mod schema;
mod session;
mod single;
mod source;
mod state;

use super::{
    api::{ApiClient, CallError},
    output::{plain, print_text},
};
use clap::Args;
use futures::{StreamExt, stream};
use job::UploadedFile;
use progress::Progress;
use serde_json::{Map, Value};
use std::{io, path::PathBuf, process::ExitCode};
use tokio::sync::{Semaphore, SemaphorePermit};
use uuid::Uuid;

#[derive(Debug, Args)]
pub struct UploadArgs {
    /// The files.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Resume uploads that the same command started earlier.
    #[arg(long)]
    resume: bool,
    /// Files and parts to send concurrently.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    parallel: u8,
    /// Wait until the files are stored, and compare their SHA-256 with the local files.
    #[arg(long)]
    wait: bool,
    /// Media type of the files (guessed from their names by default).
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// Metadata to store with the files, a JSON object.
    #[arg(long, value_name = "JSON", value_parser = object)]
    metadata: Option<Map<String, Value>>,
    /// Batch to add the files to.
    #[arg(long, value_name = "ID")]
    batch: Option<Uuid>,
    /// Part size for large files, such as 64MiB (chosen by the server by default).
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    chunk_size: Option<u64>,
    /// Print the file objects as a JSON array, and show no progress.
    #[arg(long)]
    json: bool,
}

impl UploadArgs {
    fn parallel(&self) -> usize {
        usize::from(self.parallel)
    }

    fn metadata_text(&self) -> Option<String> {
        let metadata = self.metadata.clone()?;
        Some(Value::Object(metadata).to_string())
    }
}

/// The state shared by the uploads of one command.
#[derive(Debug)]
struct Uploads {
    api: ApiClient,
    args: UploadArgs,
    progress: Progress,
    /// The folder of the resume states, if it can be written.
    states: Option<PathBuf>,
    slots: Semaphore,
}

impl Uploads {
    /// Waits for a slot to send bytes; the number of slots over all files is set by --parallel.
    async fn slot(&self) -> SemaphorePermit<'_> {
        self.slots
            .acquire()
            .await
            .expect("the semaphore is never closed")
    }

    async fn run(&self) -> anyhow::Result<ExitCode> {
        let mut results = stream::iter(&self.args.files)
            .map(async |path| (path, job::run(self, path).await))
            .buffered(self.args.parallel());
        let (mut uploaded, mut good, mut resumable) = (Vec::new(), true, false);
        while let Some((path, result)) = results.next().await {
            let complaint = match result {
                Ok(one) => {
                    let complaint = one.complaint();
                    self.report(&one)?;
                    uploaded.push(one);
                    complaint
                }
                Err(error) => {
                    resumable |= error.downcast_ref().is_some_and(CallError::is_temporary);
                    Some(format!("{error:#}"))
                }
            };
            if let Some(complaint) = complaint {
                good = false;
                self.progress
                    .note(&format!("{}: {complaint}", plain(&path.to_string_lossy())));
            }
        }
        self.progress.finish();
        if self.args.json {
            let files: Vec<_> = uploaded.iter().map(|one| one.file.raw.get()).collect();
            print_text(&format!("[{}]", files.join(",\n")))?;
        }
        if good {
            uploaded.into_iter().for_each(|one| one.state.forget());
            return Ok(ExitCode::SUCCESS);
        }
        if resumable && self.states.is_some() {
            eprintln!("landfall: run the same command with --resume to continue");
        }
        Ok(ExitCode::FAILURE)
    }

    /// Prints a file's line; a closed pipe does not stop the uploads.
    fn report(&self, uploaded: &UploadedFile) -> io::Result<()> {
        if self.args.json {
            return Ok(());
        }
        match self.progress.suspended(|| print_text(&uploaded.line())) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written,
        }
    }
}

pub(super) async fn run(api: ApiClient, args: UploadArgs) -> anyhow::Result<ExitCode> {
    let states = match state::folder() {
        Ok(folder) => Some(folder),
        Err(error) if args.resume => return Err(error),
        Err(error) => {
            eprintln!("landfall: these uploads cannot be resumed later: {error:#}");
            None
        }
    };
    // Unreadable files are reported when it is their turn.
    let total = args
        .files
        .iter()
        .filter_map(|path| path.metadata().ok())
        .map(|metadata| metadata.len())
        .sum();
    let progress = Progress::new(!args.json, total);
    let slots = Semaphore::new(args.parallel());
    let uploads = Uploads {
        api,
        args,
        progress,
        states,
        slots,
    };
    tokio::select! {
        done = uploads.run() => done,
        signal = tokio::signal::ctrl_c() => {
            signal?;
            uploads.progress.finish();
            let hint = if uploads.states.is_some() { "; run the same command with --resume to continue" } else { "" };
            eprintln!("landfall: interrupted{hint}");
            Ok(ExitCode::FAILURE)
        }
    }
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err("must be an object, such as {\"name\": \"value\"}".to_owned()),
        Err(error) => Err(format!("must be JSON: {error}")),
    }
}

fn bytes(text: &str) -> Result<u64, String> {
    let size: bytesize::ByteSize = text
        .parse()
        .map_err(|_| "write a size as 64KiB, 8MiB, 1GiB, or in bytes".to_owned())?;
    if size.0 == 0 {
        Err("must be at least one byte".to_owned())
    } else {
        Ok(size.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_an_object() {
        assert_eq!(object(r#"{"a": 1}"#).unwrap()["a"], 1);
        for bad in ["1", "[]", "{", "null"] {
            assert!(object(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(bytes("64KiB"), Ok(65_536));
        assert_eq!(bytes("100"), Ok(100));
        for bad in ["0", "-1", "many", "5 parsecs"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }
}
