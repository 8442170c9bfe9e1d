//! I1 to I7: what must hold after any fault, after two quiet sweep periods.
//!
//! The checker trusts only the client and the receiver: what was sent is in the [`ClientLog`], what was announced is in
//! the receiver's log, and objects are read from disk. No file may have failed unless the test named it, with the
//! reason, by [`Invariants::fails`].

mod bytes;
mod deliveries;
mod files;
mod quiet;

use super::{ClientLog, bytes_on_disk::BytesOnDisk};
use entity::file;
use landfall_core::app::App;
use landfall_test_servers::Receiver;
use sea_orm::EntityTrait;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Timeout for the work left behind by faults.
const QUIET_WITHIN: Duration = Duration::from_secs(180);

/// The invariants of one installation, and what its test declares.
#[derive(Debug)]
#[must_use = "nothing is checked before `hold`"]
pub struct Invariants<'a> {
    app: &'a App,
    bytes_on_disk: BytesOnDisk,
    log: &'a ClientLog,
    receiver: &'a Receiver,
    faults: usize,
    within: Duration,
    failed: BTreeMap<String, String>,
    failing_endpoints: BTreeSet<String>,
}

impl<'a> Invariants<'a> {
    pub fn new(
        app: &'a App,
        bytes_on_disk: BytesOnDisk,
        log: &'a ClientLog,
        receiver: &'a Receiver,
    ) -> Self {
        Self {
            app,
            bytes_on_disk,
            log,
            receiver,
            faults: 0,
            within: QUIET_WITHIN,
            failed: BTreeMap::new(),
            failing_endpoints: BTreeSet::new(),
        }
    }

    /// The number of faults, each of which may have duplicated the deliveries in flight.
    pub fn after(mut self, faults: usize) -> Self {
        self.faults = faults;
        self
    }

    /// Timeout for becoming quiet, and for the deletion of leftovers.
    pub fn within(mut self, within: Duration) -> Self {
        self.within = within;
        self
    }

    /// This file must have failed, with this code: the test sent something that cannot be stored.
    pub fn fails(mut self, id: &str, code: &str) -> Self {
        self.failed.insert(id.to_owned(), code.to_owned());
        self
    }

    /// Deliveries to this path of the receiver may fail: the test makes it reject them permanently.
    pub fn gives_up_on(mut self, path: &str) -> Self {
        self.failing_endpoints.insert(path.to_owned());
        self
    }

    /// Waits until only the periodic sweep runs, and then checks everything.
    ///
    /// # Panics
    /// If an invariant does not hold; the message starts with its number.
    pub async fn hold(self) {
        quiet::wait(self.app, self.within).await;
        bytes::nothing_is_left_over(self.app, &self.bytes_on_disk, self.within).await;
        let rows = file::Entity::find().all(self.app.db.read()).await;
        let rows = rows.expect("files can be read");
        let (bytes_on_disk, sent) = (self.bytes_on_disk, self.log.files());
        let (failed, looked_at) = (self.failed, rows.clone());
        let reading = tokio::task::spawn_blocking(move || {
            files::are_as_the_client_sent_them(&bytes_on_disk, &sent, &looked_at, &failed);
        });
        if let Err(panic) = reading.await {
            std::panic::resume_unwind(panic.into_panic());
        }
        files::are_announced_once(self.app, &rows).await;
        let log = deliveries::Log::new(self.receiver.requests());
        deliveries::are_complete(self.app, &log, &self.failing_endpoints).await;
        deliveries::are_rarely_doubled(self.app, &log, self.faults).await;
    }
}
