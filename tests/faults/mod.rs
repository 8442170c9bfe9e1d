//! What is thrown at an installation, and the invariants afterwards.

mod cluster;
mod killed;
mod outages;
mod scaled;
mod stalled;
mod zombie;
