//! The few pieces every page is made of.

use super::{
    format::href,
    session::{CSRF_FIELD, User},
};
use entity::{
    batch::BatchStatus, delivery::DeliveryStatus, file::FileStatus, outbox_event::EventStatus,
};
use maud::{Markup, Render, html};
use sea_orm::ActiveEnum;

/// What a colour means; there is always a word beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Ok,
    /// Under way.
    Run,
    Warn,
    Bad,
    /// Over, and of no concern.
    Dim,
}

impl Tone {
    pub(crate) fn class(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Run => "run",
            Self::Warn => "warn",
            Self::Bad => "bad",
            Self::Dim => "dim",
        }
    }
}

/// A section of a page under its heading.
pub(crate) fn panel(heading: &str, body: impl Render) -> Markup {
    panel_with(heading, html! {}, body)
}

/// A section with something beside its heading: links, buttons.
pub(crate) fn panel_with(heading: &str, beside: impl Render, body: impl Render) -> Markup {
    html! {
        section.panel aria-label=(heading) {
            div.head { h2 { (heading) } div.beside { (beside) } }
            (body)
        }
    }
}

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    heading: &'static str,
    is_number: bool,
}

/// A column of words.
pub(crate) const fn col(heading: &'static str) -> Column {
    Column {
        heading,
        is_number: false,
    }
}

/// A column of figures, under each other by their digits; its cells are `td.n`.
pub(crate) const fn num(heading: &'static str) -> Column {
    Column {
        heading,
        is_number: true,
    }
}

/// A table that scrolls within its panel, never with the page. `rows` are `tr`s.
pub(crate) fn table(label: &str, columns: &[Column], rows: impl Render) -> Markup {
    html! {
        div.scroll role="region" aria-label=(label) tabindex="0" {
            table {
                thead { tr { @for column in columns {
                    th scope="col" class=[column.is_number.then_some("n")] { (column.heading) }
                } } }
                tbody { (rows) }
            }
        }
    }
}

/// A word with its colour.
pub(crate) fn state(word: &str, tone: Tone) -> Markup {
    html! { span class={ "state " (tone.class()) } { (word) } }
}

pub(crate) fn file_state(status: FileStatus) -> Markup {
    let tone = match status {
        FileStatus::Uploading | FileStatus::Staged | FileStatus::Finalizing => Tone::Run,
        FileStatus::Stored => Tone::Ok,
        FileStatus::Failed => Tone::Bad,
        FileStatus::Deleted => Tone::Dim,
    };
    state(&status.to_value(), tone)
}

pub(crate) fn event_state(status: EventStatus) -> Markup {
    let tone = match status {
        EventStatus::Pending => Tone::Run,
        EventStatus::Delivered => Tone::Ok,
        EventStatus::Failed => Tone::Bad,
    };
    state(&status.to_value(), tone)
}

pub(crate) fn delivery_state(status: DeliveryStatus) -> Markup {
    let tone = match status {
        DeliveryStatus::Pending => Tone::Run,
        DeliveryStatus::Delivered => Tone::Ok,
        DeliveryStatus::Failed => Tone::Bad,
    };
    state(&status.to_value(), tone)
}

pub(crate) fn batch_state(status: BatchStatus) -> Markup {
    let tone = match status {
        BatchStatus::Init | BatchStatus::InProgress => Tone::Run,
        BatchStatus::Complete => Tone::Ok,
        BatchStatus::Partial => Tone::Warn,
        BatchStatus::Failed => Tone::Bad,
    };
    state(&status.to_value(), tone)
}

/// The way to the next page of a list, and back to its beginning. `query` holds the list's filters.
pub(crate) fn pager(
    path: &str,
    query: &[(&str, &str)],
    cursor: Option<&str>,
    next: Option<&str>,
) -> Markup {
    let further = |next| {
        let mut query = query.to_vec();
        query.push(("cursor", next));
        href(path, &query)
    };
    html! {
        @if cursor.is_some() || next.is_some() {
            nav.pager aria-label="Pages of the list" {
                @if cursor.is_some() { a href=(href(path, query)) { "Newest" } }
                @if let Some(next) = next { a rel="next" href=(further(next)) { "Older" } }
            }
        }
    }
}

/// A list without rows: why there are none, and how there will be some.
pub(crate) fn empty(why: &str, hint: impl Render) -> Markup {
    html! { div.empty { p { (why) } (hint) } }
}

/// A part of the page that cannot be shown now, and what is shown all the same.
pub(crate) fn missing(what: &str, shown: &str) -> Markup {
    html! { p.missing { strong { (what) } " " (shown) } }
}

/// A button that changes something: it sends the form every page has (see `layout`), so that it works without
/// script, and may stand in a part that is the same for all who see it. Not for those who may not repair.
pub(crate) fn action_button(path: &str, label: &str) -> Markup {
    html! { button type="submit" form="act" formaction=(path) { (label) } }
}

/// The same, as the one remedy that is meant.
pub(crate) fn primary_action_button(path: &str, label: &str) -> Markup {
    html! { button.go type="submit" form="act" formaction=(path) { (label) } }
}

/// A button that asks once more before it does what cannot be taken back.
pub(crate) fn confirmed_action_button(
    path: &str,
    label: &str,
    question: &str,
    yes: &str,
) -> Markup {
    html! {
        details.ask {
            summary { (label) }
            div { p { (question) } button.danger type="submit" form="act" formaction=(path) { (yes) } }
        }
    }
}

/// The field that lets a form of a page's own change something.
pub(crate) fn csrf_field(user: &User) -> Markup {
    html! { input type="hidden" name=(CSRF_FIELD) value=(user.csrf); }
}

/// A part of a page that a stream replaces in place (see `live`).
pub(crate) fn part(id: &str, body: impl Render) -> Markup {
    html! { div.part id=(id) { (body) } }
}
