//! I1 and the first half of I2: the object and the event of each stored file.

use super::{
    Audit, AuditError, AuditStep, Invariant, RepairOutcome, Violation, events,
    stored_files::{AuditedFile, page, reload_stored},
};
use crate::{
    app::App,
    files,
    staging::{self, ChecksumAlgorithm, Staging},
    storage::{StorageError, StorageKey},
};
use entity::file::FileStatus;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream};

/// Maximum number of concurrent HEAD requests.
const MAX_CONCURRENT_HEADS: usize = 16;

/// Maximum number of objects read concurrently.
const MAX_CONCURRENT_READS: usize = 4;

pub(super) async fn check(audit: &mut Audit<'_>) -> Result<(), AuditError> {
    let app = audit.app;
    let stored = files::counts_by_status(app.db.read(), &[FileStatus::Stored]).await?;
    audit.step_started(AuditStep::Files, Some(stored.values().sum()));
    let mut after = None;
    loop {
        let page = page(audit, after).await?;
        let Some(last) = page.last() else {
            return Ok(());
        };
        after = Some(last.id);
        for (file, _) in faults(audit, &page).await? {
            // Check again with the current row: the file may have been deleted meanwhile.
            let Some(file) = reload_stored(app, file.id).await? else {
                continue;
            };
            if let Some(detail) = fault(app, &file, audit.options.deep).await? {
                let repair = if audit.options.repair {
                    RepairOutcome::NotRepaired("there is no other copy of the bytes".to_owned())
                } else {
                    RepairOutcome::NotRequested
                };
                let violation = Violation::new(Invariant::I1, file.id, detail);
                audit.found(violation, repair).await?;
            }
        }
        events::missing(audit, &page).await?;
        audit.checked_more(page.len());
    }
}

/// Returns the files of a page whose objects look wrong on the first check.
async fn faults<'p>(
    audit: &Audit<'_>,
    page: &'p [AuditedFile],
) -> Result<Vec<(&'p AuditedFile, String)>, StorageError> {
    let (app, deep) = (audit.app, audit.options.deep);
    let at_once = if deep {
        MAX_CONCURRENT_READS
    } else {
        MAX_CONCURRENT_HEADS
    };
    // Boxed, because otherwise the compiler cannot prove that the future of the whole audit is `Send`.
    let looks: Vec<BoxFuture<'_, _>> = page
        .iter()
        .filter(|file| deep || !audit.seen.contains(file.id))
        .map(|file| async move { Ok((file, fault(app, file, deep).await?)) }.boxed())
        .collect();
    let mut looks = stream::iter(looks).buffer_unordered(at_once);
    let mut faults = Vec::new();
    while let Some(look) = looks.next().await {
        let (file, fault): (_, Option<String>) = look?;
        faults.extend(fault.map(|fault| (file, fault)));
    }
    Ok(faults)
}

/// Returns what is wrong with a file's object, if anything.
async fn fault(app: &App, file: &AuditedFile, deep: bool) -> Result<Option<String>, StorageError> {
    let (Some(key), Some(sha256)) = (&file.storage_key, &file.sha256) else {
        return Ok(Some("its row has no storage key or no SHA-256".to_owned()));
    };
    let Ok(key) = key.parse::<StorageKey>() else {
        return Ok(Some("its row has an invalid storage key".to_owned()));
    };
    let missing = || Ok(Some("its object is not in storage".to_owned()));
    let Some(found) = app.storage.head(&key).await? else {
        return missing();
    };
    if i64::try_from(found.size) != Ok(file.size_bytes) {
        return Ok(Some(format!(
            "its object has {} bytes, its row says {}",
            found.size, file.size_bytes
        )));
    }
    let mut digest = found.sha256;
    if deep {
        digest = match read_again(app, &key).await {
            Err(StorageError::NotFound) => return missing(),
            read => read?,
        };
    }
    let other = digest.filter(|found| found.to_string() != *sha256);
    Ok(other.map(|found| format!("its object has the SHA-256 {found}, its row says {sha256}")))
}

async fn read_again(
    app: &App,
    key: &StorageKey,
) -> Result<Option<crate::digest::Sha256Digest>, StorageError> {
    let bytes = app.storage.read(key, None).await?;
    let options = staging::WriteOptions {
        hashes: &[ChecksumAlgorithm::Sha256],
        ..staging::WriteOptions::default()
    };
    let read = Staging::digest(bytes, options).await;
    let read = read.map_err(|source| StorageError::NoAnswer {
        action: "send all bytes of an object",
        source: source.into(),
    })?;
    Ok(read.hashes.sha256)
}
