//! `landfall batch`: groups of files that are announced together.

use super::{
    api::{ApiClient, ApiResponse},
    output::{cell, fields, print_text, time},
};
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use uuid::Uuid;

#[derive(Debug, Subcommand)]
pub enum BatchCommand {
    /// Create a batch; upload files to it with `landfall upload --batch`.
    Create(BatchCreateArgs),
    /// Close a batch: it accepts no further files and is announced once all of them are final.
    Finalize(BatchIdArgs),
    /// Show a batch.
    Show(BatchIdArgs),
}

#[derive(Debug, Args)]
pub struct BatchCreateArgs {
    /// A JSON object that is kept with the batch.
    #[arg(long, value_name = "JSON", value_parser = json_object)]
    metadata: Option<Map<String, Value>>,
    /// Print the server's JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub struct BatchIdArgs {
    /// The batch's id.
    id: Uuid,
    /// Print the server's JSON.
    #[arg(long)]
    json: bool,
}

fn json_object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("not a JSON object: {error}"))
}

pub(super) async fn run(api: &ApiClient, command: BatchCommand) -> anyhow::Result<()> {
    let (request, is_json) = match command {
        BatchCommand::Create(args) => {
            let body = match args.metadata {
                Some(metadata) => json!({ "metadata": metadata }),
                None => json!({}),
            };
            let key = Uuid::now_v7().to_string();
            let request = api.post(&["batches"]).header("Idempotency-Key", key);
            (request.json(&body), args.json)
        }
        BatchCommand::Finalize(args) => {
            let path = ["batches", &args.id.to_string(), "finalize"];
            (api.post(&path), args.json)
        }
        BatchCommand::Show(args) => (api.get(&["batches", &args.id.to_string()]), args.json),
    };
    print_batch(&api.call(request).await?, is_json)
}

fn print_batch(reply: &ApiResponse, is_json: bool) -> anyhow::Result<()> {
    match is_json {
        true => print_text(&reply.text)?,
        false => print_text(&describe(&reply.json()?))?,
    }
    Ok(())
}

fn describe(batch: &Value) -> String {
    fields(&[
        ("id", cell(&batch["id"])),
        ("status", cell(&batch["status"])),
        ("files", cell(&batch["total_files"])),
        ("stored", cell(&batch["stored_count"])),
        ("failed", cell(&batch["failed_count"])),
        ("pending", cell(&batch["pending_count"])),
        ("created", time(&batch["created_at"])),
        ("finalized", time(&batch["finalized_at"])),
    ])
}
