//! `landfall token`: creates and revokes tokens, directly in the database.

use anyhow::bail;
use clap::Subcommand;
use entity::TokenId;
use landfall_core::{
    clock::Clock,
    config::Config,
    db::Database,
    pagination::{MAX_LIMIT, PageRequest},
    tokens::{self, Token, TokenScope},
};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use std::time::Duration;

#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Create a token and print it. It is not stored and cannot be shown again.
    Create {
        /// Owner of the files that the token uploads and reads.
        #[arg(long)]
        owner: String,
        /// Scopes: upload, read, admin.
        #[arg(long = "scope", value_delimiter = ',', required = true)]
        scopes: Vec<TokenScope>,
        /// Lifetime, such as `30d`; without it the token never expires.
        #[arg(long, value_parser = humantime::parse_duration)]
        expires: Option<Duration>,
        #[arg(long)]
        json: bool,
    },
    /// List the tokens, without their secrets.
    List {
        #[arg(long)]
        json: bool,
    },
    /// Revoke a token.
    Revoke { id: TokenId },
}

#[expect(clippy::print_stdout, reason = "the output of the command")]
pub(super) async fn run(config: &Config, command: TokenCommand) -> anyhow::Result<()> {
    let db = Database::open(&config.database.url, config.database.max_connections).await?;
    db.require_current().await?;
    let clock = Clock::system();
    db.set_clock(&clock).await?;
    match command {
        TokenCommand::Create {
            owner,
            scopes,
            expires,
            json,
        } => {
            let (token, secret) = tokens::create(&db, &clock, &owner, &scopes, expires).await?;
            if json {
                let mut shown = describe(&token);
                shown["token"] = secret.expose_secret().into();
                println!("{shown}");
            } else {
                println!("{}", secret.expose_secret());
            }
        }
        TokenCommand::List { json } => {
            let all = all(&db).await?;
            if json {
                println!("{}", Value::Array(all.iter().map(describe).collect()));
            } else {
                all.iter().for_each(|token| println!("{}", line(token)));
            }
        }
        TokenCommand::Revoke { id } => tokens::revoke(&db, &clock, id).await?,
    }
    Ok(())
}

async fn all(db: &Database) -> anyhow::Result<Vec<Token>> {
    let mut all = Vec::new();
    let mut cursor = None;
    loop {
        let page = tokens::list(db, PageRequest::decode(MAX_LIMIT, cursor.as_deref())?).await?;
        all.extend(page.items);
        if page.next_cursor.is_none() {
            return Ok(all);
        }
        if page.next_cursor == cursor {
            bail!("the list of tokens does not end");
        }
        cursor = page.next_cursor;
    }
}

fn scopes(token: &Token) -> Vec<&'static str> {
    token.scopes.iter().map(|scope| scope.as_str()).collect()
}

fn describe(token: &Token) -> Value {
    json!({
        "id": token.id,
        "owner": token.owner,
        "scopes": scopes(token),
        "created_at": token.created_at,
        "expires_at": token.expires_at,
        "revoked_at": token.revoked_at,
        "last_used_at": token.last_used_at,
    })
}

fn line(token: &Token) -> String {
    let state = match (token.revoked_at, token.expires_at) {
        (Some(at), _) => format!("revoked {at}"),
        (None, Some(at)) => format!("expires {at}"),
        (None, None) => "never expires".to_owned(),
    };
    format!(
        "{}  {}  {}  {state}",
        token.id,
        token.owner,
        scopes(token).join(",")
    )
}
