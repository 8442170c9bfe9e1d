//! The path prefix of this server: the path of `server.public_url` is removed from request paths, unless the proxy has
//! already done so, and added to every path in responses.
//!
//! Handlers, pages and stored idempotent responses do not contain it.

use bytes::Bytes;
use futures::TryStreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use landfall_core::app::App;
use poem::{Body, Response};
use std::io;

const LANDFALL_FILE: HeaderName = HeaderName::from_static("landfall-file");

/// How links begin in the pages' templates; quotes in user data are always escaped.
const LINKS: [&str; 6] = [
    " href=\"/",
    " src=\"/",
    " action=\"/",
    " formaction=\"/",
    " hx-sse:connect=\"/",
    " data-endpoint=\"/",
];

/// Marks a response rendered from our own templates, whose links are paths of this server. User content is never
/// rewritten.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RewriteLinks;

/// The path and URL under which clients see this server.
#[derive(Clone, Debug, Default)]
pub struct Mount {
    /// The path of `server.public_url` without a trailing slash; empty if there is none.
    path: String,
    /// `server.public_url` without a trailing slash, if set.
    base: Option<String>,
}

impl Mount {
    pub(crate) fn new(app: &App) -> Self {
        let bare = |text: &str| text.trim_end_matches('/').to_owned();
        Self {
            path: bare(app.public_url.path()),
            base: app
                .config
                .server
                .public_url
                .as_ref()
                .map(|url| bare(url.as_str())),
        }
    }

    /// The prefix of every path as seen from outside.
    #[must_use]
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Returns the URI as the routes expect it: without the path of `server.public_url` and without a trailing slash.
    /// `None` if it is unchanged.
    pub(super) fn inside(&self, uri: &Uri) -> Option<Uri> {
        let given = uri.path();
        let below = given.strip_prefix(self.path.as_str());
        let below = below.filter(|rest| rest.is_empty() || rest.starts_with('/'));
        let path = match below {
            Some("") => "/",
            Some(rest) => rest,
            None => given,
        };
        let path = match path.strip_suffix('/') {
            Some(rest) if !rest.is_empty() && !rest.ends_with('/') => rest,
            _ => path,
        };
        if path == given {
            return None;
        }
        let target = match uri.query() {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        };
        let mut parts = uri.clone().into_parts();
        parts.path_and_query = Some(target.parse().ok()?);
        Uri::from_parts(parts).ok()
    }

    /// Rewrites a response for clients. `api` is true for `/v1`, whose clients may not resolve relative paths: there
    /// `Location` is absolute if the public URL is known.
    pub(super) fn outside(&self, api: bool, mut response: Response) -> Response {
        let before = match &self.base {
            Some(base) if api => base,
            _ => &self.path,
        };
        put_before(response.headers_mut(), &header::LOCATION, before);
        put_before(response.headers_mut(), &LANDFALL_FILE, &self.path);
        if self.path.is_empty() || response.data::<RewriteLinks>().is_none() {
            return response;
        }
        let path = self.path.clone();
        let rendered = response.take_body().into_bytes_stream();
        // A page is one chunk, and so is each event of a stream.
        let linked = rendered.map_ok(move |bytes| with_links(&path, bytes));
        response.headers_mut().remove(header::CONTENT_LENGTH);
        response.set_body(Body::from_bytes_stream(linked.map_err(io::Error::other)));
        response
    }
}

fn put_before(headers: &mut HeaderMap, name: &HeaderName, before: &str) {
    let Some(value) = headers.get(name).and_then(|value| value.to_str().ok()) else {
        return;
    };
    if before.is_empty() || !value.starts_with('/') {
        return;
    }
    if let Ok(whole) = HeaderValue::from_str(&format!("{before}{value}")) {
        headers.insert(name.clone(), whole);
    }
}

fn with_links(path: &str, bytes: Bytes) -> Bytes {
    let Ok(text) = std::str::from_utf8(&bytes) else {
        return bytes;
    };
    let mut text = text.to_owned();
    for link in LINKS {
        let begin = link.trim_end_matches('/');
        text = text.replace(link, &format!("{begin}{path}/"));
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inside(path: &str, uri: &str) -> String {
        let mount = Mount {
            path: path.to_owned(),
            base: None,
        };
        let uri: Uri = uri.parse().unwrap();
        mount.inside(&uri).unwrap_or(uri).to_string()
    }

    #[test]
    fn paths_are_the_same_with_and_without_the_public_path_and_a_slash() {
        for (asked, path) in [
            ("/v1/files", "/v1/files"),
            ("/v1/files/", "/v1/files"),
            ("/v1/files/?limit=1", "/v1/files?limit=1"),
            ("/up/v1/files/?limit=1", "/v1/files?limit=1"),
            ("/up", "/"),
            ("/up/", "/"),
            ("/up?q=1", "/?q=1"),
            ("/upload", "/upload"),
            ("/", "/"),
            ("//", "//"),
            ("/v1//", "/v1//"),
            ("/files/?next=/", "/files?next=/"),
        ] {
            assert_eq!(inside("/up", asked), path, "{asked}");
        }
        assert_eq!(inside("", "/v1/tus/"), "/v1/tus");
    }

    #[test]
    fn only_links_of_templates_are_changed() {
        let page = r#"<a href="/files/1">a href=&quot;/x&quot;</a><input value="/jobs"><a href="https://e/">"#;
        let seen = with_links("/up", page.into());
        let seen = std::str::from_utf8(&seen).unwrap();
        assert_eq!(
            seen,
            r#"<a href="/up/files/1">a href=&quot;/x&quot;</a><input value="/jobs"><a href="https://e/">"#
        );
    }
}
