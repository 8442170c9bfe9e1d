//! Points in the code where a test can kill or freeze the process: between every two steps of finalize and deliver.
//!
//! Compiled in only with the feature `failpoints`, which no release has. `LANDFALL_FAILPOINT=name=kill` ends the
//! process with SIGKILL when it reaches `name`; `name=stop` freezes it with SIGSTOP until it receives SIGCONT;
//! `name=kill@3` takes effect the third time.

/// Marks a failpoint, such as `failpoint!("finalize.claimed")`.
#[cfg(feature = "failpoints")]
#[macro_export]
macro_rules! failpoint {
    ($name:literal) => {
        $crate::failpoint::reach($name);
    };
}

/// Marks a failpoint, such as `failpoint!("finalize.claimed")`; a no-op without the feature `failpoints`.
#[cfg(not(feature = "failpoints"))]
#[macro_export]
macro_rules! failpoint {
    ($name:literal) => {};
}

/// Kills or freezes this process if the environment says so for this failpoint.
#[cfg(feature = "failpoints")]
pub fn reach(name: &str) {
    use std::sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    };
    static WANTED: LazyLock<Option<(String, String, u32)>> = LazyLock::new(|| {
        let text = std::env::var("LANDFALL_FAILPOINT").ok()?;
        let (name, action) = text.split_once('=')?;
        let (action, nth) = action.split_once('@').unwrap_or((action, "1"));
        Some((name.to_owned(), action.to_owned(), nth.parse().ok()?))
    });
    static REACHED: AtomicU32 = AtomicU32::new(0);
    let Some((wanted, action, nth)) = &*WANTED else {
        return;
    };
    if wanted != name || REACHED.fetch_add(1, Ordering::SeqCst) + 1 != *nth {
        return;
    }
    let signal = match action.as_str() {
        "stop" => rustix::process::Signal::STOP,
        _ => rustix::process::Signal::KILL,
    };
    // The test that set the failpoint waits for the effect, and fails if the signal cannot be sent.
    let _ = rustix::process::kill_process(rustix::process::getpid(), signal);
    if signal == rustix::process::Signal::STOP {
        // The kernel may stop the process by another thread, some time later: this thread must not continue until then.
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
}
