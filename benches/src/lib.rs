//! Installations to measure on: rows and jobs by the million, in all states.

pub mod seed_jobs;
pub mod seed_rows;
