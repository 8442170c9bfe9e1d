//! A PostgreSQL server of the test's own, and databases on it.

mod programs;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::background::in_background;
use crate::certificates::Certificates;
use crate::port::free_port;
use crate::watchdog::{Plan, Signal, Watchdog, find_program, folder, wait_ready};
use programs::Psql;
pub(crate) use programs::unprivileged_user;

const READY: Duration = Duration::from_secs(60);
const MISSING: &str = "no PostgreSQL server binaries (initdb, postgres, psql) on PATH or in \
    /usr/lib/postgresql. Get them with `apt-get install postgresql`, `dnf install \
    postgresql-server`, `apk add postgresql` or `brew install postgresql`, or run scripts/test, \
    which does";

/// Whether a commit waits for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// `fsync=off`: quicker, and a commit still outlives the server, though not the machine.
    Off,
    /// As in production; what a benchmark measures.
    On,
}

/// A PostgreSQL server on 127.0.0.1, or the one of `LANDFALL_TEST_POSTGRES_URL`.
#[derive(Debug)]
pub struct PostgresServer {
    psql: Psql,
    own: Option<OwnServer>,
    certificates: Option<Certificates>,
}

#[derive(Debug)]
struct OwnServer {
    watchdog: Arc<Watchdog>,
    data: PathBuf,
    port: u16,
}

impl PostgresServer {
    /// Creates a cluster and starts it. It is deleted on drop.
    ///
    /// # Panics
    /// If the server's binaries are missing or it does not start.
    pub async fn start(durability: Durability) -> Self {
        in_background(move || Self::launch(durability)).await
    }

    /// Starts a server that accepts TLS, with a certificate for 127.0.0.1 and `localhost`.
    ///
    /// # Panics
    /// As [`PostgresServer::start`].
    pub async fn start_with_tls() -> Self {
        in_background(|| {
            let certificates = Certificates::new();
            let mut server = Self::launch_with(Durability::Off, |_, data, user| {
                let programs = programs::folders();
                let initdb = find_program(&["initdb"], &programs).expect(MISSING);
                programs::init_cluster(&initdb, data, user);
                programs::use_certificate(data, &certificates, user);
            });
            server.certificates = Some(certificates);
            server
        })
        .await
    }

    /// Starts a standby that replicates from this server, which from now on commits only what the standby has written.
    ///
    /// # Panics
    /// As [`PostgresServer::start`], and if the server is the environment's.
    pub async fn start_standby(&self) -> Self {
        let port = self.port();
        let standby = in_background(move || {
            Self::launch_with(Durability::Off, |folders, data, user| {
                let program = find_program(&["pg_basebackup"], folders).expect(MISSING);
                programs::copy_cluster(&program, port, data, user);
            })
        })
        .await;
        self.run("ALTER SYSTEM SET synchronous_standby_names = '*'".to_owned())
            .await;
        self.run("SELECT pg_reload_conf()".to_owned()).await;
        standby
    }

    /// Makes a standby accept writes, and waits until it does.
    ///
    /// # Panics
    /// If it does not.
    pub async fn promote(&self) {
        let promoted = self.run("SELECT pg_promote()".to_owned()).await;
        assert_eq!(promoted, "t", "the standby was not promoted");
    }

    /// The certificate of the authority of a server with TLS.
    ///
    /// # Panics
    /// If it has no TLS.
    #[must_use]
    pub fn authority(&self) -> &Path {
        let certificates = self.certificates.as_ref();
        certificates.expect("a server with TLS").authority()
    }

    /// The server of `LANDFALL_TEST_POSTGRES_URL` (whose user may create databases), or one for
    /// the whole test process, with [`Durability::Off`]. Tests that share it keep to databases of
    /// their own and never stop it.
    ///
    /// # Panics
    /// As [`PostgresServer::start`].
    #[must_use]
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<PostgresServer> = OnceLock::new();
        SHARED.get_or_init(|| match std::env::var("LANDFALL_TEST_POSTGRES_URL") {
            Ok(url) if !url.is_empty() => {
                let program = find_program(&["psql"], &programs::folders()).expect(MISSING);
                Self {
                    psql: Psql::new(program, url),
                    own: None,
                    certificates: None,
                }
            }
            _ => Self::launch(Durability::Off),
        })
    }

    /// The URL of the maintenance database, `postgres` unless the environment named another.
    #[must_use]
    pub fn url(&self) -> String {
        self.psql.url().to_owned()
    }

    /// Creates an empty database with a name of its own; returns its URL.
    ///
    /// # Panics
    /// If the server refuses.
    pub async fn create_database(&self) -> String {
        let name = programs::unique_name();
        self.run(format!("CREATE DATABASE {name}")).await;
        self.psql.url_of(&name)
    }

    /// Creates a copy of a database without connections, given by name or URL; returns the copy's URL.
    ///
    /// # Panics
    /// If the server refuses.
    pub async fn clone_database(&self, template: &str) -> String {
        let name = programs::unique_name();
        let template = programs::database_of(template);
        self.run(format!("CREATE DATABASE {name} TEMPLATE \"{template}\""))
            .await;
        self.psql.url_of(&name)
    }

    /// The name of a database that `fill`, given its URL, has filled: one to clone. It is made once for all processes
    /// that share the server and run the same build of the same program.
    ///
    /// # Panics
    /// If the server refuses.
    pub async fn template(&self, fill: impl AsyncFnOnce(String)) -> String {
        let name = programs::template_name(self.psql.url());
        let file = std::env::temp_dir().join(format!("{name}.lock"));
        let locked = in_background(move || {
            let file = std::fs::File::create(file)?;
            file.lock()?;
            Ok::<_, std::io::Error>(file)
        });
        let locked = locked.await.expect("cannot lock a file");
        let count = format!("SELECT count(*) FROM pg_database WHERE datname = '{name}'");
        if self.run(count).await == "0" {
            // Under another name until it is whole.
            let draft = self.create_database().await;
            fill(draft.clone()).await;
            let draft = programs::database_of(&draft);
            self.run(format!("ALTER DATABASE {draft} RENAME TO {name}"))
                .await;
        }
        drop(locked);
        name
    }

    /// Drops a database, given by name or URL, and closes its connections.
    ///
    /// # Panics
    /// If the server refuses.
    pub async fn drop_database(&self, database: &str) {
        let name = programs::database_of(database);
        self.run(format!("DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE)"))
            .await;
    }

    /// Ends every connection to a database, given by name or URL; returns how many there were.
    ///
    /// # Panics
    /// If the server refuses.
    pub async fn kill_connections(&self, database: &str) -> u32 {
        let name = programs::database_of(database);
        let sql = format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
             WHERE datname = '{name}' AND pid <> pg_backend_pid()"
        );
        self.run(sql).await.parse().expect("count() is a number")
    }

    /// Runs SQL in a database, given by its URL; returns rows as lines, columns separated by `|`.
    ///
    /// # Panics
    /// If the server refuses.
    pub async fn query(&self, url: &str, sql: &str) -> String {
        let psql = self.psql.at(url);
        let sql = sql.to_owned();
        in_background(move || psql.run(&sql)).await
    }

    /// The process id of the postmaster.
    ///
    /// # Panics
    /// If it is stopped, or is the environment's.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.own().watchdog.pid()
    }

    /// Where the cluster lives; removed with the server.
    ///
    /// # Panics
    /// If the server is the environment's.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.own().watchdog.folder()
    }

    /// Stops it in order (fast shutdown: connections are ended, a checkpoint is written) and waits
    /// until it is gone.
    ///
    /// # Panics
    /// If the server is the environment's.
    pub async fn stop(&self) {
        self.end(Signal::INT).await;
    }

    /// Crashes it (immediate shutdown: no checkpoint, so the next start recovers from the log) and
    /// waits until it is gone.
    ///
    /// # Panics
    /// If the server is the environment's.
    pub async fn kill(&self) {
        self.end(Signal::QUIT).await;
    }

    /// Starts a stopped server on the same port and waits until it accepts connections.
    ///
    /// # Panics
    /// If it runs, does not come up, or is the environment's.
    pub async fn start_again(&self) {
        let own = self.own();
        let (watchdog, data) = (Arc::clone(&own.watchdog), own.data.clone());
        in_background(move || {
            if let Err(reason) = begin(&watchdog, &data) {
                panic!(
                    "PostgreSQL did not start again: {reason}\n{}",
                    watchdog.log()
                );
            }
        })
        .await;
    }

    /// [`PostgresServer::stop`], then [`PostgresServer::start_again`].
    ///
    /// # Panics
    /// If it does not come up, or is the environment's.
    pub async fn restart(&self) {
        self.stop().await;
        self.start_again().await;
    }

    /// The port on 127.0.0.1.
    ///
    /// # Panics
    /// If the server is the environment's.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.own().port
    }

    fn own(&self) -> &OwnServer {
        self.own.as_ref().expect(
            "LANDFALL_TEST_POSTGRES_URL names a server that is not the test's to stop: use \
             PostgresServer::start",
        )
    }

    async fn end(&self, signal: Signal) {
        let watchdog = Arc::clone(&self.own().watchdog);
        in_background(move || watchdog.stop(signal)).await;
    }

    async fn run(&self, sql: String) -> String {
        let psql = self.psql.clone();
        in_background(move || psql.run(&sql)).await
    }

    fn launch(durability: Durability) -> Self {
        Self::launch_with(durability, |folders, data, user| {
            let initdb = find_program(&["initdb"], folders).expect(MISSING);
            programs::init_cluster(&initdb, data, user);
        })
    }

    /// `fill` creates the cluster in the data folder; the programs are in the folders it is given.
    fn launch_with(
        durability: Durability,
        fill: impl Fn(&[PathBuf], &Path, Option<(u32, u32)>),
    ) -> Self {
        let folders = programs::folders();
        let find = |name| find_program(&[name], &folders).expect(MISSING);
        let (postgres, psql) = (find("postgres"), find("psql"));
        let user = programs::unprivileged_user();
        let mut last = String::new();
        // Another process may take the port between our check and the server's bind.
        for _ in 0..5 {
            let port = free_port();
            let folder = folder("postgres", user);
            let data = folder.join("data");
            let command = command(&postgres, &data, port, durability);
            let plan = Plan {
                command,
                folder,
                last_signal: "QUIT",
                user,
            };
            // Made before the cluster, so that a kill during `initdb` leaves nothing either.
            let watchdog = Arc::new(Watchdog::new(&plan));
            fill(&folders, &data, user);
            match begin(&watchdog, &data) {
                Ok(()) => {
                    let url = format!("postgres://landfall@127.0.0.1:{port}/postgres");
                    let own = OwnServer {
                        watchdog,
                        data,
                        port,
                    };
                    return Self {
                        psql: Psql::new(psql, url),
                        own: Some(own),
                        certificates: None,
                    };
                }
                Err(reason) => last = format!("{reason}\n{}", watchdog.log()),
            }
        }
        panic!("{} did not start: {last}", postgres.display());
    }
}

fn command(program: &Path, data: &Path, port: u16, durability: Durability) -> Vec<OsString> {
    let mut command = vec![program.into(), "-D".into(), data.into()];
    let port = port.to_string();
    command.extend(["-h", "127.0.0.1", "-p", &port].map(OsString::from));
    let mut settings = vec!["unix_socket_directories=", "max_connections=400"];
    if durability == Durability::Off {
        settings.extend(["fsync=off", "full_page_writes=off"]);
    }
    for setting in settings {
        command.extend(["-c", setting].map(OsString::from));
    }
    command
}

fn begin(watchdog: &Watchdog, data: &Path) -> Result<(), &'static str> {
    let status = data.join("postmaster.pid");
    // Left by a crash; it would say "ready" of the one before.
    let _ = std::fs::remove_file(&status);
    watchdog.start();
    wait_ready(
        READY,
        // The last line of the file, which is in our own folder and therefore ours.
        || std::fs::read_to_string(&status).is_ok_and(|text| text.trim_end().ends_with("ready")),
        || {
            watchdog
                .log()
                .contains("could not create any TCP/IP sockets")
        },
    )
}
