//! Uploads that arrive in pieces, and batches, over SQLite and PostgreSQL.

mod support;

mod appends;
mod batches;
mod ends;
mod joins;
mod parts;
