//! The embedded Redis of `landfall up`: a child process on a private unix socket, restarted when it dies, and stopped
//! with this process.
//!
//! It stores nothing on disk: Redis is a hint, and after a restart the sweep enqueues the work again. It runs below a
//! small shell that holds the other end of a pipe to this process: when this process ends for any reason, the pipe
//! closes and the shell stops Redis. Both have their own process group, so Ctrl-C in a terminal does not stop Redis
//! while jobs are still finishing.

use secrecy::SecretString;
use std::{
    fs::DirBuilder,
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};
use tokio::{
    net::UnixStream,
    process::{Child, ChildStdin, Command},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// Redis-compatible servers, in order of preference.
const PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];

/// Maximum length of a unix socket path (sun_path in unix(7), including its final zero).
const MAX_SOCKET_PATH_LEN: usize = 107;

/// Timeout for starting.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// Delay before a restart, so that a Redis that cannot run does not keep the machine busy.
const RESTART_DELAY: Duration = Duration::from_millis(250);

/// The log file of Redis, in its folder.
const LOG_FILE: &str = "redis.log";

/// The socket, and the file with its path if it is in another folder.
const SOCKET: &str = "redis.sock";
const SOCKET_PATH_FILE: &str = "redis.socket-place";

const WATCHDOG: &str = r#"
"$@" </dev/null >&2 &
server=$!
{ cat >/dev/null; kill "$server"; } <&3 2>/dev/null &
exec 3<&-
wait "$server"
"#;

/// Why the embedded Redis does not run.
#[derive(Debug, thiserror::Error)]
pub enum RedisError {
    #[error(
        "neither redis-server nor valkey-server is on PATH; install one (`apt install redis-server`, `brew install redis`), or set redis.url"
    )]
    NotInstalled,
    #[error("cannot create the folder {0} for the embedded Redis")]
    Folder(PathBuf, #[source] io::Error),
    #[error("cannot start the embedded Redis")]
    Start(#[source] io::Error),
    #[error("the embedded Redis exited immediately ({0}); its output is in {1}")]
    Ended(ExitStatus, PathBuf),
    #[error("the embedded Redis did not open its socket {0} within {START_TIMEOUT:?}")]
    Silent(PathBuf),
}

/// The running child process, stopped on drop.
#[derive(Debug)]
pub struct EmbeddedRedis {
    socket: PathBuf,
    stop: CancellationToken,
    supervisor: AbortOnDropHandle<()>,
}

impl EmbeddedRedis {
    /// Starts Redis in `data_dir` and waits until it listens.
    ///
    /// # Errors
    /// [`RedisError`].
    pub async fn start(data_dir: &Path) -> Result<Self, RedisError> {
        let program = find_program().ok_or(RedisError::NotInstalled)?;
        let folder = data_dir.join("redis");
        std::fs::create_dir_all(&folder)
            .map_err(|error| RedisError::Folder(folder.clone(), error))?;
        let folder =
            std::path::absolute(&folder).map_err(|error| RedisError::Folder(folder, error))?;
        let socket = choose_socket_path(&folder)
            .map_err(|error| RedisError::Folder(folder.clone(), error))?;
        let launch = LaunchOptions {
            program,
            folder,
            socket: socket.clone(),
        };
        let running = launch.start().await?;
        let stop = CancellationToken::new();
        let supervisor =
            AbortOnDropHandle::new(tokio::spawn(supervise(launch, running, stop.clone())));
        Ok(Self {
            socket,
            stop,
            supervisor,
        })
    }

    /// Returns the URL of the embedded Redis of a `landfall up` on this data folder.
    #[must_use]
    pub fn url_below(data_dir: &Path) -> SecretString {
        let folder = data_dir.join("redis");
        let folder = std::path::absolute(&folder).unwrap_or(folder);
        format!("unix://{}", recorded_socket_path(&folder).display()).into()
    }

    /// Returns its URL, for `redis.url`.
    #[must_use]
    pub fn url(&self) -> SecretString {
        format!("unix://{}", self.socket.display()).into()
    }

    /// Stops it and waits until it has exited.
    pub async fn stop(self) {
        self.stop.cancel();
        if self.supervisor.await.is_err() {
            tracing::warn!("failed to wait for the embedded Redis");
        }
    }
}

fn find_program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let candidates = PROGRAMS
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    candidates.into_iter().find(|candidate| candidate.is_file())
}

/// Chooses the socket path: in the data folder if the path is short enough, otherwise in a private folder, whose path
/// is recorded in the data folder.
fn choose_socket_path(folder: &Path) -> io::Result<PathBuf> {
    let socket = folder.join(SOCKET);
    if socket.as_os_str().len() <= MAX_SOCKET_PATH_LEN {
        return Ok(socket);
    }
    let known = recorded_socket_path(folder);
    if known != socket && is_private(known.parent()) {
        return Ok(known);
    }
    let place = private_folder()?.join(SOCKET);
    std::fs::write(
        folder.join(SOCKET_PATH_FILE),
        place.as_os_str().as_encoded_bytes(),
    )?;
    Ok(place)
}

/// Returns the recorded socket path.
fn recorded_socket_path(folder: &Path) -> PathBuf {
    let socket = folder.join(SOCKET);
    if socket.as_os_str().len() <= MAX_SOCKET_PATH_LEN {
        return socket;
    }
    match std::fs::read_to_string(folder.join(SOCKET_PATH_FILE)) {
        Ok(place) if !place.is_empty() => place.into(),
        _ => socket,
    }
}

/// Returns the user's runtime folder (XDG Base Directory Specification), or creates one with an unguessable name.
fn private_folder() -> io::Result<PathBuf> {
    let own = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let base = own
        .filter(|own| is_private(Some(own)))
        .unwrap_or_else(std::env::temp_dir);
    let folder = base.join(format!(
        "landfall-{}",
        format_args!("{:032x}", rand::random::<u128>())
    ));
    DirBuilder::new().mode(0o700).create(&folder)?;
    Ok(folder)
}

/// Whether a folder belongs to this user and is inaccessible to others.
fn is_private(folder: Option<&Path>) -> bool {
    let Some(Ok(found)) = folder.map(std::fs::symlink_metadata) else {
        return false;
    };
    found.is_dir()
        && found.uid() == rustix::process::geteuid().as_raw()
        && found.mode() & 0o077 == 0
}

/// Redis, and our end of the pipe that keeps it running.
struct RunningRedis {
    child: Child,
    /// Separate from the child, because waiting for a child closes its pipe.
    pipe: Option<ChildStdin>,
}

struct LaunchOptions {
    program: PathBuf,
    folder: PathBuf,
    socket: PathBuf,
}

impl LaunchOptions {
    async fn start(&self) -> Result<RunningRedis, RedisError> {
        // A leftover socket would look like a running server.
        let _ = std::fs::remove_file(&self.socket);
        let mut child = self.command().spawn().map_err(RedisError::Start)?;
        let pipe = child.stdin.take();
        let began = Instant::now();
        while UnixStream::connect(&self.socket).await.is_err() {
            if let Some(status) = child.try_wait().map_err(RedisError::Start)? {
                return Err(RedisError::Ended(status, self.folder.join(LOG_FILE)));
            }
            if began.elapsed() > START_TIMEOUT {
                return Err(RedisError::Silent(self.socket.clone()));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(RunningRedis { child, pipe })
    }

    fn command(&self) -> Command {
        let mut command = Command::new("sh");
        // The pipe is the shell's standard input, moved to 3 so that the server does not inherit it as its own.
        command
            .args(["-c", &format!("exec 3<&0\n{WATCHDOG}"), "landfall-redis"])
            .arg(&self.program);
        command.args([
            "--port",
            "0",
            "--save",
            "",
            "--appendonly",
            "no",
            "--daemonize",
            "no",
        ]);
        command.args([
            "--loglevel",
            "warning",
            "--logfile",
            LOG_FILE,
            "--unixsocketperm",
            "700",
            "--maxmemory-policy",
            "noeviction",
        ]);
        command
            .arg("--unixsocket")
            .arg(&self.socket)
            .arg("--dir")
            .arg(&self.folder);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0)
            .kill_on_drop(false);
        command
    }
}

async fn supervise(launch: LaunchOptions, mut running: RunningRedis, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => {
                drop(running.pipe.take());
                let _ = running.child.wait().await;
                let _ = std::fs::remove_file(&launch.socket);
                return;
            }
            ended = running.child.wait() => {
                let ended = match ended {
                    Ok(status) => status.to_string(),
                    Err(error) => error.to_string(),
                };
                tracing::warn!(ended, "the embedded Redis has exited, restarting it");
            }
        }
        running = loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(RESTART_DELAY) => {}
            }
            match launch.start().await {
                Ok(running) => break running,
                Err(error) => tracing::error!(%error, "the embedded Redis failed to start"),
            }
        };
    }
}
