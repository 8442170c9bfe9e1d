//! Lists: one page as the server gives it, or page after page to the end, in memory one at a time.

use super::{
    api::{Api, CallError},
    output::{Table, answer},
};
use clap::Args;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

/// The most items on a page of any list.
const FULL_PAGE: u64 = 200;

/// How much of a list is wanted.
#[derive(Clone, Debug, Args)]
pub(super) struct Extent {
    /// Maximum number of items to show (one page by default).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Show all items.
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    /// Print the JSON of the server.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Deserialize)]
struct Page {
    items: Vec<Box<RawValue>>,
    next_cursor: Option<String>,
}

/// Prints a list: a table with these titles and what `row` makes of each item, or JSON.
pub(super) async fn show(
    api: &Api,
    path: &[&str],
    filters: &[(&str, Option<String>)],
    extent: &Extent,
    titles: &'static [&'static str],
    row: impl Fn(&Value) -> Vec<String>,
) -> anyhow::Result<()> {
    let query: Vec<_> = filters
        .iter()
        .filter_map(|(name, value)| Some((*name, value.as_ref()?)))
        .collect();
    let mut pages = Pages {
        api,
        path,
        query: &query,
        wanted: extent.wanted(),
        cursor: None,
    };
    // One page is the server's own answer; several become one of the same form.
    let several = extent.wanted().is_some_and(|wanted| wanted > FULL_PAGE);
    let mut table = Table::new(titles);
    let mut opening = r#"{"items":["#;
    loop {
        let (text, page) = pages.next().await?;
        if !extent.json {
            for item in &page.items {
                table.row(row(&serde_json::from_str(item.get())?));
            }
            answer(&table.take())?;
        } else if several {
            let mut part = String::new();
            for item in &page.items {
                part.push_str(std::mem::replace(&mut opening, ",\n"));
                part.push_str(item.get());
            }
            answer(&part)?;
        } else {
            answer(&text)?;
        }
        if pages.is_over() || page.items.is_empty() {
            break;
        }
    }
    if extent.json && several {
        let opening = if opening.starts_with('{') {
            opening
        } else {
            ""
        };
        answer(&format!(
            "{opening}],\"next_cursor\":{}}}",
            serde_json::to_string(&pages.cursor)?
        ))?;
    } else if !extent.json && pages.cursor.is_some() {
        eprintln!("There are more: see them with --all, or some of them with --limit.");
    }
    Ok(())
}

impl Extent {
    /// Items wanted; none is one page of the size the server likes.
    fn wanted(&self) -> Option<u64> {
        if self.all { Some(u64::MAX) } else { self.limit }
    }
}

struct Pages<'a> {
    api: &'a Api,
    path: &'a [&'a str],
    query: &'a [(&'a str, &'a String)],
    /// Items still wanted; none is one page of the size the server likes.
    wanted: Option<u64>,
    /// Where the next page begins.
    cursor: Option<String>,
}

impl Pages<'_> {
    async fn next(&mut self) -> Result<(String, Page), CallError> {
        let mut request = self.api.get(self.path).query(self.query);
        if let Some(wanted) = self.wanted {
            request = request.query(&[("limit", wanted.min(FULL_PAGE))]);
        }
        if let Some(cursor) = &self.cursor {
            request = request.query(&[("cursor", cursor)]);
        }
        let reply = self.api.call(request).await?;
        let page: Page = reply.json()?;
        self.wanted = self
            .wanted
            .map(|wanted| wanted.saturating_sub(page.items.len() as u64));
        self.cursor.clone_from(&page.next_cursor);
        Ok((reply.text, page))
    }

    fn is_over(&self) -> bool {
        self.cursor.is_none() || self.wanted.is_none_or(|wanted| wanted == 0)
    }
}
