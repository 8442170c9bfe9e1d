//! CORS (Fetch standard, "CORS protocol"): which origins may call `/v1`, by `server.cors_origins`, or by the list of the
//! upload link in the path.
//!
//! Clients authenticate with a token in a header; cookies are never allowed. Without tokens, `*` only covers uploads by
//! `/v1/tus`, because otherwise a page could read any file from the machine that opened it.

use crate::api::{tus::is_tus_path, upload_links::is_link_path};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use landfall_core::{
    config::{AuthMode, Config, Origin},
    upload_links::UploadLink,
};

const ANY: HeaderValue = HeaderValue::from_static("*");
/// In seconds.
const PREFLIGHT_MAX_AGE: HeaderValue = HeaderValue::from_static("86400");

/// The methods of tus uploads, which are not in the OpenAPI definition.
const TUS_METHODS: &str = "POST, HEAD, PATCH, DELETE, GET, OPTIONS";

/// Request headers that pages may send: those the API reads, and those that widgets, monitoring and browser libraries
/// add.
const ALLOWED_HEADERS: &str = "authorization, content-type, content-disposition, content-digest, repr-digest, idempotency-key, \
     if-none-match, if-modified-since, if-range, range, want-content-digest, x-http-method-override, x-request-id, tus-resumable, upload-length, \
     upload-defer-length, upload-offset, upload-metadata, upload-checksum, upload-concat, upload-complete, \
     upload-draft-interop-version, accept, accept-language, cache-control, pragma, expires, x-requested-with, \
     x-csrf-token, traceparent, tracestate, baggage, sentry-trace, x-b3-traceid, x-b3-spanid, x-b3-sampled, b3, \
     newrelic, x-datadog-trace-id, x-datadog-parent-id, x-datadog-origin, x-datadog-sampling-priority, \
     x-client-info, apikey, x-upsert";

/// Response headers that scripts may read.
const EXPOSED_HEADERS: &str = "location, retry-after, ratelimit, ratelimit-policy, etag, accept-ranges, content-range, \
     content-disposition, x-request-id, idempotent-replayed, landfall-file, tus-resumable, tus-version, tus-extension, \
     tus-max-size, tus-checksum-algorithm, upload-offset, upload-length, upload-defer-length, upload-metadata, upload-expires, \
     upload-concat, upload-complete, upload-limit, upload-draft-interop-version";

/// The CORS state of a request, kept until its response.
#[derive(Clone, Debug)]
pub(super) struct CrossOrigin {
    allow: Option<HeaderValue>,
    /// Whether the response depends on the origin, which caches must know.
    varies: bool,
    preflight: bool,
    tus: bool,
    /// Additional allowed request headers from the configuration.
    more: Vec<HeaderName>,
}

impl CrossOrigin {
    pub(super) fn for_request(
        config: &Config,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        link: Option<&UploadLink>,
    ) -> Self {
        let below = |base: &str| {
            let rest = path.strip_prefix(base);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let tus = is_tus_path(path);
        // A link is a credential of its own, and shows no files.
        let any_covers = tus || is_link_path(path) || config.auth.mode == AuthMode::Tokens;
        let of_link = link.map(|link| &link.cors_origins);
        let origins = of_link
            .filter(|origins| !origins.is_empty())
            .unwrap_or(&config.server.cors_origins);
        let asking = headers.get(header::ORIGIN);
        let named = asking.filter(|asking| {
            let is = |origin: &Origin| matches!(origin, Origin::Of(one) if *one == **asking);
            origins.iter().any(is)
        });
        let inside = below("/v1");
        let allow = if !inside {
            None
        } else if any_covers && origins.contains(&Origin::Any) {
            Some(ANY)
        } else {
            named.cloned()
        };
        let asks = headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        let named_some = origins.iter().any(|origin| *origin != Origin::Any);
        Self {
            varies: inside && named_some && allow != Some(ANY),
            allow,
            preflight: asks && *method == Method::OPTIONS,
            tus,
            more: config.server.cors_headers.clone(),
        }
    }

    /// Whether pages of the request's origin may call this path.
    pub(super) fn allows(&self) -> bool {
        self.allow.is_some()
    }

    /// Whether this is a preflight request, which needs no handler.
    pub(super) fn is_preflight(&self) -> bool {
        self.preflight && self.allow.is_some() && !self.tus
    }

    /// Adds the CORS headers to a response, including rejections; `methods` are those of the path.
    pub(super) fn finish(self, response: &mut HeaderMap, methods: &[Method]) {
        if self.varies {
            response.append(header::VARY, HeaderValue::from_static("origin"));
        }
        let Some(allow) = self.allow else {
            return;
        };
        response.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allow);
        response.insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static(EXPOSED_HEADERS),
        );
        if !self.preflight {
            return;
        }
        let listed: Vec<&str> = methods.iter().map(Method::as_str).collect();
        let methods = if self.tus {
            HeaderValue::from_static(TUS_METHODS)
        } else {
            HeaderValue::from_str(&listed.join(", ")).unwrap_or(ANY)
        };
        response.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
        let more = self.more.iter().map(HeaderName::as_str);
        let sent: Vec<&str> = std::iter::once(ALLOWED_HEADERS).chain(more).collect();
        if let Ok(sent) = HeaderValue::from_str(&sent.join(", ")) {
            response.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, sent);
        }
        response.insert(header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_MAX_AGE);
    }
}
