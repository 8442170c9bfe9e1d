//! Names of media types: one canonical name for each format, and types by file extension.

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

/// The canonical name of each format, registered (IANA, "Media Types") if there is one, and its aliases: those of
/// browsers and their engines, of the Windows registry, of `shared-mime-info`, and of earlier registrations.
const ALIASES: &[(&str, &[&str])] = &[
    // Images
    (
        "image/jpeg",
        &[
            "image/jpg",
            "image/pjpeg",
            "image/jfif",
            "image/x-jpeg",
            "image/x-citrix-jpeg",
        ],
    ),
    (
        "image/png",
        &[
            "image/x-png",
            "image/apng",
            "image/vnd.mozilla.apng",
            "image/x-citrix-png",
        ],
    ),
    ("image/gif", &["image/x-gif"]),
    ("image/webp", &["image/x-webp"]),
    (
        "image/bmp",
        &[
            "image/x-bmp",
            "image/x-ms-bmp",
            "image/x-windows-bmp",
            "image/ms-bmp",
        ],
    ),
    (
        "image/tiff",
        &["image/tif", "image/x-tiff", "image/x-tif", "image/tiff-fx"],
    ),
    (
        "image/heif",
        &[
            "image/heic",
            "image/heic-sequence",
            "image/heif-sequence",
            "image/x-heic",
            "image/x-heif",
        ],
    ),
    ("image/avif", &["image/avif-sequence", "image/x-avif"]),
    (
        "image/jp2",
        &[
            "image/jpx",
            "image/jpm",
            "image/jpeg2000",
            "image/jpeg2000-image",
            "image/x-jpeg2000-image",
            "image/x-jp2-codestream",
        ],
    ),
    ("image/jxl", &["image/x-jxl"]),
    (
        "image/vnd.microsoft.icon",
        &[
            "image/x-icon",
            "image/ico",
            "image/icon",
            "image/x-ico",
            "image/x-win-bitmap",
            "application/ico",
        ],
    ),
    (
        "image/vnd.adobe.photoshop",
        &[
            "image/psd",
            "image/x-psd",
            "image/photoshop",
            "image/x-photoshop",
            "application/photoshop",
            "application/psd",
            "application/x-photoshop",
        ],
    ),
    (
        "image/svg+xml",
        &[
            "image/svg",
            "image/svg-xml",
            "image/svg+xml-compressed",
            "application/svg+xml",
        ],
    ),
    (
        "image/vnd.djvu",
        &["image/x-djvu", "image/djvu", "image/vnd.djvu+multipage"],
    ),
    (
        "image/vnd.dwg",
        &[
            "application/acad",
            "application/dwg",
            "application/x-dwg",
            "application/x-acad",
            "application/autocad_dwg",
            "image/x-dwg",
            "drawing/dwg",
        ],
    ),
    ("image/x-adobe-dng", &["image/dng", "image/x-dng"]),
    (
        "image/emf",
        &["image/x-emf", "application/emf", "application/x-emf"],
    ),
    (
        "image/wmf",
        &[
            "image/x-wmf",
            "application/wmf",
            "application/x-wmf",
            "application/x-msmetafile",
        ],
    ),
    ("image/x-icns", &["image/icns", "application/icns"]),
    // Audio and video
    (
        "audio/mpeg",
        &[
            "audio/mp3",
            "audio/x-mp3",
            "audio/x-mpeg",
            "audio/mpeg3",
            "audio/x-mpeg-3",
            "audio/mpg",
            "audio/x-mpg",
            "audio/mpa",
            "application/x-id3v2",
        ],
    ),
    (
        "audio/wav",
        &[
            "audio/x-wav",
            "audio/wave",
            "audio/vnd.wave",
            "audio/x-pn-wav",
        ],
    ),
    ("audio/flac", &["audio/x-flac", "application/flac"]),
    (
        "audio/aac",
        &[
            "audio/x-aac",
            "audio/aacp",
            "audio/vnd.dlna.adts",
            "audio/x-hx-aac-adts",
        ],
    ),
    (
        "audio/mp4",
        &["audio/x-m4a", "audio/m4a", "audio/x-mp4", "audio/mp4a-latm"],
    ),
    (
        "audio/ogg",
        &[
            "audio/opus",
            "audio/vorbis",
            "audio/x-ogg",
            "audio/x-vorbis+ogg",
            "audio/x-opus+ogg",
            "video/ogg",
            "video/x-ogg",
            "application/ogg",
            "application/x-ogg",
        ],
    ),
    (
        "audio/midi",
        &["audio/mid", "audio/x-midi", "application/x-midi"],
    ),
    ("audio/aiff", &["audio/x-aiff", "sound/aiff"]),
    (
        "video/mp4",
        &[
            "video/x-m4v",
            "video/m4v",
            "application/mp4",
            "video/mp4v-es",
        ],
    ),
    (
        "video/x-msvideo",
        &[
            "video/avi",
            "video/msvideo",
            "video/vnd.avi",
            "application/x-troff-msvideo",
        ],
    ),
    (
        "video/matroska",
        &[
            "video/x-matroska",
            "audio/matroska",
            "audio/x-matroska",
            "application/x-matroska",
            "application/x-ebml",
        ],
    ),
    ("video/quicktime", &["video/x-quicktime", "image/mov"]),
    ("video/mpeg", &["video/mpg", "video/x-mpeg", "video/x-mpg"]),
    (
        "video/x-ms-asf",
        &[
            "application/vnd.ms-asf",
            "video/x-ms-wmv",
            "audio/x-ms-wma",
            "video/x-ms-wm",
        ],
    ),
    (
        "video/x-flv",
        &["video/flv", "flv-application/octet-stream"],
    ),
    // Fonts
    (
        "font/ttf",
        &[
            "application/x-font-ttf",
            "application/x-font-truetype",
            "application/x-truetype-font",
            "font/truetype",
            "font/sfnt",
            "application/font-sfnt",
            "application/font-ttf",
        ],
    ),
    (
        "font/otf",
        &[
            "application/x-font-otf",
            "application/x-font-opentype",
            "application/vnd.ms-opentype",
            "font/opentype",
            "application/font-otf",
        ],
    ),
    (
        "font/woff",
        &[
            "application/font-woff",
            "application/x-font-woff",
            "application/x-woff",
        ],
    ),
    (
        "font/woff2",
        &["application/font-woff2", "application/x-font-woff2"],
    ),
    (
        "font/collection",
        &["application/x-font-ttc", "application/font-collection"],
    ),
    // Archives
    (
        "application/zip",
        &[
            "application/x-zip-compressed",
            "application/x-zip",
            "application/zip-compressed",
            "multipart/x-zip",
        ],
    ),
    (
        "application/gzip",
        &[
            "application/x-gzip",
            "application/gzip-compressed",
            "application/gzipped",
            "application/x-gunzip",
            "application/x-gtar-compressed",
            "application/x-tgz",
            "application/x-gtgz",
            "application/x-compressed-tar",
            "application/x-targz",
        ],
    ),
    (
        "application/x-bzip2",
        &[
            "application/bzip2",
            "application/x-bz2",
            "application/x-bzip",
            "application/x-bzip-compressed-tar",
            "application/x-bzip2-compressed-tar",
        ],
    ),
    (
        "application/x-xz",
        &["application/xz", "application/x-xz-compressed-tar"],
    ),
    (
        "application/zstd",
        &["application/x-zstd", "application/x-zstd-compressed-tar"],
    ),
    (
        "application/x-7z-compressed",
        &["application/7z", "application/x-7zip", "application/x-7z"],
    ),
    (
        "application/vnd.rar",
        &[
            "application/x-rar",
            "application/x-rar-compressed",
            "application/rar",
        ],
    ),
    (
        "application/x-tar",
        &[
            "application/tar",
            "application/x-gtar",
            "application/x-ustar",
        ],
    ),
    (
        "application/x-iso9660-image",
        &[
            "application/x-cd-image",
            "application/x-iso-image",
            "application/iso",
        ],
    ),
    // Documents
    (
        "application/pdf",
        &[
            "application/x-pdf",
            "application/acrobat",
            "text/pdf",
            "text/x-pdf",
        ],
    ),
    (
        "application/postscript",
        &[
            "application/ps",
            "application/x-postscript",
            "application/x-ps",
            "application/eps",
            "application/x-eps",
            "image/eps",
            "image/x-eps",
        ],
    ),
    (
        "application/rtf",
        &["text/rtf", "text/richtext", "application/x-rtf"],
    ),
    (
        "application/msword",
        &[
            "application/doc",
            "application/vnd.msword",
            "application/vnd.ms-word",
            "application/winword",
            "application/x-msword",
        ],
    ),
    (
        "application/vnd.ms-excel",
        &[
            "application/msexcel",
            "application/x-msexcel",
            "application/x-excel",
            "application/excel",
            "application/x-dos_ms_excel",
            "application/xls",
        ],
    ),
    (
        "application/vnd.ms-powerpoint",
        &[
            "application/mspowerpoint",
            "application/powerpoint",
            "application/x-mspowerpoint",
        ],
    ),
    ("application/x-cfb", &["application/x-ole-storage"]),
    (
        "application/x-mobipocket-ebook",
        &[
            "application/vnd.amazon.mobi8-ebook",
            "application/vnd.amazon.ebook",
        ],
    ),
    (
        "application/vnd.sqlite3",
        &[
            "application/x-sqlite3",
            "application/sqlite3",
            "application/sqlite",
        ],
    ),
    (
        "application/vnd.apache.parquet",
        &["application/x-parquet", "application/parquet"],
    ),
    // Executables
    (
        "application/vnd.microsoft.portable-executable",
        &[
            "application/x-msdownload",
            "application/x-dosexec",
            "application/x-ms-dos-executable",
            "application/x-msdos-program",
            "application/x-winexe",
            "application/x-ms-ne-executable",
            "application/exe",
            "application/x-exe",
            "application/dos-exe",
            "application/x-msdos-windows",
        ],
    ),
    (
        "application/x-executable",
        &[
            "application/x-elf",
            "application/x-sharedlib",
            "application/x-pie-executable",
            "application/x-object",
            "application/x-coredump",
        ],
    ),
    (
        "application/java-vm",
        &[
            "application/x-java-vm",
            "application/x-java-class",
            "application/java",
            "application/x-java",
        ],
    ),
    (
        "application/java-archive",
        &["application/x-java-archive", "application/x-jar"],
    ),
    ("application/wasm", &["application/x-wasm"]),
    // Text
    ("text/xml", &["application/xml", "application/x-xml"]),
    ("text/html", &["application/xhtml+xml"]),
    (
        "text/javascript",
        &[
            "application/javascript",
            "application/x-javascript",
            "application/ecmascript",
            "text/ecmascript",
        ],
    ),
    (
        "text/x-shellscript",
        &[
            "application/x-sh",
            "application/x-shellscript",
            "application/x-csh",
            "text/x-sh",
        ],
    ),
    (
        "text/x-python",
        &[
            "application/x-python",
            "application/x-python-code",
            "text/x-script.python",
            "text/x-python3",
        ],
    ),
    ("text/x-perl", &["application/x-perl"]),
    ("text/x-ruby", &["application/x-ruby"]),
    ("text/markdown", &["text/x-markdown", "text/x-web-markdown"]),
    (
        "text/csv",
        &[
            "application/csv",
            "text/x-csv",
            "text/comma-separated-values",
            "text/x-comma-separated-values",
        ],
    ),
    ("text/vcard", &["text/x-vcard", "text/directory"]),
    ("application/json", &["text/json", "application/x-json"]),
    (
        "application/yaml",
        &["text/yaml", "text/x-yaml", "application/x-yaml"],
    ),
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
    let known = ALIASES
        .iter()
        .find(|(_, others)| others.contains(&essence.as_str()));
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
        for (name, others) in ALIASES {
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
