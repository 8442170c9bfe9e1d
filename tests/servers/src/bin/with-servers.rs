//! Runs a command beside the servers that all tests share, so that test processes need not start them each.

use std::process::{Command, ExitCode};

use landfall_test_servers::{PostgresServer, RedisServer};

/// Runs the command with `LANDFALL_TEST_REDIS_URL` and `LANDFALL_TEST_POSTGRES_URL`, and ends as it does.
fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let Some(program) = arguments.next() else {
        eprintln!("usage: with-servers COMMAND [ARGUMENT]...");
        return ExitCode::from(2);
    };
    let status = Command::new(&program)
        .args(arguments)
        .env("LANDFALL_TEST_REDIS_URL", RedisServer::shared())
        .env("LANDFALL_TEST_POSTGRES_URL", PostgresServer::shared().url())
        .status();
    match status {
        Ok(status) => status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .map_or(ExitCode::FAILURE, ExitCode::from),
        Err(error) => {
            eprintln!("with-servers: {}: {error}", program.display());
            ExitCode::FAILURE
        }
    }
}
