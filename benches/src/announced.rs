//! `landfall-bench` alone: small files, from the request to the announcement.
//!
//! Registers a receiver of its own, sends files, and takes the time from before the request to the 202, to `stored`
//! and to the arrival of `file.stored`. The files stay on the server.

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

/// The longest any one thing may take before the measurement is given up.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Debug, Args)]
pub(super) struct AnnouncedArgs {
    /// URL of the server.
    #[arg(long, env = "LANDFALL_URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// A token with the scopes `upload` and `admin`.
    #[arg(long, env = "LANDFALL_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Files for the throughput.
    #[arg(long, default_value_t = 2000)]
    files: usize,
    /// Bytes in each.
    #[arg(long, default_value_t = 16 * 1024)]
    size: usize,
    /// Clients that send at once.
    #[arg(long, default_value_t = 32)]
    clients: usize,
    /// Files sent one after another for the latency.
    #[arg(long, default_value_t = 200)]
    latency: usize,
}

/// When each event arrived, by the id of its file.
#[derive(Clone, Debug, Default)]
struct Arrivals(Arc<Mutex<HashMap<String, Instant>>>);

#[derive(Deserialize)]
struct Announcement {
    data: Announced,
}

#[derive(Deserialize)]
struct Announced {
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

    fn of(&self, file: &str) -> Option<Instant> {
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

/// Measures and prints.
///
/// # Errors
/// When the server refuses, or takes longer than two minutes over anything.
#[expect(clippy::print_stdout, reason = "the answer of the command")]
pub(super) async fn run(args: AnnouncedArgs) -> anyhow::Result<ExitCode> {
    let (receiver, arrivals) = receive().await?;
    let mut headers = reqwest::header::HeaderMap::new();
    if let Some(token) = &args.token {
        headers.insert(
            "authorization",
            format!("Bearer {token}")
                .parse()
                .context("the token is no header value")?,
        );
    }
    let http = Client::builder()
        .default_headers(headers)
        .timeout(PATIENCE)
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

/// A receiver on this machine that answers 200 to everything.
async fn receive() -> anyhow::Result<(String, Arrivals)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/bench", listener.local_addr()?);
    let arrivals = Arrivals::default();
    let shared = arrivals.clone();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            // Without it the answers would wait for acknowledgements, and the measurement with them.
            let _ = socket.set_nodelay(true);
            let arrivals = shared.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| answer(request, arrivals.clone()));
                let _ = http1::Builder::new()
                    .serve_connection(TokioIo::new(socket), service)
                    .await;
            });
        }
    });
    Ok((url, arrivals))
}

async fn answer(
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
        let body = json!({ "url": receiver, "event_types": ["file.stored"], "description": "landfall bench" });
        let answer = self
            .http
            .post(format!("{}/v1/webhooks", self.url))
            .json(&body)
            .send()
            .await;
        let answer = answer.with_context(|| format!("no server answers at {}", self.url))?;
        if !answer.status().is_success() {
            bail!("the server refused the receiver: {}", answer.text().await?);
        }
        let webhook: Value = answer.json().await?;
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
        let answer = request.body(self.body.clone()).send().await?;
        if answer.status() != 202 {
            bail!(
                "the server answered {}: {}",
                answer.status(),
                answer.text().await?
            );
        }
        let file: Value = answer.json().await?;
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

    /// One file after another, so that each finds an idle server.
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
            let arrived = self.arrival(&id).await?;
            announced.push(arrived.saturating_duration_since(taken));
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
        let mut look = tokio::time::interval(Duration::from_millis(1));
        while began.elapsed() < PATIENCE {
            if let Some(arrived) = self.arrivals.of(id) {
                return Ok(arrived);
            }
            look.tick().await;
        }
        bail!("file {id} was not announced within {PATIENCE:?}")
    }

    /// As many files as can be sent at once; the time ends when the last is announced.
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
        let mut look = tokio::time::interval(Duration::from_millis(5));
        while self.arrivals.count() - before < files {
            if began.elapsed() > PATIENCE * 5 {
                bail!(
                    "{} of {files} files were announced",
                    self.arrivals.count() - before
                );
            }
            bar.set_position((self.arrivals.count() - before) as u64);
            look.tick().await;
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

/// p50, p99 and the worst of some durations.
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
            "p50 {:>6.1} ms   p99 {:>6.1} ms   worst {:>6.1} ms",
            at(0.5),
            at(0.99),
            at(1.0)
        )
    }
}
