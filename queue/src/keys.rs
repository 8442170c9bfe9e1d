//! Names of keys. Every key starts with the prefix, so that an ACL can grant `~prefix*`. The keys of a queue then have
//! the hash tag `{queue}`, so they are in one slot of a Redis Cluster and a script may use them all. The registry has
//! its own tag.
//!
//! | key after `prefix:{queue}` | type | holds | written by |
//! | --- | --- | --- | --- |
//! | `:job:<id>` | hash | `state group args tries max crashes born due began ended owner error again trace` | every script |
//! | `:ids` | set | every id, for the walk that repairs the indexes below | push, maintenance |
//! | `:lane:<group>` | sorted set | ready ids of one group in order; `:lane:` has those without group | push, promotion, release |
//! | `:grouped` | sorted set | ready ids of all groups, for counts, ages and pages | with the lanes |
//! | `:ring`, `:slow_ring` | sorted set | groups that may have a job to start, in the order of their turns | with the lanes; when a slot is released |
//! | `:slow` | sorted set | slow groups by the time they were last seen slow; forgotten after ten minutes | fetch, ack |
//! | `:slots:<group>` | sorted set | running ids of the group by their start | fetch, renewal; released by ack, reclaim, delete |
//! | `:limits` | hash | group → limit set at run time | `set_group_limit`, `set_group_limits` |
//! | `:scheduled` | sorted set | id by due time | push, ack |
//! | `:lease` | sorted set | group, newline, id of a running job by the end of its lease | fetch, renewal |
//! | `:done`, `:dead` | sorted set | id by end time; trimmed to the settings | ack |
//! | `:meta` | hash | `order done failed paused tended grace walk walked` | every script |
//! | `:hour:<n>` | hash | `<minute>d`, `<minute>f` → count; expires after 25 hours | ack |
//! | `:fetched:<worker>` | string | token and ids of the last fetch; expires after 10 minutes | fetch |
//! | `:wake` | channel | an empty message when there is something to start | every script |
//!
//! Limits, after `prefix:{limits}`: `:rate:<subject>` (string, microseconds), `:sum:<name>` (string),
//! `:slots:<subject>` (sorted set, holder by the end of its lease); each expires by itself.
//!
//! Registry, after `prefix:{registry}`: `:workers` (sorted set, name by last heartbeat), `:about` (hash, name → JSON),
//! `:queues` (set).
//!
//! Scripts are atomic, so a client that crashes between two of them leaves at most leases that expire. Times are
//! microseconds by the clock of Redis.

#[derive(Debug, Clone)]
pub(crate) struct Keys {
    pub(crate) base: String,
}

impl Keys {
    pub(crate) fn queue(prefix: &str, queue: &str) -> Self {
        Self {
            base: format!("{prefix}:{{{queue}}}"),
        }
    }

    pub(crate) fn registry(prefix: &str) -> Self {
        Self {
            base: format!("{prefix}:{{registry}}"),
        }
    }

    pub(crate) fn limits(prefix: &str) -> Self {
        Self {
            base: format!("{prefix}:{{limits}}"),
        }
    }

    pub(crate) fn wake_channel(&self) -> String {
        format!("{}:wake", self.base)
    }

    pub(crate) fn group_limits(&self) -> String {
        format!("{}:limits", self.base)
    }

    /// Returns the name of a channel that belongs to no queue.
    pub(crate) fn channel(prefix: &str, name: &str) -> String {
        format!("{prefix}:{name}")
    }

    pub(crate) fn queues(&self) -> String {
        format!("{}:queues", self.base)
    }
}
