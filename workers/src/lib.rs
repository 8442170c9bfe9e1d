//! Landfall's jobs on Apalis: finalize, deliver, maintenance.
//!
//! Owns what a job is called and carries, which queue it goes to, and what its outcome means for the queue. A
//! handler is a few lines: it calls `landfall-core`, which decides. Refuses to remember anything: attempts, due
//! times and leases that matter are in the database, and a job that is lost, late or doubled changes nothing.

mod deliver;
mod endpoint_limits;
mod enqueue;
mod finalize;
mod jobs;
mod maintenance;
mod meter;
mod queues;
mod run;
mod tick;

pub use enqueue::QueueDispatch;
pub use jobs::{DeliverJob, FinalizeJob, MaintenanceJob};
pub use meter::{Meter, Stage};
pub use queues::{QueueName, Queues, SETTLED};
pub use run::{Workers, run};
