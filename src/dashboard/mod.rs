//! The dashboard: pages an operator sees everything in and repairs it from.
//!
//! Owns what pages look like, who may see them, and how their figures change in place. Rendered here from templates
//! that are checked by the compiler; every page works without script but for live figures and uploads. Decides nothing
//! about files: pages ask `landfall_core` and the queues, and call them. Knows no SQL, no Redis and no S3.
//!
//! A section is a module with a function `pages`, which adds its paths to the table.

mod assets;
mod auth;
mod batches;
mod cache;
mod chart;
mod components;
mod error;
mod events;
mod files;
mod format;
mod jobs;
mod layout;
mod listing;
mod operator_log;
mod overview;
mod pages;
mod repair;
mod search;
mod session;
mod sign_in;
mod sse;
mod state;
mod upload;
mod webhooks;

pub(crate) use pages::Pages;
pub(crate) use state::Dashboard;

use auth::Access;

/// Every page of the dashboard.
pub(crate) fn pages() -> Pages {
    let pages = Pages::default()
        .get("/assets/:file", Access::Open, assets::get)
        .get("/sign-in", Access::Open, sign_in::form)
        .post("/sign-in", Access::Open, sign_in::enter)
        .post("/sign-out", Access::SignedIn, sign_in::leave);
    let sections = [
        overview::pages,
        jobs::pages,
        files::pages,
        batches::pages,
        events::pages,
        webhooks::pages,
        upload::pages,
        operator_log::pages,
        search::pages,
    ];
    sections.into_iter().fold(pages, |pages, add| add(pages))
}
