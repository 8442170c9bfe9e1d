//! What the first bytes of a file show it to be.

use super::UNKNOWN;

/// How many of a file's first bytes are looked at: signatures lie within the first 512 but for those of office
/// documents, which the names of the first entries of their archive give away.
pub const HEAD: u64 = 8 * 1024;

/// The media type whose signature these first bytes have; none when they have no known one.
#[must_use]
pub fn sniff(head: &[u8]) -> Option<&'static str> {
    infer::get(head)
        .map(|kind| kind.mime_type())
        .filter(|found| *found != UNKNOWN)
}

#[cfg(test)]
mod tests {
    use super::sniff;

    #[test]
    fn signatures_are_known_and_text_has_none() {
        assert_eq!(sniff(b"\x89PNG\r\n\x1a\n0000"), Some("image/png"));
        assert_eq!(sniff(b"%PDF-1.7\n"), Some("application/pdf"));
        assert_eq!(sniff(b"#!/bin/sh\n"), Some("text/x-shellscript"));
        let windows = sniff(b"MZ\x90\0\x03\0\0\0");
        assert_eq!(
            windows,
            Some("application/vnd.microsoft.portable-executable")
        );
        assert_eq!(sniff(b"a,b\n1,2\n"), None);
        assert_eq!(sniff(b""), None);
    }
}
