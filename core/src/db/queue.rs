//! Taking items off a queue in batches, for everything that writes for many callers at once.

use tokio::sync::mpsc;

/// Fills `batch` with up to `most` queued items, waiting for at least one. Returns false once the queue is closed.
/// Yields once, so that other runnable tasks can queue items too: under load that makes fewer and larger batches.
pub(crate) async fn take_waiting<T>(
    waiting: &mut mpsc::Receiver<T>,
    batch: &mut Vec<T>,
    most: usize,
) -> bool {
    if waiting.recv_many(batch, most).await == 0 {
        return false;
    }
    tokio::task::yield_now().await;
    while batch.len() < most
        && let Ok(one) = waiting.try_recv()
    {
        batch.push(one);
    }
    true
}
