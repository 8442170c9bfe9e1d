//! Keyset pagination: lists are sorted newest first by id, and the cursor is the last id returned. A page costs the
//! same however far down the list it is, and new rows do not shift pages.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use entity::Timestamp;
use uuid::Uuid;

/// Default number of rows per page.
pub const DEFAULT_LIMIT: u64 = 50;

/// Maximum number of rows per page.
pub const MAX_LIMIT: u64 = 200;

/// Which page of a list to return.
#[derive(Clone, Copy, Debug)]
pub struct PageRequest {
    /// 1 to [`MAX_LIMIT`].
    pub limit: u64,
    /// Only rows older than this id.
    pub before: Option<Uuid>,
}

impl Default for PageRequest {
    fn default() -> Self {
        Self {
            limit: DEFAULT_LIMIT,
            before: None,
        }
    }
}

/// The cursor was not returned by a Landfall list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cursor is not one that a list returned as next_cursor")]
pub struct InvalidCursor;

impl PageRequest {
    /// Parses a cursor from [`Page::next_cursor`].
    ///
    /// # Errors
    /// [`InvalidCursor`].
    pub fn decode(limit: u64, cursor: Option<&str>) -> Result<Self, InvalidCursor> {
        let before = cursor
            .map(|text| {
                let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidCursor)?;
                Uuid::from_slice(&bytes).map_err(|_| InvalidCursor)
            })
            .transpose()?;
        Ok(Self {
            limit: limit.clamp(1, MAX_LIMIT),
            before,
        })
    }
}

/// The smallest id generated at this time or later (RFC 9562, section 5.7), so that a time range becomes an id range.
#[must_use]
pub fn first_id_at(moment: Timestamp) -> Uuid {
    let millis = u128::try_from(moment.timestamp_millis()).unwrap_or(0) & 0xffff_ffff_ffff;
    Uuid::from_u128(millis << 80)
}

/// A page of a list.
#[derive(Clone, Debug)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Opaque; `None` on the last page.
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// Makes a page of up to `limit` rows out of up to `limit + 1` rows; an extra row means that there is a next page.
    #[must_use]
    pub fn cut(mut rows: Vec<T>, request: PageRequest, id: impl Fn(&T) -> Uuid) -> Self {
        let limit = usize::try_from(request.limit).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let last = rows.last().filter(|_| more);
        let next_cursor = last.map(|row| URL_SAFE_NO_PAD.encode(id(row).as_bytes()));
        Self {
            items: rows,
            next_cursor,
        }
    }

    /// Makes a page of the rows found down to the id `end`, where the scan stopped.
    #[must_use]
    pub(crate) fn up_to(items: Vec<T>, end: Option<Uuid>) -> Self {
        Self {
            items,
            next_cursor: end.map(|id| URL_SAFE_NO_PAD.encode(id.as_bytes())),
        }
    }

    /// Converts the items of the page.
    #[must_use]
    pub fn map<U>(self, make: impl FnMut(T) -> U) -> Page<U> {
        Page {
            items: self.items.into_iter().map(make).collect(),
            next_cursor: self.next_cursor,
        }
    }
}
