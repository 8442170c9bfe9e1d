//! What `--resume` goes on from: one small file for each upload under way, outside of the server.
//!
//! It is written before the first byte is sent and removed when all files of the command are done, so a command that
//! ended early, however it ended, can be given again with `--resume`: files that were taken in are not sent again,
//! sessions get the parts they lack. A crash while it is written leaves the older state.

use super::{UploadArgs, source::Source};
use anyhow::Context;
use landfall_core::digest::Sha256Digest;
use serde::{Deserialize, Serialize};
use std::{
    env, fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use url::Url;
use uuid::Uuid;

/// How long an upload that was never gone on with is remembered; the server forgets its session sooner.
const REMEMBERED: Duration = Duration::from_secs(30 * 24 * 3600);

/// What was said to the server of one upload, and by it.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Upload {
    /// Makes the server take a repeated beginning for the first one.
    pub(super) idempotency_key: Uuid,
    /// The upload session, once it is open.
    pub(super) session_id: Option<Uuid>,
    /// The file, once it was taken in.
    pub(super) file_id: Option<Uuid>,
}

/// An upload that is remembered on disk.
#[derive(Debug)]
pub(super) struct State {
    /// None where nothing can be written: then there is no going on.
    path: Option<PathBuf>,
    pub(super) upload: Upload,
}

/// What makes two uploads the same one.
#[derive(Serialize)]
struct Identity<'a> {
    url: &'a Url,
    path: &'a [u8],
    size: u64,
    modified: u128,
    content_type: Option<&'a str>,
    metadata: Option<&'a serde_json::Map<String, serde_json::Value>>,
    batch: Option<Uuid>,
    chunk_size: Option<u64>,
}

impl Upload {
    fn new() -> Self {
        Self {
            idempotency_key: Uuid::now_v7(),
            session_id: None,
            file_id: None,
        }
    }
}

impl State {
    /// The state to go on from, if it is wanted and there is one, else a new one, written.
    pub(super) fn begin(
        folder: Option<&Path>,
        url: &Url,
        source: &Source,
        args: &UploadArgs,
    ) -> anyhow::Result<Self> {
        let path = match folder {
            Some(folder) => Some(folder.join(format!("{}.json", key(url, source, args)?))),
            None => None,
        };
        let found = match &path {
            Some(path) if args.resume => read(path)?,
            _ => None,
        };
        let state = Self {
            path,
            upload: found.unwrap_or_else(Upload::new),
        };
        state.write()?;
        Ok(state)
    }

    /// Forgets what the server no longer knows.
    pub(super) fn restart(&mut self) -> anyhow::Result<()> {
        self.upload = Upload::new();
        self.write()
    }

    /// Puts the state on disk, whole or not at all.
    pub(super) fn write(&self) -> anyhow::Result<()> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        let text = serde_json::to_string(&self.upload)?;
        let half = path.with_extension(format!("{}.new", std::process::id()));
        let written = fs::write(&half, text).and_then(|()| fs::rename(&half, path));
        written.with_context(|| format!("{} cannot be written", path.display()))
    }

    /// Removes the state; one that cannot be removed is only in the way of nothing.
    pub(super) fn forget(self) {
        if let Some(path) = self.path {
            let _ = fs::remove_file(path);
        }
    }
}

/// The folder of the states, made if need be and rid of those that nobody went on with.
pub(super) fn folder() -> anyhow::Result<PathBuf> {
    let folder = state_home()?.join("landfall/uploads");
    fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    let now = SystemTime::now();
    for entry in fs::read_dir(&folder)
        .with_context(|| format!("{} cannot be read", folder.display()))?
        .flatten()
    {
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        let age = modified
            .ok()
            .and_then(|modified| now.duration_since(modified).ok());
        if age.is_some_and(|age| age > REMEMBERED) {
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(folder)
}

/// A file that is no state is as good as none.
fn read(path: &Path) -> anyhow::Result<Option<Upload>> {
    match fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("{} cannot be read", path.display())),
    }
}

/// By the XDG base directory specification: `$XDG_STATE_HOME`, which counts only when absolute, or `~/.local/state`.
fn state_home() -> anyhow::Result<PathBuf> {
    let set = env::var_os("XDG_STATE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    match set {
        Some(state) => Ok(state),
        None => Ok(env::home_dir()
            .context("there is no home folder; set XDG_STATE_HOME")?
            .join(".local/state")),
    }
}

fn key(url: &Url, source: &Source, args: &UploadArgs) -> anyhow::Result<String> {
    let identity = Identity {
        url,
        path: source.path.as_os_str().as_bytes(),
        size: source.size,
        modified: source
            .modified
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_nanos(),
        content_type: args.content_type.as_deref(),
        metadata: args.metadata.as_ref(),
        batch: args.batch,
        chunk_size: args.chunk_size,
    };
    let mut digest = Sha256Digest::compute(&serde_json::to_vec(&identity)?).to_string();
    digest.truncate(32);
    Ok(digest)
}
