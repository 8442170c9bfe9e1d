//! Owns one server process and its folder, and ends both when the test process is gone.
//!
//! The server runs under a small shell whose standard input is a pipe held by the test process.
//! The kernel closes the pipe when that process ends, even by SIGKILL; the shell reads end of
//! file, kills the server and removes the folder. The shell has a process group of its own, so a
//! Ctrl-C at the terminal cannot end it before its work is done.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

use crate::lock::lock;

const LOG: &str = "server.log";
// A server that does not end by itself in this time is killed.
const GRACE: Duration = Duration::from_secs(30);

// Only `wait` reaps the server, so its process id cannot be reused before the shell has forgotten it.
const SCRIPT: &str = r#"
folder=$1 last_signal=$2
shift 2
pid=
while read -r order; do
    case $order in
    start)
        "$@" </dev/null >>"$folder/server.log" 2>&1 &
        pid=$!
        echo "$pid"
        ;;
    wait)
        wait "$pid"
        pid=
        echo ended
        ;;
    esac
done
if [ -n "$pid" ]; then
    kill -CONT "$pid"
    kill "-$last_signal" "$pid"
    wait "$pid"
fi
exec rm -rf -- "$folder"
"#;

/// How a server is run.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) command: Vec<OsString>,
    /// An empty folder of the server's own; removed at the end.
    pub(crate) folder: PathBuf,
    /// The signal that stops it when its owner is gone: `KILL`, or a gentler one if it would leave files behind.
    pub(crate) last_signal: &'static str,
    /// The user to run it as; `None` for the current user.
    pub(crate) user: Option<(u32, u32)>,
}

#[derive(Debug)]
pub(crate) struct Watchdog {
    folder: PathBuf,
    shell: Mutex<Shell>,
}

#[derive(Debug)]
struct Shell {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    server: Option<Pid>,
}

impl Watchdog {
    /// Starts the shell; the server waits for [`Watchdog::start`].
    pub(crate) fn new(plan: &Plan) -> Self {
        let mut command = Command::new("sh");
        command
            .args(["-c", SCRIPT, "watchdog"])
            .arg(&plan.folder)
            .arg(plan.last_signal)
            .args(&plan.command)
            .current_dir(&plan.folder)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        if let Some((user, group)) = plan.user {
            command.uid(user).gid(group);
        }
        let mut child = command.spawn().expect("no `sh` to run a test server under");
        let orders = child.stdin.take();
        let answers = child.stdout.take().expect("standard output is a pipe");
        Self {
            folder: plan.folder.clone(),
            shell: Mutex::new(Shell {
                child,
                orders,
                answers: BufReader::new(answers),
                server: None,
            }),
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// What the server wrote to its standard output and error, for a panic message.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join(LOG)).unwrap_or_default()
    }

    /// Starts the server process; whether it is ready is the caller's to find out.
    pub(crate) fn start(&self) {
        let mut shell = self.shell();
        assert!(
            shell.server.is_none(),
            "the server runs already: stop it first"
        );
        let answer = shell.order("start");
        let pid = answer.parse().ok().and_then(Pid::from_raw);
        shell.server = Some(pid.expect("the watchdog did not say the server's process id"));
    }

    /// Sends `signal` and waits until the process is gone; nothing to do if it does not run.
    pub(crate) fn stop(&self, signal: Signal) {
        let mut shell = self.shell();
        let Some(pid) = shell.server.take() else {
            return;
        };
        // A frozen process would not receive the signal; a dead one does not need it.
        let _ = kill_process(pid, Signal::CONT);
        let _ = kill_process(pid, signal);
        let (ended, wait) = mpsc::channel::<()>();
        let escalation = thread::spawn(move || {
            if wait.recv_timeout(GRACE) == Err(mpsc::RecvTimeoutError::Timeout) {
                let _ = kill_process(pid, Signal::KILL);
            }
        });
        shell.order("wait");
        drop(ended);
        escalation
            .join()
            .expect("the escalation thread does not panic");
    }

    /// Sends a signal to the running server.
    ///
    /// # Panics
    /// If it does not run.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.server(), signal).expect("cannot signal the test server");
    }

    /// The process id.
    ///
    /// # Panics
    /// If the server is stopped.
    pub(crate) fn pid(&self) -> u32 {
        self.server().as_raw_nonzero().get().unsigned_abs()
    }

    fn server(&self) -> Pid {
        self.shell()
            .server
            .expect("the server is stopped: start it again first")
    }

    fn shell(&self) -> MutexGuard<'_, Shell> {
        lock(&self.shell)
    }
}

impl Shell {
    fn order(&mut self, order: &str) -> String {
        let orders = self.orders.as_mut().expect("open until dropped");
        writeln!(orders, "{order}").expect("the watchdog of a test server was killed");
        let mut answer = String::new();
        self.answers
            .read_line(&mut answer)
            .expect("the watchdog answers in text");
        answer.trim_end().to_owned()
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        let shell = self.shell.get_mut().unwrap_or_else(PoisonError::into_inner);
        shell.orders = None;
        // Waited for so that the folder is gone when the owner is; not being able to wait harms
        // nothing.
        let _ = shell.child.wait();
    }
}

/// An empty folder for a server, for its watchdog to remove.
pub(crate) fn folder(name: &str, user: Option<(u32, u32)>) -> PathBuf {
    // Another user may not be allowed into a TMPDIR of root's.
    let parent = if user.is_some() {
        PathBuf::from("/tmp")
    } else {
        std::env::temp_dir()
    };
    let folder = tempfile::Builder::new()
        .prefix(&format!("landfall-{name}-"))
        .tempdir_in(parent)
        .expect("cannot make a temporary folder")
        .keep();
    if let Some((user, group)) = user {
        std::os::unix::fs::chown(&folder, Some(user), Some(group))
            .expect("cannot give a temporary folder to the server's user");
    }
    folder
}

/// The first of `names` found in `PATH` or `more` folders.
pub(crate) fn find_program(names: &[&str], more: &[PathBuf]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = std::env::split_paths(&path)
        .chain(more.iter().cloned())
        .collect();
    names
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)))
        .find(|program| program.is_file())
}

/// Calls `ready` until it is true.
///
/// # Errors
/// When `deadline` has passed, or `hopeless` says that it will never be.
pub(crate) fn wait_ready(
    deadline: Duration,
    mut ready: impl FnMut() -> bool,
    mut hopeless: impl FnMut() -> bool,
) -> Result<(), &'static str> {
    let started = Instant::now();
    while !ready() {
        if hopeless() {
            return Err("it gave up");
        }
        if started.elapsed() > deadline {
            return Err("it did not get ready in time");
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
