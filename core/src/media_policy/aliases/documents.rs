//! Archives, documents, executables and text.

use super::Aliases;

pub(super) const ALIASES: &[Aliases] = &[
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
