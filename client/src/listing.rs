//! Lists: one page, or page after page to the end, with one page in memory at a time.

use super::{
    api::{ApiClient, CallError},
    output::{Table, print_text},
};
use clap::Args;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

/// Maximum items per page.
const MAX_PAGE_ITEMS: u64 = 200;

/// How much of a list to show.
#[derive(Clone, Debug, Args)]
pub(super) struct ListExtent {
    /// Maximum number of items to show (one page by default).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Show all items.
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    /// Print the server's JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Deserialize)]
struct ListPage {
    items: Vec<Box<RawValue>>,
    next_cursor: Option<String>,
}

/// Prints a list: a table with these titles and the row of each item, or JSON.
pub(super) async fn show(
    api: &ApiClient,
    path: &[&str],
    filters: &[(&str, Option<String>)],
    extent: &ListExtent,
    titles: &'static [&'static str],
    row: impl Fn(&Value) -> Vec<String>,
) -> anyhow::Result<()> {
    let query: Vec<_> = filters
        .iter()
        .filter_map(|(name, value)| Some((*name, value.as_ref()?)))
        .collect();
    let mut pages = Pager {
        api,
        path,
        query: &query,
        wanted: extent.wanted(),
        cursor: None,
    };
    // One page is printed as received; several are merged into one of the same form.
    let several = extent
        .wanted()
        .is_some_and(|wanted| wanted > MAX_PAGE_ITEMS);
    let mut table = Table::new(titles);
    let mut opening = r#"{"items":["#;
    loop {
        let (text, page) = pages.next().await?;
        if !extent.json {
            for item in &page.items {
                table.row(row(&serde_json::from_str(item.get())?));
            }
            print_text(&table.take())?;
        } else if several {
            let mut part = String::new();
            for item in &page.items {
                part.push_str(std::mem::replace(&mut opening, ",\n"));
                part.push_str(item.get());
            }
            print_text(&part)?;
        } else {
            print_text(&text)?;
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
        print_text(&format!(
            "{opening}],\"next_cursor\":{}}}",
            serde_json::to_string(&pages.cursor)?
        ))?;
    } else if !extent.json && pages.cursor.is_some() {
        eprintln!("There are more items: use --all, or --limit for some of them.");
    }
    Ok(())
}

impl ListExtent {
    /// Maximum number of items; `None` for one page of the server's default size.
    fn wanted(&self) -> Option<u64> {
        if self.all { Some(u64::MAX) } else { self.limit }
    }
}

struct Pager<'a> {
    api: &'a ApiClient,
    path: &'a [&'a str],
    query: &'a [(&'a str, &'a String)],
    /// Items still wanted; none is one page of the size the server likes.
    wanted: Option<u64>,
    /// The cursor of the next page.
    cursor: Option<String>,
}

impl Pager<'_> {
    async fn next(&mut self) -> Result<(String, ListPage), CallError> {
        let mut request = self.api.get(self.path).query(self.query);
        if let Some(wanted) = self.wanted {
            request = request.query(&[("limit", wanted.min(MAX_PAGE_ITEMS))]);
        }
        if let Some(cursor) = &self.cursor {
            request = request.query(&[("cursor", cursor)]);
        }
        let reply = self.api.call(request).await?;
        let page: ListPage = reply.json()?;
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
