//! The dashboard: who gets in, what is shown, what buttons do, and how it is in a browser.

mod access;
mod basics;
mod browser;
pub mod dashboard_user;
mod forgery;
mod jobs;
mod other_sites;
mod overview;
mod two_processes;
mod worker_killed;
