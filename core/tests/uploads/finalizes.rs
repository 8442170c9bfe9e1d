use crate::{
    over_both_databases,
    support::{Place, noise},
};
use entity::{FileId, file::FileStatus, outbox_event};
use futures::future::join_all;
use landfall_core::{
    finalize::{Finalizer, Outcome},
    uploads::Shape,
};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use std::collections::HashSet;

over_both_databases!(
    files_of_one_name_finalized_at_once_have_keys_and_events_of_their_own,
    file_asked_for_many_times_at_once_is_stored_once,
);

impl Place {
    async fn staged_file(&self, seed: u64) -> FileId {
        let upload = self.begin(Shape::Append { total: Some(1000) }).await;
        let appended = self.append_at(upload.id, 0, noise(1000, seed)).await;
        appended.unwrap().file_id
    }

    async fn events_of(&self, id: FileId) -> usize {
        outbox_event::Entity::find()
            .filter(outbox_event::Column::AggregateId.eq(id.0))
            .filter(outbox_event::Column::EventType.eq("file.stored"))
            .all(self.landfall.db.read())
            .await
            .unwrap()
            .len()
    }
}

async fn files_of_one_name_finalized_at_once_have_keys_and_events_of_their_own(place: Place) {
    let ids = join_all((0..40).map(|seed| place.staged_file(seed))).await;
    let finalizer = Finalizer::new(&place.landfall, "worker");
    let outcomes = join_all(ids.iter().map(|id| finalizer.finalize(*id))).await;
    let mut keys = HashSet::new();
    for (id, outcome) in ids.iter().zip(outcomes) {
        assert_eq!(outcome.unwrap(), Outcome::Stored);
        let file = place.file(*id).await;
        assert_eq!(file.status, FileStatus::Stored);
        assert!(keys.insert(file.storage_key.unwrap()), "a key given twice");
        assert_eq!(place.events_of(*id).await, 1);
    }
}

async fn file_asked_for_many_times_at_once_is_stored_once(place: Place) {
    let (wanted, other) = (place.staged_file(1).await, place.staged_file(2).await);
    let finalizer = Finalizer::new(&place.landfall, "worker");
    let asked = [wanted, wanted, other, wanted, wanted];
    let outcomes = join_all(asked.iter().map(|id| finalizer.finalize(*id))).await;
    let outcomes: Vec<Outcome> = outcomes.into_iter().map(Result::unwrap).collect();
    let stored = |outcome: &&Outcome| **outcome == Outcome::Stored;
    assert_eq!(outcomes.iter().filter(stored).count(), 2, "{outcomes:?}");
    assert_eq!(outcomes[2], Outcome::Stored);
    assert_eq!(place.events_of(wanted).await, 1);
    assert_eq!(place.events_of(other).await, 1);
}
