//! Test infrastructure: a complete installation in this process, real processes to kill, and the invariants.

pub mod app;
pub mod browser;
pub mod bytes_on_disk;
pub mod client_log;
pub mod installation;
pub mod invariants;
pub mod process;
pub mod query_log;

pub use app::TestApp;
pub use client_log::ClientLog;
pub use installation::Installation;
pub use invariants::Invariants;
pub use process::Process;

/// Returns a random seed and prints it; LANDFALL_TEST_SEED repeats a run.
pub fn seed() -> u64 {
    let given = std::env::var("LANDFALL_TEST_SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(rand::random);
    println!("LANDFALL_TEST_SEED={seed}");
    seed
}

/// Runs each of these tests on SQLite and on PostgreSQL.
macro_rules! over_both_databases {
    ($($name:ident),+ $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name($crate::support::TestApp::builder()).await;
            })+
        }
        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            #[cfg_attr(not(feature = "every-server"), ignore = "needs PostgreSQL: scripts/test runs it")]
            async fn $name() {
                super::$name($crate::support::TestApp::builder().postgres()).await;
            })+
        }
    };
}
pub(crate) use over_both_databases;
