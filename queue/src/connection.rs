//! The connection to an installation's Redis: targets, command timeouts and outages.

use std::{
    sync::{
        Arc, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::Stream;
use redis::{Cmd, ErrorKind, FromRedisValue, ScriptInvocation, ServerErrorKind, Value};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::task::TaskTracker;

use crate::{
    QueueError,
    keys::Keys,
    subscription,
    target::{Connection, Target},
};

pub(crate) const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);

/// The Redis of one installation (or Valkey, or a cluster): a URL and a key prefix.
///
/// Cloning is cheap and shares the connection. Connections are opened by the first command and reopened after a loss,
/// indefinitely; every command has a timeout of 5 seconds. Run Redis with `maxmemory-policy noeviction`: evicted keys
/// are lost jobs.
#[derive(Clone, Debug)]
pub struct Redis {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    prefix: String,
    target: Target,
    slot: Mutex<ConnectionSlot>,
    outage: AtomicBool,
    ended: std::sync::Mutex<Vec<TaskTracker>>,
}

/// The open connection, if any, and how many there were before it.
#[derive(Default)]
struct ConnectionSlot {
    number: u64,
    connection: Option<Connection>,
}

impl std::fmt::Debug for ConnectionSlot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectionSlot")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl Redis {
    /// Prepares a connection without opening it.
    ///
    /// `url` is `redis://`, `rediss://`, `unix://PATH`, `redis+unix://PATH`,
    /// `redis-cluster://[USER:PASSWORD@]HOST:PORT,HOST:PORT` (`rediss-cluster://` with TLS), or
    /// `redis-sentinel://[USER:PASSWORD@]HOST:PORT,HOST:PORT/MASTER[/DATABASE]` (`rediss-sentinel://`), where the
    /// addresses are those of the Sentinels. With TLS, the server's certificate is verified against the system's store,
    /// or against the file named by `SSL_CERT_FILE`.
    ///
    /// `prefix` is 1 to 64 bytes without braces or control characters.
    ///
    /// # Errors
    /// [`QueueError::Url`] or [`QueueError::Prefix`].
    pub fn open(url: &str, prefix: &str) -> Result<Self, QueueError> {
        let forbidden = |c: char| c.is_control() || c == '{' || c == '}';
        if prefix.is_empty() || prefix.len() > 64 || prefix.contains(forbidden) {
            return Err(QueueError::Prefix);
        }
        Ok(Self {
            inner: Arc::new(Inner {
                prefix: prefix.to_owned(),
                target: Target::parse(url).map_err(QueueError::Url)?,
                slot: Mutex::default(),
                outage: AtomicBool::new(false),
                ended: std::sync::Mutex::default(),
            }),
        })
    }

    /// The key prefix.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.inner.prefix
    }

    /// Sends `PING` and returns the round-trip time.
    ///
    /// # Errors
    /// [`QueueError::Redis`] or [`QueueError::Timeout`].
    pub async fn ping(&self) -> Result<Duration, QueueError> {
        let begun = Instant::now();
        let _: Value = self.command(&redis::cmd("PING")).await?;
        Ok(begun.elapsed())
    }

    /// Returns the memory that Redis uses for its data, in bytes; in a cluster, that of one node.
    ///
    /// # Errors
    /// [`QueueError::Redis`] or [`QueueError::Timeout`].
    pub async fn memory_used(&self) -> Result<u64, QueueError> {
        const FIELD: &str = "used_memory:";
        let script = redis::Script::new("return redis.call('INFO', 'memory')");
        let mut script = script.prepare_invoke();
        script.key(Keys::registry(self.prefix()).base);
        let info: String = self.call(&script).await?;
        let bytes = info.lines().find_map(|line| line.strip_prefix(FIELD));
        Ok(bytes.and_then(|n| n.trim().parse().ok()).unwrap_or(0))
    }

    /// Publishes a message on `prefix:channel`. Subscribers that are not connected miss it; after a broken connection
    /// it may arrive twice.
    ///
    /// # Errors
    /// [`QueueError::Redis`] or [`QueueError::Timeout`].
    pub async fn publish(&self, channel: &str, message: &str) -> Result<(), QueueError> {
        let mut command = redis::cmd("PUBLISH");
        command
            .arg(Keys::channel(self.prefix(), channel))
            .arg(message);
        self.command(&command).await
    }

    /// Subscribes to a channel, on a connection of its own that is reopened after a loss, indefinitely. Messages
    /// published in the meantime are missed. Ends when dropped.
    pub fn subscribe(
        &self,
        channel: &str,
    ) -> impl Stream<Item = String> + Send + Unpin + 'static + use<> {
        subscription::messages(self.clone(), Keys::channel(self.prefix(), channel))
    }

    /// Waits at most `limit` until workers that have ended have reported their outcomes to Redis.
    pub(crate) async fn settle(&self, limit: Duration) {
        let ended = std::mem::take(&mut *self.ended());
        let all = async {
            for tasks in ended {
                tasks.wait().await;
            }
        };
        if timeout(limit, all).await.is_err() {
            tracing::warn!("some claims could not be released; their leases will expire");
        }
    }

    /// Registers the remaining tasks of a worker that has ended.
    pub(crate) fn settling(&self, tasks: TaskTracker) {
        let mut ended = self.ended();
        ended.retain(|tasks| !tasks.is_empty());
        ended.push(tasks);
    }

    fn ended(&self) -> MutexGuard<'_, Vec<TaskTracker>> {
        let ended = self.inner.ended.lock();
        ended.unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn target(&self) -> &Target {
        &self.inner.target
    }

    pub(crate) async fn command<T: FromRedisValue>(&self, cmd: &Cmd) -> Result<T, QueueError> {
        self.send_with_retry(Request::Command(cmd)).await
    }

    pub(crate) async fn call<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, QueueError> {
        self.send_with_retry(Request::Script(script)).await
    }

    /// A broken connection is noticed only when it is used, so commands that failed because of it are retried once.
    /// Every command and script here can be repeated safely.
    async fn send_with_retry<T: FromRedisValue>(
        &self,
        request: Request<'_>,
    ) -> Result<T, QueueError> {
        match self.once(request).await {
            Err(QueueError::Redis(error))
                if error.is_connection_dropped() || is_read_only(&error) =>
            {
                self.once(request).await
            }
            result => result,
        }
    }

    async fn once<T: FromRedisValue>(&self, request: Request<'_>) -> Result<T, QueueError> {
        let deadline = Instant::now() + COMMAND_TIMEOUT;
        let late = |_| QueueError::Timeout(COMMAND_TIMEOUT);
        let opening = timeout_at(deadline, self.connection()).await;
        let (number, mut connection) = opening.map_err(late)?.map_err(QueueError::Redis)?;
        let answer = async {
            match request {
                Request::Command(command) => command.query_async(&mut connection).await,
                // Sends the whole script if Redis does not have it yet.
                Request::Script(script) => script.invoke_async(&mut connection).await,
            }
        };
        let result = match timeout_at(deadline, answer).await {
            Ok(result) => result.map_err(QueueError::Redis),
            Err(elapsed) => Err(late(elapsed)),
        };
        if let Err(error) = &result {
            self.give_up_connection_after(error, number).await;
        }
        result
    }

    /// The connection manager replaces a connection that breaks, but not one that hangs because the host at the other
    /// end is gone, nor one to a server that has become a replica.
    async fn give_up_connection_after(&self, error: &QueueError, number: u64) {
        let hopeless = match error {
            QueueError::Timeout(_) => true,
            QueueError::Redis(error) => {
                error.is_timeout()
                    || is_read_only(error)
                    || error.is_io_error() && !self.inner.target.reconnects()
            }
            _ => false,
        };
        if hopeless {
            let mut slot = self.inner.slot.lock().await;
            if slot.number == number {
                slot.connection = None;
            }
        }
    }

    async fn connection(&self) -> redis::RedisResult<(u64, Connection)> {
        let mut slot = self.inner.slot.lock().await;
        if let Some(connection) = &slot.connection {
            return Ok((slot.number, connection.clone()));
        }
        let connection = self.inner.target.connect().await?;
        slot.number += 1;
        slot.connection = Some(connection.clone());
        Ok((slot.number, connection))
    }

    /// Logs one warning when an outage starts, whichever command notices it first.
    pub(crate) fn note_failure(&self, error: &QueueError) {
        if !self.inner.outage.swap(true, Ordering::Relaxed) {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            tracing::warn!(%error, cause, "Redis cannot be reached; workers are waiting for it");
        }
    }

    /// Logs once when the outage is over.
    pub(crate) fn note_recovery(&self) {
        if self.inner.outage.swap(false, Ordering::Relaxed) {
            tracing::info!("Redis can be reached again");
        }
    }
}

/// Whether the server has been demoted from master to replica.
fn is_read_only(error: &redis::RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
}

#[derive(Clone, Copy)]
enum Request<'a> {
    Command(&'a Cmd),
    Script(&'a ScriptInvocation<'a>),
}
