//! Commands that are clients of a running server: they know its HTTP API and nothing behind it.
//!
//! Owns how a server is addressed and called, and how its responses and problems are shown. Does not read the
//! configuration, the database or Redis, so the commands work from anywhere with a URL and a token.

mod api;
mod batch;
mod event;
mod file;
mod file_retry;
mod link;
mod listing;
pub mod output;
mod problem;
mod retry;
mod sha256;
mod upload;
mod webhook;
mod webhook_edit;
mod webhook_test;

use batch::BatchCommand;
use event::EventCommand;
use file::FileCommand;
use link::LinkCommand;
use upload::UploadArgs;
use webhook::WebhookCommand;

use api::ApiClient;
use clap::{Args, Subcommand};
use secrecy::SecretString;
use std::{io, path::PathBuf, process::ExitCode};
use url::Url;

/// The server to call, and the token.
#[derive(Clone, Debug, Args)]
pub struct ServerArgs {
    /// URL of the server.
    #[arg(
        id = "server_url",
        long = "url",
        global = true,
        env = "LANDFALL_URL",
        default_value = "http://127.0.0.1:8080",
        value_name = "URL",
        value_parser = server_url,
        help_heading = "Server"
    )]
    pub url: Url,
    /// Bearer token, if the server requires one.
    #[arg(
        id = "server_token",
        long = "token",
        global = true,
        env = "LANDFALL_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN",
        help_heading = "Server"
    )]
    pub token: Option<SecretString>,
    /// File with certificates (PEM) to trust in addition to the system's, such as those of a private authority.
    #[arg(
        id = "server_cacert",
        long = "cacert",
        global = true,
        env = "LANDFALL_CACERT",
        value_name = "FILE",
        help_heading = "Server"
    )]
    pub cacert: Option<PathBuf>,
}

/// The client commands.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Upload files; large ones in parts and in parallel.
    Upload(ClientArgs<UploadArgs>),
    /// List, show, delete and retry files.
    File(ClientSubcommand<FileCommand>),
    /// Create, list and revoke upload links.
    Link(ClientSubcommand<LinkCommand>),
    /// Manage webhook endpoints.
    Webhook(ClientSubcommand<WebhookCommand>),
    /// Create, close and show batches.
    Batch(ClientSubcommand<BatchCommand>),
    /// List, redeliver and replay events.
    Event(ClientSubcommand<EventCommand>),
}

/// Arguments and the server to call.
#[derive(Debug, Args)]
pub struct ClientArgs<A: Args> {
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    args: A,
}

/// A subcommand and the server to call.
#[derive(Debug, Args)]
pub struct ClientSubcommand<C: Subcommand> {
    #[command(flatten)]
    server: ServerArgs,
    #[command(subcommand)]
    command: C,
}

/// Runs a client command.
///
/// # Errors
/// Every failure that leads to exit status 1, with a message for people.
pub async fn run(command: ClientCommand) -> anyhow::Result<ExitCode> {
    let done = match command {
        ClientCommand::Upload(asked) => {
            return upload::run(ApiClient::new(&asked.server)?, asked.args).await;
        }
        ClientCommand::File(asked) => {
            file::run(&ApiClient::new(&asked.server)?, asked.command).await
        }
        ClientCommand::Link(asked) => {
            link::run(&ApiClient::new(&asked.server)?, asked.command).await
        }
        ClientCommand::Webhook(asked) => {
            webhook::run(&ApiClient::new(&asked.server)?, asked.command).await
        }
        ClientCommand::Batch(asked) => {
            batch::run(&ApiClient::new(&asked.server)?, asked.command).await
        }
        ClientCommand::Event(asked) => {
            event::run(&ApiClient::new(&asked.server)?, asked.command).await
        }
    };
    match done {
        // The reader has seen enough, as in `landfall file list --all | head`.
        Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        done => done.map(|()| ExitCode::SUCCESS),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn server_url(text: &str) -> Result<Url, String> {
    let url: Url = text
        .parse()
        .map_err(|error| format!("{error}; write it as http://HOST:PORT"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("must start with http:// or https://".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must not have a query or a fragment".to_owned());
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_named_by_http_urls_alone() {
        for good in [
            "http://127.0.0.1:8080",
            "https://files.example.org/landfall/",
        ] {
            assert!(server_url(good).is_ok(), "{good}");
        }
        for bad in [
            "127.0.0.1:8080",
            "localhost",
            "ftp://example.org",
            "http://a/?b",
            "http://a/#b",
        ] {
            assert!(server_url(bad).is_err(), "{bad}");
        }
    }
}
