//! Decides which runs of a process may overlap: ordinary files run concurrently, a suspect file runs alone.
//!
//! A suspect first waits for a moment at which nothing else runs. If there is none in time, it blocks new runs and
//! waits for the running ones to end. Only one suspect waits or runs at a time.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// How long a suspect waits before it blocks new runs.
const SUSPECT_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum SuspectState {
    #[default]
    None,
    Waiting,
    /// Waiting, and blocking new runs.
    Insisting,
    Running,
}

#[derive(Debug, Default)]
struct GateState {
    running: usize,
    suspect: SuspectState,
}

/// See the module documentation.
#[derive(Debug)]
pub(super) struct RunGate {
    state: Mutex<GateState>,
    changed: Notify,
    suspect_timeout: Duration,
}

impl Default for RunGate {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            changed: Notify::new(),
            suspect_timeout: SUSPECT_TIMEOUT,
        }
    }
}

/// An ordinary run, until dropped.
#[derive(Debug)]
pub(super) struct SharedRun(Arc<RunGate>);

/// A suspect that waits or runs, until dropped.
#[derive(Debug)]
pub(super) struct AloneRun(Arc<RunGate>);

impl RunGate {
    fn state(&self) -> MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while a suspect runs or blocks new runs.
    pub(super) async fn enter(self: &Arc<Self>) -> SharedRun {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut state = self.state();
                if matches!(state.suspect, SuspectState::None | SuspectState::Waiting) {
                    state.running += 1;
                    return SharedRun(Arc::clone(self));
                }
            }
            changed.await;
        }
    }

    /// Waits until nothing else runs. Returns `None` while another suspect waits or runs.
    pub(super) async fn enter_alone(self: &Arc<Self>) -> Option<AloneRun> {
        {
            let mut state = self.state();
            if state.suspect != SuspectState::None {
                return None;
            }
            state.suspect = SuspectState::Waiting;
        }
        let place = AloneRun(Arc::clone(self));
        let deadline = Instant::now() + self.suspect_timeout;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let insists = {
                let mut state = self.state();
                if state.running == 0 {
                    state.suspect = SuspectState::Running;
                    return Some(place);
                }
                if Instant::now() >= deadline {
                    state.suspect = SuspectState::Insisting;
                }
                state.suspect == SuspectState::Insisting
            };
            tokio::select! {
                () = changed => {}
                () = sleep_until(deadline), if !insists => {}
            }
        }
    }
}

impl Drop for SharedRun {
    fn drop(&mut self) {
        self.0.state().running -= 1;
        self.0.changed.notify_waiters();
    }
}

impl Drop for AloneRun {
    fn drop(&mut self) {
        self.0.state().suspect = SuspectState::None;
        self.0.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn suspect_runs_alone_and_is_not_kept_waiting_for_ever() {
        let gate = Arc::new(RunGate {
            suspect_timeout: Duration::from_millis(50),
            ..RunGate::default()
        });
        let first = gate.enter().await;
        let waiting = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.enter_alone().await }
        });
        tokio::task::yield_now().await;
        assert!(gate.enter_alone().await.is_none(), "one suspect at a time");
        let second = gate.enter().await;
        // Other runs can start until it blocks them.
        while gate.enter().now_or_never().is_some() {
            tokio::task::yield_now().await;
        }
        drop((first, second));
        let alone = waiting.await.unwrap().expect("its turn");
        assert!(gate.enter().now_or_never().is_none(), "it runs alone");
        drop(alone);
        assert!(gate.enter().now_or_never().is_some());
        assert!(
            gate.enter_alone()
                .now_or_never()
                .is_some_and(|alone| alone.is_some())
        );
    }
}
