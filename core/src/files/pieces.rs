//! Where the bytes of a file are staged, in the format of `files.staging_key`: a list of items in order, separated by
//! commas.
//!
//! An item is either one segment, `key:size`, followed by `+` if a late writer may still append to it, or all segments
//! of an upload, `upload.*:size`. An upload may have thousands; its own rows list them until the file no longer needs
//! its staged bytes.

use super::segments;
use crate::staging::{Piece, StagingKey};
use entity::{UploadId, file::Model};
use sea_orm::{ConnectionTrait, DbErr};

/// Why the pieces of a file are not available.
#[derive(Debug, thiserror::Error)]
pub enum PiecesError {
    /// The column has an invalid format, or refers to an upload that does not have these bytes.
    #[error("`{0}` does not name staged pieces")]
    NotPieces(String),
    #[error("the staged pieces could not be read")]
    Database(#[from] DbErr),
}

/// A part of a file's staged bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StagedItem {
    /// A single segment.
    Piece(Piece),
    /// All segments of an upload.
    Upload {
        id: UploadId,
        /// The total size, in bytes.
        size: u64,
    },
}

impl StagedItem {
    /// The size in bytes.
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

/// Formats the column value for these items.
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

/// Parses the column; `None` if its format is invalid.
pub(super) fn parse_column(column: &str) -> Option<Vec<StagedItem>> {
    column.split(',').map(StagedItem::parse).collect()
}

/// Returns the pieces of a file in order: exactly the keys in staging that hold its bytes. Empty once nothing of it is
/// staged.
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
