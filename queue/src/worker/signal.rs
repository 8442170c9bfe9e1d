//! Wake-ups: a flag that remembers, so that a message between two polls is not lost.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use futures::{StreamExt as _, task::AtomicWaker};

use super::Core;
use crate::subscription::{self, Heard};

#[derive(Debug, Default)]
pub(crate) struct Signal {
    raised: AtomicBool,
    waker: AtomicWaker,
}

impl Signal {
    pub(crate) fn raise(&self) {
        self.raised.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Ready once after each raise.
    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        self.waker.register(cx.waker());
        if self.raised.swap(false, Ordering::AcqRel) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

/// Turns messages on the queue's channel into wake-ups, until the worker ends.
pub(crate) async fn listen(core: Arc<Core>) {
    let mut heard = subscription::listen(core.redis.clone(), core.keys.wake_channel());
    let closed = core.closed.clone();
    let wake = async {
        while let Some(Heard::Connected | Heard::Message(_)) = heard.next().await {
            core.signal.raise();
        }
    };
    tokio::select! {
        () = closed.cancelled() => {}
        () = wake => {}
    }
}
