//! Parts of pages that change in place, by server-sent events (WHATWG HTML, «Server-sent events»).
//!
//! A feed looks once a second, however many browsers show it, and only while one does; what it found is rendered
//! once for all who may see the same. Each stream sends the parts that are not as it sent them last: a stream that
//! comes back after an interruption begins with all of them, and nothing has to be remembered for it.

use super::{
    error::Refusal,
    session::{self, Visitor},
    state::Dashboard,
};
use crate::api::mount::OwnLinks;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use http::{HeaderMap, StatusCode, header};
use maud::{Markup, html};
use poem::{Body, Request, Response};
use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};
use tokio::sync::watch;

/// How often a feed looks.
const EVERY: Duration = Duration::from_secs(1);

/// How often a stream asks whether its visitor may still see it.
const ASK_EVERY: u32 = 20;

/// Different feeds at once; more pages than this do not update themselves.
const MOST_FEEDS: usize = 200;

/// Streams at once, so that forgotten windows cannot hold all connections.
const MOST_STREAMS: usize = 1000;

/// The id of the part that tells that the stream lives.
pub(super) const BEAT: &str = "beat";

/// What a feed found: parts of a page by their id.
pub(crate) type Parts = Vec<(String, Markup)>;

type Found = Arc<Vec<(String, String)>>;

/// All feeds of this process.
#[derive(Debug, Default)]
pub(super) struct Live {
    feeds: Mutex<HashMap<String, Weak<Feed>>>,
    streams: Arc<()>,
}

/// One feed; it looks as long as somebody holds it.
#[derive(Debug)]
struct Feed {
    latest: watch::Sender<Found>,
}

impl Live {
    /// The feed of this name, begun if it was not.
    fn feed(
        &self,
        name: &str,
        look: impl Fn() -> BoxFuture<'static, Parts> + Send + 'static,
    ) -> Option<Arc<Feed>> {
        let mut feeds = lock(&self.feeds);
        if let Some(feed) = feeds.get(name).and_then(Weak::upgrade) {
            return Some(feed);
        }
        feeds.retain(|_, feed| feed.strong_count() > 0);
        if feeds.len() >= MOST_FEEDS {
            return None;
        }
        let feed = Arc::new(Feed {
            latest: watch::Sender::new(Arc::default()),
        });
        feeds.insert(name.to_owned(), Arc::downgrade(&feed));
        let held = Arc::downgrade(&feed);
        tokio::spawn(async move {
            while let Some(feed) = held.upgrade() {
                let parts = look().await;
                feed.latest.send_replace(Arc::new(rendered(parts)));
                drop(feed);
                tokio::time::sleep(EVERY).await;
            }
        });
        Some(feed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn rendered(parts: Parts) -> Vec<(String, String)> {
    let each = parts.into_iter().map(|(id, body)| {
        let whole = html! { div.part id=(id) hx-swap-oob="innerMorph" { (body) } };
        (id, whole.into_string())
    });
    each.collect()
}

/// Answers the stream of a page. `name` says what is shown: visitors for whom `look` finds the same share a feed, so
/// it must tell apart what differs: filters, and whether they may repair.
pub(crate) fn stream(
    dashboard: &Dashboard,
    request: &Request,
    name: &str,
    look: impl Fn() -> BoxFuture<'static, Parts> + Send + 'static,
) -> Result<Response, Refusal> {
    let live = dashboard.live();
    let full = || {
        Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "Too many streams",
            "Close a window.",
        )
    };
    let ticket = Arc::clone(&live.streams);
    if Arc::strong_count(&ticket) > MOST_STREAMS {
        return Err(full());
    }
    let feed = live.feed(name, look).ok_or_else(full)?;
    let reader = Reader {
        latest: feed.latest.subscribe(),
        sent: HashMap::new(),
        dashboard: dashboard.clone(),
        headers: request.headers().clone(),
        turns: 0,
        _held: (feed, ticket),
    };
    let stop = dashboard.stop().clone();
    let events = stream::unfold(reader, Reader::next).take_until(stop.cancelled_owned());
    Ok(Response::builder()
        .content_type("text/event-stream")
        .extension(OwnLinks)
        .header(header::CACHE_CONTROL, "no-store")
        // Proxies that gather answers before they pass them on.
        .header("x-accel-buffering", "no")
        .body(Body::from_bytes_stream(events.map(Ok::<_, io::Error>))))
}

/// One browser's place in a feed.
struct Reader {
    latest: watch::Receiver<Found>,
    sent: HashMap<String, String>,
    dashboard: Dashboard,
    headers: HeaderMap,
    turns: u32,
    _held: (Arc<Feed>, Arc<()>),
}

impl Reader {
    /// What has changed since the last time; nothing ends the stream.
    async fn next(mut self) -> Option<(Bytes, Self)> {
        loop {
            self.latest.changed().await.ok()?;
            self.turns += 1;
            if self.turns.is_multiple_of(ASK_EVERY) && !self.may_stay().await {
                return None;
            }
            let event = self.changes();
            if !event.is_empty() {
                return Some((event.into(), self));
            }
        }
    }

    fn changes(&mut self) -> String {
        let found = Arc::clone(&self.latest.borrow_and_update());
        let mut event = String::new();
        for (id, whole) in found.iter() {
            if self.sent.get(id) == Some(whole) {
                continue;
            }
            for line in whole.lines() {
                event.push_str("data: ");
                event.push_str(line);
                event.push('\n');
            }
            self.sent.insert(id.clone(), whole.clone());
        }
        if !event.is_empty() {
            event.push('\n');
        }
        event
    }

    /// A revoked token ends what its bearer sees. While the database cannot tell, nothing ends.
    async fn may_stay(&self) -> bool {
        !matches!(
            session::identity(&self.dashboard, &self.headers).await,
            Ok(None)
        )
    }
}

/// The part every page with a stream has in its footer: that the figures live, and as of when they are.
pub(crate) fn beat(now: DateTime<Utc>) -> (String, Markup) {
    let text = html! { "Live, as of " (now.format("%H:%M:%S").to_string()) " UTC" };
    (BEAT.to_owned(), text)
}

/// Names a feed by what is shown and to whom.
pub(crate) fn name(page: &str, visitor: &Visitor) -> String {
    let owner = visitor.identity.owner.as_deref().unwrap_or_default();
    match visitor.may_repair() {
        true => format!("{page} admin"),
        false => format!("{page} of {owner}"),
    }
}

/// For feeds: a future of its own for each look.
pub(crate) fn boxed<F>(future: F) -> BoxFuture<'static, Parts>
where
    F: Future<Output = Parts> + Send + 'static,
{
    future.boxed()
}
