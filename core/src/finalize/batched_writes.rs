//! Batched claims and commits: concurrent runs of a process share statements and transactions, so that a file costs a
//! share of a commit instead of a dozen statements and two commits.

use super::{
    claim::{self, ClaimError, ClaimOutcome, Claimant},
    commit::{self, CommitError, CommitRequest},
};
use crate::{
    batcher::{BatchError, Batcher},
    clock::Clock,
    db::Database,
    outbox::WrittenEvent,
};
use entity::FileId;
use std::sync::Arc;

/// Claims and commits files in batches; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct FinalizeWrites {
    claims: Batcher<FileId, ClaimOutcome, ClaimError>,
    commits: Batcher<CommitRequest, Vec<WrittenEvent>, CommitError>,
}

impl FinalizeWrites {
    /// Starts two tasks, which end when the last clone is dropped.
    pub(super) fn start(db: &Database, clock: &Clock, claimant: Claimant) -> Self {
        let claimant = Arc::new(claimant);
        let store_claimant = Arc::clone(&claimant);
        let (claim_db, claim_clock) = (db.clone(), clock.clone());
        let (store_db, store_clock) = (db.clone(), clock.clone());
        Self {
            claims: Batcher::start(move |ids| {
                let (db, clock, claimant) =
                    (claim_db.clone(), claim_clock.clone(), claimant.clone());
                Box::pin(async move { claim::claim(&db, &clock, &claimant, &ids).await })
            }),
            commits: Batcher::start(move |requests| {
                let (db, now) = (store_db.clone(), store_clock.now());
                let claimant = Arc::clone(&store_claimant);
                Box::pin(async move {
                    db.write_repeatable(move |transaction| {
                        let (claimant, requests) = (Arc::clone(&claimant), Arc::clone(&requests));
                        Box::pin(async move {
                            commit::store(transaction, &claimant, &requests, now).await
                        })
                    })
                    .await
                })
            }),
        }
    }

    pub(super) async fn claim(&self, id: FileId) -> Result<ClaimOutcome, BatchError<ClaimError>> {
        self.claims.run(Arc::new(id)).await
    }

    /// Returns the events written with the file, whose deliveries the caller must push.
    pub(super) async fn store(
        &self,
        request: CommitRequest,
    ) -> Result<Vec<WrittenEvent>, BatchError<CommitError>> {
        self.commits.run(Arc::new(request)).await
    }
}
