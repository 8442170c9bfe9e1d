//! `landfall file retry`: the given files, or all failed files that match, which are counted first.

use super::{
    api::{ApiClient, CallError},
    output::{cell, print_text},
};
use anyhow::bail;
use clap::{ArgGroup, Args};
use serde::Deserialize;
use serde_json::Value;
use std::io::{self, BufRead, IsTerminal, Write};
use uuid::Uuid;

/// Files per page.
const PAGE_SIZE: u64 = 200;

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").args(["ids", "status"]).required(true).multiple(false))]
pub struct RetryArgs {
    /// The files' ids.
    #[arg(value_name = "ID")]
    ids: Vec<Uuid>,
    /// All failed files that match, instead of ids; they are counted first.
    #[arg(long, value_parser = ["failed"])]
    status: Option<String>,
    /// Only files that failed with this code, such as storage_unavailable.
    #[arg(long, value_name = "CODE", requires = "status")]
    code: Option<String>,
    /// Only files in this batch.
    #[arg(long, value_name = "ID", requires = "status")]
    batch: Option<Uuid>,
    /// Only files whose name starts with this.
    #[arg(long, value_name = "TEXT", requires = "status")]
    query: Option<String>,
    /// Do not ask before retrying all that match.
    #[arg(long, short, requires = "status")]
    yes: bool,
}

#[derive(Debug, Deserialize)]
struct FilesPage {
    items: Vec<Value>,
    next_cursor: Option<String>,
}

pub(super) async fn run(api: &ApiClient, args: RetryArgs) -> anyhow::Result<()> {
    if args.status.is_none() {
        return retry_all(api, &args.ids).await;
    }
    let (ids, gone) = matching(api, &args).await?;
    let gone = match gone {
        0 => String::new(),
        gone => format!(" ({gone} more match, but their bytes are gone)"),
    };
    print_text(&format!("failed files that match: {}{gone}", ids.len()))?;
    if ids.is_empty() || !(args.yes || confirmed(ids.len())?) {
        return Ok(());
    }
    retry_all(api, &ids).await
}

/// Asks for confirmation on a terminal; scripts are not asked.
fn confirmed(count: usize) -> io::Result<bool> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Ok(true);
    }
    eprint!("Stage {count} files again? [y/N] ");
    io::stderr().flush()?;
    let mut reply = String::new();
    stdin.lock().read_line(&mut reply)?;
    Ok(matches!(reply.trim(), "y" | "Y" | "yes"))
}

/// Returns the ids of the failed files that match and can be retried, and the number of those whose bytes are gone.
async fn matching(api: &ApiClient, args: &RetryArgs) -> Result<(Vec<Uuid>, usize), CallError> {
    let (mut ids, mut gone) = (Vec::new(), 0);
    let mut cursor: Option<String> = None;
    loop {
        let mut request = api
            .get(&["files"])
            .query(&[("status", "failed")])
            .query(&[("limit", PAGE_SIZE)]);
        if let Some(batch) = args.batch {
            request = request.query(&[("batch_id", batch)]);
        }
        if let Some(text) = &args.query {
            request = request.query(&[("q", text)]);
        }
        if let Some(cursor) = &cursor {
            request = request.query(&[("cursor", cursor)]);
        }
        let page: FilesPage = api.call(request).await?.json()?;
        for file in &page.items {
            let code = file["error"]["code"].as_str();
            if args.code.is_some() && args.code.as_deref() != code {
                continue;
            }
            let id = file["id"].as_str().and_then(|id| id.parse().ok());
            match id.filter(|_| !file["retryable_until"].is_null()) {
                Some(id) => ids.push(id),
                None => gone += 1,
            }
        }
        cursor = page.next_cursor;
        if cursor.is_none() {
            return Ok((ids, gone));
        }
    }
}

/// Retries each file; a rejected one does not stop the others.
async fn retry_all(api: &ApiClient, ids: &[Uuid]) -> anyhow::Result<()> {
    let mut refused = 0;
    for id in ids {
        match api
            .call(api.post(&["files", &id.to_string(), "retry"]))
            .await
        {
            Ok(reply) => {
                let file: Value = reply.json()?;
                print_text(&format!("{id} {}", cell(&file["status"])))?;
            }
            Err(CallError::Rejected(error)) if !error.is_temporary() => {
                eprintln!("{id}: {error}");
                refused += 1;
            }
            Err(error) => return Err(error.into()),
        }
    }
    if refused > 0 {
        bail!("{refused} of {} files were not retried", ids.len());
    }
    Ok(())
}
