//! `Idempotency-Key` on requests that create: a repeated request gets the first response again.

use super::{
    problem::{Code, Problem},
    response::JsonResponse,
    state::ApiState,
};
use entity::UploadLinkId;
use http::{HeaderName, HeaderValue, StatusCode};
use landfall_core::{
    app::App,
    digest::Sha256Digest,
    idempotency::{self, IdempotencyEntry, IdempotencyLock, MAX_KEY_LEN, PendingResponse},
    tokens::Identity,
    webhooks::sealing::Sealing,
};
use poem::{FromRequest, Request, RequestBody, Result};
use std::{future::Future, time::Duration};
use tokio_util::task::AbortOnDropHandle;

/// Makes the response from the result of the work.
type MakeResponse<R, T, const STATUS: u16> = fn(&R) -> Result<JsonResponse<T, STATUS>, Problem>;

/// How often a request in progress renews its lock; several times per lock timeout.
const RENEW_INTERVAL: Duration = Duration::from_secs(8);

/// The key of a request, if any, and what is known of the request before its body.
#[derive(Clone, Debug)]
pub(super) struct IdempotentRequest {
    key: Option<String>,
    head: String,
}

impl<'a> FromRequest<'a> for IdempotentRequest {
    async fn from_request(request: &'a Request, _: &mut RequestBody) -> Result<Self> {
        let target = request
            .uri()
            .path_and_query()
            .map_or("", |target| target.as_str());
        let head = format!("{} {target}", request.method());
        let Some(value) = request.headers().get("idempotency-key") else {
            return Ok(Self { key: None, head });
        };
        let sane = value.to_str().ok().filter(|key| {
            (1..=MAX_KEY_LEN).contains(&key.len())
                && key.bytes().all(|byte| byte.is_ascii_graphic())
        });
        match sane {
            Some(key) => Ok(Self {
                key: Some(key.to_owned()),
                head,
            }),
            None => Err(Problem::field(
                Code::MalformedRequest,
                "Idempotency-Key",
                format!("must be 1 to {MAX_KEY_LEN} visible ASCII characters"),
            )
            .into()),
        }
    }
}

/// What to do with a request.
#[derive(Debug)]
pub(super) enum IdempotencyOutcome {
    /// Execute it. Without a key there is no lock.
    Execute(Option<Box<LockGuard>>),
    /// Replay the stored response, if the request is the same.
    Replay(PriorResponse),
}

/// The stored response to the first request with the key.
#[derive(Debug)]
pub(super) struct PriorResponse {
    fingerprint: String,
    response: idempotency::StoredResponse,
}

/// The lock of a key, renewed while the request runs and released on drop.
#[derive(Debug)]
pub(super) struct LockGuard {
    app: App,
    ticket: Option<IdempotencyLock>,
    _renewal: AbortOnDropHandle<()>,
}

impl IdempotentRequest {
    /// The same request with a key that only requests by this upload link can use: no key of a client has a space.
    pub(super) fn within_link(mut self, link: UploadLinkId) -> Self {
        self.key = self.key.map(|key| format!("link {link} {key}"));
        self
    }

    /// Returns the fingerprint of the request, given the digest of its content.
    pub(super) fn fingerprint(&self, content: Sha256Digest) -> String {
        Sha256Digest::compute(format!("{}\n{content}", self.head).as_bytes()).to_string()
    }

    /// Acquires the lock of the key, or finds the stored response.
    pub(super) async fn acquire(
        &self,
        state: &ApiState,
        caller: &Identity,
    ) -> Result<IdempotencyOutcome, Problem> {
        let Some(key) = &self.key else {
            return Ok(IdempotencyOutcome::Execute(None));
        };
        let app = &state.app;
        let owner = caller.owner.as_deref();
        match idempotency::acquire(&app.db, &app.clock, owner, key).await? {
            IdempotencyEntry::First(ticket) => Ok(IdempotencyOutcome::Execute(Some(Box::new(
                LockGuard::start(app.clone(), ticket),
            )))),
            IdempotencyEntry::InFlight => Err(Problem::in_flight()),
            IdempotencyEntry::Answered {
                fingerprint,
                answer: response,
            } => {
                let sealing = &app.config.webhooks.sealing;
                let response = from_stored(response, sealing, &fingerprint)?;
                Ok(IdempotencyOutcome::Replay(PriorResponse {
                    fingerprint,
                    response,
                }))
            }
        }
    }

    /// Executes a request whose content is known, exactly once: the transaction of the work stores the response that
    /// `make_response` makes.
    pub(super) async fn once<R, T, W, const STATUS: u16>(
        &self,
        state: &ApiState,
        caller: &Identity,
        content: Sha256Digest,
        make_response: MakeResponse<R, T, STATUS>,
        work: impl FnOnce(Option<PendingResponse<R>>) -> W + Send + 'static,
    ) -> Result<JsonResponse<T, STATUS>, Problem>
    where
        R: Send + Sync + 'static,
        T: Send + 'static,
        W: Future<Output = Result<R, Problem>> + Send,
    {
        let fingerprint = self.fingerprint(content);
        match self.acquire(state, caller).await? {
            IdempotencyOutcome::Replay(prior) => prior.replay(&fingerprint),
            IdempotencyOutcome::Execute(lock) => {
                execute_once(lock, fingerprint, make_response, work).await
            }
        }
    }

    /// Executes work that may run twice, for example after a crash before the response is stored. Continues if the
    /// client disconnects.
    pub(super) async fn at_least_once<T, const STATUS: u16>(
        &self,
        state: &ApiState,
        caller: &Identity,
        content: Sha256Digest,
        work: impl Future<Output = Result<JsonResponse<T, STATUS>, Problem>> + Send + 'static,
    ) -> Result<JsonResponse<T, STATUS>, Problem>
    where
        T: Send + 'static,
    {
        let fingerprint = self.fingerprint(content);
        match self.acquire(state, caller).await? {
            IdempotencyOutcome::Replay(prior) => prior.replay(&fingerprint),
            IdempotencyOutcome::Execute(lock) => {
                detached(async move {
                    let response = work.await?;
                    if let Some(lock) = lock {
                        lock.finish(&fingerprint, &response).await;
                    }
                    Ok(response)
                })
                .await
            }
        }
    }
}

/// Executes a first request, whose transaction stores the response. Continues if the client disconnects.
pub(super) async fn execute_once<R, T, W, const STATUS: u16>(
    lock: Option<Box<LockGuard>>,
    fingerprint: String,
    make_response: MakeResponse<R, T, STATUS>,
    work: impl FnOnce(Option<PendingResponse<R>>) -> W + Send + 'static,
) -> Result<JsonResponse<T, STATUS>, Problem>
where
    R: Send + Sync + 'static,
    T: Send + 'static,
    W: Future<Output = Result<R, Problem>> + Send,
{
    detached(async move {
        let stored = lock
            .as_ref()
            .and_then(|lock| lock.stored_response(fingerprint, make_response));
        let done = work(stored).await?;
        if let Some(lock) = lock {
            lock.mark_stored();
        }
        landfall_core::failpoint!("request.committed");
        make_response(&done)
    })
    .await
}

/// Runs the future to its end even if the caller is dropped.
pub(super) async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, Problem>> + Send + 'static,
) -> Result<T, Problem> {
    use tracing::Instrument;
    tokio::spawn(work.in_current_span())
        .await
        .unwrap_or_else(|panicked| Err(Problem::failed(panicked)))
}

impl PriorResponse {
    /// Returns the stored response if this is the same request.
    pub(super) fn replay<T, const STATUS: u16>(
        self,
        fingerprint: &str,
    ) -> Result<JsonResponse<T, STATUS>, Problem> {
        if self.fingerprint != fingerprint {
            return Err(Problem::new(
                Code::IdempotencyKeyReused,
                "This Idempotency-Key was used for a different request. Use a new key for each request.",
            ));
        }
        let status = StatusCode::from_u16(self.response.status).map_err(Problem::failed)?;
        let mut headers = Vec::with_capacity(self.response.headers.len() + 1);
        for (name, value) in self.response.headers {
            let name: HeaderName = name.parse().map_err(Problem::failed)?;
            headers.push((name, value.parse().map_err(Problem::failed)?));
        }
        // The header name of Stripe's API; the draft does not define one.
        let replayed = HeaderName::from_static("idempotent-replayed");
        headers.push((replayed, HeaderValue::from_static("true")));
        Ok(JsonResponse::restored(status, headers, self.response.body))
    }
}

fn to_stored<T, const STATUS: u16>(
    response: &JsonResponse<T, STATUS>,
) -> idempotency::StoredResponse {
    let headers = response.headers.iter();
    idempotency::StoredResponse {
        status: response.status.as_u16(),
        headers: headers
            .filter_map(|(name, value)| {
                Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
            })
            .collect(),
        body: response.body.clone(),
    }
}

/// Restores the stored response. A response that contains a secret is stored encrypted, bound to the request's
/// fingerprint.
fn from_stored(
    mut response: idempotency::StoredResponse,
    sealing: &Sealing,
    fingerprint: &str,
) -> Result<idempotency::StoredResponse, Problem> {
    if let Ok(text) = std::str::from_utf8(&response.body) {
        let opened = sealing.open(fingerprint, text).map_err(Problem::failed)?;
        response.body = opened.into_bytes();
    }
    Ok(response)
}

impl LockGuard {
    fn start(app: App, ticket: IdempotencyLock) -> Self {
        let (renewing, held) = (app.clone(), ticket.clone());
        let renewal = tokio::spawn(async move {
            loop {
                tokio::time::sleep(RENEW_INTERVAL).await;
                match idempotency::renew(&renewing.db, &renewing.clock, &held).await {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(error) => tracing::debug!(%error, "an idempotency lock was not renewed"),
                }
            }
        });
        Self {
            app,
            ticket: Some(ticket),
            _renewal: AbortOnDropHandle::new(renewal),
        }
    }

    /// Returns a function that makes the stored response, for the transaction of the work.
    fn stored_response<R: 'static, T: 'static, const STATUS: u16>(
        &self,
        fingerprint: String,
        make_response: MakeResponse<R, T, STATUS>,
    ) -> Option<PendingResponse<R>> {
        let ticket = self.ticket.clone()?;
        let sealing = self.app.config.webhooks.sealing.clone();
        let of = fingerprint.clone();
        Some(PendingResponse::new(ticket, fingerprint, move |done| {
            let response = make_response(done)?;
            let mut kept = to_stored(&response);
            if response.is_sealed {
                kept.body = sealing
                    .seal(&of, std::str::from_utf8(&kept.body)?)
                    .into_bytes();
            }
            Ok(kept)
        }))
    }

    /// Records that the transaction stored the response.
    fn mark_stored(mut self) {
        self.ticket = None;
    }

    /// Stores the response. The work is done either way; if storing fails, the key stays locked until the lock expires.
    async fn finish<T, const STATUS: u16>(
        mut self,
        fingerprint: &str,
        response: &JsonResponse<T, STATUS>,
    ) {
        let Some(ticket) = self.ticket.take() else {
            return;
        };
        let response = to_stored(response);
        if let Err(error) = idempotency::finish(&self.app.db, &ticket, fingerprint, response).await
        {
            tracing::warn!(%error, "the response was not stored for its Idempotency-Key");
        }
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else {
            return;
        };
        let db = self.app.db.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                // If the release fails, the lock expires by itself.
                if let Err(error) = idempotency::release(&db, &ticket).await {
                    tracing::debug!(%error, "an idempotency key was not released");
                }
            });
        }
    }
}
