//! `landfall link`: upload links.

use super::{
    api::ApiClient,
    listing::{self, ListExtent},
    output::{cell, fields, print_text, size, time},
};
use bytesize::ByteSize;
use clap::{Args, Subcommand};
use serde_json::{Map, Value};
use std::time::Duration;
use uuid::Uuid;

#[derive(Debug, Subcommand)]
pub enum LinkCommand {
    /// Create a link by which files can be sent without a token, and print its URL.
    Create(LinkCreateArgs),
    /// List the links, newest first.
    List(LinkListArgs),
    /// Revoke a link. Files that were sent by it stay.
    Revoke {
        /// The link's id.
        id: Uuid,
    },
}

#[derive(Debug, Args)]
pub struct LinkCreateArgs {
    /// How long the link is valid, such as `10m`; one minute to seven days (one hour by default).
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    expires_in: Option<Duration>,
    /// How many files may be sent (one by default).
    #[arg(long, value_name = "N")]
    max_files: Option<u32>,
    /// The maximum size of a file, such as `10MiB`.
    #[arg(long, value_name = "SIZE")]
    max_size: Option<ByteSize>,
    /// Only files of this media type, such as `image/*`; can be repeated.
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,
    /// The open batch that the files join.
    #[arg(long, value_name = "ID")]
    batch: Option<Uuid>,
    /// A JSON object that every file gets as metadata.
    #[arg(long, value_name = "JSON", value_parser = json_object)]
    metadata: Option<Value>,
    /// An origin whose pages may use the link, such as `https://app.example.com`; can be repeated.
    #[arg(long = "origin", value_name = "ORIGIN")]
    origins: Vec<String>,
    /// Print the server's JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub struct LinkListArgs {
    #[command(flatten)]
    extent: ListExtent,
}

fn json_object(text: &str) -> Result<Value, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    match value.is_object() {
        true => Ok(value),
        false => Err("must be a JSON object".to_owned()),
    }
}

pub(super) async fn run(api: &ApiClient, command: LinkCommand) -> anyhow::Result<()> {
    match command {
        LinkCommand::Create(args) => create(api, args).await,
        LinkCommand::List(args) => list(api, &args.extent).await,
        LinkCommand::Revoke { id } => {
            api.call(api.delete(&["upload-links", &id.to_string()]))
                .await?;
            print_text(&format!("revoked {id}"))?;
            Ok(())
        }
    }
}

async fn create(api: &ApiClient, args: LinkCreateArgs) -> anyhow::Result<()> {
    let json = args.json;
    let request = api
        .post(&["upload-links"])
        .header("Idempotency-Key", Uuid::now_v7().to_string());
    let reply = api.call(request.json(&requested(args))).await?;
    print_text(&if json {
        reply.text
    } else {
        describe(&reply.json()?)
    })?;
    Ok(())
}

fn requested(args: LinkCreateArgs) -> Map<String, Value> {
    let lists = [
        ("allowed_types", args.types),
        ("cors_origins", args.origins),
    ];
    let lists = lists.map(|(name, list)| (name, Some(list).filter(|list| !list.is_empty())));
    let lists = lists.map(|(name, list)| (name, list.map(Value::from)));
    let lifetime = args.expires_in.map(|lifetime| lifetime.as_secs().into());
    let fields = [
        ("expires_in", lifetime),
        ("max_files", args.max_files.map(Value::from)),
        ("max_size_bytes", args.max_size.map(|size| size.0.into())),
        ("batch_id", args.batch.map(|id| id.to_string().into())),
        ("metadata", args.metadata),
    ];
    let given = fields.into_iter().chain(lists);
    given
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
}

async fn list(api: &ApiClient, extent: &ListExtent) -> anyhow::Result<()> {
    let titles = &["ID", "STATUS", "FILES", "EXPIRES", "METADATA"];
    listing::show(api, &["upload-links"], &[], extent, titles, |link| {
        vec![
            cell(&link["id"]),
            cell(&link["status"]),
            used(link),
            time(&link["expires_at"]),
            cell(&link["metadata"]),
        ]
    })
    .await
}

fn used(link: &Value) -> String {
    let files = link["files"].as_array().map_or(0, Vec::len);
    format!("{files}/{}", cell(&link["max_files"]))
}

fn describe(link: &Value) -> String {
    fields(&[
        ("id", cell(&link["id"])),
        ("url", format!("{}  (shown only now)", cell(&link["url"]))),
        ("tus url", cell(&link["tus_url"])),
        ("expires", time(&link["expires_at"])),
        ("max files", cell(&link["max_files"])),
        ("max size", size(&link["max_size_bytes"])),
        ("types", cell(&link["allowed_types"])),
        ("batch", cell(&link["batch_id"])),
        ("metadata", cell(&link["metadata"])),
        ("owner", cell(&link["owner"])),
    ])
}
