//! What everything depends on, and whether it does its part.

use crate::{
    http::{Check, Checks, Status},
    web::parts::{self, Tone},
};
use maud::{Markup, html};

/// Every check with its name.
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

pub(super) fn panel(checks: &Checks) -> Markup {
    parts::panel(
        "Health",
        html! {
            dl.health {
                @for (name, check) in each(checks) {
                    div {
                        dt { (name) }
                        dd { (badge(check)) " " span.sub { (check.detail) } }
                    }
                }
            }
        },
    )
}

fn badge(check: &Check) -> Markup {
    match check.status {
        Status::Ok => parts::state("ok", Tone::Ok),
        Status::Degraded => parts::state("degraded", Tone::Warn),
        Status::Down => parts::state("down", Tone::Bad),
    }
}
