//! Benchmarks the queue: jobs per second pushed in bulk and processed, the time from push to start when idle, and the
//! memory left in Redis.
//!
//! ```console
//! cargo bench -p landfall-apalis-redis                 # on a redis-server of its own
//! cargo bench -p landfall-apalis-redis -- million      # with a backlog of a million jobs as well
//! REDIS_URL=redis://127.0.0.1:6379/ cargo bench -p landfall-apalis-redis
//! ```

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use apalis_core::{error::BoxDynError, monitor::Monitor, task::data::Data};
use landfall_queue::{
    CancellationToken, Inspector, Job, NewJob, Queue, Redis, Settings, WorkerIdentity,
};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc};

#[derive(Debug, Serialize, Deserialize)]
struct Nothing {
    file_id: String,
}

impl Job for Nothing {
    const QUEUE: &'static str = "nothing";
}

#[derive(Default)]
struct Counter {
    done: AtomicU64,
    until: AtomicU64,
    reached: Notify,
}

async fn count(_: Nothing, counter: Data<Arc<Counter>>) {
    if counter.done.fetch_add(1, Ordering::Relaxed) + 1 == counter.until.load(Ordering::Relaxed) {
        counter.reached.notify_one();
    }
}

async fn tell(_: Nothing, started: Data<mpsc::UnboundedSender<Instant>>) {
    started.send(Instant::now()).ok();
}

/// A `redis-server` that is stopped when dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn server() -> Result<(Option<Server>, String), BoxDynError> {
    if let Ok(url) = std::env::var("REDIS_URL") {
        return Ok((None, url));
    }
    let port = TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port()
        .to_string();
    let child = Command::new("redis-server")
        .args(["--port", &port, "--bind", "127.0.0.1", "--save", ""])
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| format!("redis-server: {error} (install it, or set REDIS_URL)"))?;
    Ok((Some(Server(child)), format!("redis://127.0.0.1:{port}/")))
}

fn jobs(name: &'static str, n: u64) -> impl Iterator<Item = NewJob<Nothing>> {
    (0..n).map(move |i| {
        let args = Nothing {
            file_id: format!("0195a3c0-7b1e-7000-8000-{i:012}"),
        };
        NewJob::new(format!("{name}:{i}"), args)
    })
}

fn report(what: &str, n: u64, time: Duration) {
    println!("{what:<44} {:>9.0} jobs/s", n as f64 / time.as_secs_f64());
}

async fn push(queue: &Queue<Nothing>, name: &'static str, n: u64) -> Result<Duration, BoxDynError> {
    let begun = Instant::now();
    queue.push_many(jobs(name, n)).await?;
    Ok(begun.elapsed())
}

/// Processes `n` jobs that are ready.
async fn work(queue: &Queue<Nothing>, concurrency: usize, n: u64) -> Result<Duration, BoxDynError> {
    let counter = Arc::new(Counter::default());
    counter.until.store(n, Ordering::Relaxed);
    let (worker, data) = (queue.clone(), counter.clone());
    let monitor = Monitor::new().register(move |_| {
        let identity = WorkerIdentity::new("bench", concurrency);
        worker.worker(identity).data(data.clone()).build(count)
    });
    let stop = CancellationToken::new();
    let begun = Instant::now();
    let redis = queue.redis().clone();
    let running = {
        let stop = stop.clone();
        tokio::spawn(async move {
            landfall_queue::run(monitor, &redis, stop, Duration::from_secs(5)).await
        })
    };
    counter.reached.notified().await;
    let time = begun.elapsed();
    stop.cancel();
    running.await??;
    Ok(time)
}

async fn pick_up(queue: &Queue<Nothing>, n: u64) -> Result<Vec<Duration>, BoxDynError> {
    let (tell_started, mut started) = mpsc::unbounded_channel::<Instant>();
    let worker = queue.clone();
    let monitor = Monitor::new().register(move |_| {
        let identity = WorkerIdentity::new("idle", 4);
        worker
            .worker(identity)
            .data(tell_started.clone())
            .build(tell)
    });
    let stop = CancellationToken::new();
    let redis = queue.redis().clone();
    let running = {
        let stop = stop.clone();
        tokio::spawn(async move {
            landfall_queue::run(monitor, &redis, stop, Duration::from_secs(5)).await
        })
    };
    let mut times = Vec::new();
    for job in jobs("idle", n) {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let begun = Instant::now();
        queue.push(job).await?;
        let at = started.recv().await.ok_or("the worker ended")?;
        times.push(at.duration_since(begun));
    }
    stop.cancel();
    running.await??;
    times.sort();
    Ok(times)
}

#[tokio::main]
async fn main() -> Result<(), BoxDynError> {
    let (_server, url) = server()?;
    let redis = Redis::open(&url, "bench")?;
    let up = async {
        while redis.ping().await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), up).await?;
    let queue = Queue::<Nothing>::new(redis.clone(), Settings::new());
    let megabytes =
        async || -> Result<f64, BoxDynError> { Ok(redis.memory_used().await? as f64 / 1e6) };
    println!("memory before {:>39.1} MB", megabytes().await?);

    for (name, concurrency, n) in [
        ("one", 1, 20_000),
        ("sixteen", 16, 100_000),
        ("sixty-four", 64, 200_000),
    ] {
        report("push in bulk", n, push(&queue, name, n).await?);
        let time = work(&queue, concurrency, n).await?;
        report(&format!("no-op jobs, {concurrency} at a time"), n, time);
    }
    let times = pick_up(&queue, 500).await?;
    println!(
        "push to start when idle {:>20.2} ms p50 {:>6.2} ms p99",
        times[times.len() / 2].as_secs_f64() * 1e3,
        times[times.len() * 99 / 100].as_secs_f64() * 1e3,
    );
    println!("memory after {:>40.1} MB", megabytes().await?);

    if std::env::args().any(|argument| argument == "million") {
        let n = 1_000_000;
        report("push a million", n, push(&queue, "million", n).await?);
        println!("memory with the backlog {:>29.1} MB", megabytes().await?);
        let stats = Inspector::new(redis.clone()).stats(Nothing::QUEUE).await?;
        println!("ready {:>47}", stats.ready);
        report(
            "work off a million, 64 at a time",
            n,
            work(&queue, 64, n).await?,
        );
        println!("memory after {:>40.1} MB", megabytes().await?);
    }
    Ok(())
}
