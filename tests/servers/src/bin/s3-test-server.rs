//! The S3 server of the tests as a process of its own, for benchmarks and tests over many.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use landfall_test_servers::{S3Options, S3Server};

/// An S3 server on 127.0.0.1 over a folder. Prints its endpoint and serves until it is killed.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where the buckets are; without it a temporary folder, removed at the end
    #[arg(long)]
    root: Option<PathBuf>,
    /// 0 takes a free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// The one access key
    #[arg(long, default_value = "landfall-test")]
    access_key: String,
    /// Its secret
    #[arg(long, default_value = "landfall-test-secret")]
    secret_key: String,
    /// How long every request waits, in milliseconds
    #[arg(long, default_value_t = 0)]
    delay: u64,
    /// A bucket to create; can be repeated
    #[arg(long)]
    bucket: Vec<String>,
}

#[tokio::main]
async fn main() {
    let Arguments {
        root,
        port,
        access_key,
        secret_key,
        delay,
        bucket,
    } = Arguments::parse();
    if let Some(root) = &root {
        std::fs::create_dir_all(root).expect("cannot make the root folder");
    }
    let server = S3Server::start_with(S3Options {
        root,
        port,
        access_key,
        secret_key,
    })
    .await;
    server.delay(Duration::from_millis(delay));
    for name in &bucket {
        server.create_bucket(name);
    }
    println!("{}", server.endpoint());
    std::future::pending::<()>().await;
}
