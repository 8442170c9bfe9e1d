//! Images, audio, video and fonts.

use super::Aliases;

pub(super) const ALIASES: &[Aliases] = &[
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
];
