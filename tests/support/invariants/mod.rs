//! I1 to I7: what must hold after any fault, within two sweeps of quiet.
//!
//! The checker believes the client and the receiver, and nobody else: what was sent is in the [`ClientLog`], what was
//! announced is in the receiver's log, and objects are read as they are on disk. No file may have failed unless the
//! test named it, with the reason, by [`Invariants::fails`].

mod bytes;
mod deliveries;
mod files;
mod quiet;

use super::{ClientLog, surroundings::Surroundings};
use entity::file;
use landfall_core::app::App;
use landfall_test_servers::Receiver;
use sea_orm::EntityTrait;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// How long the work that faults left behind may take in a test.
const QUIET_WITHIN: Duration = Duration::from_secs(180);

/// The invariants of one installation, and what its test declares about it.
#[derive(Debug)]
#[must_use = "nothing is checked before `hold`"]
pub struct Invariants<'a> {
    landfall: &'a App,
    surroundings: Surroundings,
    log: &'a ClientLog,
    receiver: &'a Receiver,
    faults: usize,
    within: Duration,
    failed: BTreeMap<String, String>,
    failing_endpoints: BTreeSet<String>,
}

impl<'a> Invariants<'a> {
    pub fn new(
        landfall: &'a App,
        surroundings: Surroundings,
        log: &'a ClientLog,
        receiver: &'a Receiver,
    ) -> Self {
        Self {
            landfall,
            surroundings,
            log,
            receiver,
            faults: 0,
            within: QUIET_WITHIN,
            failed: BTreeMap::new(),
            failing_endpoints: BTreeSet::new(),
        }
    }

    /// So many faults may each have doubled the deliveries that were in flight.
    pub fn after(mut self, faults: usize) -> Self {
        self.faults = faults;
        self
    }

    /// Quiet, and the removal of what is left over, may each take this long.
    pub fn within(mut self, within: Duration) -> Self {
        self.within = within;
        self
    }

    /// This file must have failed, with this code: the test sent something that cannot be stored.
    pub fn fails(mut self, id: &str, code: &str) -> Self {
        self.failed.insert(id.to_owned(), code.to_owned());
        self
    }

    /// Deliveries to this path of the receiver may be given up: the test has it refuse them for good.
    pub fn gives_up_on(mut self, path: &str) -> Self {
        self.failing_endpoints.insert(path.to_owned());
        self
    }

    /// Waits for quiet, in which only the periodic sweep runs, and then checks everything.
    ///
    /// # Panics
    /// When an invariant does not hold; the message begins with its number.
    pub async fn hold(self) {
        quiet::wait(self.landfall, self.within).await;
        bytes::nothing_is_left_over(self.landfall, &self.surroundings, self.within).await;
        let rows = file::Entity::find().all(self.landfall.db.read()).await;
        let rows = rows.expect("files can be read");
        let (surroundings, sent) = (self.surroundings, self.log.files());
        let (failed, looked_at) = (self.failed, rows.clone());
        let reading = tokio::task::spawn_blocking(move || {
            files::are_as_the_client_sent_them(&surroundings, &sent, &looked_at, &failed);
        });
        if let Err(panic) = reading.await {
            std::panic::resume_unwind(panic.into_panic());
        }
        files::are_announced_once(self.landfall, &rows).await;
        let log = deliveries::Log::new(self.receiver.requests());
        deliveries::are_complete(self.landfall, &log, &self.failing_endpoints).await;
        deliveries::are_rarely_doubled(self.landfall, &log, self.faults).await;
    }
}
