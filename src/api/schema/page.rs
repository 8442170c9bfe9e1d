//! Pages of lists.

use poem_openapi::{
    Object,
    types::{ParseFromJSON, ToJSON},
};
use serde::Serialize;

/// One page of a list, newest first.
#[derive(Clone, Debug, Serialize, Object)]
pub struct Page<T: ParseFromJSON + ToJSON> {
    pub items: Vec<T>,
    /// The `cursor` of the next page; null on the last page.
    #[oai(nullable)]
    pub next_cursor: Option<String>,
}
