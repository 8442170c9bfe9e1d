//! Conformance suites of staging, storage and the transfer between them, over every backend.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on is over")]

mod support;

mod staging;
mod staging_pieces;
mod storage;
mod storage_s3;
mod transfer;
mod transfer_faults;
mod transfer_fs;
