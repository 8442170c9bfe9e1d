//! How an upload session is divided into parts.

/// Minimum part size, in bytes; the last part of an upload may be smaller.
pub const MIN_PART_SIZE: u64 = 64 * 1024;
/// Maximum part size, in bytes: that of a part on S3.
pub const MAX_PART_SIZE: u64 = 5 * 1024 * 1024 * 1024;
/// Maximum number of parts per upload, as on S3.
pub const MAX_PARTS: u64 = 10_000;

/// Returns the part size for an upload of `total` bytes: the requested size, clamped to the limits, and rounded up to
/// the next multiple of [`MIN_PART_SIZE`] with which [`MAX_PARTS`] parts are enough.
#[must_use]
pub fn chunk_size(total: u64, wanted: u64) -> u64 {
    let needed = total.div_ceil(MAX_PARTS).div_ceil(MIN_PART_SIZE) * MIN_PART_SIZE;
    wanted.clamp(MIN_PART_SIZE, MAX_PART_SIZE).max(needed)
}

/// The range of a part, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PartRange {
    pub(super) offset: u64,
    pub(super) size: u64,
}

/// Returns the range of part `number`, counted from 1, in an upload of `total` bytes; `None` if there is no such part.
pub(super) fn range(total: u64, chunk: u64, number: u32) -> Option<PartRange> {
    let offset = chunk.checked_mul(u64::from(number.checked_sub(1)?))?;
    let size = chunk.min(total.checked_sub(offset)?);
    (size > 0).then_some(PartRange { offset, size })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_size_is_what_was_asked_for_within_the_bounds() {
        assert_eq!(chunk_size(10_000_000, 8 << 20), 8 << 20);
        assert_eq!(chunk_size(10_000_000, 1), MIN_PART_SIZE);
        assert_eq!(chunk_size(10_000_000, u64::MAX), MAX_PART_SIZE);
    }

    #[test]
    fn part_size_grows_until_ten_thousand_parts_are_enough() {
        let total = 50 * 1024 * 1024 * 1024;
        let chunk = chunk_size(total, MIN_PART_SIZE);
        assert!(total.div_ceil(chunk) <= MAX_PARTS);
        assert!(total.div_ceil(chunk - MIN_PART_SIZE) > MAX_PARTS);
    }

    #[test]
    fn parts_lie_side_by_side_and_the_last_takes_the_rest() {
        let of = |number| range(250, 100, number).map(|range| (range.offset, range.size));
        assert_eq!(of(0), None);
        assert_eq!(of(1), Some((0, 100)));
        assert_eq!(of(3), Some((200, 50)));
        assert_eq!(of(4), None);
        assert_eq!(of(u32::MAX), None);
        assert_eq!(range(200, 100, 3), None);
    }
}
