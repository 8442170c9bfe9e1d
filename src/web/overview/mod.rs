//! `/`: is everything ashore, what is not, and the button that mends it.

mod flow;

use super::access::Visitor;
use super::{
    dashboard::Dashboard,
    gate::READ,
    layout::{Page, Section},
    live::{self, Parts},
    pages::Pages,
    parts::part,
    refusal::Refusal,
};
use landfall_core::overview::{self, Flow};
use maud::html;
use poem::{Request, Response, Result, handler};

/// The overview and its stream.
pub(super) fn pages(pages: Pages) -> Pages {
    pages
        .get("/", READ, show)
        .get("/live/overview", READ, stream)
}

#[handler]
async fn show(visitor: Visitor, dashboard: Dashboard) -> Result<Response> {
    let parts = look(&dashboard).await?;
    let body = html! {
        h1.unseen { "Overview" }
        @for (id, body) in &parts { (part(id, body)) }
    };
    Ok(Page::new("Overview", Section::Overview, body)
        .live("/live/overview")
        .show(&visitor))
}

#[handler]
async fn stream(visitor: Visitor, dashboard: Dashboard, request: &Request) -> Result<Response> {
    let name = live::name("overview", &visitor);
    let looking = dashboard.clone();
    Ok(live::stream(&dashboard, request, &name, move || {
        let dashboard = looking.clone();
        live::boxed(async move {
            let mut parts = look(&dashboard).await.unwrap_or_default();
            parts.push(live::beat(dashboard.landfall().clock.now()));
            parts
        })
    })?)
}

async fn look(dashboard: &Dashboard) -> Result<Parts, Refusal> {
    let landfall = dashboard.landfall();
    let flow: Flow = overview::flow(landfall.db.read()).await?;
    let now = landfall.clock.now();
    Ok(vec![("flow".to_owned(), flow::panel(&flow, now))])
}
