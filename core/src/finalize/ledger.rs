//! The ledger of files: who may finalize one, and that it is stored.
//!
//! The runs of one process claim and store at once; each kind is gathered into batches that are one transaction each,
//! so that a file costs a share of a statement and of a commit rather than a dozen statements and two commits.

use super::{
    claim::{self, Claim, ClaimError, Claimant},
    commit::{self, CommitError, Storing},
};
use crate::{
    clock::Clock,
    combiner::{CombineError, Combiner},
    db::Database,
    outbox::Written,
};
use entity::FileId;
use std::sync::Arc;

/// Claims and stores, in batches; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Ledger {
    claims: Combiner<FileId, Claim, ClaimError>,
    stores: Combiner<Storing, Vec<Written>, CommitError>,
}

impl Ledger {
    /// Starts two tasks, which end with the last clone.
    pub(super) fn start(db: &Database, clock: &Clock, claimant: Claimant) -> Self {
        let worker: Arc<str> = claimant.worker.as_str().into();
        let claimant = Arc::new(claimant);
        let (claim_db, claim_clock) = (db.clone(), clock.clone());
        let (store_db, store_clock) = (db.clone(), clock.clone());
        Self {
            claims: Combiner::start(move |ids| {
                let (db, clock, claimant) =
                    (claim_db.clone(), claim_clock.clone(), claimant.clone());
                Box::pin(async move { claim::claim(&db, &clock, &claimant, &ids).await })
            }),
            stores: Combiner::start(move |storing| {
                let (db, now, worker) = (store_db.clone(), store_clock.now(), worker.clone());
                Box::pin(async move {
                    db.write_repeatable(move |transaction| {
                        let (worker, storing) = (Arc::clone(&worker), Arc::clone(&storing));
                        Box::pin(
                            async move { commit::store(transaction, &worker, &storing, now).await },
                        )
                    })
                    .await
                })
            }),
        }
    }

    pub(super) async fn claim(&self, id: FileId) -> Result<Claim, CombineError<ClaimError>> {
        self.claims.run(Arc::new(id)).await
    }

    /// What is to be announced of the file once this returns.
    pub(super) async fn store(
        &self,
        storing: Storing,
    ) -> Result<Vec<Written>, CombineError<CommitError>> {
        self.stores.run(Arc::new(storing)).await
    }
}
