//! A webhook receiver that records every request and can be made to misbehave.

mod behaviour;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::watch;

use crate::listener::{Body, Listener, Reset};
use crate::lock::lock;
pub use behaviour::Behaviour;

/// A request, as it arrived.
#[derive(Debug, Clone)]
pub struct Received {
    /// `POST`, for a webhook.
    pub method: Method,
    /// The path, without the query.
    pub path: String,
    /// The query, without the `?`; empty if there is none.
    pub query: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body; if the sender disconnected, what had arrived of it.
    pub body: Bytes,
    /// When it had arrived, on the clock that measures.
    pub at: Instant,
    /// When it had arrived, by wall clock.
    pub at_time: SystemTime,
    /// The status of the response. `None`: not yet, or never, because the connection was reset or the sender gave up
    /// first.
    pub status: Option<u16>,
}

impl Received {
    /// A header's value, or `""`.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }
}

/// A web server on 127.0.0.1 that responds with 200 on every path unless configured otherwise.
#[derive(Debug)]
pub struct Receiver {
    listener: Listener,
    state: Arc<ReceiverState>,
}

#[derive(Debug)]
struct ReceiverState {
    log: Mutex<Vec<Received>>,
    // The length of the log.
    count: watch::Sender<usize>,
    paths: Mutex<HashMap<String, PathPlan>>,
}

#[derive(Debug, Default)]
struct PathPlan {
    next: VecDeque<Behaviour>,
    then: Option<Behaviour>,
}

impl Receiver {
    /// Starts a receiver.
    ///
    /// # Panics
    /// If it cannot listen.
    #[expect(
        clippy::unused_async,
        reason = "every server of this crate starts alike"
    )]
    pub async fn start() -> Self {
        let state = Arc::new(ReceiverState {
            log: Mutex::default(),
            count: watch::Sender::new(0),
            paths: Mutex::default(),
        });
        let receiving = Arc::clone(&state);
        let listener = Listener::start(0, move |request| receive(Arc::clone(&receiving), request));
        Self { listener, state }
    }

    /// The URL of a path, as in `url("/hook")`.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!(
            "http://{}/{}",
            self.listener.address(),
            path.trim_start_matches('/')
        )
    }

    /// From now on requests to `path` are treated so; a request in hand keeps its treatment.
    pub fn set(&self, path: &str, behaviour: Behaviour) {
        let mut paths = lock(&self.state.paths);
        let plan = PathPlan {
            next: VecDeque::new(),
            then: Some(behaviour),
        };
        paths.insert(rooted(path), plan);
    }

    /// The next `count` requests to `path` are treated so, and those after them as before.
    pub fn set_next(&self, path: &str, count: usize, behaviour: &Behaviour) {
        let mut paths = lock(&self.state.paths);
        let plan = paths.entry(rooted(path)).or_default();
        plan.next
            .extend(std::iter::repeat_n(behaviour.clone(), count));
    }

    /// Makes `path` respond with 200 again.
    pub fn mend(&self, path: &str) {
        lock(&self.state.paths).remove(&rooted(path));
    }

    /// Makes every path respond with 200 again.
    pub fn mend_all(&self) {
        lock(&self.state.paths).clear();
    }

    /// Every request so far, in the order of arrival.
    #[must_use]
    pub fn requests(&self) -> Vec<Received> {
        lock(&self.state.log).clone()
    }

    /// Every request so far to one path.
    #[must_use]
    pub fn requests_to(&self, path: &str) -> Vec<Received> {
        let path = rooted(path);
        lock(&self.state.log)
            .iter()
            .filter(|request| request.path == path)
            .cloned()
            .collect()
    }

    /// Waits until `count` requests have arrived in all, and returns them all.
    ///
    /// # Panics
    /// When `deadline` has passed.
    #[track_caller]
    pub fn wait_for(
        &self,
        count: usize,
        deadline: Duration,
    ) -> impl Future<Output = Vec<Received>> + Send {
        self.wait(count, deadline, "", std::panic::Location::caller())
    }

    /// Waits until `count` requests have arrived at `path`, and returns those.
    ///
    /// # Panics
    /// When `deadline` has passed.
    #[track_caller]
    pub fn wait_for_at(
        &self,
        path: &str,
        count: usize,
        deadline: Duration,
    ) -> impl Future<Output = Vec<Received>> + Send {
        self.wait(count, deadline, path, std::panic::Location::caller())
    }

    /// Refuses new connections, and closes the existing ones.
    pub async fn stop(&self) {
        self.listener.stop().await;
    }

    /// Listens on the same port again.
    ///
    /// # Panics
    /// If it runs, or the port is taken.
    #[expect(
        clippy::unused_async,
        reason = "every server of this crate starts alike"
    )]
    pub async fn start_again(&self) {
        self.listener.start_again();
    }

    fn wait(
        &self,
        count: usize,
        deadline: Duration,
        path: &str,
        asked_at: &'static std::panic::Location<'static>,
    ) -> impl Future<Output = Vec<Received>> + Send {
        let mut changes = self.state.count.subscribe();
        let path = (!path.is_empty()).then(|| rooted(path));
        let state = Arc::clone(&self.state);
        async move {
            let arrived = || match &path {
                Some(path) => lock(&state.log)
                    .iter()
                    .filter(|one| one.path == *path)
                    .cloned()
                    .collect(),
                None => lock(&state.log).clone(),
            };
            let enough = changes.wait_for(|_| arrived().len() >= count);
            if tokio::time::timeout(deadline, enough).await.is_err() {
                let place = path.as_deref().unwrap_or("the receiver");
                let seen = arrived().len();
                panic!("{asked_at}: {seen} of {count} requests reached {place} in {deadline:?}");
            }
            arrived()
        }
    }
}

async fn receive(
    state: Arc<ReceiverState>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Reset> {
    let (head, body) = request.into_parts();
    let behaviour = state.treatment(head.uri.path());
    let mut whole = Vec::new();
    let mut body = std::pin::pin!(body);
    while let Some(Ok(frame)) = body.frame().await {
        whole.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
    }
    let index = state.note(Received {
        method: head.method,
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers,
        body: whole.into(),
        at: Instant::now(),
        at_time: SystemTime::now(),
        status: None,
    });
    let response = behaviour.answer().await?;
    lock(&state.log)[index].status = Some(response.status().as_u16());
    Ok(response)
}

impl ReceiverState {
    fn treatment(&self, path: &str) -> Behaviour {
        let mut paths = lock(&self.paths);
        let planned = paths
            .get_mut(path)
            .and_then(|plan| plan.next.pop_front().or_else(|| plan.then.clone()));
        planned.unwrap_or_else(|| Behaviour::status(200))
    }

    /// Returns its place in the log.
    fn note(&self, request: Received) -> usize {
        let mut log = lock(&self.log);
        log.push(request);
        let count = log.len();
        drop(log);
        // Waiters read the log themselves, so the order of two of these does not matter.
        self.count.send_replace(count);
        count - 1
    }
}

fn rooted(path: &str) -> String {
    format!("/{}", path.trim_start_matches('/'))
}
