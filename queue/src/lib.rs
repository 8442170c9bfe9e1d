//! A Redis queue for [Apalis](apalis_core) 1.0.
//!
//! # Guarantees
//! - A pushed job runs at least once: until Redis has accepted the outcome, the job is under a lease, and an expired
//!   lease makes it ready again.
//! - A job has at most one valid lease. A worker that lost the lease can no longer change the job, and its handler is
//!   dropped.
//! - At most the group limit of one group's jobs run concurrently, in the whole cluster; groups take turns.
//! - A failure of Redis never ends a worker. It waits, and continues.
//!
//! What can be lost: jobs that Redis loses (`FLUSHALL`, eviction, a crash without persistence). Push them again with
//! the same ids: a push of an existing job does not run it a second time. A single lost key delays jobs at most until
//! the next maintenance round of a worker, or the next push.
//!
//! # Use
//! ```no_run
//! use std::time::Duration;
//!
//! use apalis_core::{error::BoxDynError, monitor::Monitor};
//! use landfall_queue::{
//!     CancellationToken, Job, JobContext, NewJob, Queue, Redis, Settings, WorkerIdentity,
//! };
//!
//! #[derive(serde::Serialize, serde::Deserialize)]
//! struct Greet {
//!     name: String,
//! }
//!
//! impl Job for Greet {
//!     const QUEUE: &'static str = "greet";
//! }
//!
//! async fn greet(job: Greet, context: JobContext) -> Result<(), BoxDynError> {
//!     println!("hello {}, attempt {}", job.name, context.attempt);
//!     Ok(())
//! }
//!
//! # async fn example() -> Result<(), BoxDynError> {
//! let redis = Redis::open("redis://127.0.0.1/", "example")?;
//! let queue = Queue::<Greet>::new(redis.clone(), Settings::new());
//! queue.push(NewJob::new("greet:ann", Greet { name: "Ann".into() })).await?;
//!
//! let stop = CancellationToken::new();
//! let identity = WorkerIdentity::new("greeter", 8);
//! let monitor = Monitor::new()
//!     .register(move |_| queue.worker(identity.clone()).build(greet));
//! landfall_queue::run(monitor, &redis, stop, Duration::from_secs(10)).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # How a run ends
//! | the handler … | the job … |
//! | --- | --- |
//! | returns `Ok` | is done |
//! | returns an error, or panics | waits for its backoff and is retried; out of attempts, it is dead |
//! | returns an error that is or wraps [`RetryAfter`] | waits exactly that long; counts as an attempt if it says so |
//! | returns an error that is or wraps Apalis's `AbortError` | is dead at once |
//! | is dropped with its worker, within a live process | is released at once |
//! | ends with its process | is ready again when the lease has expired; counts as a crash |

mod connection;
mod error;
mod inspection;
mod inspector;
mod job;
mod keys;
mod limiter;
mod old_layout;
mod outcome;
mod queue;
mod scripts;
mod settings;
mod subscription;
mod supervise;
mod target;
mod worker;

pub use tokio_util::sync::CancellationToken;

pub use self::{
    connection::Redis,
    error::QueueError,
    inspection::{JobInfo, JobState, MemoryUse, MinuteCount, QueueStats, RunningJob, WorkerInfo},
    inspector::Inspector,
    job::{Job, JobContext, NewJob, PushCounts, PushOutcome},
    limiter::{Limiter, RateDecision},
    old_layout::remove_old_keys,
    outcome::RetryAfter,
    queue::Queue,
    settings::{Backoff, Settings},
    supervise::run,
    worker::{Backend, OutcomeLayer, OutcomeService, WorkerIdentity},
};
