//! A real `landfall` process: started, frozen, killed.

use rustix::process::{Pid, Signal, kill_process};
use std::{
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

/// Timeout for a process to print its address.
const START_WITHIN: Duration = Duration::from_secs(30);

/// A process, killed on drop.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// `http://127.0.0.1:PORT`; empty for workers.
    pub url: String,
}

impl Process {
    /// Starts `landfall` with these arguments in this environment and nothing else's settings.
    pub fn spawn(arguments: &[&str], environment: &[(String, String)]) -> Self {
        let mut command = command(arguments, environment);
        command.stdout(Stdio::piped()).kill_on_drop(true);
        Self {
            child: command.spawn().expect("landfall starts"),
            url: String::new(),
        }
    }

    /// Starts it and waits until it prints its address.
    pub async fn listening(arguments: &[&str], environment: &[(String, String)]) -> Self {
        Self::listens(command(arguments, environment)).await
    }

    /// [`Self::listening`], with its log in a file.
    pub async fn logging_to(
        log: &Path,
        arguments: &[&str],
        environment: &[(String, String)],
    ) -> Self {
        let mut command = command(arguments, environment);
        command.stderr(std::fs::File::create(log).expect("a log"));
        Self::listens(command).await
    }

    /// Starts a script that executes `landfall`, in a folder, and waits until it prints its address.
    pub async fn started(script: &Path, environment: &[(String, String)], folder: &Path) -> Self {
        let mut command = program(script, environment);
        command.current_dir(folder);
        Self::listens(command).await
    }

    async fn listens(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).kill_on_drop(true);
        Self::adopt(command.spawn().expect("landfall starts")).await
    }

    /// Wraps a child with piped standard output, and waits until it prints its address.
    pub async fn adopt(child: Child) -> Self {
        let mut process = Self {
            child,
            url: String::new(),
        };
        let stdout = process
            .child
            .stdout
            .take()
            .expect("standard output is piped");
        let mut lines = BufReader::new(stdout).lines();
        let first = tokio::time::timeout(START_WITHIN, lines.next_line()).await;
        let line = first
            .expect("landfall says where it listens in time")
            .expect("its output can be read");
        let line = line.expect("landfall ended before it listened");
        let url = line
            .strip_prefix("listening on ")
            .expect("the line names the address");
        process.url = url.to_owned();
        process
    }

    /// The process's id, while it runs.
    pub fn id(&self) -> u32 {
        self.child.id().expect("the process runs")
    }

    /// Sends SIGKILL, and waits for the exit.
    pub async fn kill(&mut self) {
        let _ = self.child.start_kill();
        self.child.wait().await.expect("a killed process ends");
    }

    /// Sends SIGTERM, and waits for the exit.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.child.wait().await.expect("a process ends")
    }

    /// Waits for the exit.
    pub async fn ends_within(&mut self, deadline: Duration) -> ExitStatus {
        let ended = tokio::time::timeout(deadline, self.child.wait()).await;
        ended
            .expect("the process does not end in time")
            .expect("a process ends")
    }

    /// Waits for a process that kills itself with SIGKILL.
    pub async fn dies_within(&mut self, deadline: Duration) {
        let status = self.ends_within(deadline).await;
        assert_eq!(
            status.signal(),
            Some(9),
            "ended otherwise than by SIGKILL: {status}"
        );
    }

    /// Whether it is running.
    pub fn is_running(&mut self) -> bool {
        self.child
            .try_wait()
            .expect("a process can be asked")
            .is_none()
    }

    /// Whether it is stopped by SIGSTOP.
    pub fn is_stopped(&self) -> bool {
        let id = self.child.id().expect("the process runs");
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).expect("its state");
        // The name before the state is in parentheses.
        stat.rsplit(") ")
            .next()
            .is_some_and(|rest| rest.starts_with('T'))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("it can be signalled");
    }

    /// The process id, while it runs.
    pub fn pid(&self) -> Pid {
        let id = self.child.id();
        id.and_then(|id| Pid::from_raw(id.cast_signed()))
            .expect("the process runs")
    }
}

/// The binary under test: the one built with the tests, or the one named by LANDFALL_TEST_BINARY.
pub fn binary() -> PathBuf {
    std::env::var_os("LANDFALL_TEST_BINARY")
        .unwrap_or_else(|| env!("CARGO_BIN_EXE_landfall").into())
        .into()
}

/// The command, for tests that want its output.
pub fn command(arguments: &[&str], environment: &[(String, String)]) -> Command {
    let mut command = program(&binary(), environment);
    command.args(arguments);
    command
}

/// Returns a command with only this environment.
pub fn program(path: &Path, environment: &[(String, String)]) -> Command {
    let mut command = Command::new(path);
    command.env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("HOME", std::env::var_os("HOME").unwrap_or_default());
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    command
}
