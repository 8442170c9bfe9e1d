//! The access log (`log.access`): one line per request, when its response has been sent or given up.
//!
//! Names the route and not the path, because paths contain secrets and names.

use super::RequestId;
use crate::api::state::ApiState;
use bytes::Bytes;
use futures::TryStreamExt;
use http::{Method, StatusCode, header};
use http_body_util::combinators::BoxBody;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use poem::{Body, Request, Response};
use std::{
    io,
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Instant,
};
use uuid::Uuid;

/// The target of the lines, for filters.
const TARGET: &str = "landfall::access";

/// The owner of a request's credential, once it is known.
#[derive(Clone, Debug, Default)]
pub(crate) struct RequestOwner(Arc<OnceLock<String>>);

impl RequestOwner {
    /// Records the owner, if the request is logged.
    pub(crate) fn record(request: &Request, owner: Option<&str>) {
        if let (Some(slot), Some(owner)) = (request.data::<Self>(), owner) {
            slot.0.get_or_init(|| owner.to_owned());
        }
    }
}

/// A request to be logged.
#[derive(Debug)]
pub(super) struct AccessLog {
    request_id: String,
    method: Method,
    client: Option<IpAddr>,
    started: Instant,
    received: Arc<AtomicU64>,
    owner: RequestOwner,
}

impl AccessLog {
    /// Begins to observe a request, if requests are logged.
    pub(super) fn begin(state: &ApiState, request: &mut Request, id: &RequestId) -> Option<Self> {
        if !state.app.config.log.access {
            return None;
        }
        let log = Self {
            request_id: id.0.clone(),
            method: request.method().clone(),
            client: request.remote_addr().as_socket_addr().map(|peer| peer.ip()),
            started: Instant::now(),
            received: Arc::default(),
            owner: RequestOwner::default(),
        };
        let received = Arc::clone(&log.received);
        let bytes = request.take_body().into_bytes_stream();
        let counted = bytes.inspect_ok(move |bytes| {
            received.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        });
        request.set_body(Body::from_bytes_stream(counted));
        request.set_data(log.owner.clone());
        Some(log)
    }

    /// Logs the request once its response has been sent.
    pub(super) fn finish(self, route: &str, path: &str, response: Response) -> Response {
        let location = response.header(header::LOCATION);
        let id = id_in(path).or_else(|| location.and_then(id_in));
        let announced = response.header(header::CONTENT_LENGTH);
        let announced = announced.and_then(|length| length.parse().ok());
        let (parts, body) = response.into_parts();
        let frames: BoxBody<Bytes, io::Error> = body.into();
        let logged = LoggedResponse {
            id,
            route: route.to_owned(),
            status: parts.status,
            // Hyper never reads the body of such a response.
            is_bodyless: self.method == Method::HEAD || frames.is_end_stream(),
            length: announced.or_else(|| frames.size_hint().exact()),
            request: self,
            sent: 0,
            is_complete: false,
        };
        let body = LoggedBody { frames, logged };
        Response::from_parts(parts, Body::from(BoxBody::new(body)))
    }
}

/// The id of a file, an upload, an event and so on in a path. Only UUIDs are ids; nothing else of a path is logged.
fn id_in(path: &str) -> Option<Uuid> {
    let path = path.split('?').next().unwrap_or(path);
    path.rsplit('/').find_map(|segment| segment.parse().ok())
}

#[derive(Debug)]
struct LoggedResponse {
    request: AccessLog,
    route: String,
    id: Option<Uuid>,
    status: StatusCode,
    is_bodyless: bool,
    /// The announced length of the body.
    length: Option<u64>,
    sent: u64,
    is_complete: bool,
}

impl Drop for LoggedResponse {
    fn drop(&mut self) {
        let request = &self.request;
        // The first field must not contain a dot, or the macro cannot be parsed.
        tracing::info!(
            target: TARGET,
            id = self.id.map(tracing::field::display),
            request.id = request.request_id,
            http.method = request.method.as_str(),
            http.route = self.route,
            http.status = self.status.as_u16(),
            ms = (request.started.elapsed().as_secs_f64() * 1e6).round() / 1e3,
            bytes_in = request.received.load(Ordering::Relaxed),
            bytes_out = self.sent,
            owner = request.owner.0.get(),
            client = request.client.map(tracing::field::display),
            aborted = !(self.is_complete || self.is_bodyless),
            "request"
        );
    }
}

/// The body of a response; its request is logged when it is dropped.
#[derive(Debug)]
struct LoggedBody {
    frames: BoxBody<Bytes, io::Error>,
    logged: LoggedResponse,
}

impl HttpBody for LoggedBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let frame = ready!(Pin::new(&mut self.frames).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                self.logged.sent += frame.data_ref().map_or(0, |bytes| bytes.len() as u64);
                // Hyper does not read on after the last byte of a body of known length.
                self.logged.is_complete = self.logged.length == Some(self.logged.sent);
            }
            Some(Err(_)) => {}
            None => self.logged.is_complete = true,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.frames.size_hint()
    }
}
