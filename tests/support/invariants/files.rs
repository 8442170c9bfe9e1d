//! I1 and I2: every acknowledged upload is stored as it was sent, and has exactly one event.

use super::super::{
    bytes_on_disk::{BytesOnDisk, ReadBack},
    client_log::SentFile,
};
use entity::{
    file::{self, FileStatus},
    outbox_event,
};
use landfall_core::app::App;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use std::collections::BTreeMap;

/// I1. `failed` are the files that must have failed, with their codes.
pub(super) fn are_as_the_client_sent_them(
    bytes_on_disk: &BytesOnDisk,
    sent: &[SentFile],
    rows: &[file::Model],
    failed: &BTreeMap<String, String>,
) {
    let by_id: BTreeMap<String, &file::Model> =
        rows.iter().map(|row| (row.id.to_string(), row)).collect();
    let not_stored: Vec<String> = rows
        .iter()
        .filter(|row| row.status == FileStatus::Failed)
        .filter(|row| failed.get(&row.id.to_string()) != row.error_code.as_ref())
        .map(|row| format!("{}: {:?} {:?}", row.id, row.error_code, row.error_message))
        .collect();
    assert!(
        not_stored.is_empty(),
        "I1: {} files failed otherwise than the test declares: {not_stored:#?}",
        not_stored.len()
    );
    for (id, code) in failed {
        let status = by_id.get(id).map(|row| row.status);
        assert_eq!(
            status,
            Some(FileStatus::Failed),
            "{id} must fail with {code}"
        );
    }
    for file in sent {
        let row = by_id.get(&file.id);
        let row = row.unwrap_or_else(|| panic!("I1: the acknowledged {file:?} has no row"));
        match (file.deleted, failed.contains_key(&file.id)) {
            (true, _) => assert_eq!(row.status, FileStatus::Deleted, "I1: {file:?}"),
            (false, true) => {}
            (false, false) => is_stored(bytes_on_disk, row, file.size, &file.sha256),
        }
    }
    let known: BTreeMap<&str, &SentFile> =
        sent.iter().map(|file| (file.id.as_str(), file)).collect();
    for row in rows {
        // The client got no response for these; what was stored must at least match the event.
        if row.status == FileStatus::Stored && !known.contains_key(row.id.to_string().as_str()) {
            let size = u64::try_from(row.size_bytes).expect("a size is not negative");
            let sha256 = row.sha256.as_deref();
            let sha256 = sha256.expect("I1: a stored file has a SHA-256");
            is_stored(bytes_on_disk, row, size, sha256);
        }
    }
}

fn is_stored(bytes_on_disk: &BytesOnDisk, row: &file::Model, size: u64, sha256: &str) {
    let id = row.id;
    assert_eq!(
        row.status,
        FileStatus::Stored,
        "I1: the acknowledged file {id} is not stored: {row:?}"
    );
    assert_eq!(
        (u64::try_from(row.size_bytes).ok(), row.sha256.as_deref()),
        (Some(size), Some(sha256)),
        "I1: the row of {id} says otherwise than the client sent"
    );
    let key = row.storage_key.as_deref();
    let key = key.unwrap_or_else(|| panic!("I1: the stored file {id} has no key"));
    let sent = ReadBack {
        size,
        sha256: sha256.to_owned(),
    };
    assert_eq!(
        bytes_on_disk.read_back(key),
        Some(sent),
        "I1: the object {key} of {id} is not what the client sent"
    );
}

/// I2.
pub(super) async fn are_announced_once(app: &App, rows: &[file::Model]) {
    let events = outbox_event::Entity::find()
        .filter(outbox_event::Column::EventType.eq("file.stored"))
        .all(app.db.read())
        .await
        .expect("events can be read");
    let mut by_file: BTreeMap<String, usize> = BTreeMap::new();
    for event in &events {
        *by_file.entry(event.aggregate_id.to_string()).or_default() += 1;
    }
    for row in rows {
        let was_stored = match row.status {
            FileStatus::Stored => true,
            FileStatus::Deleted => row.stored_at.is_some(),
            _ => false,
        };
        let found = by_file.remove(&row.id.to_string()).unwrap_or(0);
        assert_eq!(
            found,
            usize::from(was_stored),
            "I2: {} is {:?} and has {found} file.stored events",
            row.id,
            row.status
        );
    }
    assert!(by_file.is_empty(), "I2: events without a file: {by_file:?}");
}
