//! One installation's Redis: how it is reached, how long a command may take, and what an outage is.

use std::{
    sync::{
        Arc, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures::Stream;
use redis::{
    Client, Cmd, FromRedisValue, IntoConnectionInfo, Pipeline, RedisFuture, ScriptInvocation,
    Value,
    aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig},
    cluster::ClusterClient,
    cluster_async::ClusterConnection,
};
use tokio::{sync::Mutex, time::timeout};
use tokio_util::task::TaskTracker;

use crate::{QueueError, subscription};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);

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
    outage: AtomicBool,
    ended: std::sync::Mutex<Vec<TaskTracker>>,
}

enum Target {
    Single {
        client: Box<Client>,
        open: Mutex<Option<ConnectionManager>>,
    },
    Cluster {
        client: Box<ClusterClient>,
        /// Messages published on any node reach the subscribers of every node.
        nodes: Vec<Client>,
        open: Mutex<Option<ClusterConnection>>,
    },
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A URL may hold a password.
        f.write_str(match self {
            Self::Single { .. } => "Single",
            Self::Cluster { .. } => "Cluster",
        })
    }
}

impl Redis {
    /// Prepares a connection; nothing is opened yet.
    ///
    /// `url` is `redis://`, `rediss://`, `unix://PATH`, `redis+unix://PATH`, or
    /// `redis-cluster://[USER:PASSWORD@]HOST:PORT,HOST:PORT` (`rediss-cluster://` with TLS).
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
        script.key(&self.inner.prefix);
        let info: String = self.call(&script).await?;
        let bytes = info.lines().find_map(|line| line.strip_prefix(FIELD));
        Ok(bytes.and_then(|n| n.trim().parse().ok()).unwrap_or(0))
    }

    /// Publishes a message. Subscribers that are not connected miss it; after a broken connection
    /// it may arrive twice.
    ///
    /// # Errors
    /// [`QueueError::Redis`] or [`QueueError::Timeout`].
    pub async fn publish(&self, channel: &str, message: &str) -> Result<(), QueueError> {
        let mut command = redis::cmd("PUBLISH");
        command.arg(channel).arg(message);
        self.command(&command).await
    }

    /// The messages of one channel, on a connection of its own that is opened again after a loss,
    /// for ever. Messages published meanwhile are missed. Ends when dropped.
    pub fn subscribe(&self, channel: &str) -> impl Stream<Item = String> + Send + 'static + use<> {
        subscription::messages(self.clone(), channel.to_owned())
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

    /// A client for a subscription; `turn` walks through the nodes of a cluster.
    pub(crate) fn client(&self, turn: usize) -> Option<&Client> {
        match &self.inner.target {
            Target::Single { client, .. } => Some(client),
            Target::Cluster { nodes, .. } => nodes.get(turn.checked_rem(nodes.len())?),
        }
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
            Err(QueueError::Redis(error)) if error.is_connection_dropped() => {
                self.once(request).await
            }
            result => result,
        }
    }

    async fn once<T: FromRedisValue>(&self, request: Request<'_>) -> Result<T, QueueError> {
        let work = async {
            let mut connection = self.connection().await?;
            match request {
                Request::Command(command) => command.query_async(&mut connection).await,
                // Sent whole when Redis does not know it yet.
                Request::Script(script) => script.invoke_async(&mut connection).await,
            }
        };
        match timeout(COMMAND_TIMEOUT, work).await {
            Ok(result) => result.map_err(QueueError::Redis),
            Err(_) => Err(QueueError::Timeout(COMMAND_TIMEOUT)),
        }
    }

    async fn connection(&self) -> redis::RedisResult<Connection> {
        match &self.inner.target {
            Target::Single { client, open } => {
                let mut open = open.lock().await;
                if let Some(manager) = open.as_ref() {
                    return Ok(Connection::Single(manager.clone()));
                }
                let config = ConnectionManagerConfig::new()
                    .set_number_of_retries(1)
                    .set_min_delay(Duration::from_millis(20))
                    .set_max_delay(Duration::from_millis(200))
                    .set_connection_timeout(Some(CONNECT_TIMEOUT))
                    .set_response_timeout(Some(COMMAND_TIMEOUT));
                let manager =
                    ConnectionManager::new_lazy_with_config(Client::clone(client), config)?;
                Ok(Connection::Single(open.insert(manager).clone()))
            }
            Target::Cluster { client, open, .. } => {
                let mut open = open.lock().await;
                if let Some(connection) = open.as_ref() {
                    return Ok(Connection::Cluster(connection.clone()));
                }
                let connection = client.get_async_connection().await?;
                Ok(Connection::Cluster(open.insert(connection).clone()))
            }
        }
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

impl Target {
    fn parse(url: &str) -> redis::RedisResult<Self> {
        let cluster = [
            ("redis-cluster://", "redis"),
            ("rediss-cluster://", "rediss"),
        ]
        .into_iter()
        .find_map(|(start, scheme)| Some((url.strip_prefix(start)?, scheme)));
        let Some((rest, scheme)) = cluster else {
            let client = Client::open(url)?;
            return Ok(Self::Single {
                client: Box::new(client),
                open: Mutex::new(None),
            });
        };
        let (login, hosts) = rest.rsplit_once('@').map_or(("", rest), |(l, h)| (l, h));
        let at = if login.is_empty() { "" } else { "@" };
        let nodes = hosts
            .trim_end_matches('/')
            .split(',')
            .map(|host| format!("{scheme}://{login}{at}{host}").into_connection_info())
            .collect::<Result<Vec<_>, _>>()?;
        let client = ClusterClient::builder(nodes.clone())
            .connection_timeout(CONNECT_TIMEOUT)
            .response_timeout(COMMAND_TIMEOUT)
            .retries(3)
            .build()?;
        let nodes = nodes
            .into_iter()
            .map(Client::open)
            .collect::<Result<_, _>>()?;
        Ok(Self::Cluster {
            client: Box::new(client),
            nodes,
            open: Mutex::new(None),
        })
    }
}

#[derive(Clone, Copy)]
enum Request<'a> {
    Command(&'a Cmd),
    Script(&'a ScriptInvocation<'a>),
}

enum Connection {
    Single(ConnectionManager),
    Cluster(ClusterConnection),
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Single(manager) => manager.req_packed_command(cmd),
            Self::Cluster(cluster) => cluster.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Single(manager) => manager.req_packed_commands(pipeline, offset, count),
            Self::Cluster(cluster) => cluster.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Single(manager) => manager.get_db(),
            Self::Cluster(cluster) => cluster.get_db(),
        }
    }
}
