//! The health of the dependencies.

use crate::{
    api::{Check, Checks, Status},
    dashboard::components::{self, Tone},
};
use maud::{Markup, html};

/// Returns every check with its name.
pub(super) fn each(checks: &Checks) -> [(&'static str, &Check); 6] {
    [
        ("Database", &checks.database),
        ("Redis", &checks.redis),
        ("Storage", &checks.storage),
        ("Staging", &checks.staging),
        ("Workers", &checks.workers),
        ("Sweep", &checks.sweep),
    ]
}

/// Details contain paths and host names, so they are only for users who may repair.
pub(super) fn panel(checks: &Checks, may_repair: bool) -> Markup {
    components::panel(
        "Health",
        html! {
            dl.health {
                @for (name, check) in each(checks) {
                    div {
                        dt { (name) }
                        dd { (badge(check)) @if may_repair { " " span.sub { (check.detail) } } }
                    }
                }
            }
        },
    )
}

fn badge(check: &Check) -> Markup {
    match check.status {
        Status::Ok => components::state("ok", Tone::Ok),
        Status::Degraded => components::state("degraded", Tone::Warn),
        Status::Down => components::state("down", Tone::Bad),
    }
}
