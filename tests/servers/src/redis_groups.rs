//! Redis servers that belong together: a cluster, a master with a replica and a Sentinel, one with TLS.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use crate::background::in_background;
use crate::certificates::Certificates;
use crate::port::free_port;
use crate::redis::{MISSING, RedisServer, ask, try_ask};
use crate::watchdog::{Plan, Signal, Watchdog, find_program, folder, wait_ready};

const READY: Duration = Duration::from_secs(60);

/// A Redis Cluster of three masters with a replica each.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<RedisServer>,
}

/// A line of `CLUSTER NODES`.
struct Node {
    id: String,
    port: u16,
    is_master: bool,
    slots: Vec<(u16, u16)>,
}

impl RedisCluster {
    /// Starts six nodes and joins them with `redis-cli --cluster create`.
    ///
    /// # Panics
    /// If a binary is missing or the cluster does not come up.
    pub async fn start() -> Self {
        let options = [
            "--cluster-enabled",
            "yes",
            "--cluster-announce-ip",
            "127.0.0.1",
            "--cluster-node-timeout",
            "1000",
            "--cluster-replica-validity-factor",
            "0",
            "--repl-diskless-sync-delay",
            "0",
        ];
        let mut nodes = Vec::new();
        for _ in 0..6 {
            nodes.push(RedisServer::start_with(&options).await);
        }
        let ports: Vec<u16> = nodes.iter().map(RedisServer::port).collect();
        in_background(move || {
            let program = find_program(&["redis-cli", "valkey-cli"], &[]).expect(MISSING);
            let output = Command::new(program)
                .args(["--cluster", "create"])
                .args(ports.iter().map(|port| format!("127.0.0.1:{port}")))
                .args(["--cluster-replicas", "1", "--cluster-yes"])
                .output()
                .expect("redis-cli runs");
            assert!(
                output.status.success(),
                "no cluster: {}",
                String::from_utf8_lossy(&output.stdout)
            );
            let all_joined = || {
                ports.iter().all(|port| {
                    try_ask::<String>(*port, redis::cmd("CLUSTER").arg("INFO")).is_ok_and(|info| {
                        info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:6")
                    })
                })
            };
            // A replica that has never seen its master's data does not take over.
            let all_copied = || {
                let linked = ports.iter().filter(|port| {
                    try_ask::<String>(**port, redis::cmd("INFO").arg("replication"))
                        .is_ok_and(|info| info.contains("master_link_status:up"))
                });
                linked.count() == 3
            };
            wait_ready(READY, || all_joined() && all_copied(), || false)
                .expect("the Redis cluster does not come up");
        })
        .await;
        Self { nodes }
    }

    /// `redis-cluster://` and the addresses of all nodes.
    #[must_use]
    pub fn url(&self) -> String {
        let addresses: Vec<String> = self
            .nodes
            .iter()
            .map(|node| format!("127.0.0.1:{}", node.port()))
            .collect();
        format!("redis-cluster://{}", addresses.join(","))
    }

    /// Kills the master that has the slot of `key`, and waits until its replica has taken over.
    ///
    /// # Panics
    /// If no replica does.
    pub async fn fail_over_master_of(&self, key: &str) {
        let slot = self.slot_of(key);
        let master = self.master_of(slot);
        let killed = self
            .nodes
            .iter()
            .find(|node| node.port() == master)
            .expect("the master is ours");
        killed.kill().await;
        let others: Vec<u16> = self.ports().filter(|port| *port != master).collect();
        in_background(move || {
            let taken_over = || {
                others.iter().all(|port| {
                    try_nodes(*port).is_some_and(|nodes| {
                        nodes
                            .iter()
                            .any(|node| node.is_master && node.port != master && node.has(slot))
                    })
                })
            };
            wait_ready(READY, taken_over, || false).expect("no replica took over");
        })
        .await;
    }

    /// Moves the slot of `key`, with its keys, to another master, ten keys at a time, as `redis-cli --cluster reshard`
    /// does.
    ///
    /// # Panics
    /// If a node refuses.
    pub async fn move_slot_of(&self, key: &str) {
        let slot = self.slot_of(key);
        let source = self.master_of(slot);
        in_background(move || {
            let nodes = try_nodes(source).expect("the master answers");
            let id_of = |port: u16| {
                nodes
                    .iter()
                    .find(|node| node.port == port)
                    .expect("a node of the cluster")
                    .id
                    .clone()
            };
            let target = nodes
                .iter()
                .find(|node| node.is_master && node.port != source)
                .expect("another master")
                .port;
            let set = |port: u16, state: &str, node: &str| {
                let mut command = redis::cmd("CLUSTER");
                command.arg("SETSLOT").arg(slot).arg(state).arg(node);
                ask::<()>(port, &command);
            };
            set(target, "IMPORTING", &id_of(source));
            set(source, "MIGRATING", &id_of(target));
            loop {
                let mut some = redis::cmd("CLUSTER");
                some.arg("GETKEYSINSLOT").arg(slot).arg(10);
                let keys: Vec<Vec<u8>> = ask(source, &some);
                if keys.is_empty() {
                    break;
                }
                let mut migrate = redis::cmd("MIGRATE");
                migrate
                    .arg("127.0.0.1")
                    .arg(target)
                    .arg("")
                    .arg(0)
                    .arg(5_000);
                migrate.arg("REPLACE").arg("KEYS").arg(keys);
                ask::<redis::Value>(source, &migrate);
            }
            set(target, "NODE", &id_of(target));
            set(source, "NODE", &id_of(target));
        })
        .await;
    }

    fn ports(&self) -> impl Iterator<Item = u16> {
        self.nodes.iter().map(RedisServer::port)
    }

    fn slot_of(&self, key: &str) -> u16 {
        let mut command = redis::cmd("CLUSTER");
        command.arg("KEYSLOT").arg(key);
        let answer = self.ports().find_map(|port| try_ask(port, &command).ok());
        answer.expect("a node answers")
    }

    fn master_of(&self, slot: u16) -> u16 {
        let nodes = self.ports().find_map(try_nodes).expect("a node answers");
        let master = nodes.iter().find(|node| node.is_master && node.has(slot));
        master.expect("a master has the slot").port
    }
}

impl Node {
    fn has(&self, slot: u16) -> bool {
        self.slots
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&slot))
    }

    /// `id ip:port@cport[,name] flags master … link-state slot slot-slot …`
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split(' ').collect();
        let (address, flags) = (fields.get(1)?, fields.get(2)?);
        let port = address
            .split('@')
            .next()?
            .rsplit(':')
            .next()?
            .parse()
            .ok()?;
        let slots = fields.iter().skip(8).filter_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Some((first.parse().ok()?, last.parse().ok()?))
        });
        Some(Self {
            id: (*fields.first()?).to_owned(),
            port,
            is_master: flags.contains("master") && !flags.contains("fail"),
            slots: slots.collect(),
        })
    }
}

fn try_nodes(port: u16) -> Option<Vec<Node>> {
    let text: String = try_ask(port, redis::cmd("CLUSTER").arg("NODES")).ok()?;
    text.lines().map(Node::parse).collect()
}

/// A master, its replica, and a Sentinel that watches them under the name `main`.
#[derive(Debug)]
pub struct RedisSentinel {
    master: RedisServer,
    replica: RedisServer,
    _sentinel: Arc<Watchdog>,
    port: u16,
}

impl RedisSentinel {
    /// Starts all three; a master that is silent for a second is replaced.
    ///
    /// # Panics
    /// If the binary is missing or one of them does not come up.
    pub async fn start() -> Self {
        let master = RedisServer::start().await;
        let master_port = master.port();
        let replica =
            RedisServer::start_with(&["--replicaof", "127.0.0.1", &master_port.to_string()]).await;
        let replica_port = replica.port();
        let (sentinel, port) = in_background(move || {
            let port = free_port();
            let sentinel = launch_sentinel(port, master_port);
            let is_up = || {
                let mut replicas = redis::cmd("SENTINEL");
                replicas.arg("REPLICAS").arg("main");
                let known = try_ask::<Vec<redis::Value>>(port, &replicas)
                    .is_ok_and(|replicas| replicas.len() == 1);
                let linked = try_ask::<String>(replica_port, redis::cmd("INFO").arg("replication"))
                    .is_ok_and(|info| info.contains("master_link_status:up"));
                known && linked
            };
            wait_ready(READY, is_up, || false)
                .unwrap_or_else(|_| panic!("no Sentinel: {}", sentinel.log()));
            (sentinel, port)
        })
        .await;
        Self {
            master,
            replica,
            _sentinel: sentinel,
            port,
        }
    }

    /// `redis-sentinel://127.0.0.1:PORT/main`
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis-sentinel://127.0.0.1:{}/main", self.port)
    }

    /// The server that is the master at the beginning.
    #[must_use]
    pub fn first_master(&self) -> &RedisServer {
        &self.master
    }

    /// The server that becomes the master when the first is away.
    #[must_use]
    pub fn second_master(&self) -> &RedisServer {
        &self.replica
    }

    /// Waits until the Sentinel names the second server.
    ///
    /// # Panics
    /// If it does not.
    pub async fn wait_for_failover(&self) {
        let (port, new) = (self.port, self.replica.port());
        in_background(move || {
            let failed_over = || {
                let mut master = redis::cmd("SENTINEL");
                master.arg("GET-MASTER-ADDR-BY-NAME").arg("main");
                let named =
                    try_ask::<(String, u16)>(port, &master).is_ok_and(|(_, port)| port == new);
                named
                    && try_ask::<String>(new, redis::cmd("INFO").arg("replication"))
                        .is_ok_and(|info| info.contains("role:master"))
            };
            wait_ready(READY, failed_over, || false).expect("the Sentinel names no new master");
        })
        .await;
    }
}

fn launch_sentinel(port: u16, master: u16) -> Arc<Watchdog> {
    let program = find_program(&["redis-server", "valkey-server"], &[]).expect(MISSING);
    let folder = folder("sentinel", None);
    let config = folder.join("sentinel.conf");
    let text = format!(
        "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor main 127.0.0.1 {master} 1\n\
         sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 5000\n",
        folder.display()
    );
    std::fs::write(&config, text).expect("the configuration of the Sentinel can be written");
    let command = vec![
        program.into_os_string(),
        config.into_os_string(),
        OsString::from("--sentinel"),
    ];
    let plan = Plan {
        command,
        folder,
        last_signal: "KILL",
        user: None,
    };
    let watchdog = Arc::new(Watchdog::new(&plan));
    watchdog.start();
    watchdog
}

impl Drop for RedisSentinel {
    fn drop(&mut self) {
        self._sentinel.stop(Signal::KILL);
    }
}

/// A Redis that speaks TLS on a port of its own, with a certificate for 127.0.0.1 of an authority made for it.
#[derive(Debug)]
pub struct TlsRedisServer {
    server: RedisServer,
    port: u16,
    certificates: Certificates,
}

impl TlsRedisServer {
    /// Makes the certificates with `openssl` and starts the server.
    ///
    /// # Panics
    /// If a binary is missing.
    pub async fn start() -> Self {
        let certificates = in_background(Certificates::new).await;
        let port = free_port();
        let options = [
            "--tls-port".to_owned(),
            port.to_string(),
            "--tls-cert-file".to_owned(),
            certificates.certificate().display().to_string(),
            "--tls-key-file".to_owned(),
            certificates.key().display().to_string(),
            "--tls-ca-cert-file".to_owned(),
            certificates.authority().display().to_string(),
            "--tls-auth-clients".to_owned(),
            "no".to_owned(),
        ];
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        Self {
            server: RedisServer::start_with(&options).await,
            port,
            certificates,
        }
    }

    /// `rediss://127.0.0.1:PORT`
    #[must_use]
    pub fn url(&self) -> String {
        format!("rediss://127.0.0.1:{}", self.port)
    }

    /// The same server without TLS.
    #[must_use]
    pub fn plain(&self) -> &RedisServer {
        &self.server
    }

    /// The certificate of the authority, for `SSL_CERT_FILE`.
    #[must_use]
    pub fn authority(&self) -> &Path {
        self.certificates.authority()
    }
}
