//! `landfall-bench` without a subcommand: small files, from the request to the webhook.
//!
//! Registers its own receiver, uploads files, and measures the time from the request to the 202, to `stored` and to the
//! arrival of `file.stored`. The files stay on the server.

use anyhow::{Context, bail};
use clap::Args;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use indicatif::{ProgressBar, ProgressStyle};
use landfall_core::config::ByteSize;
use reqwest::Client;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    convert::Infallible,
    process::ExitCode,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::net::TcpListener;

/// Timeout of each operation.
const TIMEOUT: Duration = Duration::from_secs(120);

#[derive(Debug, Args)]
pub(super) struct AnnouncedArgs {
    /// URL of the server.
    #[arg(long, env = "LANDFALL_URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// A token with the scopes `upload` and `admin`.
    #[arg(long, env = "LANDFALL_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Number of files for the throughput.
    #[arg(long, default_value_t = 2000)]
    files: usize,
    /// Size of each file, in bytes.
    #[arg(long, default_value_t = 16 * 1024)]
    size: usize,
    /// Number of concurrent clients.
    #[arg(long, default_value_t = 32)]
    clients: usize,
    /// Number of sequential uploads for the latency.
    #[arg(long, default_value_t = 200)]
    latency: usize,
}

/// Arrival time of each event, by file id.
#[derive(Clone, Debug, Default)]
struct Arrivals(Arc<Mutex<HashMap<String, Instant>>>);

#[derive(Deserialize)]
struct Announcement {
    data: AnnouncedEvent,
}

#[derive(Deserialize)]
struct AnnouncedEvent {
    file_id: String,
}

impl Arrivals {
    fn note(&self, file: String) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(file)
            .or_insert_with(Instant::now);
    }

    fn get(&self, file: &str) -> Option<Instant> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(file)
            .copied()
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

struct Bench {
    url: String,
    http: Client,
    arrivals: Arrivals,
    body: bytes::Bytes,
}

/// Runs the benchmark and prints the results.
///
/// # Errors
/// If the server rejects a request, or any operation exceeds two minutes.
#[expect(clippy::print_stdout, reason = "the output of the command")]
pub(super) async fn run(args: AnnouncedArgs) -> anyhow::Result<ExitCode> {
    let (receiver, arrivals) = receive().await?;
    let mut headers = reqwest::header::HeaderMap::new();
    if let Some(token) = &args.token {
        headers.insert(
            "authorization",
            format!("Bearer {token}")
                .parse()
                .context("the token is not a valid header value")?,
        );
    }
    let http = Client::builder()
        .default_headers(headers)
        .timeout(TIMEOUT)
        .build()?;
    let bench = Arc::new(Bench {
        url: args.url.trim_end_matches('/').to_owned(),
        http,
        arrivals,
        body: vec![0x4c; args.size].into(),
    });
    let webhook = bench.register(&receiver).await?;
    let measured = bench.clone().measure(&args).await;
    let removed = bench
        .http
        .delete(format!("{}/v1/webhooks/{webhook}", bench.url))
        .send()
        .await;
    println!("{}", measured?);
    removed?.error_for_status()?;
    Ok(ExitCode::SUCCESS)
}

/// A local receiver that responds with 200 to everything.
async fn receive() -> anyhow::Result<(String, Arrivals)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/bench", listener.local_addr()?);
    let arrivals = Arrivals::default();
    let shared = arrivals.clone();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            // Without it the responses would wait for acknowledgements and distort the measurement.
            let _ = socket.set_nodelay(true);
            let arrivals = shared.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| response(request, arrivals.clone()));
                let _ = http1::Builder::new()
                    .serve_connection(TokioIo::new(socket), service)
                    .await;
            });
        }
    });
    Ok((url, arrivals))
}

async fn response(
    request: http::Request<Incoming>,
    arrivals: Arrivals,
) -> Result<http::Response<String>, Infallible> {
    use http_body_util::BodyExt;
    if let Ok(body) = request.into_body().collect().await
        && let Ok(announcement) = serde_json::from_slice::<Announcement>(&body.to_bytes())
    {
        arrivals.note(announcement.data.file_id);
    }
    Ok(http::Response::new(String::new()))
}

impl Bench {
    async fn register(&self, receiver: &str) -> anyhow::Result<String> {
        let body = json!({ "url": receiver, "event_types": ["file.stored"], "description": "landfall-bench" });
        let response = self
            .http
            .post(format!("{}/v1/webhooks", self.url))
            .json(&body)
            .send()
            .await;
        let response = response.with_context(|| format!("no server responds at {}", self.url))?;
        if !response.status().is_success() {
            bail!(
                "the server rejected the receiver: {}",
                response.text().await?
            );
        }
        let webhook: Value = response.json().await?;
        Ok(webhook["id"]
            .as_str()
            .context("the webhook has no id")?
            .to_owned())
    }

    async fn send(&self, name: String) -> anyhow::Result<String> {
        let request = self
            .http
            .post(format!("{}/v1/files", self.url))
            .query(&[("filename", name)]);
        let response = request.body(self.body.clone()).send().await?;
        if response.status() != 202 {
            bail!(
                "the server responded with {}: {}",
                response.status(),
                response.text().await?
            );
        }
        let file: Value = response.json().await?;
        Ok(file["id"]
            .as_str()
            .context("the file has no id")?
            .to_owned())
    }

    async fn measure(self: Arc<Self>, args: &AnnouncedArgs) -> anyhow::Result<String> {
        let latency = self.latency(args.latency).await?;
        let throughput = self.throughput(args.files, args.clients).await?;
        Ok(format!(
            "{latency}\n{throughput}, {} each, {} clients",
            ByteSize(args.size as u64),
            args.clients
        ))
    }

    /// Uploads one file after another, each to an idle server.
    async fn latency(&self, count: usize) -> anyhow::Result<String> {
        let (mut accepted, mut stored, mut announced) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..count {
            let began = Instant::now();
            let id = self.send(format!("latency-{number}.bin")).await?;
            let taken = Instant::now();
            let url = format!("{}/v1/files/{id}?wait=30", self.url);
            let file: Value = self.http.get(url).send().await?.json().await?;
            if file["status"] != "stored" {
                bail!("file {id} is {} after 30 seconds", file["status"]);
            }
            stored.push(taken.elapsed());
            accepted.push(taken - began);
            let arrivals = self.arrival(&id).await?;
            announced.push(arrivals.saturating_duration_since(taken));
        }
        Ok(format!(
            "request to 202      {}\n202 to stored       {}\n202 to announced    {}",
            Percentiles(accepted),
            Percentiles(stored),
            Percentiles(announced)
        ))
    }

    async fn arrival(&self, id: &str) -> anyhow::Result<Instant> {
        let began = Instant::now();
        let mut poll = tokio::time::interval(Duration::from_millis(1));
        while began.elapsed() < TIMEOUT {
            if let Some(arrival) = self.arrivals.get(id) {
                return Ok(arrival);
            }
            poll.tick().await;
        }
        bail!("file {id} was not announced within {TIMEOUT:?}")
    }

    /// Uploads files concurrently, until the last event has arrived.
    async fn throughput(self: &Arc<Self>, files: usize, clients: usize) -> anyhow::Result<String> {
        let bar = ProgressBar::new(files as u64);
        bar.set_style(ProgressStyle::with_template(
            "{bar:40} {pos}/{len} announced",
        )?);
        let before = self.arrivals.count();
        let next = Arc::new(AtomicUsize::new(0));
        let began = Instant::now();
        let senders: Vec<_> = (0..clients)
            .map(|_| {
                let (bench, next) = (Arc::clone(self), Arc::clone(&next));
                tokio::spawn(async move {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= files {
                            return Ok::<_, anyhow::Error>(());
                        }
                        bench.send(format!("throughput-{number}.bin")).await?;
                    }
                })
            })
            .collect();
        for sender in senders {
            sender.await??;
        }
        let accepted = began.elapsed();
        let mut poll = tokio::time::interval(Duration::from_millis(5));
        while self.arrivals.count() - before < files {
            if began.elapsed() > TIMEOUT * 5 {
                bail!(
                    "{} of {files} files were announced",
                    self.arrivals.count() - before
                );
            }
            bar.set_position((self.arrivals.count() - before) as u64);
            poll.tick().await;
        }
        let announced = began.elapsed();
        bar.finish_and_clear();
        let rate = |time: Duration| files as f64 / time.as_secs_f64();
        Ok(format!(
            "throughput          {:.0} files/s accepted, {:.0} files/s announced",
            rate(accepted),
            rate(announced)
        ))
    }
}

/// p50, p99 and maximum of durations.
struct Percentiles(Vec<Duration>);

impl std::fmt::Display for Percentiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let at = |share: f64| {
            let index = (sorted.len() as f64 * share).ceil() as usize;
            sorted
                .get(index.saturating_sub(1))
                .copied()
                .unwrap_or_default()
                .as_secs_f64()
                * 1000.0
        };
        write!(
            f,
            "p50 {:>6.1} ms   p99 {:>6.1} ms   max {:>6.1} ms",
            at(0.5),
            at(0.99),
            at(1.0)
        )
    }
}
