//! Resumable uploads and batches, over SQLite and PostgreSQL.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

mod appends;
mod batches;
mod ends;
mod finalizes;
mod joins;
mod parts;
mod single_append;
