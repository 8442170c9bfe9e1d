//! The query parameters of lists: filters, and the cursor of the page.
//!
//! Empty fields are ignored, because forms submit them. Invalid values are rejected by name, as in the API.

use super::error::ErrorPage;
use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use landfall_core::pagination::{DEFAULT_LIMIT, PageRequest};
use maud::{Markup, html};
use sea_orm::{ActiveEnum, Iterable};
use uuid::Uuid;

/// Maximum length of a search text, in bytes.
const MAX_TEXT_LEN: usize = 1024;

/// Parses a cursor; an empty one is the first page.
pub(super) fn page(cursor: &str) -> Result<PageRequest, ErrorPage> {
    let cursor = Some(cursor).filter(|cursor| !cursor.is_empty());
    PageRequest::decode(DEFAULT_LIMIT, cursor).map_err(|_| {
        ErrorPage::malformed("This cursor does not belong to this list. Start with the first page.")
    })
}

/// Parses a text; rejects what the databases cannot compare.
pub(super) fn text(field: &str, given: &str) -> Result<Option<String>, ErrorPage> {
    let given = given.trim();
    if given.len() > MAX_TEXT_LEN || given.contains('\0') {
        return Err(wrong(field, "up to 1024 bytes of text"));
    }
    Ok(Some(given.to_owned()).filter(|text| !text.is_empty()))
}

/// Parses an id.
pub(super) fn id(field: &str, given: &str) -> Result<Option<Uuid>, ErrorPage> {
    match given.trim() {
        "" => Ok(None),
        given => given.parse().map(Some).map_err(|_| wrong(field, "an id")),
    }
}

/// Parses a status.
pub(super) fn status<S>(field: &str, given: &str) -> Result<Option<S>, ErrorPage>
where
    S: ActiveEnum<Value = String>,
{
    match given {
        "" => Ok(None),
        given => S::try_from_value(&given.to_owned())
            .map(Some)
            .map_err(|_| wrong(field, "a status")),
    }
}

/// Parses a time in UTC: a date, or the formats of `input type=datetime-local` and RFC 3339.
pub(super) fn moment(field: &str, given: &str) -> Result<Option<DateTime<Utc>>, ErrorPage> {
    let given = given.trim();
    if given.is_empty() {
        return Ok(None);
    }
    let day = NaiveDate::parse_from_str(given, "%Y-%m-%d").map(|day| day.and_time(NaiveTime::MIN));
    let local = |format| NaiveDateTime::parse_from_str(given, format);
    let naive = day
        .or_else(|_| local("%Y-%m-%dT%H:%M"))
        .or_else(|_| local("%Y-%m-%dT%H:%M:%S"));
    match naive {
        Ok(naive) => Ok(Some(naive.and_utc())),
        Err(_) => DateTime::parse_from_rfc3339(given)
            .map(|moment| Some(moment.to_utc()))
            .map_err(|_| {
                wrong(
                    field,
                    "a date or a time, such as 2026-11-24 or 2026-11-24T08:00",
                )
            }),
    }
}

fn wrong(field: &str, allowed: &str) -> ErrorPage {
    ErrorPage::malformed(format!("`{field}` must be {allowed}."))
}

/// A select field of statuses, with "any".
pub(super) fn status_field<S>(label: &str, name: &str, chosen: Option<S>) -> Markup
where
    S: ActiveEnum<Value = String> + Iterable + Copy,
{
    let words = S::iter().map(|status| status.to_value());
    let chosen = chosen.map(|status| status.to_value()).unwrap_or_default();
    choice_field(label, name, &words.collect::<Vec<_>>(), &chosen)
}

/// A select field, with "any".
pub(super) fn choice_field(label: &str, name: &str, words: &[String], chosen: &str) -> Markup {
    html! {
        label { (label)
            select name=(name) {
                option value="" { "any" }
                @for word in words { option value=(word) selected[word == chosen] { (word) } }
            }
        }
    }
}

/// A text field.
pub(super) fn text_field(label: &str, name: &str, kind: &str, value: &str) -> Markup {
    html! { label { (label) input type=(kind) name=(name) value=(value) autocomplete="off" spellcheck="false"; } }
}

/// The filter form of a list, with a link that clears it.
pub(super) fn filters(path: &str, is_filtered: bool, fields: Markup) -> Markup {
    html! {
        form.filters action=(path) role="search" aria-label="List filters" {
            (fields)
            button.go type="submit" { "Show" }
            @if is_filtered { a.button href=(path) { "All" } }
        }
    }
}

/// A shortened id for tables; ids differ most at their end.
pub(super) fn short(id: impl ToString) -> Markup {
    let id = id.to_string();
    let cut = id.len().saturating_sub(8);
    html! { span.mono.id title=(id) { "…" (id[cut..]) } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use entity::file::FileStatus;

    #[test]
    fn an_empty_field_asks_for_nothing() {
        assert!(text("q", "  ").unwrap().is_none());
        assert!(id("batch", "").unwrap().is_none());
        assert!(moment("since", "").unwrap().is_none());
        assert!(status::<FileStatus>("status", "").unwrap().is_none());
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert!(text("q", "a\0b").is_err());
        assert!(id("batch", "x").is_err());
        assert!(moment("since", "yesterday").is_err());
        assert!(status::<FileStatus>("status", "odd").is_err());
        assert!(page("x").is_err());
    }

    #[test]
    fn moments_are_read_as_forms_and_people_write_them() {
        let midnight = moment("since", "2026-11-24").unwrap();
        assert_eq!(midnight, moment("since", "2026-11-24T00:00").unwrap());
        assert_eq!(
            midnight,
            moment("since", "2026-11-24T01:00:00+01:00").unwrap()
        );
    }
}
