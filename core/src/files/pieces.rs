//! Where a file's bytes wait, as `files.staging_key` says it: items in their order, separated by commas.
//!
//! An item is one segment, `key:size`, with a `+` where a late writer may be adding to it; or all segments that an upload lists, `upload.*:size`: an upload may have
//! thousands, and its own rows name them until the file is done with staging.

use super::segments;
use crate::staging::{Piece, StagingKey};
use entity::{UploadId, file::Model};
use sea_orm::{ConnectionTrait, DbErr};

/// Why the pieces of a file are not known.
#[derive(Debug, thiserror::Error)]
pub enum PiecesError {
    /// The column was written by something else, or names an upload that has no such bytes.
    #[error("`{0}` does not name staged pieces")]
    NotPieces(String),
    #[error("the staged pieces could not be read")]
    Database(#[from] DbErr),
}

/// Some of the bytes of a file, in staging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StagedItem {
    /// One segment.
    Piece(Piece),
    /// All segments of an upload.
    Upload {
        id: UploadId,
        /// Of all of them, in bytes.
        size: u64,
    },
}

impl StagedItem {
    /// In bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        match self {
            Self::Piece(piece) => piece.size,
            Self::Upload { size, .. } => *size,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (name, size) = text.split_once(':')?;
        let (size, may_grow) = match size.strip_suffix('+') {
            Some(size) => (size.parse().ok()?, true),
            None => (size.parse().ok()?, false),
        };
        Some(match name.strip_suffix(".*") {
            Some(id) => Self::Upload {
                id: id.parse().ok()?,
                size,
            },
            None => {
                let key = name.parse::<StagingKey>().ok()?;
                Self::Piece(Piece {
                    may_grow,
                    ..Piece::new(key, size)
                })
            }
        })
    }
}

impl From<Piece> for StagedItem {
    fn from(piece: Piece) -> Self {
        Self::Piece(piece)
    }
}

/// What the column says of these items.
#[must_use]
pub fn staging_column(items: impl IntoIterator<Item = StagedItem>) -> String {
    let items: Vec<String> = items
        .into_iter()
        .map(|item| match item {
            StagedItem::Piece(piece) => {
                let grows = if piece.may_grow { "+" } else { "" };
                format!("{}:{}{grows}", piece.key, piece.size)
            }
            StagedItem::Upload { id, size } => format!("{id}.*:{size}"),
        })
        .collect();
    items.join(",")
}

/// What the column names; none when it was written by something else.
pub(super) fn parse_column(column: &str) -> Option<Vec<StagedItem>> {
    column.split(',').map(StagedItem::parse).collect()
}

/// The pieces of a file in their order: exactly the keys in staging that hold its bytes. Empty once nothing of it waits
/// in staging.
///
/// # Errors
/// [`PiecesError`].
pub async fn staged_pieces(
    db: &impl ConnectionTrait,
    file: &Model,
) -> Result<Vec<Piece>, PiecesError> {
    let Some(column) = &file.staging_key else {
        return Ok(Vec::new());
    };
    let refused = || PiecesError::NotPieces(column.clone());
    let items = parse_column(column).ok_or_else(refused)?;
    let uploads: Vec<UploadId> = items
        .iter()
        .filter_map(|item| match item {
            StagedItem::Upload { id, .. } => Some(*id),
            StagedItem::Piece(_) => None,
        })
        .collect();
    let mut listed = segments::of_uploads(db, &uploads).await?;
    let mut pieces = Vec::with_capacity(items.len());
    for item in items {
        match item {
            StagedItem::Piece(piece) => pieces.push(piece),
            StagedItem::Upload { id, size } => {
                let of_upload = listed.remove(&id).ok_or_else(refused)?;
                if of_upload.iter().map(|piece| piece.size).sum::<u64>() != size {
                    return Err(refused());
                }
                pieces.extend(of_upload);
            }
        }
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::staging::SegmentWriter;

    #[test]
    fn column_says_what_it_was_made_of() {
        let id = UploadId::generate();
        let writer = SegmentWriter::Attempt(UploadId::generate().0);
        let items = [
            Piece::new(StagingKey::unsegmented(id.0), 0).into(),
            Piece {
                may_grow: true,
                ..Piece::new(StagingKey::segment(id.0, 7, writer), u64::MAX)
            }
            .into(),
            StagedItem::Upload { id, size: 12 },
        ];
        assert_eq!(
            parse_column(&staging_column(items)).as_deref(),
            Some(&items[..])
        );
        for other in [
            "",
            "somewhere",
            "a:1",
            &format!("{id}.*"),
            &format!("{id}:x"),
        ] {
            assert_eq!(parse_column(other), None, "{other}");
        }
    }
}
