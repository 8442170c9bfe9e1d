//! `/upload`: resumable uploads from the browser, shown until their events are delivered.
//!
//! `tus-js-client` sends to the same endpoint as `/v1/tus`, authenticated by the user's session.

mod session;
mod states;

use super::{
    auth::{Access, BodyKind},
    components::panel,
    format::{bytes, span},
    layout::{Page, Section},
    pages::Pages,
    session::User,
    state::Dashboard,
};
use http::Method;
use landfall_core::tokens::TokenScope;
use maud::{Markup, html};
use poem::{Response, handler};
use session::{PATH, SessionTus};

pub(super) fn pages(pages: Pages) -> Pages {
    let below = [Method::HEAD, Method::PATCH, Method::DELETE];
    let pages = pages
        .get("/upload", Access::Upload, show)
        .get("/upload/states", Access::Upload, states::states)
        .with(
            PATH,
            Method::POST,
            Access::Upload,
            BodyKind::Stream,
            SessionTus,
        );
    below.into_iter().fold(pages, |pages, method| {
        pages.with(
            "/upload/tus/:id",
            method,
            Access::Upload,
            BodyKind::Stream,
            SessionTus,
        )
    })
}

#[handler]
async fn show(user: User, dashboard: Dashboard) -> Response {
    let config = &dashboard.app().config.uploads;
    let rest = span(config.session_ttl);
    let may_read = user.identity.may(TokenScope::Read);
    let body = html! {
        h1.unseen { "Upload" }
        (panel("Send files", html! {
            div #drop data-endpoint=(PATH) data-csrf=(user.csrf) data-links=[may_read.then_some("")] hidden {
                p { strong { "Drop files here" } }
                p.sub { "any number of files, each up to " (bytes(config.max_file_size.0)) }
                label.button.go { "Choose files" input.unseen #choose type="file" multiple; }
            }
            (without_script(dashboard.app().public_url.as_str()))
            p.sub { "To resume an interrupted upload, choose the same file again within " (rest) "." }
        }))
        section.panel #sent aria-label="Files sent" hidden {
            div.head {
                h2 { "Uploads in this window" }
                div.beside { span #tally role="status" {} button #pause-all type="button" { "Pause all" } button #clear type="button" { "Clear finished" } }
            }
            ul.uploads #uploads {}
        }
    };
    Page::new("Upload", Section::Upload, body)
        .script("tus.js")
        .script("upload.js")
        .show(&user)
}

fn without_script(url: &str) -> Markup {
    let url = url.trim_end_matches('/');
    html! {
        noscript {
            p { "Browser uploads need JavaScript. From a shell:" }
            pre { "curl -F file=@README.md " (url) "/v1/files" }
        }
    }
}
