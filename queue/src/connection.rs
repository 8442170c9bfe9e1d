//! One installation's Redis: how it is reached, how long a command may take, and what an outage is.

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

/// One installation's Redis (or Valkey, or cluster): a URL and a key prefix.
///
/// Cloning is cheap and shares the connection. Connections are opened by the first command and
/// opened again after a loss, for ever; every command has a timeout of 5 seconds. Run Redis with
/// `maxmemory-policy noeviction`: evicted keys are lost jobs.
#[derive(Clone, Debug)]
pub struct Redis {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    prefix: String,
    target: Target,
    link: Mutex<Link>,
    outage: AtomicBool,
    ended: std::sync::Mutex<Vec<TaskTracker>>,
}

/// The connection that is open, if one is, and how many there were before it.
#[derive(Default)]
struct Link {
    number: u64,
    connection: Option<Connection>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl Redis {
    /// Prepares a connection; nothing is opened yet.
    ///
    /// `url` is `redis://`, `rediss://`, `unix://PATH`, `redis+unix://PATH`,
    /// `redis-cluster://[USER:PASSWORD@]HOST:PORT,HOST:PORT` (`rediss-cluster://` with TLS), or
    /// `redis-sentinel://[USER:PASSWORD@]HOST:PORT,HOST:PORT/MASTER[/DATABASE]` (`rediss-sentinel://`), where the
    /// addresses are those of the Sentinels. With TLS the server's certificate is checked against the system's
    /// store, or against the file that `SSL_CERT_FILE` names.
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
                link: Mutex::default(),
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

    /// Sends `PING` and tells how long the answer took.
    ///
    /// # Errors
    /// [`QueueError::Redis`] or [`QueueError::Timeout`].
    pub async fn ping(&self) -> Result<Duration, QueueError> {
        let begun = Instant::now();
        let _: Value = self.command(&redis::cmd("PING")).await?;
        Ok(begun.elapsed())
    }

    /// Bytes of memory Redis uses for its data; in a cluster, of one node.
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

    /// The messages published on one channel, on a connection of its own that is opened again after a loss,
    /// for ever. Messages published meanwhile are missed. Ends when dropped.
    pub fn subscribe(
        &self,
        channel: &str,
    ) -> impl Stream<Item = String> + Send + Unpin + 'static + use<> {
        subscription::messages(self.clone(), Keys::channel(self.prefix(), channel))
    }

    /// Waits until the workers that have ended have told Redis so, at most `limit`.
    pub(crate) async fn settle(&self, limit: Duration) {
        let ended = std::mem::take(&mut *self.ended());
        let all = async {
            for tasks in ended {
                tasks.wait().await;
            }
        };
        if timeout(limit, all).await.is_err() {
            tracing::warn!("some claims could not be given back; they end with their leases");
        }
    }

    /// A worker has ended; these are its last tasks.
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
        self.twice(Request::Command(cmd)).await
    }

    pub(crate) async fn call<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, QueueError> {
        self.twice(Request::Script(script)).await
    }

    /// A broken connection shows only when it is used, so what failed for that is sent once more.
    /// Every command and script here can be repeated without harm.
    async fn twice<T: FromRedisValue>(&self, request: Request<'_>) -> Result<T, QueueError> {
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
                // Sent whole when Redis does not know it yet.
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

    /// The connection manager replaces a connection that breaks. Not one that only hangs, because
    /// the machine at the other end is gone, nor one to a server that is now a replica.
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
            let mut link = self.inner.link.lock().await;
            if link.number == number {
                link.connection = None;
            }
        }
    }

    async fn connection(&self) -> redis::RedisResult<(u64, Connection)> {
        let mut link = self.inner.link.lock().await;
        if let Some(connection) = &link.connection {
            return Ok((link.number, connection.clone()));
        }
        let connection = self.inner.target.connect().await?;
        link.number += 1;
        link.connection = Some(connection.clone());
        Ok((link.number, connection))
    }

    /// One warning when an outage begins, whoever notices it first.
    pub(crate) fn note_failure(&self, error: &QueueError) {
        if !self.inner.outage.swap(true, Ordering::Relaxed) {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            tracing::warn!(%error, cause, "Redis is out of reach; workers wait for it");
        }
    }

    /// One line when it is over.
    pub(crate) fn note_recovery(&self) {
        if self.inner.outage.swap(false, Ordering::Relaxed) {
            tracing::info!("Redis answers again");
        }
    }
}

/// The server was the master once.
fn is_read_only(error: &redis::RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
}

#[derive(Clone, Copy)]
enum Request<'a> {
    Command(&'a Cmd),
    Script(&'a ScriptInvocation<'a>),
}
