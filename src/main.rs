//! `landfall`: parses the command line and hands over.

use clap::Parser;
use landfall::{
    cli::{self, Cli},
    server,
};
use std::process::ExitCode;

fn main() -> ExitCode {
    server::keep_private();
    let cli = Cli::parse();
    match cli::run(cli) {
        Ok(code) => code,
        Err(error) => {
            // The cause a person can act on is often the last one.
            eprintln!("landfall: {error:#}");
            ExitCode::FAILURE
        }
    }
}
