//! `Range` (RFC 9110, section 14): one byte range. Requests for several ranges get the whole representation, as the RFC
//! allows.

use std::ops::Range;

/// The requested part of a representation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RequestedRange {
    /// All of it: there is no range, or none that is supported.
    Whole,
    /// These bytes.
    Part(Range<u64>),
    /// Bytes beyond the end.
    Unsatisfiable,
}

/// Reads a `Range` header for a representation of `size` bytes.
#[must_use]
pub(super) fn parse(header: Option<&str>, size: u64) -> RequestedRange {
    let Some(spec) = header.and_then(|text| {
        let (unit, spec) = text.split_once('=')?;
        unit.trim()
            .eq_ignore_ascii_case("bytes")
            .then(|| spec.trim())
    }) else {
        return RequestedRange::Whole;
    };
    if spec.contains(',') {
        return RequestedRange::Whole;
    }
    let Some((first, last)) = spec.split_once('-') else {
        return RequestedRange::Whole;
    };
    match (number(first), number(last)) {
        (Number::Is(first), Number::Is(last)) if first > last => RequestedRange::Whole,
        (Number::Is(first), _) if first >= size => RequestedRange::Unsatisfiable,
        (Number::Is(first), Number::Is(last)) => {
            RequestedRange::Part(first..last.saturating_add(1).min(size))
        }
        (Number::Is(first), Number::Missing) => RequestedRange::Part(first..size),
        (Number::Missing, Number::Is(0)) => RequestedRange::Unsatisfiable,
        (Number::Missing, Number::Is(_)) if size == 0 => RequestedRange::Unsatisfiable,
        (Number::Missing, Number::Is(length)) => {
            RequestedRange::Part(size.saturating_sub(length)..size)
        }
        _ => RequestedRange::Whole,
    }
}

enum Number {
    Missing,
    Is(u64),
    Wrong,
}

fn number(text: &str) -> Number {
    let text = text.trim();
    if text.is_empty() {
        return Number::Missing;
    }
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Number::Wrong;
    }
    // Larger than any file.
    Number::Is(text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_rfc_9110_has_them() {
        let cases = [
            ("bytes=0-0", RequestedRange::Part(0..1)),
            ("bytes=2-4", RequestedRange::Part(2..5)),
            ("Bytes=5-", RequestedRange::Part(5..10)),
            ("bytes=5-99", RequestedRange::Part(5..10)),
            ("bytes=-3", RequestedRange::Part(7..10)),
            ("bytes=-99", RequestedRange::Part(0..10)),
            (
                "bytes=9-99999999999999999999999",
                RequestedRange::Part(9..10),
            ),
            ("bytes=10-", RequestedRange::Unsatisfiable),
            ("bytes=-0", RequestedRange::Unsatisfiable),
            ("bytes=4-2", RequestedRange::Whole),
            ("bytes=0-1,3-4", RequestedRange::Whole),
            ("bytes=x-4", RequestedRange::Whole),
            ("bytes=-", RequestedRange::Whole),
            ("bytes", RequestedRange::Whole),
            ("lines=0-1", RequestedRange::Whole),
        ];
        for (header, wanted) in cases {
            assert_eq!(parse(Some(header), 10), wanted, "{header}");
        }
        assert_eq!(parse(None, 10), RequestedRange::Whole);
    }
}
