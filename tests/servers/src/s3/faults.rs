//! Fault injection: a queue of faults per operation, one for each request.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body as _, Incoming};
use s3s::service::S3Service;
use tokio::sync::Notify;

use super::operation::S3Operation;
use super::paced::{broken_off, paced};
use super::quirks::Refusal;
use crate::listener::{Body, Reset};
use crate::lock::lock;

/// How many requests' headers are kept.
const MAX_HEADERS_KEPT: usize = 1000;

#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// Not executed, error response.
    Fail(StatusCode),
    /// Executed, error response.
    FailAfter(StatusCode),
    /// Executed, no response.
    AnswerLost,
    /// Not executed, no response.
    Reset,
    /// Done late.
    Hang(Duration),
    /// Executed, half of the response.
    Truncate,
    /// No response, executed later.
    Late(Duration),
}

#[derive(Debug, Default)]
pub(crate) struct Faults {
    plans: Mutex<HashMap<S3Operation, VecDeque<Fault>>>,
    calls: Mutex<HashMap<S3Operation, u64>>,
    headers: Mutex<VecDeque<(S3Operation, HeaderMap)>>,
    // Milliseconds.
    delay: AtomicU64,
    // Bytes per second; 0 for no limit.
    pace: AtomicU64,
    healed: Notify,
    // Requests that will still be executed, although no client waits for them.
    late: AtomicU64,
}

impl Faults {
    pub(crate) fn plan(&self, operation: S3Operation, count: usize, fault: &Fault) {
        let mut plans = lock(&self.plans);
        plans
            .entry(operation)
            .or_default()
            .extend(std::iter::repeat_n(fault.clone(), count));
    }

    pub(crate) fn calls(&self, operation: S3Operation) -> u64 {
        lock(&self.calls)
            .get(&operation)
            .copied()
            .unwrap_or_default()
    }

    pub(crate) fn headers(&self, operation: S3Operation) -> Vec<HeaderMap> {
        let all = lock(&self.headers);
        let wanted = all.iter().filter(|(one, _)| *one == operation);
        wanted.map(|(_, headers)| headers.clone()).collect()
    }

    pub(crate) fn set_delay(&self, time: Duration) {
        let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.delay.store(milliseconds, Ordering::Relaxed);
    }

    fn record<B>(&self, request: &Request<B>) {
        let Some(operation) = S3Operation::parse(request) else {
            return;
        };
        let mut all = lock(&self.headers);
        if all.len() == MAX_HEADERS_KEPT {
            all.pop_front();
        }
        all.push_back((operation, request.headers().clone()));
    }

    pub(crate) fn pace(&self) -> Option<u64> {
        Some(self.pace.load(Ordering::Relaxed)).filter(|pace| *pace > 0)
    }

    pub(crate) fn set_pace(&self, bytes_per_second: u64) {
        self.pace.store(bytes_per_second, Ordering::Relaxed);
    }

    pub(crate) fn heal(&self) {
        lock(&self.plans).clear();
        self.set_pace(0);
        self.healed.notify_waiters();
    }

    /// Waits for `time`, or until healed.
    pub(crate) async fn unless_healed(&self, time: Duration) {
        // Waits until the faults are removed, for at most this time.
        let _ = tokio::time::timeout(time, self.healed.notified()).await;
    }

    pub(crate) fn late(&self) -> u64 {
        self.late.load(Ordering::SeqCst)
    }

    /// Counts a request.
    fn arrive(&self, operation: S3Operation) {
        *lock(&self.calls).entry(operation).or_default() += 1;
    }

    /// Takes the fault planned for a request.
    fn planned(&self, operation: S3Operation) -> Option<Fault> {
        lock(&self.plans).get_mut(&operation)?.pop_front()
    }
}

/// Handles one request with the faults planned for it.
pub(crate) async fn answer(
    faults: Arc<Faults>,
    refusal: Option<Refusal>,
    service: S3Service,
    request: Request<Incoming>,
) -> Result<Response<Body>, Reset> {
    faults.record(&request);
    let delay = Duration::from_millis(faults.delay.load(Ordering::Relaxed));
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    let operation = S3Operation::of(&request);
    if let Some(operation) = operation {
        faults.arrive(operation);
    }
    if let Some(refusal) = refusal {
        drain(request).await;
        return Ok(refused(refusal));
    }
    let fault = operation.and_then(|operation| faults.planned(operation));
    match fault {
        Some(Fault::Fail(status)) => {
            drain(request).await;
            return Ok(failure(status));
        }
        Some(Fault::Reset) => {
            drain(request).await;
            return Err(Reset);
        }
        Some(Fault::Hang(time)) => faults.unless_healed(time).await,
        Some(Fault::Late(time)) => {
            perform_later(&faults, service, request, time).await;
            return Err(Reset);
        }
        _ => {}
    }
    let response = perform(&faults, &service, request).await?;
    match fault {
        Some(Fault::FailAfter(status)) => {
            drain(response).await;
            Ok(failure(status))
        }
        Some(Fault::AnswerLost) => {
            drain(response).await;
            Err(Reset)
        }
        Some(Fault::Truncate) => {
            let length = response.body().size_hint().lower() / 2;
            Ok(response.map(|body| broken_off(body, length)))
        }
        _ => Ok(response),
    }
}

async fn perform(
    faults: &Arc<Faults>,
    service: &S3Service,
    request: Request<Incoming>,
) -> Result<Response<Body>, Reset> {
    let slow = faults.pace().is_some();
    let request = if slow {
        request.map(|body| {
            let body = body.map_err(Into::into).boxed_unsync();
            s3s::Body::http_body_unsync(paced(body, Arc::clone(faults)))
        })
    } else {
        request.map(s3s::Body::from)
    };
    // Only errors that s3s cannot answer; the client sees a lost connection. In its own task: a killed client must not
    // leave half an operation behind, which no store does.
    let service = service.clone();
    let call = tokio::spawn(async move { service.call(request).await });
    let response = call.await.map_err(|_| Reset)?.map_err(|_| Reset)?;
    let response = response.map(BodyExt::boxed_unsync);
    Ok(if slow {
        response.map(|body| paced(body, Arc::clone(faults)))
    } else {
        response
    })
}

/// Accepts a request, and executes it long after its client has given up.
async fn perform_later(
    faults: &Arc<Faults>,
    service: S3Service,
    request: Request<Incoming>,
    time: Duration,
) {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        return;
    };
    let request = Request::from_parts(head, s3s::Body::from(body.to_bytes()));
    let faults = Arc::clone(faults);
    faults.late.fetch_add(1, Ordering::SeqCst);
    tokio::spawn(async move {
        tokio::time::sleep(time).await;
        // The result is not reported.
        let _ = service.call(request).await;
        faults.late.fetch_sub(1, Ordering::SeqCst);
    });
}

/// Reads to the end, as the server or client at fault has done before it fails.
async fn drain<M: Drained>(message: M) {
    let mut body = std::pin::pin!(message.into_body());
    while let Some(Ok(_)) = body.as_mut().frame().await {}
}

trait Drained {
    type Body: hyper::body::Body;
    fn into_body(self) -> Self::Body;
}

impl<B: hyper::body::Body> Drained for Request<B> {
    type Body = B;
    fn into_body(self) -> B {
        self.into_body()
    }
}

impl<B: hyper::body::Body> Drained for Response<B> {
    type Body = B;
    fn into_body(self) -> B {
        self.into_body()
    }
}

fn failure(status: StatusCode) -> Response<Body> {
    let code = match status.as_u16() {
        403 => "AccessDenied",
        404 => "NoSuchKey",
        409 => "OperationAborted",
        412 => "PreconditionFailed",
        429 => "TooManyRequests",
        501 => "NotImplemented",
        503 => "SlowDown",
        _ => "InternalError",
    };
    refused((status, code, "a fault asked for by the test"))
}

fn refused((status, code, message): Refusal) -> Response<Body> {
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
         <Error><Code>{code}</Code><Message>{message}</Message></Error>"
    );
    let body = Full::new(Bytes::from(text))
        .map_err(|never| match never {})
        .boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let xml = http::HeaderValue::from_static("application/xml");
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, xml);
    response
}
