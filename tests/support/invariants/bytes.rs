//! I5: no object without a row, no staging that no row lists, no multipart upload that no row lists.
//!
//! This holds while other uploads are open, and for any names. The periodic sweep must delete bytes of finished rows.
//! Bytes without a row stay for `staging.grace`, which is a day; for these the checker itself sweeps with a grace of
//! one second, which is safe because no work is in progress then.

use super::super::bytes_on_disk::BytesOnDisk;
use entity::{
    file::{self, FileStatus},
    staging_probe,
    upload::{self, UploadKind, UploadStatus},
};
use landfall_core::{app::App, sweep::sweep};
use sea_orm::{DbErr, EntityTrait};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;
use uuid::Uuid;

const POLL_INTERVAL: Duration = Duration::from_millis(500);
const SHORT_GRACE: Duration = Duration::from_secs(1);

/// Files that belong to no row: the one that a health check creates and deletes, and the installation's marker.
const IGNORED_NAMES: [&str; 3] = [".health", ".landfall-installation", "landfall-installation"];

/// What the rows say about bytes.
struct Rows {
    /// Keys of stored files, and of failed ones that keep their bytes.
    objects: BTreeSet<String>,
    /// Keys that files had or were to have, and under which nothing may be stored any more.
    former_objects: BTreeSet<String>,
    /// The ids under which bytes are staged.
    staging: BTreeSet<Uuid>,
    /// Every id that may occur in the name of staged bytes.
    ids: BTreeSet<Uuid>,
    /// What uploads record about staging.
    multipart: Vec<String>,
}

impl Rows {
    async fn read(app: &App) -> Result<Self, DbErr> {
        let connection = app.db.read();
        let files = file::Entity::find().all(connection).await?;
        let uploads = upload::Entity::find().all(connection).await?;
        let probes = staging_probe::Entity::find().all(connection).await?;
        let by_id: BTreeMap<Uuid, &file::Model> =
            files.iter().map(|file| (file.id.0, file)).collect();
        let waits =
            |file: &file::Model| file.staging_key.is_some() || file.status == FileStatus::Uploading;
        let listed = |upload: &upload::Model| match upload.status {
            UploadStatus::Init | UploadStatus::InProgress => true,
            // A partial upload waits for the final one, and after that for its file to be stored.
            UploadStatus::Complete if upload.kind == UploadKind::Partial => {
                upload.file_id.0 == upload.id.0
                    || by_id.get(&upload.file_id.0).is_some_and(|file| waits(file))
            }
            _ => false,
        };
        let waiting = files
            .iter()
            .filter(|file| waits(file))
            .map(|file| file.id.0);
        let open = uploads
            .iter()
            .filter(|upload| listed(upload))
            .map(|upload| upload.id.0);
        let beating = probes.iter().map(|probe| probe.id);
        let key_of = |wanted: fn(&file::Model) -> bool| {
            let files = files.iter().filter(move |file| wanted(file));
            files.filter_map(|file| file.storage_key.clone()).collect()
        };
        Ok(Self {
            objects: key_of(may_have_an_object),
            former_objects: key_of(|file| !may_have_an_object(file)),
            staging: waiting.chain(open).chain(beating.clone()).collect(),
            ids: (files.iter().map(|file| file.id.0))
                .chain(uploads.iter().map(|upload| upload.id.0))
                .chain(beating)
                .collect(),
            multipart: uploads
                .iter()
                .filter_map(|upload| upload.staging_state.as_ref().map(ToString::to_string))
                .collect(),
        })
    }
}

/// A failed file that keeps its bytes for a retry also keeps what its runs have stored.
fn may_have_an_object(file: &file::Model) -> bool {
    match file.status {
        FileStatus::Stored => true,
        FileStatus::Failed => file.retryable_until.is_some(),
        _ => false,
    }
}

/// Bytes on disk that should not exist.
#[derive(Debug, Default)]
struct Leftovers {
    /// Of finished rows.
    finished: Vec<String>,
    /// Without a row.
    unlisted: Vec<String>,
}

impl Leftovers {
    fn find(bytes_on_disk: &BytesOnDisk, rows: &Rows) -> Self {
        let mut new = Self::default();
        for name in bytes_on_disk.stored().into_iter().filter(is_of_a_row) {
            if rows.former_objects.contains(&name) && !rows.objects.contains(&name) {
                new.finished.push(format!("storage: {name}"));
            } else if !rows.objects.contains(&name) {
                new.unlisted.push(format!("storage: {name}"));
            }
        }
        for name in bytes_on_disk.staged().into_iter().filter(is_of_a_row) {
            let id = id_in(&name);
            match id {
                Some(id) if rows.staging.contains(&id) => {}
                Some(id) if rows.ids.contains(&id) => new.finished.push(format!("staging: {name}")),
                _ => new.unlisted.push(format!("staging: {name}")),
            }
        }
        for open in bytes_on_disk.open_multipart_uploads() {
            let is_listed = |state: &String| state.contains(&open.upload_id);
            if !rows.multipart.iter().any(is_listed) {
                new.unlisted.push(format!("multipart upload: {open:?}"));
            }
        }
        new
    }
}

#[expect(clippy::ptr_arg, reason = "a filter of strings takes it so")]
fn is_of_a_row(name: &String) -> bool {
    let last = name.rsplit('/').next().unwrap_or(name);
    !IGNORED_NAMES.contains(&last)
}

/// Returns the id under which bytes are staged: the name begins with it, as a file or a folder, or ends with it for a
/// probe.
fn id_in(name: &str) -> Option<Uuid> {
    let name = name.strip_prefix("probe-").unwrap_or(name);
    name.get(..36)?.parse().ok()
}

/// Waits until no leftovers remain.
pub(super) async fn nothing_is_left_over(app: &App, bytes_on_disk: &BytesOnDisk, within: Duration) {
    let mut sweeper = app.clone();
    let mut config = (*app.config).clone();
    config.staging.grace = SHORT_GRACE;
    sweeper.config = Arc::new(config);
    let deadline = Instant::now() + within;
    let mut ticks = tokio::time::interval(POLL_INTERVAL);
    loop {
        ticks.tick().await;
        let rows = Rows::read(app).await.expect("the rows can be read");
        let left = Leftovers::find(bytes_on_disk, &rows);
        if left.finished.is_empty() && left.unlisted.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "I5: left over: {left:#?}");
        if left.finished.is_empty() {
            sweep(&sweeper).await.expect("the sweep runs");
        }
    }
}
