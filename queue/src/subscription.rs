//! Subscriptions that survive the loss of their connection.

use std::{pin::Pin, time::Duration};

use futures::{Stream, StreamExt as _, stream};
use redis::aio::{PubSubSink, PubSubStream};
use tokio::time::{Instant, sleep, timeout};

use crate::connection::Redis;

/// A connection without messages for this long is checked with a ping.
const IDLE_BEFORE_PING: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(1);

/// An event of a subscription.
#[derive(Debug)]
pub(crate) enum ChannelEvent {
    /// Subscribed, for the first time or again: earlier messages may have been missed.
    Connected,
    Message(String),
}

pub(crate) fn messages(
    redis: Redis,
    channel: String,
) -> impl Stream<Item = String> + Send + Unpin + 'static {
    Box::pin(
        listen(redis, channel).filter_map(async |heard| match heard {
            ChannelEvent::Message(message) => Some(message),
            ChannelEvent::Connected => None,
        }),
    )
}

struct Listener {
    redis: Redis,
    channel: String,
    open: Option<(PubSubSink, PubSubStream)>,
    turn: usize,
    wait: Duration,
}

pub(crate) fn listen(
    redis: Redis,
    channel: String,
) -> Pin<Box<dyn Stream<Item = ChannelEvent> + Send>> {
    let listener = Listener {
        redis,
        channel,
        open: None,
        turn: 0,
        wait: Duration::ZERO,
    };
    Box::pin(stream::unfold(listener, async |mut listener| {
        let heard = listener.next().await;
        Some((heard, listener))
    }))
}

impl Listener {
    async fn next(&mut self) -> ChannelEvent {
        loop {
            if let Some((sink, stream)) = &mut self.open {
                if let Some(message) = next_message(sink, stream).await {
                    return ChannelEvent::Message(message);
                }
                self.open = None;
            }
            sleep(self.wait).await;
            match self.connect().await {
                Some(open) => {
                    self.open = Some(open);
                    self.wait = Duration::ZERO;
                    return ChannelEvent::Connected;
                }
                None => {
                    self.wait = (self.wait * 2 + Duration::from_millis(20)).min(MAX_RETRY_DELAY)
                }
            }
        }
    }

    async fn connect(&mut self) -> Option<(PubSubSink, PubSubStream)> {
        self.turn = self.turn.wrapping_add(1);
        let open = async {
            let client = self.redis.target().subscriber(self.turn).await?;
            let (mut sink, stream) = client.get_async_pubsub().await?.split();
            sink.subscribe(&self.channel).await?;
            redis::RedisResult::Ok((sink, stream))
        };
        match timeout(PING_TIMEOUT, open).await {
            Ok(Ok(open)) => Some(open),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a subscription could not be opened");
                None
            }
            Err(_) => None,
        }
    }
}

/// Returns `None` when the connection is lost.
async fn next_message(sink: &mut PubSubSink, stream: &mut PubSubStream) -> Option<String> {
    loop {
        let deadline = Instant::now() + IDLE_BEFORE_PING;
        match tokio::time::timeout_at(deadline, stream.next()).await {
            Ok(Some(message)) => return Some(message.get_payload().unwrap_or_default()),
            Ok(None) => return None,
            Err(_) => {
                let answer = timeout(PING_TIMEOUT, sink.ping::<redis::Value>()).await;
                if !matches!(answer, Ok(Ok(_))) {
                    return None;
                }
            }
        }
    }
}
