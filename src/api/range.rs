//! `Range` (RFC 9110, section 14): one range of bytes. Several at once are answered with the whole, as a server may.

use std::ops::Range;

/// What of a representation is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of it: there is no range, or none that is understood.
    Whole,
    /// These bytes.
    Part(Range<u64>),
    /// Bytes that are not there.
    Unsatisfiable,
}

/// Reads a `Range` header for a representation of `size` bytes.
#[must_use]
pub(super) fn parse(header: Option<&str>, size: u64) -> Wanted {
    let Some(spec) = header.and_then(|text| {
        let (unit, spec) = text.split_once('=')?;
        unit.trim()
            .eq_ignore_ascii_case("bytes")
            .then(|| spec.trim())
    }) else {
        return Wanted::Whole;
    };
    if spec.contains(',') {
        return Wanted::Whole;
    }
    let Some((first, last)) = spec.split_once('-') else {
        return Wanted::Whole;
    };
    match (number(first), number(last)) {
        (Number::Is(first), Number::Is(last)) if first > last => Wanted::Whole,
        (Number::Is(first), _) if first >= size => Wanted::Unsatisfiable,
        (Number::Is(first), Number::Is(last)) => {
            Wanted::Part(first..last.saturating_add(1).min(size))
        }
        (Number::Is(first), Number::Missing) => Wanted::Part(first..size),
        (Number::Missing, Number::Is(0)) => Wanted::Unsatisfiable,
        (Number::Missing, Number::Is(_)) if size == 0 => Wanted::Unsatisfiable,
        (Number::Missing, Number::Is(length)) => Wanted::Part(size.saturating_sub(length)..size),
        _ => Wanted::Whole,
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
    // Beyond any file.
    Number::Is(text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_rfc_9110_has_them() {
        let cases = [
            ("bytes=0-0", Wanted::Part(0..1)),
            ("bytes=2-4", Wanted::Part(2..5)),
            ("Bytes=5-", Wanted::Part(5..10)),
            ("bytes=5-99", Wanted::Part(5..10)),
            ("bytes=-3", Wanted::Part(7..10)),
            ("bytes=-99", Wanted::Part(0..10)),
            ("bytes=9-99999999999999999999999", Wanted::Part(9..10)),
            ("bytes=10-", Wanted::Unsatisfiable),
            ("bytes=-0", Wanted::Unsatisfiable),
            ("bytes=4-2", Wanted::Whole),
            ("bytes=0-1,3-4", Wanted::Whole),
            ("bytes=x-4", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("bytes", Wanted::Whole),
            ("lines=0-1", Wanted::Whole),
        ];
        for (header, wanted) in cases {
            assert_eq!(parse(Some(header), 10), wanted, "{header}");
        }
        assert_eq!(parse(None, 10), Wanted::Whole);
    }
}
