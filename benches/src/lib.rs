//! Fills installations with millions of rows and jobs in all states, to measure them.

pub mod seed_jobs;
pub mod seed_rows;
