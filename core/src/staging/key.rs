//! What staged bytes are called.
//!
//! A key names a *segment*: bytes that one writer staged one after the other, and that no other writer ever opens. Its
//! name says whose bytes they are, at which offset of them it begins, and who wrote it, so that two writers never have
//! one name.

use std::{fmt, str::FromStr};
use uuid::Uuid;

/// Who wrote a segment: no two writers of one upload are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SegmentWriter {
    /// The holder of the upload's write lease that had this fence; 0 is the request that began the upload.
    Fence(u64),
    /// One attempt at a part, or at a whole upload, by its random name.
    Attempt(Uuid),
}

/// Where a segment begins, and who wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct SegmentId {
    /// Offset of the first byte within the upload, in bytes.
    start: u64,
    writer: SegmentWriter,
}

/// The name of bytes in staging: `{owner}.{start}.{writer}`, where the owner is a UUID, so that nothing else in the
/// folder or bucket is taken for staging. An upload, its file and the owner of its staged bytes have one id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StagingKey {
    owner: Uuid,
    segment: Option<SegmentId>,
}

impl StagingKey {
    /// The only segment of a new owner; later than every key this process generated before.
    #[must_use]
    pub fn generate() -> Self {
        Self::whole(Uuid::now_v7())
    }

    /// The only segment of a file that came in one request.
    #[must_use]
    pub fn whole(owner: Uuid) -> Self {
        Self::segment(owner, 0, SegmentWriter::Fence(0))
    }

    /// The segment of an upload that begins at `start`, in bytes.
    #[must_use]
    pub fn segment(owner: Uuid, start: u64, writer: SegmentWriter) -> Self {
        let segment = Some(SegmentId { start, writer });
        Self { owner, segment }
    }

    /// All bytes of an upload as versions without segments staged them: one file, or one chain of objects.
    #[must_use]
    pub fn unsegmented(owner: Uuid) -> Self {
        Self {
            owner,
            segment: None,
        }
    }

    /// The id of the upload, and of the file it becomes.
    #[must_use]
    pub fn owner(&self) -> Uuid {
        self.owner
    }

    /// Offset of the segment's first byte within the upload, in bytes.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.segment.map_or(0, |segment| segment.start)
    }

    /// Who wrote the segment; none of what earlier versions staged.
    #[must_use]
    pub fn writer(&self) -> Option<SegmentWriter> {
        self.segment.map(|segment| segment.writer)
    }
}

impl fmt::Display for SegmentWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fence(fence) => fence.fmt(f),
            Self::Attempt(attempt) => attempt.as_simple().fmt(f),
        }
    }
}

impl fmt::Display for StagingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.owner.as_hyphenated().fmt(f)?;
        match &self.segment {
            Some(SegmentId { start, writer }) => write!(f, ".{start}.{writer}"),
            None => Ok(()),
        }
    }
}

/// Not a name as staging writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a staging key")]
pub struct InvalidStagingKey;

impl FromStr for SegmentWriter {
    type Err = InvalidStagingKey;

    fn from_str(text: &str) -> Result<Self, InvalidStagingKey> {
        // The longest fence has 20 digits, an attempt 32.
        let writer = match text.len() {
            32 => text
                .parse()
                .map(Self::Attempt)
                .map_err(|_| InvalidStagingKey),
            _ => text.parse().map(Self::Fence).map_err(|_| InvalidStagingKey),
        }?;
        (writer.to_string() == text)
            .then_some(writer)
            .ok_or(InvalidStagingKey)
    }
}

impl FromStr for StagingKey {
    type Err = InvalidStagingKey;

    /// Accepts only the spelling that [`fmt::Display`] writes.
    fn from_str(text: &str) -> Result<Self, InvalidStagingKey> {
        let (owner, segment) = match text.split_once('.') {
            None => (text, None),
            Some((owner, segment)) => {
                let (start, writer) = segment.split_once('.').ok_or(InvalidStagingKey)?;
                let segment = SegmentId {
                    start: start.parse().map_err(|_| InvalidStagingKey)?,
                    writer: writer.parse()?,
                };
                (owner, Some(segment))
            }
        };
        let owner = owner.parse().map_err(|_| InvalidStagingKey)?;
        let key = Self { owner, segment };
        (key.to_string() == text)
            .then_some(key)
            .ok_or(InvalidStagingKey)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_written_form_is_a_key() {
        let owner = Uuid::now_v7();
        for key in [
            StagingKey::generate(),
            StagingKey::unsegmented(owner),
            StagingKey::segment(owner, u64::MAX, SegmentWriter::Fence(u64::MAX)),
            StagingKey::segment(owner, 7, SegmentWriter::Attempt(Uuid::now_v7())),
        ] {
            assert_eq!(key.to_string().parse(), Ok(key));
            for other in [
                key.to_string().to_uppercase(),
                format!("{key}."),
                format!("{key}.1"),
                format!("../{key}"),
            ] {
                let found = other.parse::<StagingKey>();
                assert!(found.is_err(), "{other}: {found:?}");
            }
        }
        for other in [
            "",
            "notes.txt",
            &owner.simple().to_string(),
            &format!("{owner}.01.2"),
            &format!("{owner}.1.+2"),
            &format!("{owner}.1.{owner}"),
        ] {
            assert_eq!(
                other.parse::<StagingKey>(),
                Err(InvalidStagingKey),
                "{other}"
            );
        }
    }
}
