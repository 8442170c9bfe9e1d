//! `landfall adopt`: makes database, staging and storage one installation, after a move or a restore.

use crate::server;
use anyhow::Context;
use clap::Args;
use landfall_core::{
    clock::Clock,
    config::Config,
    db::Database,
    installation::{
        self, AdoptedId, InstallationIdentity, InstallationParts, MarkedLocation, Marker,
    },
};
use std::io::{BufRead, IsTerminal, Write};

#[derive(Debug, Args)]
pub struct AdoptArgs {
    /// Give the database a new id first: for a copy with its own staging and storage, whose original is still in use.
    #[arg(long)]
    pub new_id: bool,
    /// Do not ask for confirmation.
    #[arg(long)]
    pub yes: bool,
}

/// Shows the current ids, asks for confirmation, and writes the database's id to both markers.
#[expect(clippy::print_stdout, reason = "the output of the command")]
pub(super) async fn run(config: &Config, args: AdoptArgs) -> anyhow::Result<()> {
    let db = Database::open(&config.database.url, config.database.max_connections).await?;
    db.require_current().await?;
    let storage = server::open_storage(config).await?;
    let staging = server::open_staging(config, &storage).await?;
    let clock = Clock::system();
    db.set_clock(&clock).await?;
    let places = InstallationParts {
        db: &db,
        clock: &clock,
        staging: &staging,
        storage: &storage,
    };
    let found = installation::inspect(places).await?;
    for line in lines(&found) {
        eprintln!("{line}");
    }
    let settled = MarkedLocation::ALL
        .iter()
        .all(|place| found.marker(*place).is_some() && found.compare(*place).is_ok());
    if settled && !args.new_id {
        println!("nothing to adopt: all three belong to one installation");
        return Ok(());
    }
    if !args.yes {
        confirm()?;
    }
    let which = if args.new_id {
        AdoptedId::New
    } else {
        AdoptedId::Database
    };
    let id = installation::adopt(places, which).await?;
    println!("database, staging and storage now belong to installation {id}");
    Ok(())
}

fn lines(found: &InstallationIdentity) -> [String; 3] {
    let marker = |place: MarkedLocation| match found.marker(place) {
        None => "no marker".to_owned(),
        Some(Marker::Unreadable) => "a marker that cannot be read".to_owned(),
        Some(Marker::Id(id)) => id.to_string(),
    };
    let database = found
        .id
        .map_or_else(|| "no id yet".to_owned(), |id| id.to_string());
    [
        format!("database  {database}"),
        format!("staging   {}", marker(MarkedLocation::Staging)),
        format!("storage   {}", marker(MarkedLocation::Storage)),
    ]
}

fn confirm() -> anyhow::Result<()> {
    if !std::io::stdin().is_terminal() {
        anyhow::bail!(
            "cannot ask for confirmation without a terminal: stop every process of this installation, check the ids above, and run it \
             again with --yes"
        );
    }
    eprint!(
        "Are all processes of this installation stopped, and do these three belong together? Type `adopt` to continue: "
    );
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut answer)
        .context("the answer could not be read")?;
    if answer.trim() != "adopt" {
        anyhow::bail!("nothing was changed");
    }
    Ok(())
}
