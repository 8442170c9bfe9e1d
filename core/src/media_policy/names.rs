//! Names of media types: one canonical name for each format, and types by file extension.

use super::aliases;

/// The type that clients declare when they do not know it.
pub const UNKNOWN: &str = "application/octet-stream";

/// Other types that clients declare then.
const TREATED_AS_UNKNOWN: [&str; 10] = [
    "",
    "application/binary",
    "application/download",
    "application/force-download",
    "application/unknown",
    "application/x-download",
    "application/x-unknown",
    "application/x-www-form-urlencoded",
    "binary/octet-stream",
    "unknown/unknown",
];

/// The type without parameters, in lower case.
pub(super) fn essence(content_type: &str) -> String {
    let essence = content_type.split(';').next().unwrap_or_default();
    essence.trim().to_ascii_lowercase()
}

/// Whether the type means that the client does not know it.
pub(super) fn is_unknown(content_type: &str) -> bool {
    let essence = essence(content_type);
    essence == UNKNOWN || TREATED_AS_UNKNOWN.contains(&essence.as_str())
}

/// The canonical name of a type.
pub(super) fn canonical(content_type: &str) -> String {
    let essence = essence(content_type);
    let known = aliases::all().find(|(_, others)| others.contains(&essence.as_str()));
    known.map_or(essence, |(name, _)| (*name).to_owned())
}

/// The type suggested by the file's name.
pub(super) fn by_name(name: &str) -> Option<&'static str> {
    // Windows ignores dots and spaces at the end of a name.
    let name = name.trim_end_matches(['.', ' ']);
    let (_, extension) = name.rsplit_once('.')?;
    match extension.to_ascii_lowercase().as_str() {
        // Source code is uploaded more often than other files with these extensions.
        "ts" | "tsx" => Some("text/x-typescript"),
        "md" | "markdown" => Some("text/markdown"),
        "py" => Some("text/x-python"),
        "rs" => Some("text/x-rust"),
        "dng" => Some("image/x-adobe-dng"),
        "heic" | "heics" => Some("image/heic"),
        "heif" | "heifs" => Some("image/heif"),
        "avif" => Some("image/avif"),
        "jxl" => Some("image/jxl"),
        "parquet" => Some("application/vnd.apache.parquet"),
        "woff2" => Some("font/woff2"),
        "3mf" => Some("model/3mf"),
        "usdz" => Some("model/vnd.usdz+zip"),
        "sqlite" | "sqlite3" | "db3" => Some("application/vnd.sqlite3"),
        other => mime_guess::from_ext(other)
            .first_raw()
            .filter(|found| *found != UNKNOWN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_name_stands_for_one_format() {
        let mut seen = HashSet::new();
        for (name, others) in aliases::all() {
            for each in others.iter().chain([name]) {
                assert!(seen.insert(*each), "{each} is there twice");
                assert_eq!(canonical(each), *name);
            }
        }
        assert_eq!(canonical("Image/HEIC; x=y"), canonical("image/heif"));
        assert_eq!(
            canonical("application/x-of-my-own"),
            "application/x-of-my-own"
        );
    }

    #[test]
    fn names_tell_types_by_their_end() {
        for (name, found) in [
            ("bmi.csv", Some("text/csv")),
            ("A.PNG", Some("image/png")),
            ("README", None),
            ("a.tar.gz", Some("application/gzip")),
            ("x.exe. .", by_name("x.exe")),
            ("main.ts", Some("text/x-typescript")),
            ("a.of-nobody", None),
        ] {
            assert_eq!(by_name(name), found, "{name}");
        }
    }
}
