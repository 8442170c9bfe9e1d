//! The stages of the files: how many are at each, and since when.

use crate::dashboard::{
    components,
    format::{age, bounded, span},
};
use chrono::{DateTime, Utc};
use landfall_core::overview::{PipelineSnapshot, StageCount};
use maud::{Markup, html};

pub(super) fn panel(flow: &PipelineSnapshot, now: DateTime<Utc>, may_see_events: bool) -> Markup {
    let oldest = |stage: &StageCount| {
        stage
            .oldest
            .map(|oldest| format!("oldest {}", span(age(oldest, now))))
    };
    let waiting = match flow.unannounced.count.counted {
        0 => "none waiting".to_owned(),
        _ => format!(
            "{} waiting, {}",
            bounded(flow.unannounced.count),
            oldest(&flow.unannounced).unwrap_or_default()
        ),
    };
    let steps = [
        (
            "Uploading",
            "/files?status=uploading",
            flow.uploading,
            oldest(&flow.uploading),
        ),
        (
            "Staged",
            "/files?status=staged",
            flow.staged,
            oldest(&flow.staged),
        ),
        (
            "Finalizing",
            "/files?status=finalizing",
            flow.finalizing,
            oldest(&flow.finalizing),
        ),
        (
            "Stored",
            "/files?status=stored",
            flow.stored,
            oldest(&flow.stored),
        ),
    ];
    components::panel(
        "Files in progress",
        html! {
            ol.flow {
                @for (name, link, stage, oldest) in steps {
                    li { a href=(link) {
                        span.sub { (name) }
                        span.num { (bounded(stage.count)) }
                        span.sub { (oldest.as_deref().unwrap_or("none")) }
                    } }
                }
                li {
                    a href=[may_see_events.then_some("/events?status=delivered")] {
                        span.sub { "Announced" }
                        span.num { (bounded(flow.announced.count)) }
                    }
                    a.sub href=[may_see_events.then_some("/events?status=pending")] { (waiting) }
                }
            }
        },
    )
}
