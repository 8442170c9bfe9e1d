//! The state for `--resume`: one small local file per unfinished upload.
//!
//! It is written before the first byte is sent, and deleted when all files of the command are done. A command that was
//! interrupted in any way can be repeated with `--resume`: accepted files are not sent again, and sessions get the
//! missing parts. A crash during the write leaves the previous state.

use super::{UploadArgs, source::LocalFile};
use crate::sha256::Sha256Digest;
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::{
    env, fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use url::Url;
use uuid::Uuid;

/// How long the state of an abandoned upload is kept; the server's session expires sooner.
const STATE_RETENTION: Duration = Duration::from_secs(30 * 24 * 3600);

/// The saved state of one upload.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct SavedUpload {
    /// The idempotency key of the creation.
    pub(super) idempotency_key: Uuid,
    /// The upload session, once created.
    pub(super) session_id: Option<Uuid>,
    /// The file, once accepted.
    pub(super) file_id: Option<Uuid>,
}

/// The state of an upload and its file on disk.
#[derive(Debug)]
pub(super) struct ResumeState {
    /// `None` if it cannot be written; then the upload cannot be resumed.
    path: Option<PathBuf>,
    pub(super) upload: SavedUpload,
}

/// The identity of an upload.
#[derive(Serialize)]
struct UploadIdentity<'a> {
    url: &'a Url,
    path: &'a [u8],
    size: u64,
    modified: u128,
    content_type: Option<&'a str>,
    metadata: Option<&'a serde_json::Map<String, serde_json::Value>>,
    batch: Option<Uuid>,
    chunk_size: Option<u64>,
}

impl SavedUpload {
    fn new() -> Self {
        Self {
            idempotency_key: Uuid::now_v7(),
            session_id: None,
            file_id: None,
        }
    }
}

impl ResumeState {
    /// Loads the state to resume from, if requested and available; otherwise creates a new one.
    pub(super) fn begin(
        folder: Option<&Path>,
        url: &Url,
        source: &LocalFile,
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
            upload: found.unwrap_or_else(SavedUpload::new),
        };
        state.write()?;
        Ok(state)
    }

    /// Resets a state that the server no longer has.
    pub(super) fn restart(&mut self) -> anyhow::Result<()> {
        self.upload = SavedUpload::new();
        self.write()
    }

    /// Writes the state atomically.
    pub(super) fn write(&self) -> anyhow::Result<()> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        let text = serde_json::to_string(&self.upload)?;
        let half = path.with_extension(format!("{}.new", std::process::id()));
        let written = fs::write(&half, text).and_then(|()| fs::rename(&half, path));
        written.with_context(|| format!("cannot write {}", path.display()))
    }

    /// Deletes the state; a leftover does no harm.
    pub(super) fn forget(self) {
        if let Some(path) = self.path {
            let _ = fs::remove_file(path);
        }
    }
}

/// Returns the folder of the states; creates it if necessary, and deletes old states.
pub(super) fn folder() -> anyhow::Result<PathBuf> {
    let folder = state_home()?.join("landfall/uploads");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let now = SystemTime::now();
    for entry in fs::read_dir(&folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .flatten()
    {
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        let age = modified
            .ok()
            .and_then(|modified| now.duration_since(modified).ok());
        if age.is_some_and(|age| age > STATE_RETENTION) {
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(folder)
}

/// An invalid file is treated as missing.
fn read(path: &Path) -> anyhow::Result<Option<SavedUpload>> {
    match fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// The XDG state folder: `$XDG_STATE_HOME`, if absolute, or `~/.local/state`.
fn state_home() -> anyhow::Result<PathBuf> {
    let set = env::var_os("XDG_STATE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    match set {
        Some(state) => Ok(state),
        None => Ok(env::home_dir()
            .context("no home folder; set XDG_STATE_HOME")?
            .join(".local/state")),
    }
}

fn key(url: &Url, source: &LocalFile, args: &UploadArgs) -> anyhow::Result<String> {
    let identity = UploadIdentity {
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
    let mut digest = Sha256Digest::of(&serde_json::to_vec(&identity)?).to_string();
    digest.truncate(32);
    Ok(digest)
}
