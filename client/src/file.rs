//! `landfall file`: uploaded files.

use super::{
    api::ApiClient,
    file_retry::{self as retry_failed, RetryArgs},
    listing::{self, ListExtent},
    output::{cell, fields, print_text, size, time},
};
use crate::sha256::Sha256Digest;
use clap::{Args, Subcommand};
use serde_json::Value;
use uuid::Uuid;

#[derive(Debug, Subcommand)]
pub enum FileCommand {
    /// List files, newest first.
    List(FileListArgs),
    /// Show a file.
    Show {
        /// The file's id.
        id: Uuid,
        /// Print the server's JSON.
        #[arg(long)]
        json: bool,
    },
    /// Delete a file. Its object, or the bytes of a failed file, are deleted soon after.
    Delete {
        /// The file's id.
        id: Uuid,
    },
    /// Retry failed files whose bytes are still kept: the given ones, or all that match.
    Retry(RetryArgs),
}

#[derive(Debug, Args)]
pub struct FileListArgs {
    /// Only files with this status.
    #[arg(long, value_parser = ["uploading", "staged", "finalizing", "stored", "failed", "deleted"])]
    status: Option<String>,
    /// Only files in this batch.
    #[arg(long, value_name = "ID")]
    batch: Option<Uuid>,
    /// Only files with this SHA-256.
    #[arg(long, value_name = "HEX")]
    sha256: Option<Sha256Digest>,
    /// Only files whose name starts with this.
    #[arg(long, value_name = "TEXT")]
    query: Option<String>,
    #[command(flatten)]
    extent: ListExtent,
}

pub(super) async fn run(api: &ApiClient, command: FileCommand) -> anyhow::Result<()> {
    match command {
        FileCommand::List(args) => list(api, args).await,
        FileCommand::Show { id, json } => {
            let reply = api.call(api.get(&["files", &id.to_string()])).await?;
            print_text(&if json {
                reply.text
            } else {
                describe(&reply.json()?)
            })?;
            Ok(())
        }
        FileCommand::Delete { id } => {
            api.call(api.delete(&["files", &id.to_string()])).await?;
            print_text(&format!("deleted {id}"))?;
            Ok(())
        }
        FileCommand::Retry(args) => retry_failed::run(api, args).await,
    }
}

async fn list(api: &ApiClient, args: FileListArgs) -> anyhow::Result<()> {
    let filters = [
        ("status", args.status),
        ("batch_id", args.batch.map(|id| id.to_string())),
        ("sha256", args.sha256.map(|digest| digest.to_string())),
        ("q", args.query),
    ];
    listing::show(
        api,
        &["files"],
        &filters,
        &args.extent,
        &["ID", "STATUS", "SIZE", "CREATED", "NAME"],
        |file| {
            vec![
                cell(&file["id"]),
                cell(&file["status"]),
                size(&file["size_bytes"]),
                time(&file["created_at"]),
                cell(&file["original_filename"]),
            ]
        },
    )
    .await
}

fn describe(file: &Value) -> String {
    let mut pairs = vec![
        ("id", cell(&file["id"])),
        ("status", cell(&file["status"])),
        ("name", cell(&file["original_filename"])),
        ("type", cell(&file["content_type"])),
        (
            "size",
            format!(
                "{} ({} bytes)",
                size(&file["size_bytes"]),
                cell(&file["size_bytes"])
            ),
        ),
        ("sha256", cell(&file["sha256"])),
        ("url", cell(&file["url"])),
        ("metadata", cell(&file["metadata"])),
        ("batch", cell(&file["batch_id"])),
        ("owner", cell(&file["owner"])),
        ("created", time(&file["created_at"])),
        ("stored", time(&file["stored_at"])),
        ("expires", time(&file["expires_at"])),
        ("retryable until", time(&file["retryable_until"])),
    ];
    if let Some(error) = file["error"].as_object() {
        let (message, code) = (error.get("message"), error.get("code"));
        let text = |value: Option<&Value>| value.map_or_else(String::new, cell);
        pairs.push(("error", format!("{} ({})", text(message), text(code))));
    }
    fields(&pairs)
}
