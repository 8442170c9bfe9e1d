//! The dashboard: who gets in, what is shown, what buttons do, and how it is in a browser.

mod access;
mod basics;
mod browser;
mod forgery;
mod jobs;
mod other_sites;
mod overview;
mod two_processes;
pub mod visitor;
mod worker_killed;
