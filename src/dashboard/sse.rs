//! Live updates of page parts, by server-sent events (WHATWG HTML, "Server-sent events").
//!
//! A feed loads its data once per second for any number of browsers, and only while at least one is connected. The
//! result is rendered once for all users who may see the same. A stream sends the parts that differ from what it sent
//! last. After a reconnect it starts with all of them, so no state has to be kept.

use super::{
    error::ErrorPage,
    session::{self, User},
    state::Dashboard,
};
use crate::api::mount::RewriteLinks;
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

/// How often a feed loads its data.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// How often a stream checks that its user is still authorized, in polls.
const ACCESS_CHECK_TICKS: u32 = 20;

/// Maximum number of different feeds; further pages are not updated live.
const MAX_FEEDS: usize = 200;

/// Maximum number of streams, so that forgotten windows cannot use up all connections.
const MAX_STREAMS: usize = 1000;

/// Feeds and streams reserved for users who may repair.
const RESERVED_FEEDS: usize = 50;
const RESERVED_STREAMS: usize = 200;

/// Maximum per owner, for all of its tokens together.
const MAX_FEEDS_PER_OWNER: usize = 40;
const MAX_STREAMS_PER_OWNER: usize = 100;

/// The id of the part that shows that the stream is alive.
pub(super) const HEARTBEAT_PART: &str = "beat";

/// Parts of a page by id.
pub(crate) type PageParts = Vec<(String, Markup)>;

type RenderedParts = Arc<Vec<(String, String)>>;

/// The feeds of this process.
#[derive(Debug, Default)]
pub(super) struct LiveFeeds {
    feeds: Mutex<HashMap<String, (Weak<Feed>, Viewer)>>,
    streams: Arc<Mutex<HashMap<Viewer, usize>>>,
}

/// Whom a stream counts against: an owner, or `None` for users who may repair.
type Viewer = Option<String>;

/// A permit for one stream, released on drop.
struct StreamPermit {
    streams: Arc<Mutex<HashMap<Viewer, usize>>>,
    viewer: Viewer,
}

impl StreamPermit {
    fn acquire(streams: &Arc<Mutex<HashMap<Viewer, usize>>>, viewer: &Viewer) -> Option<Self> {
        let mut permits = lock(streams);
        let all: usize = permits.values().sum();
        let own = permits.get(viewer).copied().unwrap_or(0);
        if !has_room(
            viewer,
            (all, MAX_STREAMS, RESERVED_STREAMS),
            (own, MAX_STREAMS_PER_OWNER),
        ) {
            return None;
        }
        *permits.entry(viewer.clone()).or_default() += 1;
        Some(Self {
            streams: Arc::clone(streams),
            viewer: viewer.clone(),
        })
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        let mut permits = lock(&self.streams);
        if let Some(own) = permits.get_mut(&self.viewer) {
            *own -= 1;
            if *own == 0 {
                permits.remove(&self.viewer);
            }
        }
    }
}

/// Whether one more is allowed, within `max` in total, the `reserved` ones, and the owner's share.
fn has_room(
    viewer: &Viewer,
    (all, max, reserved): (usize, usize, usize),
    (own, share): (usize, usize),
) -> bool {
    match viewer {
        None => all < max,
        Some(_) => all < max - reserved && own < share,
    }
}

/// One feed; it polls while a stream holds it.
#[derive(Debug)]
struct Feed {
    latest: watch::Sender<RenderedParts>,
}

impl LiveFeeds {
    /// Returns the feed with this name, and starts it if necessary.
    fn feed(
        &self,
        name: &str,
        viewer: &Viewer,
        load: impl Fn() -> BoxFuture<'static, PageParts> + Send + 'static,
    ) -> Option<Arc<Feed>> {
        let mut feeds = lock(&self.feeds);
        if let Some(feed) = feeds.get(name).and_then(|(feed, _)| feed.upgrade()) {
            return Some(feed);
        }
        feeds.retain(|_, (feed, _)| feed.strong_count() > 0);
        let own = feeds.values().filter(|(_, of)| of == viewer).count();
        if !has_room(
            viewer,
            (feeds.len(), MAX_FEEDS, RESERVED_FEEDS),
            (own, MAX_FEEDS_PER_OWNER),
        ) {
            return None;
        }
        let feed = Arc::new(Feed {
            latest: watch::Sender::new(Arc::default()),
        });
        feeds.insert(name.to_owned(), (Arc::downgrade(&feed), viewer.clone()));
        let held = Arc::downgrade(&feed);
        tokio::spawn(async move {
            while let Some(feed) = held.upgrade() {
                let parts = load().await;
                feed.latest.send_replace(Arc::new(rendered(parts)));
                drop(feed);
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        });
        Some(feed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn rendered(parts: PageParts) -> Vec<(String, String)> {
    let each = parts.into_iter().map(|(id, body)| {
        let whole = html! { div.part id=(id) hx-swap-oob="innerMorph" { (body) } };
        (id, with_plain_lines(&whole.into_string()))
    });
    each.collect()
}

/// Normalizes line endings: a carriage return would end a line of the stream, and untrusted text after it would become
/// a separate field.
fn with_plain_lines(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n")
}

/// Returns the stream of a page. Users for whom `load` returns the same share the feed `name`, so the name must include
/// everything that differs: filters, and whether they may repair.
pub(crate) fn stream(
    dashboard: &Dashboard,
    request: &Request,
    name: &str,
    load: impl Fn() -> BoxFuture<'static, PageParts> + Send + 'static,
) -> Result<Response, ErrorPage> {
    let live = dashboard.live();
    let full = || {
        ErrorPage::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "Too many streams",
            "Close another window first.",
        )
    };
    let user = request.data::<User>();
    let user = user.ok_or_else(|| ErrorPage::failed("a stream without a user"))?;
    let viewer = match user.may_repair() {
        true => None,
        false => Some(user.identity.owner.clone().unwrap_or_default()),
    };
    let permit = StreamPermit::acquire(&live.streams, &viewer).ok_or_else(full)?;
    let feed = live.feed(name, &viewer, load).ok_or_else(full)?;
    let reader = StreamReader {
        latest: feed.latest.subscribe(),
        sent: HashMap::new(),
        dashboard: dashboard.clone(),
        headers: request.headers().clone(),
        turns: 0,
        _held: (feed, permit),
    };
    let stop = dashboard.stop().clone();
    let events = stream::unfold(reader, StreamReader::next).take_until(stop.cancelled_owned());
    Ok(Response::builder()
        .content_type("text/event-stream")
        .extension(RewriteLinks)
        .header(header::CACHE_CONTROL, "no-store")
        // For proxies that buffer responses.
        .header("x-accel-buffering", "no")
        .body(Body::from_bytes_stream(events.map(Ok::<_, io::Error>))))
}

/// One browser's subscription to a feed.
struct StreamReader {
    latest: watch::Receiver<RenderedParts>,
    sent: HashMap<String, String>,
    dashboard: Dashboard,
    headers: HeaderMap,
    turns: u32,
    _held: (Arc<Feed>, StreamPermit),
}

impl StreamReader {
    /// Returns the changes since the last call; `None` ends the stream.
    async fn next(mut self) -> Option<(Bytes, Self)> {
        loop {
            self.latest.changed().await.ok()?;
            self.turns += 1;
            if self.turns.is_multiple_of(ACCESS_CHECK_TICKS) && !self.is_still_authorized().await {
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
            for line in whole.split('\n') {
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

    /// A revoked token ends its streams. While the database is down, no stream ends.
    async fn is_still_authorized(&self) -> bool {
        !matches!(
            session::identity(&self.dashboard, &self.headers).await,
            Ok(None)
        )
    }
}

/// The part in the footer of every page with a stream: when the data was last updated.
pub(crate) fn heartbeat(now: DateTime<Utc>) -> (String, Markup) {
    let text = html! { "Live, as of " (now.format("%H:%M:%S").to_string()) " UTC" };
    (HEARTBEAT_PART.to_owned(), text)
}

/// Returns the name of a feed: the page, and who may see it.
pub(crate) fn name(page: &str, user: &User) -> String {
    let owner = user.identity.owner.as_deref().unwrap_or_default();
    match user.may_repair() {
        true => format!("{page} admin"),
        false => format!("{page} of {owner}"),
    }
}

/// Boxes a future for a feed.
pub(crate) fn boxed<F>(future: F) -> BoxFuture<'static, PageParts>
where
    F: Future<Output = PageParts> + Send + 'static,
{
    future.boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_ending_of_a_stranger_ends_a_line_of_the_stream() {
        let forged = "a\rdata: forged\r\n\revent: end\n\nb";
        let plain = with_plain_lines(forged);
        assert!(!plain.contains('\r'));
        assert_eq!(plain, "a\ndata: forged\n\nevent: end\n\nb");
    }

    #[test]
    fn an_owner_has_its_share_and_administrators_a_reserve() {
        let streams = Arc::default();
        let ann = Some("ann".to_owned());
        let permits: Vec<StreamPermit> = (0..MAX_STREAMS_PER_OWNER)
            .map(|_| StreamPermit::acquire(&streams, &ann).expect("a place"))
            .collect();
        assert!(StreamPermit::acquire(&streams, &ann).is_none());
        let others: Vec<StreamPermit> = (0..MAX_STREAMS)
            .map_while(|n| StreamPermit::acquire(&streams, &Some(n.to_string())))
            .collect();
        assert_eq!(permits.len() + others.len(), MAX_STREAMS - RESERVED_STREAMS);
        assert!(StreamPermit::acquire(&streams, &None).is_some());
        drop((permits, others));
        assert!(lock(&streams).is_empty());
    }
}
