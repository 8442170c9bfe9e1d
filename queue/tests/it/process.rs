//! A worker in a separate process, to be killed or frozen. The test binary runs itself with `worker_process` as the
//! only test and the variables below set.

use std::{
    ffi::OsStr,
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::setup::{Place, settings};

const URL: &str = "QUEUE_TEST_WORKER_URL";
const PREFIX: &str = "QUEUE_TEST_WORKER_PREFIX";

/// Stopped when dropped.
pub(crate) struct WorkerProcess(Child);

impl WorkerProcess {
    /// Starts a worker with 4 slots on the queue of `prefix`.
    pub(crate) fn start(url: &str, prefix: &str) -> Self {
        Self::start_with(url, prefix, &[])
    }

    /// [`Self::start`] with additional environment variables.
    pub(crate) fn start_with(url: &str, prefix: &str, environment: &[(&str, &OsStr)]) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .envs(environment.iter().copied())
            .args([
                "--exact",
                "process::worker_process",
                "--ignored",
                "--nocapture",
            ])
            .env(URL, url)
            .env(PREFIX, prefix)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    pub(crate) fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Lets one held job finish.
    pub(crate) fn release_one(&mut self) {
        use std::io::Write as _;
        let stdin = self.0.stdin.as_mut().unwrap();
        stdin.write_all(b"go\n").unwrap();
        stdin.flush().unwrap();
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.0.id().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Ends with its parent, because standard input is closed then.
#[test]
#[ignore = "no test: the body of `WorkerProcess`, which runs it"]
fn worker_process() {
    let (url, prefix) = (std::env::var(URL).unwrap(), std::env::var(PREFIX).unwrap());
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _entered = runtime.enter();
    let place = Place::joining(&url, &prefix, settings());
    let _worker = place.start(4);
    for line in std::io::stdin().lines() {
        line.unwrap();
        place.log.release(1);
    }
    runtime.shutdown_background();
}
