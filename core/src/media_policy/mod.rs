//! Which media types are allowed: the configured lists are checked against the declared type before the first byte, and
//! against the first bytes while they are received.
//!
//! Only strong evidence contradicts a declared type: a signature that no other format has, of a format that is not a
//! container of the declared one. Text has no signature, so a declared type is accepted for it. Without a declared
//! type, the bytes decide, and then the file name.

mod agreement;
mod aliases;
mod content_guard;
mod names;
mod sniff;

use crate::config::UploadsConfig;
use agreement::{ALWAYS_SIGNED, agrees, is_package};
pub use content_guard::{ContentGuard, DeclaredContent};
pub use names::UNKNOWN;
use names::{by_name, canonical, essence, is_unknown};
pub use sniff::MAX_HEAD_LEN;
use sniff::{Evidence, PACKAGE, evidence};

/// Why a file is not allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MediaPolicyError {
    #[error("files of the type `{0}` are not allowed")]
    Type(String),
    #[error("files whose names end with `.{0}` are not allowed")]
    Extension(String),
    #[error("only files whose names end with one of {0} are allowed")]
    OtherExtension(String),
    #[error(
        "the file is declared as `{declared}`, but its content is `{found}`, which is not allowed"
    )]
    Bytes { declared: String, found: String },
    #[error("the file is declared as `{0}`, but its content is not such an image")]
    NoImage(String),
}

/// How much of a file's beginning is available.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadExtent {
    /// More bytes may follow and change the result.
    Part,
    /// [`MAX_HEAD_LEN`] bytes, or all there are.
    All,
}

/// Checks a name and declared type against the lists before the first byte is received. If no type is declared, it is
/// later detected from the bytes.
///
/// # Errors
/// [`MediaPolicyError`], which says what is not allowed.
pub fn require_declared(
    lists: &UploadsConfig,
    name: &str,
    content_type: &str,
) -> Result<(), MediaPolicyError> {
    // Windows ignores dots and spaces at the end of a name, so `x.exe.` counts as `x.exe`.
    let name = name.trim_end_matches(['.', ' ']).to_lowercase();
    let ends_with = |extension: &str| {
        name.strip_suffix(extension)
            .is_some_and(|stem| stem.ends_with('.'))
    };
    if let Some(denied) = lists.denied_extensions.iter().find(|one| ends_with(one)) {
        return Err(MediaPolicyError::Extension(denied.clone()));
    }
    if !lists.allowed_extensions.is_empty()
        && !lists.allowed_extensions.iter().any(|one| ends_with(one))
    {
        let allowed = lists.allowed_extensions.join(", ");
        return Err(MediaPolicyError::OtherExtension(allowed));
    }
    if is_unknown(content_type) || is_accepted(lists, content_type) {
        Ok(())
    } else {
        Err(MediaPolicyError::Type(content_type.to_owned()))
    }
}

/// Whether the bytes must be inspected to decide if a file is allowed.
#[must_use]
pub fn needs_bytes(lists: &UploadsConfig) -> bool {
    !lists.allowed_types.is_empty() || !lists.denied_types.is_empty()
}

/// Checks the first bytes against the lists, and returns the type of the file: the declared type or, if none was
/// declared, the one detected from its bytes and name.
///
/// # Errors
/// [`MediaPolicyError::Bytes`] for bytes of a denied type, or of a type that is neither allowed nor compatible with the
/// declared one; [`MediaPolicyError::NoImage`] when the lists allow an image type and the bytes are not the declared
/// image; [`MediaPolicyError::Type`] when no type was declared and the detected one is not allowed.
pub fn judge(
    lists: &UploadsConfig,
    name: &str,
    declared: &str,
    head: &[u8],
    known: HeadExtent,
) -> Result<String, MediaPolicyError> {
    let shown = match evidence(head) {
        // The remaining bytes may show which format the archive is.
        Evidence::Binary(found) if known == HeadExtent::Part && is_package(&found) => {
            Evidence::Nothing
        }
        shown => shown,
    };
    refuse_denied(lists, name, declared, &shown)?;
    if is_unknown(declared) {
        let found = undeclared(name, &shown).unwrap_or(UNKNOWN.to_owned());
        // With more bytes, an allowed type may still be detected.
        return match known == HeadExtent::Part || is_accepted(lists, &found) {
            true => Ok(found),
            false => Err(MediaPolicyError::Type(found)),
        };
    }
    if lists.allowed_types.is_empty() {
        return Ok(declared.to_owned());
    }
    match shown {
        Evidence::Binary(found) if !is_allowed(lists, &found) && !agrees(declared, &found) => {
            Err(MediaPolicyError::Bytes {
                declared: declared.to_owned(),
                found,
            })
        }
        Evidence::Binary(_) => Ok(declared.to_owned()),
        _ if known == HeadExtent::All && ALWAYS_SIGNED.contains(&canonical(declared).as_str()) => {
            Err(MediaPolicyError::NoImage(declared.to_owned()))
        }
        _ => Ok(declared.to_owned()),
    }
}

/// Whether the client declared no type.
#[must_use]
pub fn is_undeclared(declared: &str) -> bool {
    is_unknown(declared)
}

/// Returns the type of a file: the declared one, or the one detected from its first bytes and name.
#[must_use]
pub fn detect_type(name: &str, declared: &str, head: &[u8]) -> String {
    match is_unknown(declared) {
        true => undeclared(name, &evidence(head)).unwrap_or(UNKNOWN.to_owned()),
        false => declared.to_owned(),
    }
}

/// Rejects content that is detected as a denied type, whatever was declared.
fn refuse_denied(
    lists: &UploadsConfig,
    name: &str,
    declared: &str,
    shown: &Evidence,
) -> Result<(), MediaPolicyError> {
    let found = match shown {
        Evidence::Binary(found) => found.as_str(),
        // A script or a document: its beginning alone identifies it.
        Evidence::Text(Some(found)) => found,
        _ => return Ok(()),
    };
    let is_named = |entry: &String| covers(entry, found);
    if !lists.denied_types.iter().any(is_named) {
        return Ok(());
    }
    let said = match is_unknown(declared) {
        true => by_name(name).unwrap_or(UNKNOWN),
        false => declared,
    };
    Err(MediaPolicyError::Bytes {
        declared: said.to_owned(),
        found: found.to_owned(),
    })
}

/// Containers whose first bytes do not show what they contain.
const GENERIC: [&str; 7] = [
    "image/tiff",
    "image/heif",
    "application/mp4",
    "application/ogg",
    "application/x-matroska",
    "application/x-ebml",
    "application/vnd.ms-asf",
];

/// Detects the type of a file without a declared one: from its bytes, then its name; the name takes precedence where
/// the bytes are text, or a container of the type that the name suggests.
fn undeclared(name: &str, shown: &Evidence) -> Option<String> {
    let named = by_name(name);
    let found = match shown {
        Evidence::Binary(found) => {
            let is_built_on = |named: &&str| match found.as_str() {
                PACKAGE | "application/zip" | "application/x-cfb" => is_package(named),
                "application/gzip" => canonical(named) == *found,
                found => GENERIC.contains(&found) && agrees(named, found),
            };
            let found = match found.as_str() {
                PACKAGE => "application/zip",
                "application/mp4" => "video/mp4",
                "application/ogg" => "audio/ogg",
                "application/x-matroska" | "application/x-ebml" => "video/x-matroska",
                "application/vnd.ms-asf" => "video/x-ms-asf",
                found => found,
            };
            named.filter(is_built_on).or(Some(found))
        }
        Evidence::Text(found) => named.filter(|named| may_be_text(named)).or(*found),
        Evidence::Weak(found) => named.or(Some(found)),
        Evidence::Nothing => {
            named.filter(|named| !ALWAYS_SIGNED.contains(&canonical(named).as_str()))
        }
    };
    found.map(str::to_owned)
}

/// Returns false for types that are never text.
fn may_be_text(named: &str) -> bool {
    let kind = named.split('/').next().unwrap_or_default();
    let of_pictures = matches!(kind, "image" | "audio" | "video" | "font");
    let is_binary = is_package(named) && canonical(named) != "application/vnd.ms-excel";
    let is_drawn = matches!(
        canonical(named).as_str(),
        "image/svg+xml" | "audio/x-mpegurl" | "audio/x-scpls"
    ) || named.starts_with("image/x-portable-")
        || named.starts_with("image/x-x");
    is_drawn || !(of_pictures || is_binary)
}

fn is_allowed(lists: &UploadsConfig, content_type: &str) -> bool {
    let mut entries = lists.allowed_types.iter();
    lists.allowed_types.is_empty() || entries.any(|entry| covers(entry, content_type))
}

fn is_accepted(lists: &UploadsConfig, content_type: &str) -> bool {
    let is_denied = lists
        .denied_types
        .iter()
        .any(|entry| covers(entry, content_type));
    !is_denied && is_allowed(lists, content_type)
}

/// Whether this is a list entry: a type, `type/*` or `*/*` (RFC 9110, section 8.3.1).
#[must_use]
pub fn is_type_pattern(entry: &str) -> bool {
    let is_token = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&byte))
    };
    match entry.split_once('/') {
        Some(("*", "*")) => true,
        Some((kind, subtype)) => is_token(kind) && (subtype == "*" || is_token(subtype)),
        None => false,
    }
}

/// Restricts the allowed types to those that `allowed` covers as well; an empty list restricts nothing.
pub fn restrict_types(lists: &mut UploadsConfig, allowed: &[String]) {
    if allowed.is_empty() {
        return;
    }
    if lists.allowed_types.is_empty() {
        lists.allowed_types = allowed.to_vec();
        return;
    }
    // Of two entries, one of which covers the other, the narrower one remains.
    let mut both: Vec<String> = Vec::new();
    for own in &lists.allowed_types {
        for other in allowed {
            if covers(own, other) {
                both.push(other.clone());
            } else if covers(other, own) {
                both.push(own.clone());
            }
        }
    }
    if both.is_empty() {
        // An empty list would allow everything.
        lists.denied_types.push("*/*".to_owned());
    } else {
        lists.allowed_types = both;
    }
}

/// Whether a list entry, a type or `type/*`, covers this type.
fn covers(entry: &str, content_type: &str) -> bool {
    let entry = entry.trim().to_ascii_lowercase();
    let is_of = |name: &str, kind: &str| name.split_once('/').is_some_and(|(own, _)| own == kind);
    match entry.strip_suffix("/*") {
        Some("*") => true,
        Some(kind) => is_of(&essence(content_type), kind) || is_of(&canonical(content_type), kind),
        None => canonical(&entry) == canonical(content_type),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, ConfigSources};

    pub(super) fn lists(change: impl FnOnce(&mut UploadsConfig)) -> UploadsConfig {
        let mut lists = Config::load(ConfigSources {
            file: None,
            environment: Vec::new(),
        })
        .expect("the defaults are allowed")
        .uploads;
        change(&mut lists);
        lists
    }

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn types_are_taken_whole_or_by_family() {
        let lists = lists(|lists| lists.allowed_types = words(&["image/*", "application/pdf"]));
        let taken = |kind: &str| require_declared(&lists, "a", kind).is_ok();
        assert!(taken("image/png"));
        assert!(taken("Application/PDF; version=2"));
        assert!(!taken("imagery/png"));
        assert!(!taken("text/plain"));
        assert!(!taken("image"));
    }

    #[test]
    fn denied_types_and_extensions_win() {
        let lists = lists(|lists| {
            lists.allowed_types = words(&["*/*"]);
            lists.denied_types = words(&["application/x-msdownload", "text/*"]);
            lists.denied_extensions = words(&["exe", "tar.gz"]);
        });
        let taken = |name: &str, kind: &str| require_declared(&lists, name, kind);
        assert!(taken("a.png", "image/png").is_ok());
        assert!(taken("exe", "image/png").is_ok());
        assert!(taken("a.gz", "application/gzip").is_ok());
        for name in ["a.exe", "a.ExE", "a.exe. .", "b.tar.gz"] {
            assert!(
                matches!(
                    taken(name, "image/png"),
                    Err(MediaPolicyError::Extension(_))
                ),
                "{name}"
            );
        }
        let other_word = "application/vnd.microsoft.portable-executable";
        for kind in ["text/html; charset=utf-8", other_word] {
            assert!(
                matches!(taken("a", kind), Err(MediaPolicyError::Type(_))),
                "{kind}"
            );
        }
    }

    #[test]
    fn allowed_extensions_are_the_only_ones() {
        let lists = lists(|lists| lists.allowed_extensions = words(&["jpg", "png"]));
        assert!(require_declared(&lists, "A.JPG", UNKNOWN).is_ok());
        for name in ["jpg", "a.gif", "a.jpg.exe", "ajpg"] {
            let refused = require_declared(&lists, name, UNKNOWN);
            assert!(
                matches!(refused, Err(MediaPolicyError::OtherExtension(_))),
                "{name}"
            );
        }
    }

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
    const ZIP: &[u8] = b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x05\0\0\0a.txt";
    const PROGRAM: &[u8] = b"MZ\x90\0\x03\0\0\0\x04\0\0\0\xff\xff\0\0";

    #[test]
    fn bytes_speak_where_nothing_was_said_and_then_the_name() {
        let all = lists(|_| {});
        let of = |name: &str, declared: &str, head: &[u8]| {
            judge(&all, name, declared, head, HeadExtent::All).expect("all is taken in")
        };
        assert_eq!(of("a", UNKNOWN, PNG), "image/png");
        assert_eq!(of("a.gif", "", PNG), "image/png");
        assert_eq!(of("a", UNKNOWN, b"words"), UNKNOWN);
        assert_eq!(of("bmi.csv", UNKNOWN, b"BMI,age\n22,40\n"), "text/csv");
        assert_eq!(of("photo.png", UNKNOWN, b"words"), UNKNOWN);
        assert_eq!(of("a.svg", UNKNOWN, b"<!-- a --><svg/>"), "image/svg+xml");
        assert_eq!(of("a", UNKNOWN, b"<!-- a --><svg/>"), "image/svg+xml");
        assert_eq!(
            of("README.md", "binary/octet-stream", b"<p align='a'>"),
            "text/markdown"
        );
        assert_eq!(
            of("a.odt", UNKNOWN, ZIP),
            "application/vnd.oasis.opendocument.text"
        );
        assert_eq!(of("a.txt", UNKNOWN, ZIP), "application/zip");
        assert_eq!(of("a.png", "image/jpeg", PNG), "image/jpeg");
    }

    #[test]
    fn undeclared_files_are_taken_in_when_what_they_are_is_on_the_list() {
        let images = lists(|lists| lists.allowed_types = words(&["image/*"]));
        assert!(require_declared(&images, "a", UNKNOWN).is_ok());
        assert_eq!(
            judge(&images, "a", UNKNOWN, PNG, HeadExtent::All).as_deref(),
            Ok("image/png")
        );
        for (name, head) in [("a.png", ZIP), ("a.png", &b"words"[..]), ("a.csv", b"a,b")] {
            let refused = judge(&images, name, UNKNOWN, head, HeadExtent::All);
            assert!(
                matches!(refused, Err(MediaPolicyError::Type(_))),
                "{name}: {refused:?}"
            );
        }
    }

    #[test]
    fn bytes_of_another_type_do_not_pass_for_an_allowed_one() {
        let images = lists(|lists| lists.allowed_types = words(&["image/png", "image/jpg"]));
        let judged =
            |declared: &str, head: &[u8]| judge(&images, "a", declared, head, HeadExtent::All);
        assert!(judged("image/jpg", b"\xff\xd8\xff\xe0\0\x10JFIF\0").is_ok());
        for head in [PROGRAM, b"GIF89a\x01\0\x01\0", ZIP] {
            assert!(
                matches!(
                    judged("image/png", head),
                    Err(MediaPolicyError::Bytes { .. })
                ),
                "{head:?}"
            );
        }
        assert!(matches!(
            judged("image/png", b"words"),
            Err(MediaPolicyError::NoImage(_))
        ));
        let part = judge(&images, "a", "image/png", b"\x89PN", HeadExtent::Part);
        assert!(part.is_ok());
        let texts = lists(|lists| lists.allowed_types = words(&["image/svg+xml", "text/*"]));
        let judged =
            |declared: &str, head: &[u8]| judge(&texts, "a", declared, head, HeadExtent::All);
        for (declared, text) in [
            ("image/svg+xml", "<?xml version='1.0'?><svg/>"),
            ("text/csv", "BMI,age\n22,40"),
            ("text/markdown", "<p align='center'>"),
            ("text/x-python", "#!/usr/bin/env python3\n"),
            ("text/plain", "GIF or not"),
        ] {
            assert!(judged(declared, text.as_bytes()).is_ok(), "{declared}");
        }
        assert!(judged("text/csv", ZIP).is_err());
    }

    #[test]
    fn two_lists_allow_what_both_allow() {
        let both = |own: &[&str], other: &[&str], kind: &str| {
            let mut lists = lists(|lists| lists.allowed_types = words(own));
            restrict_types(&mut lists, &words(other));
            require_declared(&lists, "a", kind).is_ok()
        };
        assert!(both(&[], &["image/png"], "image/png"));
        assert!(!both(&[], &["image/png"], "image/gif"));
        assert!(both(&["image/*"], &["image/png"], "image/png"));
        assert!(!both(&["image/*"], &["image/png"], "image/gif"));
        assert!(both(&["image/png"], &["*/*"], "image/png"));
        assert!(!both(&["image/png"], &["image/*"], "image/gif"));
        assert!(!both(&["image/png"], &["text/plain"], "image/png"));
        assert!(!both(&["image/png"], &["text/plain"], "text/plain"));
        assert!(both(&["image/png"], &[], "image/png"));
    }

    #[test]
    fn entries_are_types_or_families() {
        for entry in ["image/png", "image/*", "*/*", "application/vnd.ms-excel"] {
            assert!(is_type_pattern(entry), "{entry}");
        }
        for entry in [
            "",
            "image",
            "image/",
            "/png",
            "*/png",
            "a b/c",
            "image/png; x=y",
            "*",
        ] {
            assert!(!is_type_pattern(entry), "{entry}");
        }
    }

    #[test]
    fn a_deny_list_catches_what_poses_as_something_else() {
        let denied = lists(|lists| {
            lists.denied_types = words(&[
                "application/x-msdownload",
                "text/x-shellscript",
                "text/html",
            ]);
        });
        let judged =
            |declared: &str, head: &[u8]| judge(&denied, "a", declared, head, HeadExtent::All);
        for (declared, head) in [
            ("image/png", PROGRAM),
            (UNKNOWN, PROGRAM),
            ("text/plain", b"#!/bin/bash\nrm x\n"),
            ("text/plain", b"<!-- x --><!doctype html><script>"),
        ] {
            assert!(
                matches!(judged(declared, head), Err(MediaPolicyError::Bytes { .. })),
                "{declared}"
            );
        }
        for (declared, head) in [
            ("text/csv", &b"MZ,RT\n1,2\n"[..]),
            ("text/x-python", b"#!/usr/bin/python3\n"),
            ("text/markdown", b"<p align='center'>"),
            ("image/png", PNG),
        ] {
            assert!(judged(declared, head).is_ok(), "{declared}");
        }
        let office = "application/vnd.openxmlformats-officedocument.wordprocessingml.document";
        let no_zip = lists(|lists| lists.denied_types = words(&["application/zip"]));
        assert!(judge(&no_zip, "a.docx", office, ZIP, HeadExtent::All).is_err());
    }
}
