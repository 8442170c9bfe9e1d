//! The dashboard: pages that show everything to operators, and let them repair it.
//!
//! Owns the pages, their access control, and live updates. Pages are rendered from templates that are checked by the
//! compiler, and work without scripts except for live updates and uploads. Decides nothing about files: pages query and
//! call `landfall_core` and the queues. Knows no SQL, no Redis and no S3.
//!
//! A section is a module with a function `pages`, which adds its routes.

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
mod settings;
mod sign_in;
mod sse;
mod state;
mod tokens;
mod upload;
mod upload_links;
mod webhooks;

pub(crate) use pages::Pages;
pub(crate) use state::Dashboard;

use auth::Access;

/// Returns all pages of the dashboard.
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
        upload_links::pages,
        operator_log::pages,
        tokens::pages,
        settings::pages,
        search::pages,
    ];
    sections.into_iter().fold(pages, |pages, add| add(pages))
}
