//! The `landfall` binary.

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
            // Prints the whole chain, because the last cause is often the most useful one.
            eprintln!("landfall: {error:#}");
            ExitCode::FAILURE
        }
    }
}
