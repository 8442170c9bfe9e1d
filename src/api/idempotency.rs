//! `Idempotency-Key` on requests that create: the same request again gets the first answer again.

use super::{
    problem::{Code, Problem},
    response::JsonResponse,
    state::State,
};
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

/// What a request is answered, given what its work ended in.
type MakeResponse<R, T, const STATUS: u16> = fn(&R) -> Result<JsonResponse<T, STATUS>, Problem>;

/// How often a request that is under way says so: a few times in the life of its lock.
const RENEW_EVERY: Duration = Duration::from_secs(8);

/// The key of a request, if it has one, and what of the request is known before its body.
#[derive(Clone, Debug)]
pub(super) struct Idempotent {
    key: Option<String>,
    head: String,
}

impl<'a> FromRequest<'a> for Idempotent {
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

/// What a request is to do.
#[derive(Debug)]
pub(super) enum IdempotencyOutcome {
    /// Its work. Without a key there is no lock to hold.
    Work(Option<Box<Lock>>),
    /// Nothing but to compare: its key was answered.
    Compare(Prior),
}

/// The answer to the first request with the key.
#[derive(Debug)]
pub(super) struct Prior {
    fingerprint: String,
    answer: idempotency::StoredResponse,
}

/// The key, held while the request runs; given back when dropped.
#[derive(Debug)]
pub(super) struct Lock {
    app: App,
    ticket: Option<IdempotencyLock>,
    _renewal: AbortOnDropHandle<()>,
}

impl Idempotent {
    /// What the request is, given the digest of its content.
    pub(super) fn fingerprint(&self, content: Sha256Digest) -> String {
        Sha256Digest::compute(format!("{}\n{content}", self.head).as_bytes()).to_string()
    }

    /// Takes the key, or finds what was answered.
    pub(super) async fn enter(
        &self,
        state: &State,
        caller: &Identity,
    ) -> Result<IdempotencyOutcome, Problem> {
        let Some(key) = &self.key else {
            return Ok(IdempotencyOutcome::Work(None));
        };
        let app = &state.app;
        let owner = caller.owner.as_deref();
        match idempotency::acquire(&app.db, &app.clock, owner, key).await? {
            IdempotencyEntry::First(ticket) => Ok(IdempotencyOutcome::Work(Some(Box::new(
                Lock::hold(app.clone(), ticket),
            )))),
            IdempotencyEntry::InFlight => Err(Problem::in_flight()),
            IdempotencyEntry::Answered {
                fingerprint,
                answer,
            } => {
                let sealing = &app.config.webhooks.sealing;
                let answer = opened(answer, sealing, &fingerprint)?;
                Ok(IdempotencyOutcome::Compare(Prior {
                    fingerprint,
                    answer,
                }))
            }
        }
    }

    /// Does the work of a request whose content is known, once: its transaction keeps what `answer` makes of it.
    pub(super) async fn once<R, T, W, const STATUS: u16>(
        &self,
        state: &State,
        caller: &Identity,
        content: Sha256Digest,
        answer: MakeResponse<R, T, STATUS>,
        work: impl FnOnce(Option<PendingResponse<R>>) -> W + Send + 'static,
    ) -> Result<JsonResponse<T, STATUS>, Problem>
    where
        R: Send + Sync + 'static,
        T: Send + 'static,
        W: Future<Output = Result<R, Problem>> + Send,
    {
        let fingerprint = self.fingerprint(content);
        match self.enter(state, caller).await? {
            IdempotencyOutcome::Compare(prior) => prior.again(&fingerprint),
            IdempotencyOutcome::Work(lock) => work_once(lock, fingerprint, answer, work).await,
        }
    }

    /// Does work that may be done twice, as by a crash before the answer to it is kept. It goes on when the client
    /// goes away.
    pub(super) async fn at_least_once<T, const STATUS: u16>(
        &self,
        state: &State,
        caller: &Identity,
        content: Sha256Digest,
        work: impl Future<Output = Result<JsonResponse<T, STATUS>, Problem>> + Send + 'static,
    ) -> Result<JsonResponse<T, STATUS>, Problem>
    where
        T: Send + 'static,
    {
        let fingerprint = self.fingerprint(content);
        match self.enter(state, caller).await? {
            IdempotencyOutcome::Compare(prior) => prior.again(&fingerprint),
            IdempotencyOutcome::Work(lock) => {
                detached(async move {
                    let answer = work.await?;
                    if let Some(lock) = lock {
                        lock.finish(&fingerprint, &answer).await;
                    }
                    Ok(answer)
                })
                .await
            }
        }
    }
}

/// Does the work of a first request, whose transaction keeps the answer. It goes on when the client goes away.
pub(super) async fn work_once<R, T, W, const STATUS: u16>(
    lock: Option<Box<Lock>>,
    fingerprint: String,
    answer: MakeResponse<R, T, STATUS>,
    work: impl FnOnce(Option<PendingResponse<R>>) -> W + Send + 'static,
) -> Result<JsonResponse<T, STATUS>, Problem>
where
    R: Send + Sync + 'static,
    T: Send + 'static,
    W: Future<Output = Result<R, Problem>> + Send,
{
    detached(async move {
        let keep = lock
            .as_ref()
            .and_then(|lock| lock.keep(fingerprint, answer));
        let done = work(keep).await?;
        if let Some(lock) = lock {
            lock.kept();
        }
        landfall_core::failpoint!("request.committed");
        answer(&done)
    })
    .await
}

/// Runs to its end even when nobody waits for it any more.
pub(super) async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, Problem>> + Send + 'static,
) -> Result<T, Problem> {
    use tracing::Instrument;
    tokio::spawn(work.in_current_span())
        .await
        .unwrap_or_else(|panicked| Err(Problem::failed(panicked)))
}

impl Prior {
    /// The first answer, if this is the same request.
    pub(super) fn again<T, const STATUS: u16>(
        self,
        fingerprint: &str,
    ) -> Result<JsonResponse<T, STATUS>, Problem> {
        if self.fingerprint != fingerprint {
            return Err(Problem::new(
                Code::IdempotencyKeyReused,
                "This Idempotency-Key was used for a different request. Use a new key for each request.",
            ));
        }
        let status = StatusCode::from_u16(self.answer.status).map_err(Problem::failed)?;
        let mut headers = Vec::with_capacity(self.answer.headers.len() + 1);
        for (name, value) in self.answer.headers {
            let name: HeaderName = name.parse().map_err(Problem::failed)?;
            headers.push((name, value.parse().map_err(Problem::failed)?));
        }
        // As Stripe's API names it; the draft has no name.
        let replayed = HeaderName::from_static("idempotent-replayed");
        headers.push((replayed, HeaderValue::from_static("true")));
        Ok(JsonResponse::restored(status, headers, self.answer.body))
    }
}

fn lasting<T, const STATUS: u16>(answer: &JsonResponse<T, STATUS>) -> idempotency::StoredResponse {
    let headers = answer.headers.iter();
    idempotency::StoredResponse {
        status: answer.status.as_u16(),
        headers: headers
            .filter_map(|(name, value)| {
                Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
            })
            .collect(),
        body: answer.body.clone(),
    }
}

/// The answer as it was given: one that showed a secret is kept sealed, as of the request's fingerprint.
fn opened(
    mut answer: idempotency::StoredResponse,
    sealing: &Sealing,
    fingerprint: &str,
) -> Result<idempotency::StoredResponse, Problem> {
    if let Ok(text) = std::str::from_utf8(&answer.body) {
        let opened = sealing.open(fingerprint, text).map_err(Problem::failed)?;
        answer.body = opened.into_bytes();
    }
    Ok(answer)
}

impl Lock {
    fn hold(app: App, ticket: IdempotencyLock) -> Self {
        let (renewing, held) = (app.clone(), ticket.clone());
        let renewal = tokio::spawn(async move {
            loop {
                tokio::time::sleep(RENEW_EVERY).await;
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

    /// The answer `answer` will make, for the transaction that does the work.
    fn keep<R: 'static, T: 'static, const STATUS: u16>(
        &self,
        fingerprint: String,
        answer: MakeResponse<R, T, STATUS>,
    ) -> Option<PendingResponse<R>> {
        let ticket = self.ticket.clone()?;
        let sealing = self.app.config.webhooks.sealing.clone();
        let of = fingerprint.clone();
        Some(PendingResponse::new(ticket, fingerprint, move |done| {
            let answer = answer(done)?;
            let mut kept = lasting(&answer);
            if answer.is_sealed {
                kept.body = sealing
                    .seal(&of, std::str::from_utf8(&kept.body)?)
                    .into_bytes();
            }
            Ok(kept)
        }))
    }

    /// The answer was kept by the transaction.
    fn kept(mut self) {
        self.ticket = None;
    }

    /// Keeps the answer. The work is done whether or not that succeeds; when it does not, the key stays taken
    /// until its lock ends.
    async fn finish<T, const STATUS: u16>(
        mut self,
        fingerprint: &str,
        answer: &JsonResponse<T, STATUS>,
    ) {
        let Some(ticket) = self.ticket.take() else {
            return;
        };
        let answer = lasting(answer);
        if let Err(error) = idempotency::finish(&self.app.db, &ticket, fingerprint, answer).await {
            tracing::warn!(%error, "an answer was not kept for its Idempotency-Key");
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else {
            return;
        };
        let db = self.app.db.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                // A key that is not given back is free when its lock ends.
                if let Err(error) = idempotency::release(&db, &ticket).await {
                    tracing::debug!(%error, "an idempotency key was not given back");
                }
            });
        }
    }
}
