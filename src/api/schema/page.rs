//! Pages of lists.

use landfall_core::page;
use poem_openapi::{
    Object,
    types::{ParseFromJSON, ToJSON},
};
use serde::Serialize;

/// One page of a list, newest first.
#[derive(Clone, Debug, Serialize, Object)]
pub struct Page<T: ParseFromJSON + ToJSON> {
    pub items: Vec<T>,
    /// For the next page, as `cursor`; null on the last.
    #[oai(nullable)]
    pub next_cursor: Option<String>,
}

impl<T: ParseFromJSON + ToJSON> From<page::Page<T>> for Page<T> {
    fn from(page: page::Page<T>) -> Self {
        Self {
            items: page.items,
            next_cursor: page.next_cursor,
        }
    }
}
