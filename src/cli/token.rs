//! `landfall token`: creates and revokes tokens, directly in the database.

use anyhow::bail;
use chrono::SecondsFormat;
use clap::Subcommand;
use entity::{Timestamp, TokenId};
use landfall_client::output::{Table, plain, print_text};
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
                let mut table = Table::new(&TITLES);
                for token in &all {
                    table.row(row(token));
                }
                print_text(&table.take())?;
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

const TITLES: [&str; 6] = ["ID", "OWNER", "SCOPES", "CREATED", "LAST USED", "STATE"];

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

fn row(token: &Token) -> Vec<String> {
    let at = |time: Option<Timestamp>, none: &str| {
        time.map_or_else(
            || none.to_owned(),
            |time| time.to_rfc3339_opts(SecondsFormat::Secs, true),
        )
    };
    let state = match (token.revoked_at, token.expires_at) {
        (Some(_), _) => format!("revoked {}", at(token.revoked_at, "")),
        (None, Some(_)) => format!("expires {}", at(token.expires_at, "")),
        (None, None) => "never expires".to_owned(),
    };
    vec![
        token.id.to_string(),
        plain(&token.owner),
        scopes(token).join(","),
        at(Some(token.created_at), ""),
        at(token.last_used_at, "never"),
        state,
    ]
}
