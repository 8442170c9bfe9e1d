//! A Redis (or Valkey) server of the test's own.

use std::ffi::OsString;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use redis::{Client, Connection, FromRedisValue, RedisResult};

use crate::background::in_background;
use crate::port::free_port;
use crate::watchdog::{Plan, Signal, Watchdog, find_program, folder, wait_ready};

const READY: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(5);
const SLOTS: u16 = 16_384;
pub(crate) const MISSING: &str = "no redis-server or valkey-server on PATH. Get one with `apt-get install \
    redis-server`, `dnf install valkey`, `apk add valkey` or `brew install redis`, or run \
    scripts/test, which does";

/// A `redis-server` on 127.0.0.1, without persistence by default, stopped on drop.
#[derive(Debug)]
pub struct RedisServer {
    watchdog: Arc<Watchdog>,
    port: u16,
}

impl RedisServer {
    /// Starts a server that forgets everything when it stops.
    ///
    /// # Panics
    /// If there is no binary on `PATH`, or it does not start.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts a server with more options, as in `&["--appendonly", "yes"]`.
    ///
    /// # Panics
    /// As [`RedisServer::start`].
    pub async fn start_with(options: &[&str]) -> Self {
        let options: Vec<OsString> = options.iter().map(OsString::from).collect();
        in_background(move || Self::launch(&options)).await
    }

    /// Starts a cluster of one node that owns every slot. Its URL is that of any node.
    ///
    /// # Panics
    /// As [`RedisServer::start`].
    pub async fn start_cluster() -> Self {
        let options = [
            "--cluster-enabled",
            "yes",
            "--cluster-announce-ip",
            "127.0.0.1",
        ];
        let server = Self::start_with(&options).await;
        let port = server.port;
        in_background(move || {
            let mut slots = redis::cmd("CLUSTER");
            slots.arg("ADDSLOTS").arg((0..SLOTS).collect::<Vec<_>>());
            ask::<()>(port, &slots);
            let mut info = redis::cmd("CLUSTER");
            info.arg("INFO");
            wait_ready(
                READY,
                || ask::<String>(port, &info).contains("cluster_state:ok"),
                || false,
            )
            .expect("the Redis cluster of one does not come up");
        })
        .await;
        server
    }

    /// The URL of `LANDFALL_TEST_REDIS_URL`, or of one server for the whole test process: tests
    /// that share it keep to a key prefix of their own and never flush.
    ///
    /// # Panics
    /// As [`RedisServer::start`].
    #[must_use]
    pub fn shared() -> &'static str {
        static SHARED: OnceLock<(String, Option<RedisServer>)> = OnceLock::new();
        let (url, _) = SHARED.get_or_init(|| match std::env::var("LANDFALL_TEST_REDIS_URL") {
            Ok(url) if !url.is_empty() => (url, None),
            _ => {
                let server = Self::launch(&[]);
                (server.url(), Some(server))
            }
        });
        url
    }

    /// `redis://127.0.0.1:PORT`; the same after a restart.
    #[must_use]
    pub fn url(&self) -> String {
        url(self.port)
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process id of the server itself.
    ///
    /// # Panics
    /// If it is stopped.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.watchdog.pid()
    }

    /// Where it keeps its data; removed with the server.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.watchdog.folder()
    }

    /// Stops it in order, as an operator would (SIGTERM), and waits until it is gone.
    pub async fn stop(&self) {
        self.end(Signal::TERM).await;
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    pub async fn kill(&self) {
        self.end(Signal::KILL).await;
    }

    /// Starts a stopped server on the same port, in the same folder, and waits until it responds.
    ///
    /// # Panics
    /// If it runs, or does not come up.
    pub async fn start_again(&self) {
        let watchdog = Arc::clone(&self.watchdog);
        let port = self.port;
        in_background(move || {
            if let Err(reason) = begin(&watchdog, port) {
                panic!("Redis did not start again: {reason}\n{}", watchdog.log());
            }
        })
        .await;
    }

    /// [`RedisServer::stop`], then [`RedisServer::start_again`].
    ///
    /// # Panics
    /// If it does not come up.
    pub async fn restart(&self) {
        self.stop().await;
        self.start_again().await;
    }

    /// `FLUSHALL`.
    ///
    /// # Panics
    /// If the server does not answer.
    pub async fn flush_all(&self) {
        self.run(redis::cmd("FLUSHALL")).await;
    }

    /// `CLIENT PAUSE`: connections stay open, and commands get no response for `time`.
    ///
    /// # Panics
    /// If the server does not answer.
    pub async fn pause(&self, time: Duration) {
        let mut command = redis::cmd("CLIENT");
        command
            .arg("PAUSE")
            .arg(u64::try_from(time.as_millis()).expect("a pause a test waits for"));
        self.run(command).await;
    }

    /// `CONFIG SET`, for instance `maxmemory`.
    ///
    /// # Panics
    /// If the server does not answer or does not know the setting.
    pub async fn set_config(&self, setting: &str, value: &str) {
        let mut command = redis::cmd("CONFIG");
        command.arg("SET").arg(setting).arg(value);
        self.run(command).await;
    }

    /// Deletes a key; whether there was one.
    ///
    /// # Panics
    /// If the server does not answer.
    pub async fn delete(&self, key: &str) -> bool {
        let (port, mut command) = (self.port, redis::cmd("DEL"));
        command.arg(key);
        in_background(move || ask::<u64>(port, &command)).await == 1
    }

    /// The names of the keys that begin with `start`, in order.
    ///
    /// # Panics
    /// If the server does not answer.
    pub async fn keys(&self, start: &str) -> Vec<String> {
        let (port, mut command) = (self.port, redis::cmd("KEYS"));
        command.arg(format!("{start}*"));
        let mut keys = in_background(move || ask::<Vec<String>>(port, &command)).await;
        keys.sort();
        keys
    }

    /// `ACL SETUSER`, as in `&["limited", "on", ">password", "~prefix*", "+@all"]`.
    ///
    /// # Panics
    /// If the server does not answer or does not know a rule.
    pub async fn set_user(&self, rules: &[&str]) {
        let mut command = redis::cmd("ACL");
        command.arg("SETUSER").arg(rules);
        self.run(command).await;
    }

    /// Closes every client's connection, subscribers included.
    ///
    /// # Panics
    /// If the server does not answer.
    pub async fn drop_connections(&self) {
        for kind in ["normal", "pubsub"] {
            let mut command = redis::cmd("CLIENT");
            command
                .arg("KILL")
                .arg("TYPE")
                .arg(kind)
                .arg("SKIPME")
                .arg("yes");
            self.run(command).await;
        }
    }

    /// SIGSTOP: the port still accepts connections, and nothing responds until [`RedisServer::thaw`].
    ///
    /// # Panics
    /// If it is stopped.
    pub fn freeze(&self) {
        self.watchdog.signal(Signal::STOP);
    }

    /// SIGCONT, after [`RedisServer::freeze`].
    ///
    /// # Panics
    /// If it is stopped.
    pub fn thaw(&self) {
        self.watchdog.signal(Signal::CONT);
    }

    fn launch(options: &[OsString]) -> Self {
        let program = find_program(&["redis-server", "valkey-server"], &[]).expect(MISSING);
        let mut last = String::new();
        // Another process may take the port between our check and the server's bind.
        for _ in 0..5 {
            let port = free_port();
            let folder = folder("redis", None);
            let mut command = vec![program.clone().into_os_string()];
            let fixed = [
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--port",
                &port.to_string(),
                "--dir",
            ];
            command.extend(fixed.map(OsString::from));
            command.push(folder.clone().into_os_string());
            command.extend_from_slice(options);
            let plan = Plan {
                command,
                folder,
                last_signal: "KILL",
                user: None,
            };
            let watchdog = Arc::new(Watchdog::new(&plan));
            match begin(&watchdog, port) {
                Ok(()) => return Self { watchdog, port },
                Err(reason) => last = format!("{reason}\n{}", watchdog.log()),
            }
        }
        panic!("{} did not start: {last}", program.display());
    }

    async fn end(&self, signal: Signal) {
        let watchdog = Arc::clone(&self.watchdog);
        in_background(move || watchdog.stop(signal)).await;
    }

    async fn run(&self, command: redis::Cmd) {
        let port = self.port;
        in_background(move || ask::<redis::Value>(port, &command)).await;
    }
}

fn url(port: u16) -> String {
    format!("redis://127.0.0.1:{port}")
}

fn begin(watchdog: &Watchdog, port: u16) -> Result<(), &'static str> {
    watchdog.start();
    let ours = format!("process_id:{}\r\n", watchdog.pid());
    let info = redis::cmd("INFO");
    wait_ready(
        READY,
        // The process id distinguishes our server from another one that took the port first. A server that is still
        // loading its append-only file only answers this.
        || {
            try_ask::<String>(port, &info)
                .is_ok_and(|answer| answer.contains(&ours) && answer.contains("\nloading:0\r"))
        },
        || watchdog.log().contains("Address already in use") || watchdog.log().contains("FATAL"),
    )
}

fn connect(port: u16) -> RedisResult<Connection> {
    let connection = Client::open(url(port))?.get_connection_with_timeout(TIMEOUT)?;
    connection.set_read_timeout(Some(TIMEOUT))?;
    Ok(connection)
}

pub(crate) fn try_ask<T: FromRedisValue>(port: u16, command: &redis::Cmd) -> RedisResult<T> {
    command.query(&mut connect(port)?)
}

pub(crate) fn ask<T: FromRedisValue>(port: u16, command: &redis::Cmd) -> T {
    try_ask(port, command).unwrap_or_else(|error| panic!("the test's Redis did not obey: {error}"))
}
