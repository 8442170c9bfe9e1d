//! Keyset paging: a list is newest first by id, and a cursor is the last id seen, so that a page costs the same
//! however far down it is and nothing shifts when rows are added.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use entity::Timestamp;
use uuid::Uuid;

/// Rows on a page when the caller does not say.
pub const DEFAULT_LIMIT: u64 = 50;

/// The most rows on a page.
pub const MAX_LIMIT: u64 = 200;

/// Which page of a list.
#[derive(Clone, Copy, Debug)]
pub struct PageRequest {
    /// 1 to [`MAX_LIMIT`].
    pub limit: u64,
    /// Only what is older than this id.
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

/// A cursor that no list of Landfall gave out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cursor is not one that a list returned as next_cursor")]
pub struct InvalidCursor;

impl PageRequest {
    /// Reads a cursor given out by [`Page::next_cursor`].
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

/// The least id made at this moment or later (RFC 9562, section 5.7): a list by time is a range of ids.
#[must_use]
pub fn first_id_at(moment: Timestamp) -> Uuid {
    let millis = u128::try_from(moment.timestamp_millis()).unwrap_or(0) & 0xffff_ffff_ffff;
    Uuid::from_u128(millis << 80)
}

/// One page of a list.
#[derive(Clone, Debug)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Opaque; none on the last page.
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// Makes a page of up to `limit` rows from up to `limit + 1` rows read: the one too many tells that there is a next page.
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

    /// A page of all that was found down to `end`, where looking stopped.
    #[must_use]
    pub(crate) fn up_to(items: Vec<T>, end: Option<Uuid>) -> Self {
        Self {
            items,
            next_cursor: end.map(|id| URL_SAFE_NO_PAD.encode(id.as_bytes())),
        }
    }

    /// The same page of something else.
    #[must_use]
    pub fn map<U>(self, make: impl FnMut(T) -> U) -> Page<U> {
        Page {
            items: self.items.into_iter().map(make).collect(),
            next_cursor: self.next_cursor,
        }
    }
}
