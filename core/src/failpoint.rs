//! Places where a test may end or freeze the process: between every two steps of finalize and deliver.
//!
//! Compiled in with the feature `failpoints` only, which no release has. `LANDFALL_FAILPOINT=name=kill` ends the
//! process by SIGKILL, as the kernel would, when it comes to `name`; `name=stop` freezes it by SIGSTOP until
//! somebody sends SIGCONT; `name=kill@3` does so the third time.

/// Marks a place, such as `failpoint!("finalize.claimed")`.
#[cfg(feature = "failpoints")]
#[macro_export]
macro_rules! failpoint {
    ($name:literal) => {
        $crate::failpoint::reach($name);
    };
}

/// Marks a place, such as `failpoint!("finalize.claimed")`: nothing, without the feature of this crate.
#[cfg(not(feature = "failpoints"))]
#[macro_export]
macro_rules! failpoint {
    ($name:literal) => {};
}

/// Does to this process what the environment says of this place.
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
    // The test that set the failpoint waits for the effect; if the signal cannot be sent, it will not come.
    let _ = rustix::process::kill_process(rustix::process::getpid(), signal);
}
