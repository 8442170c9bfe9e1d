//! The integration tests, in one binary: against a really listening server, on real databases, Redis and S3.

#![expect(
    unreachable_pub,
    reason = "a test binary has no outside; `pub` says what a module offers the others"
)]

#[cfg(not(feature = "failpoints"))]
compile_error!(
    "the tests end processes at failpoints: run them with `--features failpoints`, as scripts/test does"
);

mod api;
mod audit;
mod batches;
mod faults;
mod journey;
mod pages;
mod support;
mod sweep;
mod tus;
mod uploads;
mod web;
