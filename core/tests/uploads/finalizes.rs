use crate::{
    over_both_databases,
    support::{Place, body, noise},
};
use entity::{FileId, file::FileStatus, outbox_event};
use futures::future::join_all;
use landfall_core::{
    digest::Sha256Digest,
    files::{self, FileName, NewFile},
    finalize::{FinalizeOutcome, Finalizer},
    staging::{StagingKey, WriteOptions},
    transfer::Piece,
    uploads::UploadShape,
};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use std::collections::HashSet;

over_both_databases!(
    files_of_one_name_finalized_at_once_have_keys_and_events_of_their_own,
    file_asked_for_many_times_at_once_is_stored_once,
    body_of_one_request_is_not_hashed_again_unless_it_is_asked_for,
);

impl Place {
    async fn staged_file(&self, seed: u64) -> FileId {
        let upload = self.begin(UploadShape::Append { total: Some(1000) }).await;
        let appended = self.append_at(upload.id, 0, noise(1000, seed)).await;
        appended.unwrap().file_id
    }

    async fn events_of(&self, id: FileId) -> usize {
        outbox_event::Entity::find()
            .filter(outbox_event::Column::AggregateId.eq(id.0))
            .filter(outbox_event::Column::EventType.eq("file.stored"))
            .all(self.app.db.read())
            .await
            .unwrap()
            .len()
    }
}

async fn files_of_one_name_finalized_at_once_have_keys_and_events_of_their_own(place: Place) {
    let ids = join_all((0..40).map(|seed| place.staged_file(seed))).await;
    let finalizer = Finalizer::new(&place.app, "worker");
    let outcomes = join_all(ids.iter().map(|id| finalizer.finalize(*id))).await;
    let mut keys = HashSet::new();
    for (id, outcome) in ids.iter().zip(outcomes) {
        assert_eq!(outcome.unwrap(), FinalizeOutcome::Stored);
        let file = place.file(*id).await;
        assert_eq!(file.status, FileStatus::Stored);
        assert!(keys.insert(file.storage_key.unwrap()), "a key given twice");
        assert_eq!(place.events_of(*id).await, 1);
    }
}

async fn file_asked_for_many_times_at_once_is_stored_once(place: Place) {
    let (wanted, other) = (place.staged_file(1).await, place.staged_file(2).await);
    let finalizer = Finalizer::new(&place.app, "worker");
    let asked = [wanted, wanted, other, wanted, wanted];
    let outcomes = join_all(asked.iter().map(|id| finalizer.finalize(*id))).await;
    let outcomes: Vec<FinalizeOutcome> = outcomes.into_iter().map(Result::unwrap).collect();
    let stored = |outcome: &&FinalizeOutcome| **outcome == FinalizeOutcome::Stored;
    assert_eq!(outcomes.iter().filter(stored).count(), 2, "{outcomes:?}");
    assert_eq!(outcomes[2], FinalizeOutcome::Stored);
    assert_eq!(place.events_of(wanted).await, 1);
    assert_eq!(place.events_of(other).await, 1);
}

async fn body_of_one_request_is_not_hashed_again_unless_it_is_asked_for(mut place: Place) {
    let bytes = noise(300_000, 9);
    let sha256 = Sha256Digest::compute(&bytes);
    for rehash in [false, true] {
        place.configure(|config| config.workers.rehash = rehash);
        let key = StagingKey::generate();
        let staging = &place.app.staging;
        staging
            .write(key, body(bytes.clone()), WriteOptions::default())
            .await
            .unwrap();
        let new = NewFile {
            id: FileId(key.owner()),
            owner: None,
            original_filename: FileName::parse("once.bin").unwrap(),
            content_type: "application/octet-stream".to_owned(),
            declared_sha256: None,
            staged_sha256: sha256,
            metadata: serde_json::json!({}),
            batch_id: None,
            staged: vec![Piece::new(key, bytes.len() as u64)],
            expires_in: None,
            traceparent: None,
            reservation: None,
            link: None,
        };
        let file = files::accept(&place.app, new, None).await.unwrap();
        // Directly in the backend: only reading the bytes again can detect it.
        let mut other = bytes.to_vec();
        other[9000] ^= 1;
        std::fs::write(staging.local_path(key).unwrap(), other).unwrap();
        let finalizer = Finalizer::new(&place.app, "worker");
        let outcome = finalizer.finalize(file.id).await.unwrap();
        let file = place.file(file.id).await;
        if rehash {
            assert_eq!(outcome, FinalizeOutcome::Failed);
            assert_eq!(file.error_code.as_deref(), Some("digest_mismatch"));
        } else {
            assert_eq!(outcome, FinalizeOutcome::Stored);
            assert_eq!(file.sha256, Some(sha256.to_string()));
        }
    }
}
