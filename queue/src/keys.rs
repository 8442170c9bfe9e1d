//! Names of keys. One queue's keys share the hash tag `{prefix:queue}`, so they live in one slot
//! of a Redis Cluster and a script may use them all; the registry has a tag of its own.
//!
//! | key after the tag | type | holds | who writes it |
//! | --- | --- | --- | --- |
//! | `:job:<id>` | hash | `state group tries max crashes born due began ended owner error again trace` | every script |
//! | `:args` | hash | id → arguments as JSON | push; removed with the job |
//! | `:lane:<group>` | sorted set | ready ids of one group in order; `:lane:` has those without group | push, promotion, release |
//! | `:grouped` | sorted set | ready ids of all groups, for counts, ages and pages | with the lanes |
//! | `:ring` | sorted set | groups that may have a job to start, in the order of their turns | whoever makes a job ready or gives a slot back |
//! | `:slots` | hash | group → jobs running | fetch; given back by ack, reclaim, delete |
//! | `:limits` | hash | group → limit set at run time | `set_group_limit` |
//! | `:scheduled` | sorted set | id by due time | push, ack |
//! | `:lease` | sorted set | id of a running job by the end of its lease | fetch, renewal |
//! | `:done`, `:dead` | sorted set | id by end time; trimmed to the settings | ack |
//! | `:meta` | hash | `order done failed paused tended grace` | every script |
//! | `:hour:<n>` | hash | `<minute>d`, `<minute>f` → count; expires after 25 hours | ack |
//! | `:fetched:<worker>` | string | token and ids of the last fetch; expires after 10 minutes | fetch |
//! | `:wake` | channel | an empty message when there is something to start | every script |
//!
//! Limits: `:rate:<subject>` (string, microseconds), `:sum:<name>` (string), `:slots:<subject>` (sorted set, holder by
//! the end of its lease); each expires by itself.
//!
//! Registry: `:workers` (sorted set, name by last beat), `:about` (hash, name → JSON), `:queues` (set).
//!
//! A script runs whole or not at all, so a crash of a client between two of them leaves at most
//! leases that run out. Times are microseconds of Redis's clock.

#[derive(Debug, Clone)]
pub(crate) struct Keys {
    pub(crate) base: String,
}

impl Keys {
    pub(crate) fn queue(prefix: &str, queue: &str) -> Self {
        Self {
            base: format!("{{{prefix}:{queue}}}"),
        }
    }

    pub(crate) fn registry(prefix: &str) -> Self {
        Self {
            base: format!("{{{prefix}:registry}}"),
        }
    }

    pub(crate) fn limits(prefix: &str) -> Self {
        Self {
            base: format!("{{{prefix}:limits}}"),
        }
    }

    pub(crate) fn wake_channel(&self) -> String {
        format!("{}:wake", self.base)
    }

    pub(crate) fn queues(&self) -> String {
        format!("{}:queues", self.base)
    }
}
