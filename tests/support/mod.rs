//! What the tests stand on: a whole installation in this process, real processes to kill, and the invariants.

pub mod app;
pub mod browser;
pub mod installation;
pub mod invariants;
pub mod process;

pub use app::TestApp;
pub use installation::Installation;
pub use process::Process;
