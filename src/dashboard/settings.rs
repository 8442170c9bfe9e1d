//! `/settings`: what this process runs with, read-only. Settings are changed in the configuration, not here.

use super::{
    auth::ADMIN,
    components::{Tone, col, empty, panel, panel_with, state, table},
    layout::{Page, Section},
    pages::Pages,
    session::User,
    state::Dashboard,
};
use landfall_core::{
    config::EffectiveSetting,
    storage::{Capability, Support},
};
use maud::{Markup, html};
use poem::{Response, Result, handler};

pub(super) fn pages(pages: Pages) -> Pages {
    pages.get("/settings", ADMIN, show)
}

#[handler]
async fn show(user: User, dashboard: Dashboard) -> Result<Response> {
    let app = dashboard.app();
    let capabilities = app.storage.capabilities();
    let version = concat!("version ", env!("CARGO_PKG_VERSION"));
    let body = html! {
        h1.unseen { "Settings" }
        @if !capabilities.is_empty() {
            (panel("What the object store supports", capability_table(&capabilities)))
        }
        (panel_with("Settings of this process", html! { span.dim { (version) } }, html! {
            @if app.config.settings.is_empty() { (empty("This process was started without settings.", html! {})) }
            @else { (setting_table(&app.config.settings)) }
        }))
    };
    Ok(Page::new("Settings", Section::Settings, body).show(&user))
}

fn capability_table(capabilities: &[Capability]) -> Markup {
    let columns = [col("Capability"), col("Supported"), col("Without it")];
    let rows = html! {
        @for capability in capabilities {
            tr {
                td { (capability.name) }
                td { (support(capability.support)) }
                td.name { (capability.without) }
            }
        }
    };
    table("What the object store supports", &columns, rows)
}

fn support(support: Support) -> Markup {
    let tone = match support {
        Support::Yes => Tone::Ok,
        Support::No => Tone::Warn,
        Support::Unknown => Tone::Dim,
    };
    state(&support.to_string(), tone)
}

fn setting_table(settings: &[EffectiveSetting]) -> Markup {
    let columns = [col("Setting"), col("Value"), col("Set")];
    let rows = html! {
        @for setting in settings {
            tr {
                td.mono { (setting.key) }
                td.name { @if setting.value.is_empty() { span.dim { "empty" } } @else { code { (setting.value) } } }
                td { @match &setting.origin { Some(origin) => { (origin) } None => { span.dim { "default" } } } }
            }
        }
    };
    table("Settings", &columns, rows)
}
