//! Landfall's jobs on Apalis: finalize, deliver, maintenance.
//!
//! Owns the names and payloads of jobs, which queue they go to, and what their outcomes mean for the queue. A handler
//! is a few lines that call `landfall-core`, which decides. Nothing is remembered here: attempts, due times and leases
//! that matter are in the database, and a job that is lost, late or duplicated changes nothing.

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

pub use enqueue::QueueJobSink;
pub use jobs::{DeliverJob, FinalizeJob, MaintenanceJob};
pub use meter::{Meter, Stage};
pub use queues::{QueueName, Queues, SETTLED};
pub use run::{Workers, run};
