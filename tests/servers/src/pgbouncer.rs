//! pgbouncer in front of a PostgreSQL server of the test.

use std::net::TcpStream;
use std::time::Duration;

use crate::background::in_background;
use crate::port::free_port;
use crate::postgres::PostgresServer;
use crate::watchdog::{Plan, Watchdog, find_program, folder, wait_ready};

const READY: Duration = Duration::from_secs(30);

/// A pgbouncer on 127.0.0.1, stopped on drop.
#[derive(Debug)]
pub struct PgBouncer {
    watchdog: Watchdog,
    port: u16,
}

impl PgBouncer {
    /// Starts it in front of a server, with this pool mode and at most five connections per database.
    ///
    /// # Panics
    /// If the program is missing or does not start.
    pub async fn start(server: &PostgresServer, pool_mode: &str) -> Self {
        let (to, mode) = (server.port(), pool_mode.to_owned());
        in_background(move || Self::launch(to, &mode)).await
    }

    fn launch(to: u16, mode: &str) -> Self {
        let program = find_program(&["pgbouncer"], &["/usr/sbin".into()]);
        let program = program.expect(
            "no pgbouncer on PATH: `apt-get install pgbouncer`, or run scripts/test, which does",
        );
        // It refuses to run as root.
        let user = crate::postgres::unprivileged_user();
        let folder = folder("pgbouncer", user);
        let port = free_port();
        let configuration = folder.join("pgbouncer.ini");
        let text = format!(
            "[databases]\n* = host=127.0.0.1 port={to} user=landfall\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = any\npool_mode = {mode}\nmax_client_conn = 500\ndefault_pool_size = 5\n\
             server_login_retry = 1\n"
        );
        std::fs::write(&configuration, text).expect("a file in a folder of ours");
        let watchdog = Watchdog::new(&Plan {
            command: vec![program.into(), configuration.into()],
            folder,
            last_signal: "KILL",
            user,
        });
        watchdog.start();
        let listens = || TcpStream::connect(("127.0.0.1", port)).is_ok();
        if let Err(reason) = wait_ready(READY, listens, || false) {
            panic!("pgbouncer did not start: {reason}\n{}", watchdog.log());
        }
        Self { watchdog, port }
    }

    /// The URL of a database, given by its URL on the server itself.
    ///
    /// # Panics
    /// If the URL has no database.
    #[must_use]
    pub fn url_of(&self, database: &str) -> String {
        let (_, name) = database.rsplit_once('/').expect("a database");
        format!("postgres://landfall@127.0.0.1:{}/{name}", self.port)
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.watchdog.log()
    }
}
