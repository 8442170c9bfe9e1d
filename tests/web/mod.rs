//! The dashboard: access control, pages, actions, and behaviour in a browser.

mod access;
mod basics;
mod browser;
pub mod dashboard_user;
mod forgery;
mod jobs;
mod other_sites;
mod overview;
mod settings;
mod tokens;
mod two_processes;
mod worker_killed;
