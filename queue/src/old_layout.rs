//! Removal of the keys of the layout before this one, whose names began with `{prefix:` instead of the prefix. What
//! was in them is pushed again by the owner of the truth.

use crate::{QueueError, Redis, scripts};

/// Removes the keys of these queues and of the registry of the old layout, in bounded pages. Counts per minute and
/// limits of rates expire by themselves. `false`, and nothing is removed, while a worker that uses them is alive.
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
