//! The Lua scripts. Each is atomic.

use std::sync::LazyLock;

use redis::Script;

macro_rules! script {
    ($name:ident, $file:literal) => {
        pub(crate) static $name: LazyLock<Script> = LazyLock::new(|| {
            Script::new(concat!(
                include_str!("scripts/lib.lua"),
                include_str!($file)
            ))
        });
    };
    ($name:ident, alone $file:literal) => {
        pub(crate) static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new(include_str!($file)));
    };
}

script!(PUSH, "scripts/push.lua");
script!(FETCH, "scripts/fetch.lua");
script!(ACK, "scripts/ack.lua");
script!(MAINTENANCE, "scripts/maintenance.lua");
script!(LIMIT, "scripts/limit.lua");
script!(LIMITS, "scripts/limits.lua");
script!(PAUSE, "scripts/pause.lua");
script!(STATS, "scripts/stats.lua");
script!(JOBS, "scripts/jobs.lua");
script!(RUN_AGAIN, "scripts/run_again.lua");
script!(DELETE, "scripts/delete.lua");
script!(MINUTES, "scripts/minutes.lua");
script!(RATE, alone "scripts/rate.lua");
script!(SUM, alone "scripts/sum.lua");
script!(SLOT, alone "scripts/slot.lua");
script!(HEARTBEAT, alone "scripts/heartbeat.lua");
script!(WORKERS, alone "scripts/workers.lua");
script!(REMOVE_OLD_REGISTRY, alone "scripts/remove_old_registry.lua");
script!(REMOVE_OLD_QUEUE, alone "scripts/remove_old_queue.lua");
