//! `landfall webhook`: who is told of events.

use super::{
    api::Api,
    listing::{self, Extent},
    output::{answer, cell, fields, time},
};
use clap::{Args, Subcommand};
use serde_json::{Map, Value};
use url::Url;
use uuid::Uuid;

#[derive(Debug, Subcommand)]
pub enum WebhookCommand {
    /// Register an endpoint, and print the secret its deliveries are signed with.
    Add(WebhookAddArgs),
    /// List the endpoints.
    List(WebhookListArgs),
    /// Send a `webhook.test` event to one endpoint alone.
    Test {
        /// The endpoint's id.
        id: Uuid,
        /// Print the server's JSON.
        #[arg(long)]
        json: bool,
    },
    /// Remove an endpoint.
    Remove {
        /// The endpoint's id.
        id: Uuid,
    },
}

#[derive(Debug, Args)]
pub struct WebhookAddArgs {
    /// Where deliveries are posted.
    #[arg(value_name = "URL")]
    endpoint: Url,
    /// Deliver only events of this type; give it again for more (by default all).
    #[arg(long = "event", value_name = "TYPE")]
    events: Vec<String>,
    /// What the endpoint is for.
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// A secret of your own, `whsec_…` (by default the server makes one).
    #[arg(long)]
    secret: Option<String>,
    /// Print the server's JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub struct WebhookListArgs {
    #[command(flatten)]
    extent: Extent,
}

pub(super) async fn run(api: &Api, command: WebhookCommand) -> anyhow::Result<()> {
    match command {
        WebhookCommand::Add(args) => add(api, args).await,
        WebhookCommand::List(args) => list(api, &args.extent).await,
        WebhookCommand::Test { id, json } => test(api, id, json).await,
        WebhookCommand::Remove { id } => {
            api.call(api.delete(&["webhooks", &id.to_string()])).await?;
            answer(&format!("removed {id}"))?;
            Ok(())
        }
    }
}

async fn add(api: &Api, args: WebhookAddArgs) -> anyhow::Result<()> {
    let mut body = Map::new();
    body.insert("url".to_owned(), args.endpoint.to_string().into());
    body.insert("event_types".to_owned(), args.events.into());
    for (name, value) in [("description", args.description), ("secret", args.secret)] {
        if let Some(value) = value {
            body.insert(name.to_owned(), value.into());
        }
    }
    let request = api
        .post(&["webhooks"])
        .header("Idempotency-Key", Uuid::now_v7().to_string());
    let reply = api.call(request.json(&body)).await?;
    answer(&if args.json {
        reply.text
    } else {
        describe(&reply.json()?)
    })?;
    Ok(())
}

async fn list(api: &Api, extent: &Extent) -> anyhow::Result<()> {
    listing::show(
        api,
        &["webhooks"],
        &[],
        extent,
        &["ID", "ACTIVE", "EVENTS", "URL"],
        |webhook| {
            let active = match (&webhook["active"], &webhook["disabled_reason"]) {
                (Value::Bool(true), _) => "yes".to_owned(),
                (_, Value::String(reason)) => format!("no: {}", cell(&reason.as_str().into())),
                _ => "no".to_owned(),
            };
            vec![
                cell(&webhook["id"]),
                active,
                event_types(webhook),
                cell(&webhook["url"]),
            ]
        },
    )
    .await
}

async fn test(api: &Api, id: Uuid, json: bool) -> anyhow::Result<()> {
    let request = api.post(&["webhooks", &id.to_string(), "test"]);
    let reply = api
        .call(request.header("Idempotency-Key", Uuid::now_v7().to_string()))
        .await?;
    if json {
        answer(&reply.text)?;
        return Ok(());
    }
    let event: Value = reply.json()?;
    let event = cell(&event["id"]);
    answer(&format!(
        "event {event} is on its way; see `landfall event show {event}`"
    ))?;
    Ok(())
}

fn event_types(webhook: &Value) -> String {
    match webhook["event_types"].as_array() {
        Some(types) if !types.is_empty() => cell(&webhook["event_types"]),
        _ => "all".to_owned(),
    }
}

fn describe(webhook: &Value) -> String {
    fields(&[
        ("id", cell(&webhook["id"])),
        ("url", cell(&webhook["url"])),
        ("events", event_types(webhook)),
        ("description", cell(&webhook["description"])),
        ("created", time(&webhook["created_at"])),
        (
            "secret",
            format!("{}  (shown only now)", cell(&webhook["secret"])),
        ),
    ])
}
