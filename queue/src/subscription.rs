//! Subscriptions that outlive their connection.

use std::{pin::Pin, time::Duration};

use futures::{Stream, StreamExt as _, stream};
use redis::aio::{PubSubSink, PubSubStream};
use tokio::time::{Instant, sleep, timeout};

use crate::connection::Redis;

/// A connection that says nothing for this long is asked whether it still lives.
const QUIET: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// What a subscriber sees.
#[derive(Debug)]
pub(crate) enum Heard {
    /// Subscribed, for the first time or again: whatever was published before may be missed.
    Connected,
    Message(String),
}

pub(crate) fn messages(
    redis: Redis,
    channel: String,
) -> impl Stream<Item = String> + Send + Unpin + 'static {
    Box::pin(
        listen(redis, channel).filter_map(async |heard| match heard {
            Heard::Message(message) => Some(message),
            Heard::Connected => None,
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

pub(crate) fn listen(redis: Redis, channel: String) -> Pin<Box<dyn Stream<Item = Heard> + Send>> {
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
    async fn next(&mut self) -> Heard {
        loop {
            if let Some((sink, stream)) = &mut self.open {
                if let Some(message) = next_message(sink, stream).await {
                    return Heard::Message(message);
                }
                self.open = None;
            }
            sleep(self.wait).await;
            match self.connect().await {
                Some(open) => {
                    self.open = Some(open);
                    self.wait = Duration::ZERO;
                    return Heard::Connected;
                }
                None => self.wait = (self.wait * 2 + Duration::from_millis(20)).min(LONGEST_WAIT),
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
        match timeout(ANSWER, open).await {
            Ok(Ok(open)) => Some(open),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a subscription could not be opened");
                None
            }
            Err(_) => None,
        }
    }
}

/// `None` when the connection is gone.
async fn next_message(sink: &mut PubSubSink, stream: &mut PubSubStream) -> Option<String> {
    loop {
        let deadline = Instant::now() + QUIET;
        match tokio::time::timeout_at(deadline, stream.next()).await {
            Ok(Some(message)) => return Some(message.get_payload().unwrap_or_default()),
            Ok(None) => return None,
            Err(_) => {
                let answer = timeout(ANSWER, sink.ping::<redis::Value>()).await;
                if !matches!(answer, Ok(Ok(_))) {
                    return None;
                }
            }
        }
    }
}
