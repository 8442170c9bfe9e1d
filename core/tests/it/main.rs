//! Conformance suites of staging, storage and transfers, over every backend; the database's connections.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on is over")]

mod support;

mod database;
mod migrations;
mod staging;
mod staging_pieces;
mod storage;
mod storage_prefix;
mod storage_providers;
mod storage_s3;
mod transfer;
mod transfer_faults;
mod transfer_fs;
