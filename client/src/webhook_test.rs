//! `landfall webhook test`, which may wait for the receiver's response.

use super::{
    api::ApiClient,
    output::{cell, print_text},
};
use anyhow::bail;
use clap::Args;
use serde_json::Value;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Longer than an attempt with the default `webhooks.timeout`, for workers that are busy.
const MAX_WAIT: Duration = Duration::from_secs(60);

const POLL_INTERVAL: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub struct WebhookTestArgs {
    /// The endpoint's id.
    id: Uuid,
    /// Wait for the first attempt, and say whether it worked. Exit status 1 if it did not.
    #[arg(long)]
    wait: bool,
    /// Print the server's JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(api: &ApiClient, args: WebhookTestArgs) -> anyhow::Result<()> {
    let request = api.post(&["webhooks", &args.id.to_string(), "test"]);
    let request = request.header("Idempotency-Key", Uuid::now_v7().to_string());
    let reply = api.call(request).await?;
    let event: Value = reply.json()?;
    let id = cell(&event["id"]);
    if args.wait {
        return wait(api, &id, args.json).await;
    }
    match args.json {
        true => print_text(&reply.text)?,
        false => print_text(&format!(
            "event {id} is being delivered; see `landfall event show {id}`"
        ))?,
    }
    Ok(())
}

async fn wait(api: &ApiClient, id: &str, json: bool) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let reply = api.call(api.get(&["events", id])).await?;
        let event: Value = reply.json()?;
        let delivery = &event["deliveries"][0];
        let first = delivery["attempts"].as_array().and_then(|all| all.first());
        if let Some(attempt) = first {
            if json {
                print_text(&reply.text)?;
            }
            if !attempt["error"].is_null() {
                bail!("not delivered: {}", cell(&attempt["error"]));
            }
            if !json {
                print_text(&format!(
                    "delivered: the receiver answered {} within {} ms",
                    cell(&attempt["status_code"]),
                    cell(&attempt["duration_ms"])
                ))?;
            }
            return Ok(());
        }
        if begun.elapsed() > MAX_WAIT {
            bail!(
                "no attempt was made within {} s: is a worker running? See `landfall event show {id}`",
                MAX_WAIT.as_secs()
            );
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}
