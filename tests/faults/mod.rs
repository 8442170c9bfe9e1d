//! Faults, and the invariants after them.

mod apart;
mod broken_off;
mod checker;
mod cluster;
mod first_start;
mod frozen_node;
mod full_database;
mod keys;
mod killed;
mod lost_commit;
mod lost_keys;
mod one_batch;
mod one_bucket;
mod outages;
#[cfg(target_os = "linux")]
mod power_cut;
mod random;
mod scaled;
mod stalled;
mod stops;
mod suspects;
mod swept;
mod topology;
mod zombie;
