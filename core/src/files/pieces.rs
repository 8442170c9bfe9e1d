//! Where a file's bytes wait, as `files.staging_key` says it: the pieces in their order, `key:size`, separated by commas.

use crate::{staging::StagingKey, storage::transfer::Piece};
use entity::file::Model;

/// A column that names no pieces.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` does not name staged pieces")]
pub struct NotPieces(String);

/// What the column says of these pieces.
#[must_use]
pub fn staging_column(pieces: &[Piece]) -> String {
    let named: Vec<String> = pieces
        .iter()
        .map(|piece| format!("{}:{}", piece.key, piece.size))
        .collect();
    named.join(",")
}

/// The pieces of a file; empty once nothing of it waits in staging.
///
/// # Errors
/// [`NotPieces`] when the column was written by something else.
pub fn pieces(file: &Model) -> Result<Vec<Piece>, NotPieces> {
    let Some(column) = &file.staging_key else {
        return Ok(Vec::new());
    };
    let parse = |text: &str| {
        let (key, size) = text.split_once(':')?;
        Some(Piece {
            key: key.parse::<StagingKey>().ok()?,
            size: size.parse().ok()?,
        })
    };
    column
        .split(',')
        .map(parse)
        .collect::<Option<_>>()
        .ok_or_else(|| NotPieces(column.clone()))
}
