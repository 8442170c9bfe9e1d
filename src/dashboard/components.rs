//! The components that pages are made of.

use super::{
    format::href,
    session::{CSRF_FIELD, User},
};
use entity::{
    batch::BatchStatus, delivery::DeliveryStatus, file::FileStatus, outbox_event::EventStatus,
};
use maud::{Markup, Render, html};
use sea_orm::ActiveEnum;

/// The meaning of a colour; it is always accompanied by a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Ok,
    /// In progress.
    Run,
    Warn,
    Bad,
    /// Finished, of no concern.
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

/// A section of a page with a heading.
pub(crate) fn panel(heading: &str, body: impl Render) -> Markup {
    panel_with(heading, html! {}, body)
}

/// A section with links or buttons beside its heading.
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

/// A text column.
pub(crate) const fn col(heading: &'static str) -> Column {
    Column {
        heading,
        is_number: false,
    }
}

/// A numeric column, right-aligned; its cells are `td.n`.
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

/// A status word in its colour.
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

/// Links to the next page of a list and back to the first. `query` holds the list's filters.
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

/// An empty list: why it is empty, and what to do.
pub(crate) fn empty(why: &str, hint: impl Render) -> Markup {
    html! { div.empty { p { (why) } (hint) } }
}

/// A part of the page that cannot be shown now, and what is shown instead.
pub(crate) fn missing(what: &str, shown: &str) -> Markup {
    html! { p.missing { strong { (what) } " " (shown) } }
}

/// A button that changes something. It submits the page's common form (see `layout`), so it works without scripts and
/// may be in a part that is shared by all viewers. Not for users who may not repair.
pub(crate) fn action_button(path: &str, label: &str) -> Markup {
    html! { button type="submit" form="act" formaction=(path) { (label) } }
}

/// The same, as the primary action.
pub(crate) fn primary_action_button(path: &str, label: &str) -> Markup {
    html! { button.go type="submit" form="act" formaction=(path) { (label) } }
}

/// A button that asks for confirmation before an irreversible action.
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

/// The CSRF field, for forms other than the common one.
pub(crate) fn csrf_field(user: &User) -> Markup {
    html! { input type="hidden" name=(CSRF_FIELD) value=(user.csrf); }
}

/// A part of a page that a stream updates in place (see `sse`).
pub(crate) fn part(id: &str, body: impl Render) -> Markup {
    html! { div.part id=(id) { (body) } }
}
