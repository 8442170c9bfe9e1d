//! Names of stored objects: `uploads/%Y/%m/<safe name>`, and a variant for when that is taken.
//!
//! Rejects every key that could leave its folder, collide with Landfall's own names, or cause problems on a file
//! system.

use chrono::{DateTime, Utc};
use rand::{Rng, RngExt, distr::Alphanumeric};
use std::{fmt, str::FromStr};
use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};

/// Maximum length of a safe name, in bytes of UTF-8: with a suffix it fits the 255 of common file systems.
pub const MAX_NAME_LEN: usize = 100;
/// Maximum length of a key in S3, in bytes of UTF-8.
const MAX_KEY_LEN: usize = 1024;
/// Maximum length of a file or folder name on common file systems, in bytes.
const MAX_COMPONENT_LEN: usize = 255;
/// Maximum length of an extension, in bytes; whatever follows the last dot and is longer does not count as one.
const MAX_EXTENSION_LEN: usize = 16;
/// Number of random characters that distinguish keys of the same name.
const SUFFIX_LEN: usize = 7;
/// Prefix of objects that the audit has moved aside.
const ORPHANED: &str = "orphaned/";
/// The safe name of a file whose name has no permitted character.
const NAMELESS: &str = "file";

/// The name of an object in storage: a relative path of `/`-separated components that never leads out of its root.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StorageKey(String);

/// The text is not a valid key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a storage key: {0}")]
pub struct InvalidStorageKey(&'static str);

impl StorageKey {
    /// The default key of a file: the month of `at` and the safe form of its name.
    #[must_use]
    pub fn for_upload(original_name: &str, at: DateTime<Utc>) -> Self {
        Self(format!(
            "uploads/{}/{}",
            at.format("%Y/%m"),
            safe_name(original_name)
        ))
    }

    /// The same key with `_` and seven random characters before the extension.
    #[must_use]
    pub fn deduplicated(&self, random: &mut impl Rng) -> Self {
        let suffix: String = (0..SUFFIX_LEN)
            .map(|_| char::from(random.sample(Alphanumeric)))
            .collect();
        let (folder, name) = self.0.rsplit_once('/').unwrap_or(("", &self.0));
        let (stem, extension) = split_extension(name);
        let slash = if folder.is_empty() { "" } else { "/" };
        Self(format!("{folder}{slash}{stem}_{suffix}{extension}"))
    }

    /// Whether a text has the form of [`Self::for_upload`]: two numbers and a name below `uploads/`.
    #[must_use]
    pub fn is_for_upload(text: &str) -> bool {
        let is_number = |part: Option<&str>, digits| {
            part.is_some_and(|part| {
                part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit())
            })
        };
        let mut parts = text.split('/');
        parts.next() == Some("uploads")
            && is_number(parts.next(), 4)
            && is_number(parts.next(), 2)
            && parts.next().is_some_and(|name| safe_name(name) == name)
            && parts.next().is_none()
    }

    /// The key that an object without a row is moved to in a folder.
    pub(crate) fn orphaned(&self) -> Self {
        Self(format!("{ORPHANED}{}", self.0))
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StorageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for StorageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl FromStr for StorageKey {
    type Err = InvalidStorageKey;

    /// Accepts any relative path without empty components, components that start with a dot, backslashes or control
    /// characters.
    fn from_str(text: &str) -> Result<Self, InvalidStorageKey> {
        if text.len() > MAX_KEY_LEN {
            return Err(InvalidStorageKey("longer than 1024 bytes"));
        }
        if text.chars().any(|c| c.is_control() || c == '\\') {
            return Err(InvalidStorageKey(
                "it has a control character or a backslash",
            ));
        }
        for component in text.split('/') {
            if component.is_empty() {
                return Err(InvalidStorageKey("a part of it is empty"));
            }
            if component.starts_with('.') {
                return Err(InvalidStorageKey("a part of it begins with a dot"));
            }
            if component.len() > MAX_COMPONENT_LEN {
                return Err(InvalidStorageKey("a part of it is longer than 255 bytes"));
            }
        }
        Ok(Self(text.to_owned()))
    }
}

/// Reduces a client's file name to one that is safe in keys, file systems and headers.
///
/// Keeps what Django's `get_valid_filename` keeps (letters and digits of any script, `_`, `-` and `.`) and also
/// combining marks, without which many scripts lose their vowels. Spaces become `_`. Everything else is removed, as are
/// folders and leading and trailing dots. Names that Windows reserves are prefixed with `_`. The result is in NFC, has
/// 1 to [`MAX_NAME_LEN`] bytes, and keeps its extension when it is shortened.
#[must_use]
pub fn safe_name(original: &str) -> String {
    let base = original.rsplit(['/', '\\']).next().unwrap_or_default();
    let kept: String = base
        .trim()
        .nfc()
        .filter_map(|c| match c {
            '_' | '-' | '.' => Some(c),
            _ if c.is_whitespace() && !c.is_control() => Some('_'),
            _ if c.is_alphanumeric() || is_combining_mark(c) => Some(c),
            _ => None,
        })
        .collect();
    // Removing characters may have joined characters that compose.
    let composed: String = kept.nfc().collect();
    let trimmed = composed
        .trim_start_matches(|c| c == '.' || is_combining_mark(c))
        .trim_end_matches('.');
    let mut name = cut(trimmed);
    if name.is_empty() {
        name.push_str(NAMELESS);
    }
    if is_reserved(&name) {
        name.insert(0, '_');
    }
    name
}

/// Shortens the stem so that the name has at most [`MAX_NAME_LEN`] bytes, leaving one for a `_` prefix.
fn cut(name: &str) -> String {
    let (stem, extension) = split_extension(name);
    let room = MAX_NAME_LEN - 1 - extension.len();
    if stem.len() <= room {
        return name.to_owned();
    }
    let end = stem.floor_char_boundary(room);
    format!("{}{extension}", stem[..end].trim_end_matches('.'))
}

/// Splits before the last dot, if an extension of permitted length follows and the stem is not empty.
fn split_extension(name: &str) -> (&str, &str) {
    match name.rfind('.') {
        Some(dot) if dot > 0 && name.len() - dot <= MAX_EXTENSION_LEN => name.split_at(dot),
        _ => (name, ""),
    }
}

/// Windows device names, which are reserved with any extension.
/// Source: Microsoft, "Naming Files, Paths, and Namespaces".
fn is_reserved(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default();
    let upper = stem.trim_end_matches('_').to_uppercase();
    if matches!(upper.as_str(), "CON" | "PRN" | "AUX" | "NUL") {
        return true;
    }
    let numbered = upper
        .strip_prefix("COM")
        .or_else(|| upper.strip_prefix("LPT"));
    numbered.is_some_and(|rest| {
        let mut rest = rest.chars();
        matches!((rest.next(), rest.next()), (Some(digit), None) if digit.is_ascii_digit() || "¹²³".contains(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeZone;
    use rand::{SeedableRng, rngs::StdRng};

    fn november() -> DateTime<Utc> {
        Utc.with_ymd_and_hms(2026, 11, 5, 1, 2, 3).unwrap()
    }

    #[test]
    fn keys_carry_year_month_and_safe_name() {
        let key = StorageKey::for_upload("My report (final).PDF", november());
        assert_eq!(key.as_str(), "uploads/2026/11/My_report_final.PDF");
    }

    #[test]
    fn deduplicated_keys_get_seven_characters_before_the_extension() {
        let mut random = StdRng::seed_from_u64(1);
        for (name, head, tail) in [
            ("report.pdf", "uploads/2026/11/report_", ".pdf"),
            ("archive.tar.gz", "uploads/2026/11/archive.tar_", ".gz"),
            ("Makefile", "uploads/2026/11/Makefile_", ""),
        ] {
            let key = StorageKey::for_upload(name, november()).deduplicated(&mut random);
            let middle = key
                .as_str()
                .strip_prefix(head)
                .unwrap()
                .strip_suffix(tail)
                .unwrap();
            assert_eq!(middle.len(), 7, "{key}");
            assert!(middle.bytes().all(|b| b.is_ascii_alphanumeric()), "{key}");
        }
    }

    #[test]
    fn only_keys_of_uploads_have_their_form() {
        let mut random = StdRng::seed_from_u64(2);
        let key = StorageKey::for_upload("a b.txt", november());
        for key in [key.clone(), key.deduplicated(&mut random)] {
            assert!(StorageKey::is_for_upload(key.as_str()), "{key}");
        }
        for other in [
            "uploads/backup.tar",
            "uploads/2026/11",
            "uploads/2026/11/a/b",
            "uploads/2026/11/.hidden",
            "staging/2026/11/a",
        ] {
            assert!(!StorageKey::is_for_upload(other), "{other}");
        }
    }

    #[test]
    fn known_names_are_reduced_as_expected() {
        for (original, safe) in [
            ("", "file"),
            ("...", "file"),
            ("/", "file"),
            ("../../etc/passwd", "passwd"),
            ("C:\\fakepath\\a b.txt", "a_b.txt"),
            (".htaccess", "htaccess"),
            ("Übersicht.pdf", "Übersicht.pdf"),
            ("U\u{308}bersicht.pdf", "Übersicht.pdf"),
            ("報告書 2026.docx", "報告書_2026.docx"),
            ("हिन्दी.txt", "हिन्दी.txt"),
            ("a\u{202e}txt.exe", "atxt.exe"),
            ("a\0b\r\nc.txt", "abc.txt"),
            ("nul", "_nul"),
            ("COM1.txt", "_COM1.txt"),
            ("com¹.log", "_com¹.log"),
            ("CONSOLE.txt", "CONSOLE.txt"),
            ("name.", "name"),
            ("💥.png", "png"),
            ("\u{301}a", "a"),
        ] {
            assert_eq!(safe_name(original), safe, "{original:?}");
        }
    }

    #[test]
    fn long_names_keep_their_extension_and_whole_characters() {
        let name = safe_name(&format!("{}.jpeg", "é".repeat(300)));
        assert!(name.len() <= MAX_NAME_LEN && name.len() > MAX_NAME_LEN - 3);
        assert!(name.ends_with("é.jpeg"), "{name}");
        assert!(safe_name(&"x.".repeat(200)).len() <= MAX_NAME_LEN);
    }

    #[test]
    fn any_name_becomes_a_key_and_safe_names_stay_as_they_are() {
        let odd: Vec<char> =
            "aZ9._- /\\:*?\"<>|\0\n\t\u{7f}\u{85}\u{a0}\u{202e}\u{200d}\u{301}\u{94d}éß漢👾٣¹%~&'`"
                .chars()
                .collect();
        let mut random = StdRng::seed_from_u64(20_261_105);
        for _ in 0..20_000 {
            let length = random.random_range(0..180);
            let original: String = (0..length)
                .map(|_| match random.random_range(0..4) {
                    0 => random.random::<char>(),
                    _ => odd[random.random_range(0..odd.len())],
                })
                .collect();
            let name = safe_name(&original);
            assert!(
                !name.is_empty() && name.len() <= MAX_NAME_LEN,
                "{original:?}"
            );
            assert_eq!(safe_name(&name), name, "{original:?}");
            let key = StorageKey::for_upload(&original, november());
            assert_eq!(key.as_str().parse(), Ok(key.clone()), "{original:?}");
            let other = key.deduplicated(&mut random);
            assert_eq!(other.as_str().parse(), Ok(other.clone()), "{original:?}");
        }
    }

    #[test]
    fn texts_that_could_escape_are_no_keys() {
        for text in [
            "", "/", "/a", "a/", "a//b", "..", "a/../b", ".", "a/.b", "a\\b", "a\0", "a\nb",
        ] {
            assert!(text.parse::<StorageKey>().is_err(), "{text:?}");
        }
        assert!("x".repeat(256).parse::<StorageKey>().is_err());
    }
}
