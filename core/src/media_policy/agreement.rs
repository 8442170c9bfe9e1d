//! Whether detected and declared types are compatible: aliases of the same format, and containers with the formats
//! built on them.

use super::names::canonical;

/// Executables; no other type is compatible with them.
const PROGRAMS: [&str; 9] = [
    "application/vnd.microsoft.portable-executable",
    "application/x-executable",
    "application/x-mach-binary",
    "application/x-appimage",
    "application/vnd.appimage",
    "application/x-iso9660-appimage",
    "application/java-vm",
    "application/vnd.android.dex",
    "application/x-nintendo-switch-executable",
];

/// Formats with a fixed signature: content detected as something else cannot be one of these.
const SIGNED: [&str; 36] = [
    "image/jpeg",
    "image/png",
    "image/gif",
    "image/webp",
    "image/bmp",
    "image/heif",
    "image/avif",
    "image/jp2",
    "image/jxl",
    "image/svg+xml",
    "image/vnd.adobe.photoshop",
    "image/vnd.djvu",
    "image/vnd.microsoft.icon",
    "application/pdf",
    "application/zip",
    "application/gzip",
    "application/x-bzip2",
    "application/x-xz",
    "application/zstd",
    "application/x-7z-compressed",
    "application/vnd.rar",
    "application/x-tar",
    "application/x-cfb",
    "application/wasm",
    "application/rtf",
    "application/json",
    "application/yaml",
    "application/sql",
    "application/dicom",
    "application/x-bittorrent",
    "application/x-shockwave-flash",
    "application/vnd.sqlite3",
    "application/vnd.apache.parquet",
    "application/vnd.tcpdump.pcap",
    "application/x-iso9660-image",
    "application/ld+json",
];

/// Image formats with a fixed signature, so anything without it is not such an image.
pub(super) const ALWAYS_SIGNED: [&str; 4] = ["image/jpeg", "image/png", "image/gif", "image/webp"];

/// What a format is built on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Container {
    /// Office documents in a ZIP, an OLE compound file, or, with a password, one inside the other.
    Package,
    Compressed,
    Pdf,
    Tiff,
    IsoImage,
    Media,
    Font,
    Program,
}

fn container(found: &str) -> Option<Container> {
    let kind = found.split('/').next().unwrap_or_default();
    let is_compressed = [
        "application/gzip",
        "application/x-bzip2",
        "application/x-xz",
        "application/zstd",
        "application/x-lz4",
        "application/x-lzip",
        "application/x-lzop",
        "application/x-brotli",
    ];
    Some(match found {
        found if PROGRAMS.contains(&found) => Container::Program,
        found if is_package(found) => Container::Package,
        found if is_compressed.contains(&found) => Container::Compressed,
        "application/pdf" => Container::Pdf,
        "image/tiff" => Container::Tiff,
        "image/heif" | "image/avif" => Container::IsoImage,
        "application/mxf" | "application/vnd.rn-realmedia" | "application/x-shockwave-flash" => {
            Container::Media
        }
        "application/vnd.ms-fontobject" => Container::Font,
        _ => match kind {
            "audio" | "video" => Container::Media,
            "font" => Container::Font,
            _ => return None,
        },
    })
}

/// Whether the type is a file archive or a format built on one.
pub(super) fn is_package(kind: &str) -> bool {
    const BUILT: [&str; 22] = [
        "application/zip",
        "application/x-cfb",
        "application/java-archive",
        "application/msword",
        "application/oxps",
        "application/vsix",
        "application/x-mso",
        "application/x-msi",
        "application/x-ios-app",
        "application/x-fbz",
        "application/x-xpinstall",
        "application/x-silverlight-app",
        "application/vnd.android.package-archive",
        "application/vnd.android.aab",
        "application/vnd.google-earth.kmz",
        "application/vnd.recordare.musicxml",
        "application/vnd.visio",
        "application/vnd.adobe.fla",
        "application/vnd.adobe.indesign-idml-package",
        "image/openraster",
        "model/vnd.dwfx+xps",
        "model/x-f3d",
    ];
    const FAMILIES: [&str; 7] = [
        "application/vnd.ms-",
        "application/vnd.oasis.opendocument",
        "application/vnd.openxmlformats",
        "application/vnd.stardivision",
        "application/vnd.sun.xml",
        "application/vnd.uof",
        "application/vnd.etsi.asic-",
    ];
    // Microsoft types that are not such documents.
    const OTHERS: [&str; 6] = [
        "application/vnd.ms-fontobject",
        "application/vnd.ms-cab-compressed",
        "application/vnd.ms-htmlhelp",
        "application/vnd.ms-asf",
        "application/vnd.ms-wpl",
        "application/vnd.ms-developer",
    ];
    let of_family = FAMILIES.iter().any(|begin| kind.starts_with(begin));
    BUILT.contains(&kind) || kind.ends_with("+zip") || (of_family && !OTHERS.contains(&kind))
}

/// Whether content detected as `found` is compatible with the declared type.
pub(super) fn agrees(declared: &str, found: &str) -> bool {
    let (declared, found) = (canonical(declared), canonical(found));
    let (declared, found) = (declared.as_str(), found.as_str());
    if declared == found {
        return true;
    }
    let kind_of = |name: &str| name.split('/').next().unwrap_or_default().to_owned();
    let (kind, found_kind) = (kind_of(declared), kind_of(found));
    let is_signed = SIGNED.contains(&declared);
    let is_open = !is_signed && matches!(kind.as_str(), "application" | "model" | "chemical");
    match container(found) {
        Some(Container::Program) => PROGRAMS.contains(&declared),
        _ if PROGRAMS.contains(&declared) => false,
        Some(Container::Package) => {
            let is_zip_of = declared == "application/zip" && found != "application/x-cfb";
            is_zip_of
                || (is_package(declared) && !is_signed)
                || (is_open && container(declared).is_none())
        }
        Some(Container::Compressed) => is_open || declared == "image/svg+xml",
        // Illustrator writes PDF, and browsers report its files as PostScript.
        Some(Container::Pdf) => {
            ["application/postscript", "application/illustrator"].contains(&declared)
                || declared.starts_with("application/vnd.adobe")
        }
        // The raw image formats of many cameras.
        Some(Container::Tiff) => kind == "image" && !is_signed,
        Some(Container::IsoImage) => {
            ["image/heif", "image/avif"].contains(&declared) || (kind == "image" && !is_signed)
        }
        Some(Container::Media) => container(declared) == Some(Container::Media),
        Some(Container::Font) => container(declared) == Some(Container::Font),
        None => kind == found_kind && kind != "text" && !is_signed,
    }
}

#[cfg(test)]
mod tests {
    use super::agrees;

    #[test]
    fn containers_agree_with_what_is_built_on_them() {
        let zip = "application/zip";
        let ole = "application/x-cfb";
        let docx = "application/vnd.openxmlformats-officedocument.wordprocessingml.document";
        for (declared, found) in [
            (docx, zip),
            (docx, ole),
            ("application/vnd.ms-excel", docx),
            ("application/x-msi", ole),
            ("application/vnd.oasis.opendocument.text", zip),
            ("application/epub+zip", zip),
            ("application/x-xpinstall", zip),
            ("application/x-zip-compressed", docx),
            ("model/3mf", zip),
            ("image/x-adobe-dng", "image/tiff"),
            ("image/x-nikon-nef", "image/tiff"),
            ("image/heic", "image/heif"),
            ("audio/mp4", "video/mp4"),
            ("audio/ogg", "video/ogg"),
            ("application/ogg", "audio/opus"),
            ("font/otf", "font/ttf"),
            ("application/x-font-woff2", "font/woff2"),
            ("application/postscript", "application/pdf"),
            ("image/svg+xml", "application/gzip"),
            ("application/x-compressed", "application/vnd.rar"),
            ("application/geopackage+sqlite3", "application/vnd.sqlite3"),
            ("application/x-msdownload", "application/x-executable"),
        ] {
            assert!(agrees(declared, found), "{declared} with {found}");
        }
    }

    #[test]
    fn what_shows_another_format_is_not_what_was_declared() {
        for (declared, found) in [
            ("image/png", "image/jpeg"),
            ("image/heic", "video/mp4"),
            ("image/png", "application/zip"),
            ("text/csv", "application/zip"),
            ("application/pdf", "application/zip"),
            ("application/zip", "application/x-cfb"),
            ("application/x-of-my-own", "application/x-executable"),
            ("image/png", "application/vnd.microsoft.portable-executable"),
            ("audio/mp4", "application/zip"),
            ("text/plain", "image/png"),
        ] {
            assert!(!agrees(declared, found), "{declared} with {found}");
        }
    }
}
