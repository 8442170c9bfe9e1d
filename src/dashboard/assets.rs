//! Static assets: embedded in the binary, with a hash of the content in the name, so that browsers may cache them
//! forever and still get the new ones after an upgrade. Nothing is loaded from another host.

use super::error::ErrorPage;
use http::header;
use poem::{Body, Response, Result, handler, web::Path};
use sha2::{Digest, Sha256};
use std::{fmt::Write, sync::LazyLock};

/// One year, the conventional maximum (RFC 2616; RFC 9111 has no limit).
const IMMUTABLE: &str = "public, max-age=31536000, immutable";

/// Digits of the content's SHA-256 in a name.
const HASH_DIGITS: usize = 16;

/// One static asset.
struct Asset {
    /// The name in the code.
    name: &'static str,
    /// The path that browsers request.
    file: String,
    path: String,
    content_type: &'static str,
    content: &'static [u8],
}

macro_rules! assets {
    ($($name:literal, $content_type:literal, $($file:literal)+;)+) => {
        static ASSETS: LazyLock<Vec<Asset>> = LazyLock::new(|| {
            vec![$(Asset::new(
                $name,
                $content_type,
                concat!($(include_str!(concat!("assets/", $file)), "\n"),+).as_bytes(),
            )),+]
        });
    };
}

assets! {
    "style.css", "text/css; charset=utf-8", "style.css";
    "dashboard.js", "text/javascript; charset=utf-8", "dashboard.js";
    // One file, because htmx starts as soon as its own script has run and ignores extensions that are loaded later.
    "htmx.js", "text/javascript; charset=utf-8", "vendor/htmx-4.0.1.min.js" "vendor/htmx-4.0.1-sse.min.js";
    "tus.js", "text/javascript; charset=utf-8", "vendor/tus-js-client-4.3.1.min.js";
    "upload.js", "text/javascript; charset=utf-8", "upload.js";
    "icon.svg", "image/svg+xml", "icon.svg";
}

impl Asset {
    fn new(name: &'static str, content_type: &'static str, content: &'static [u8]) -> Self {
        let mut hash = String::new();
        for byte in &Sha256::digest(content)[..HASH_DIGITS / 2] {
            let _ = write!(hash, "{byte:02x}");
        }
        let (stem, kind) = name.rsplit_once('.').unwrap_or((name, ""));
        let file = format!("{stem}.{hash}.{kind}");
        Self {
            name,
            path: format!("/assets/{file}"),
            file,
            content_type,
            content,
        }
    }
}

/// Returns the path of an asset.
///
/// # Panics
/// If no asset has this name; every page that uses it would fail.
pub(super) fn path(name: &str) -> &'static str {
    let found = ASSETS.iter().find(|asset| asset.name == name);
    &found.expect("the asset is in the list").path
}

#[handler]
pub(super) fn get(Path(file): Path<String>) -> Result<Response> {
    let found = ASSETS.iter().find(|asset| asset.file == file);
    let asset = found.ok_or_else(|| ErrorPage::not_found("asset with this name"))?;
    Ok(Response::builder()
        .content_type(asset.content_type)
        .header(header::CACHE_CONTROL, IMMUTABLE)
        .body(Body::from_bytes(asset.content.into())))
}
