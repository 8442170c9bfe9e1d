//! The location of an installation's Redis: an address, the master named by Sentinels, or the nodes of a cluster.

use std::time::Duration;

use futures::{StreamExt as _, stream::FuturesUnordered};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, IntoConnectionInfo as _, Pipeline, RedisError,
    RedisFuture, RedisResult, Value,
    aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig, MultiplexedConnection},
    cluster::ClusterClient,
    cluster_async::ClusterConnection,
};
use tokio::time::timeout;

use crate::connection::COMMAND_TIMEOUT;

pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// URL schemes with several addresses, the scheme of each address, and whether they are Sentinels.
const MULTI_ADDRESS_SCHEMES: [(&str, &str, bool); 4] = [
    ("redis-cluster://", "redis", false),
    ("rediss-cluster://", "rediss", false),
    ("redis-sentinel://", "redis", true),
    ("rediss-sentinel://", "rediss", true),
];

pub(crate) enum Target {
    Single(Box<Client>),
    Sentinel(SentinelGroup),
    Cluster {
        client: Box<ClusterClient>,
        /// Messages published on any node reach the subscribers of every node.
        nodes: Vec<Client>,
    },
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A URL may contain a password.
        f.write_str(match self {
            Self::Single(_) => "Single",
            Self::Sentinel(_) => "Sentinel",
            Self::Cluster { .. } => "Cluster",
        })
    }
}

impl Target {
    pub(crate) fn parse(url: &str) -> RedisResult<Self> {
        let many = MULTI_ADDRESS_SCHEMES
            .into_iter()
            .find_map(|(start, scheme, sentinel)| {
                Some((url.strip_prefix(start)?, scheme, sentinel))
            });
        let Some((rest, scheme, sentinel)) = many else {
            return Ok(Self::Single(Box::new(Client::open(url)?)));
        };
        let (login, rest) = match rest.rsplit_once('@') {
            Some((login, rest)) => (format!("{login}@"), rest),
            None => (String::new(), rest),
        };
        if sentinel {
            return SentinelGroup::parse(scheme, login, rest).map(Self::Sentinel);
        }
        let nodes = rest
            .trim_end_matches('/')
            .split(',')
            .map(|host| format!("{scheme}://{login}{host}").into_connection_info())
            .collect::<RedisResult<Vec<_>>>()?;
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
        })
    }

    pub(crate) async fn connect(&self) -> RedisResult<Connection> {
        match self {
            Self::Single(client) => {
                let config = ConnectionManagerConfig::new()
                    .set_number_of_retries(1)
                    .set_min_delay(Duration::from_millis(20))
                    .set_max_delay(Duration::from_millis(200))
                    .set_connection_timeout(Some(CONNECT_TIMEOUT))
                    .set_response_timeout(Some(COMMAND_TIMEOUT));
                let client = Client::clone(client);
                ConnectionManager::new_lazy_with_config(client, config).map(Connection::Managed)
            }
            Self::Sentinel(sentinels) => {
                let master = sentinels.find_master().await?;
                open(&master).await.map(Connection::Plain)
            }
            Self::Cluster { client, .. } => {
                client.get_async_connection().await.map(Connection::Cluster)
            }
        }
    }

    /// Whether a broken connection is replaced automatically: not where another server may have become the master.
    pub(crate) fn reconnects(&self) -> bool {
        !matches!(self, Self::Sentinel(_))
    }

    /// Returns a client for a subscription; `turn` selects the node of a cluster.
    pub(crate) async fn subscriber(&self, turn: usize) -> RedisResult<Client> {
        match self {
            Self::Single(client) => Ok(Client::clone(client)),
            Self::Sentinel(sentinels) => sentinels.find_master().await,
            Self::Cluster { nodes, .. } => turn
                .checked_rem(nodes.len())
                .and_then(|turn| nodes.get(turn).cloned())
                .ok_or_else(|| invalid("a cluster needs a node")),
        }
    }
}

/// Sentinels, and the master they monitor (Redis, "Guidelines for Redis clients with support for Redis Sentinel").
pub(crate) struct SentinelGroup {
    /// Each is `HOST:PORT`.
    addresses: Vec<String>,
    master: String,
    database: String,
    scheme: &'static str,
    /// `USER:PASSWORD@` for the master and, where they require it, for the Sentinels; or empty.
    login: String,
}

impl SentinelGroup {
    /// `rest` is `HOST:PORT,HOST:PORT/MASTER`, optionally followed by `/DATABASE`.
    fn parse(scheme: &'static str, login: String, rest: &str) -> RedisResult<Self> {
        let mut parts = rest.split('/');
        let addresses = parts.next().unwrap_or_default();
        let group = Self {
            addresses: addresses.split(',').map(str::to_owned).collect(),
            master: parts.next().unwrap_or_default().to_owned(),
            database: parts.next().unwrap_or_default().to_owned(),
            scheme,
            login,
        };
        if group.master.is_empty() || parts.next().is_some() {
            return Err(invalid(
                "a Sentinel URL ends with the name of the master: redis-sentinel://host:port/name",
            ));
        }
        for address in &group.addresses {
            group.sentinel(address, &group.login)?;
        }
        Ok(group)
    }

    fn sentinel(&self, address: &str, login: &str) -> RedisResult<Client> {
        let port = if address.contains(':') { "" } else { ":26379" };
        Client::open(format!("{}://{login}{address}{port}", self.scheme))
    }

    /// Asks all Sentinels at once; the first one wins that names a server which reports itself as the master.
    async fn find_master(&self) -> RedisResult<Client> {
        let mut answers: FuturesUnordered<_> = self
            .addresses
            .iter()
            .map(|address| timeout(CONNECT_TIMEOUT, self.ask(address)))
            .collect();
        let mut last = invalid("no Sentinel answered");
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(Ok(master)) => return Ok(master),
                Ok(Err(error)) => last = error,
                Err(_) => {}
            }
        }
        Err(last)
    }

    async fn ask(&self, address: &str) -> RedisResult<Client> {
        let mut ask = redis::cmd("SENTINEL");
        ask.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.master);
        let mut named = query::<Option<(String, u16)>>(&self.sentinel(address, "")?, &ask).await;
        if named
            .as_ref()
            .is_err_and(|error| error.code() == Some("NOAUTH"))
        {
            named = query(&self.sentinel(address, &self.login)?, &ask).await;
        }
        let (host, port) =
            named?.ok_or_else(|| invalid("the Sentinels monitor no master of that name"))?;
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host
        };
        let url = format!(
            "{}://{}{host}:{port}/{}",
            self.scheme, self.login, self.database
        );
        let master = Client::open(url)?;
        let role: Vec<Value> = query(&master, &redis::cmd("ROLE")).await?;
        match role.first() {
            Some(Value::BulkString(role)) if role == b"master" => Ok(master),
            _ => Err(invalid(
                "the server named by the Sentinels is not a master; a failover is in progress",
            )),
        }
    }
}

async fn query<T: redis::FromRedisValue>(client: &Client, command: &Cmd) -> RedisResult<T> {
    command.query_async(&mut open(client).await?).await
}

async fn open(client: &Client) -> RedisResult<MultiplexedConnection> {
    let timeouts = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(COMMAND_TIMEOUT));
    client
        .get_multiplexed_async_connection_with_config(&timeouts)
        .await
}

fn invalid(why: &'static str) -> RedisError {
    RedisError::from((ErrorKind::InvalidClientConfig, why))
}

#[derive(Clone)]
pub(crate) enum Connection {
    /// Reconnects automatically.
    Managed(ConnectionManager),
    Plain(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Managed(manager) => manager.req_packed_command(cmd),
            Self::Plain(connection) => connection.req_packed_command(cmd),
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
            Self::Managed(manager) => manager.req_packed_commands(pipeline, offset, count),
            Self::Plain(connection) => connection.req_packed_commands(pipeline, offset, count),
            Self::Cluster(cluster) => cluster.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Managed(manager) => manager.get_db(),
            Self::Plain(connection) => connection.get_db(),
            Self::Cluster(cluster) => cluster.get_db(),
        }
    }
}
