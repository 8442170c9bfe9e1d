//! Detects the type of a file from its first bytes.
//!
//! Signatures are those of `file-format`. Short ones are verified more closely, and signatures of printable ASCII are
//! ignored where everything else is text: a `BM` or `<p` is then just how the text begins.

use file_format::FileFormat;

/// How many bytes of a file are inspected: signatures are within the first 512, except those of office documents, which
/// are recognized by the names of the first entries of their archive.
pub const MAX_HEAD_LEN: u64 = 8 * 1024;

/// What the first bytes show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Evidence {
    /// A binary format with a unique signature.
    Binary(String),
    /// A binary format with so short a signature that it may be a coincidence.
    Weak(String),
    /// Text, and the text format it starts with, if recognized.
    Text(Option<&'static str>),
    Nothing,
}

/// Types with signatures of one or two bytes, or in places where any format may have these bytes.
const WEAK: [&str; 29] = [
    "application/x-apple-diskimage",
    "application/x-coff",
    "application/x-commodore-64-program",
    "application/x-compress",
    "application/x-cpio",
    "application/x-id3v2",
    "application/x-fit",
    "application/x-lzma",
    "application/x-mswrite",
    "application/x-sbx",
    "application/x-x509-ca-cert",
    "application/vnd.iccprofile",
    "application/pgp",
    "application/pgp-keys",
    "application/pgp-signature",
    "audio/aac",
    "audio/ac3",
    "audio/mpeg",
    "audio/x-mod",
    "image/jxl",
    "image/x-pcx",
    "image/x-sgi",
    "image/vnd.microsoft.icon",
    "image/x-win-bitmap",
    "model/x-3ds",
    "application/x-3ds",
    "video/mp2t",
    "video/x-flc",
    "video/x-fli",
];

/// Detects the type from the first bytes.
#[must_use]
pub(super) fn evidence(head: &[u8]) -> Evidence {
    if head.is_empty() {
        return Evidence::Nothing;
    }
    if is_text(head) {
        return Evidence::Text(beginning(head));
    }
    if let Some(found) = examined(head) {
        return found;
    }
    let format = FileFormat::from_bytes(head);
    let found = format.media_type();
    let is_of_text = [
        "text/",
        "application/x-maya-ascii",
        "application/x-pem",
        "application/x-dxf",
    ]
    .iter()
    .any(|begin| found.starts_with(begin))
        || ["+xml", "-ascii"].iter().any(|end| found.ends_with(end));
    let says_nothing = ["application/octet-stream", "application/x-empty"].contains(&found);
    match found {
        _ if is_of_text || says_nothing => Evidence::Nothing,
        _ if WEAK.contains(&found) => Evidence::Weak(found.to_owned()),
        found => Evidence::Binary(found.to_owned()),
    }
}

/// Formats whose signature is short, or that are distinguished by later bytes.
fn examined(head: &[u8]) -> Option<Evidence> {
    let at =
        |from: usize, bytes: &[u8]| head.get(from..).is_some_and(|rest| rest.starts_with(bytes));
    if at(0, b"MZ") || at(0, b"ZM") {
        return Some(match is_dos_header(head) {
            true => Evidence::Binary("application/vnd.microsoft.portable-executable".to_owned()),
            false => Evidence::Nothing,
        });
    }
    if at(0, b"\x1f\x8b") {
        return Some(match at(2, b"\x08") {
            true => Evidence::Binary("application/gzip".to_owned()),
            false => Evidence::Nothing,
        });
    }
    if at(0, b"BZh") && !at(4, b"1AY&SY") && !at(4, b"\x17\x72\x45\x38\x50\x90") {
        return Some(Evidence::Nothing);
    }
    if at(0, b"PK\x03\x04") {
        return Some(Evidence::Binary(zip_based(head)));
    }
    if at(4, b"ftyp") {
        return iso_image(head).map(|found| Evidence::Binary(found.to_owned()));
    }
    None
}

/// Whether the header after the two letters is plausible for a DOS or Windows program.
fn is_dos_header(head: &[u8]) -> bool {
    let word = |at: usize| {
        let bytes = head.get(at..at + 2)?;
        Some(u16::from_le_bytes([bytes[0], bytes[1]]))
    };
    let (Some(last), Some(pages), Some(paragraphs)) = (word(2), word(4), word(8)) else {
        // Too short to be executable, but it cannot be anything else.
        return true;
    };
    last < 512 && pages > 0 && (1..=0x1000).contains(&paragraphs)
}

/// Returns the type of a ZIP archive by the names of its first entries.
fn zip_based(head: &[u8]) -> String {
    let format = FileFormat::from_bytes(head);
    let found = format.media_type();
    if found != "application/zip" && found != "application/octet-stream" {
        return found.to_owned();
    }
    let mut packaged = false;
    for at in (0..head.len().saturating_sub(30)).filter(|at| head[*at..].starts_with(b"PK\x03\x04"))
    {
        let length = usize::from(u16::from_le_bytes([head[at + 26], head[at + 27]]));
        let name = head.get(at + 30..at + 30 + length).unwrap_or_default();
        for (begin, media_type) in [
            (
                "word/",
                "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
            ),
            (
                "xl/",
                "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
            ),
            (
                "ppt/",
                "application/vnd.openxmlformats-officedocument.presentationml.presentation",
            ),
            (
                "AndroidManifest.xml",
                "application/vnd.android.package-archive",
            ),
            ("META-INF/MANIFEST.MF", "application/java-archive"),
        ] {
            if name.starts_with(begin.as_bytes()) {
                return media_type.to_owned();
            }
        }
        packaged |= name == b"[Content_Types].xml";
    }
    if packaged { PACKAGE } else { "application/zip" }.to_owned()
}

/// A package by the Open Packaging Conventions (ECMA-376, part 2) whose first bytes do not show its type.
pub(super) const PACKAGE: &str = "application/vnd.openxmlformats-package";

/// Returns which still image format an ISO base media file is, by its brands (ISO/IEC 14496-12, section 4.3; 23008-12,
/// section 10).
fn iso_image(head: &[u8]) -> Option<&'static str> {
    let length = u32::from_be_bytes(head.get(..4)?.try_into().ok()?);
    let end = usize::try_from(length).unwrap_or(0).clamp(16, 512);
    let brands = head.get(8..end.min(head.len()))?.chunks_exact(4);
    let mut found = None;
    for (at, brand) in brands.enumerate() {
        // The second word is the version of the major brand.
        match brand {
            _ if at == 1 => {}
            b"avif" | b"avis" => return Some("image/avif"),
            b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" | b"hevm" | b"hevs" => {
                return Some("image/heic");
            }
            b"mif1" | b"msf1" | b"mif2" => found = Some("image/heif"),
            _ => {}
        }
    }
    found
}

/// Whether this is text in an ASCII-compatible encoding, or UTF-16 with a byte order mark.
fn is_text(head: &[u8]) -> bool {
    if head.starts_with(&[0xff, 0xfe]) || head.starts_with(&[0xfe, 0xff]) {
        let big = head[0] == 0xfe;
        let units = head[2..].chunks_exact(2).map(|pair| match big {
            true => u16::from_be_bytes([pair[0], pair[1]]),
            false => u16::from_le_bytes([pair[0], pair[1]]),
        });
        let mut chars = char::decode_utf16(units);
        return head.len() > 3
            && chars.all(|c| c.is_ok_and(|c| !c.is_control() || "\t\n\r\u{c}".contains(c)));
    }
    // Some old editors end text with it.
    let head = head.strip_suffix(&[0x1a]).unwrap_or(head);
    let odd = |byte: &u8| *byte < 0x20 && !matches!(byte, 0x08..=0x0d | 0x1b);
    if head.iter().any(odd) {
        return false;
    }
    match std::str::from_utf8(head) {
        Ok(_) => true,
        // Cut within a character, or in an older encoding: then the valid part decides.
        Err(error) => {
            let valid = error.valid_up_to();
            let is_cut = error.error_len().is_none() && valid > 0;
            is_cut || head.iter().take(2).all(u8::is_ascii)
        }
    }
}

/// Returns the text format that the text starts with.
fn beginning(head: &[u8]) -> Option<&'static str> {
    let text = String::from_utf8_lossy(head);
    let text = text.trim_start_matches('\u{feff}');
    if let Some(line) = text.strip_prefix("#!") {
        return interpreter(line.lines().next().unwrap_or_default());
    }
    for (begin, found) in [
        ("%PDF-", "application/pdf"),
        ("%!PS", "application/postscript"),
        ("{\\rtf", "application/rtf"),
        ("BEGIN:VCARD", "text/vcard"),
        ("BEGIN:VCALENDAR", "text/calendar"),
        ("WEBVTT", "text/vtt"),
    ] {
        if text.starts_with(begin) {
            return Some(found);
        }
    }
    markup(text)
}

/// Returns the interpreter of a script.
fn interpreter(line: &str) -> Option<&'static str> {
    let mut words = line.split_ascii_whitespace();
    let program = words.next()?.rsplit('/').next()?;
    let program = match program {
        "env" => words.find(|word| !word.starts_with('-') && !word.contains('='))?,
        program => program,
    };
    let program = program.rsplit('/').next()?;
    let name = program.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    Some(match name {
        "sh" | "bash" | "dash" | "zsh" | "ksh" | "ash" | "csh" | "tcsh" | "fish" => {
            "text/x-shellscript"
        }
        "python" | "pypy" => "text/x-python",
        "perl" => "text/x-perl",
        "ruby" => "text/x-ruby",
        "node" | "deno" | "bun" => "text/javascript",
        "php" => "application/x-httpd-php",
        _ => return None,
    })
}

/// Returns the type of a document by its first element, after declarations and comments.
fn markup(text: &str) -> Option<&'static str> {
    let mut rest = text.trim_start();
    let mut declared = false;
    loop {
        let lower: String = rest.chars().take(14).flat_map(char::to_lowercase).collect();
        let end = match lower.as_str() {
            begin if begin.starts_with("<?xml") => {
                declared = true;
                "?>"
            }
            begin if begin.starts_with("<!--") => "-->",
            begin if begin.starts_with("<!doctype html") => return Some("text/html"),
            begin if begin.starts_with("<!doctype") => ">",
            begin if begin.starts_with("<html") => return Some("text/html"),
            begin if begin.starts_with("<svg") => return Some("image/svg+xml"),
            _ => return declared.then_some("text/xml"),
        };
        let Some((_, after)) = rest.split_once(end) else {
            return declared.then_some("text/xml");
        };
        rest = after.trim_start();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_no_signature_where_the_rest_is_text() {
        for text in [
            "BMI,age\n22,40\n",
            "MZ,RT\n1,2\n",
            "GIF is pronounced so\n",
            "ID3 tags are\n",
            "%! is how it begins",
            "<p align=\"center\">Landfall</p>",
            "PK",
            "OggS and others",
            "Gr\u{fc}\u{df}e",
        ] {
            assert_eq!(evidence(text.as_bytes()), Evidence::Text(None), "{text}");
        }
        let latin1 = b"BM;Gr\xfc\xdfe\r\n1;2\r\n\x1a";
        assert_eq!(evidence(latin1), Evidence::Text(None));
        let utf16: Vec<u8> = [0xfeff]
            .into_iter()
            .chain("MZ;a\n".encode_utf16())
            .flat_map(u16::to_le_bytes)
            .collect();
        assert_eq!(evidence(&utf16), Evidence::Text(None));
        let cut = &"ж".repeat(5).into_bytes()[..9];
        assert_eq!(evidence(cut), Evidence::Text(None));
    }

    #[test]
    fn texts_say_what_they_begin_as() {
        for (text, found) in [
            ("<!-- made by hand -->\n<svg xmlns='x'/>", "image/svg+xml"),
            (
                "<?xml version='1.0'?>\n<!DOCTYPE svg PUBLIC 'a'>\n<svg/>",
                "image/svg+xml",
            ),
            ("\u{feff}<!DOCTYPE HTML>", "text/html"),
            ("<?xml version='1.0'?><kml/>", "text/xml"),
            ("#!/bin/sh\n", "text/x-shellscript"),
            ("#!/usr/bin/env -S python3.12 -u\n", "text/x-python"),
            ("%PDF-1.4\n%comment\n", "application/pdf"),
        ] {
            assert_eq!(
                evidence(text.as_bytes()),
                Evidence::Text(Some(found)),
                "{text}"
            );
        }
    }

    #[test]
    fn short_signatures_are_looked_at_closely() {
        let windows = b"MZ\x90\0\x03\0\0\0\x04\0\0\0\xff\xff\0\0";
        let program = "application/vnd.microsoft.portable-executable";
        assert_eq!(evidence(windows), Evidence::Binary(program.to_owned()));
        for chance in [
            &b"MZ\xff\xff\0\0\0\0\0\0\0\0"[..],
            b"\x1f\x8b\x01\0\0\0",
            b"BZh9\0\0\0\0\0\0",
            b"BM\0\x01\x02\x03",
        ] {
            assert_eq!(evidence(chance), Evidence::Nothing, "{chance:?}");
        }
        assert!(matches!(
            evidence(b"\x78\x01\0\0\0\0"),
            Evidence::Weak(_) | Evidence::Nothing
        ));
        assert_eq!(evidence(b""), Evidence::Nothing);
    }
}
