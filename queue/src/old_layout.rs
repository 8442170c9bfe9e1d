//! Removes the keys of the previous layout, whose names started with `{prefix:` instead of the prefix. Their jobs are
//! pushed again by the application that owns the data.

use crate::{QueueError, Redis, scripts};

/// Removes the keys of these queues and of the registry of the old layout, in bounded pages. Counts per minute and rate
/// limits expire on their own. Returns `false`, without removing anything, while a worker that uses them is alive.
///
/// # Errors
/// [`QueueError::Redis`] or [`QueueError::Timeout`]; see [`QueueError::is_permission`].
pub async fn remove_old_keys(redis: &Redis, queues: &[&str]) -> Result<bool, QueueError> {
    let base = |name: &str| format!("{{{}:{name}}}", redis.prefix());
    let mut script = scripts::REMOVE_OLD_REGISTRY.prepare_invoke();
    script.key(base("registry"));
    if redis.call::<u64>(&script).await? == 0 {
        return Ok(false);
    }
    for queue in queues {
        let mut script = scripts::REMOVE_OLD_QUEUE.prepare_invoke();
        script.key(base(queue));
        while redis.call::<u64>(&script).await? > 0 {}
    }
    Ok(true)
}
