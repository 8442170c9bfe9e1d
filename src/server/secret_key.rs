//! The encryption key of webhook secrets, if none is configured: generated once, in a file of the data folder.
//!
//! A copy of that file alone decrypts nothing, and a copy of the database alone cannot sign. A crash while it is
//! created leaves a temporary file that the next start replaces.

use anyhow::{Context, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use landfall_core::{
    config::Config,
    fs_io::sync_folder,
    webhooks::sealing::{Sealing, SealingKey},
};
use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    path::Path,
};

/// In the data folder.
const KEY_FILE: &str = "webhooks.key";

/// Loads the key from the data folder if `webhooks.secret_key` is not set, and generates one if `may_make`.
///
/// # Errors
/// If the file cannot be read or written, or is not a key.
pub(super) fn complete(config: &mut Config, may_make: bool) -> anyhow::Result<()> {
    if config.webhooks.sealing.has_key() || !config.is_sqlite() {
        return Ok(());
    }
    let path = config.data_dir.join(KEY_FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound && may_make => make(&path)?,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let Ok(key) = text.trim().parse::<SealingKey>() else {
        bail!(
            "{} is not a valid key: restore it, or set webhooks.secret_key",
            path.display()
        );
    };
    let previous = config.webhooks.sealing.previous();
    config.webhooks.sealing = Sealing::new(Some(key), previous);
    Ok(())
}

/// Makes the key durable before it is used.
fn make(path: &Path) -> anyhow::Result<String> {
    let text = STANDARD.encode(rand::random::<[u8; 32]>());
    let new = path.with_extension("new");
    let write = || {
        let mut file = File::create(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        let folder = path.parent().unwrap_or_else(|| Path::new("."));
        sync_folder(folder)
    };
    write().with_context(|| format!("cannot write {}", path.display()))?;
    tracing::info!(path = %path.display(), "generated a key for webhook secrets; back it up with the database");
    Ok(text)
}
