//! Waiting for a state, with a deadline, instead of sleeping and hoping.

use std::future::Future;
use std::panic::Location;
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_millis(10);

/// The result of a check: `bool`, or an `Option` or `Result` with the awaited value.
pub trait Outcome {
    /// What `wait_until` returns.
    type Value;
    /// The value, or what was found instead.
    ///
    /// # Errors
    /// The text says why it is not there yet; it ends up in the panic after the deadline.
    fn outcome(self) -> Result<Self::Value, String>;
}

impl Outcome for bool {
    type Value = ();
    fn outcome(self) -> Result<(), String> {
        if self {
            Ok(())
        } else {
            Err("false".to_owned())
        }
    }
}

impl<T> Outcome for Option<T> {
    type Value = T;
    fn outcome(self) -> Result<T, String> {
        self.ok_or_else(|| "None".to_owned())
    }
}

impl<T, E: std::fmt::Display> Outcome for Result<T, E> {
    type Value = T;
    fn outcome(self) -> Result<T, String> {
        self.map_err(|error| error.to_string())
    }
}

/// Calls `look` every 10 ms until it finds what it looks for.
///
/// # Panics
/// When `deadline` has passed, naming the line that waited and what the last look saw. A look that
/// does not come back is ended by the deadline too.
#[track_caller]
pub fn wait_until<L, F>(
    deadline: Duration,
    mut look: L,
) -> impl Future<Output = <F::Output as Outcome>::Value>
where
    L: FnMut() -> F,
    F: Future,
    F::Output: Outcome,
{
    let asked_at = Location::caller();
    async move {
        let started = Instant::now();
        let mut last = "nothing: the first look did not come back".to_owned();
        loop {
            let left = deadline.saturating_sub(started.elapsed());
            match tokio::time::timeout(left, look())
                .await
                .map(Outcome::outcome)
            {
                Ok(Ok(value)) => return value,
                Ok(Err(seen)) => last = seen,
                Err(_) => {}
            }
            assert!(
                started.elapsed() < deadline,
                "{asked_at}: waited {deadline:?} in vain, last saw: {last}"
            );
            tokio::time::sleep(INTERVAL).await;
        }
    }
}
