//! The integration tests, in one binary: against a really listening server, on real databases, Redis and S3.
//!
//! Without the feature `every-server` those that need more than Redis are ignored; `scripts/test` runs all of them.

#![expect(
    unreachable_pub,
    reason = "a test binary has no outside; `pub` says what a module offers the others"
)]

mod access;
mod api;
mod audit;
mod aws_credentials;
mod bad_input;
mod batches;
mod cli;
mod clients;
mod complaints;
mod docs;
mod examples;
mod faults;
mod file_systems;
mod installation;
mod journey;
mod links;
mod operations;
mod pages;
mod processes;
mod providers;
mod quota;
mod retry;
mod sealed;
mod shipped;
mod support;
mod sweep;
mod tus;
mod types;
mod uploads;
mod web;
