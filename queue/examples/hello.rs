//! Pushes a few jobs and processes them. Needs a Redis:
//!
//! ```console
//! REDIS_URL=redis://127.0.0.1:6379/ cargo run -p landfall-apalis-redis --example hello
//! ```

use std::time::Duration;

use apalis_core::{error::BoxDynError, monitor::Monitor, task::data::Data};
use landfall_queue::{
    CancellationToken, Inspector, Job, JobContext, NewJob, Queue, Redis, RetryAfter, Settings,
    WorkerIdentity,
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
struct Greet {
    name: String,
}

impl Job for Greet {
    const QUEUE: &'static str = "greet";
}

async fn greet(
    job: Greet,
    context: JobContext,
    greeting: Data<&'static str>,
) -> Result<(), BoxDynError> {
    if job.name == "Cat" && context.attempt == 1 {
        return Err(RetryAfter::failed(Duration::from_millis(200), "the cat is asleep").into());
    }
    println!("{}, {} (attempt {})", *greeting, job.name, context.attempt);
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), BoxDynError> {
    let url = std::env::var("REDIS_URL").unwrap_or_else(|_| "redis://127.0.0.1:6379/".to_owned());
    let redis = Redis::open(&url, "hello")?;
    let queue = Queue::<Greet>::new(redis.clone(), Settings::new());

    let names = ["Ann", "Bob", "Cat"];
    let jobs = names.map(|name| {
        let args = Greet {
            name: name.to_owned(),
        };
        NewJob::new(format!("greet:{name}"), args)
    });
    let pushed = queue.push_many(jobs).await?;
    println!(
        "{} queued, {} already queued",
        pushed.queued, pushed.already_queued
    );

    let stop = CancellationToken::new();
    tokio::spawn({
        let stop = stop.clone();
        let inspector = Inspector::new(redis.clone());
        async move {
            loop {
                match inspector.stats("greet").await {
                    Ok(s) if s.ready + s.scheduled + s.running == 0 => break stop.cancel(),
                    Ok(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                    Err(error) => {
                        eprintln!("{error}");
                        break stop.cancel();
                    }
                }
            }
        }
    });

    let identity = WorkerIdentity::new("greeter", 8);
    let monitor = Monitor::new()
        .register(move |_restarts| queue.worker(identity.clone()).data("hello").build(greet));
    landfall_queue::run(monitor, &redis, stop, Duration::from_secs(10)).await?;
    Ok(())
}
