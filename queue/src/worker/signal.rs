//! Wake-ups: a sticky flag, so that a message between two polls is not lost.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use futures::{StreamExt as _, task::AtomicWaker};

use super::WorkerState;
use crate::subscription::{self, ChannelEvent};

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

    /// Ready once after each [`Signal::raise`].
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
pub(crate) async fn listen(state: Arc<WorkerState>) {
    let mut heard = subscription::listen(state.redis.clone(), state.keys.wake_channel());
    let closed = state.closed.clone();
    let wake = async {
        while let Some(ChannelEvent::Connected | ChannelEvent::Message(_)) = heard.next().await {
            state.signal.raise();
        }
    };
    tokio::select! {
        () = closed.cancelled() => {}
        () = wake => {}
    }
}
