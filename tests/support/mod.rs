//! What the tests stand on: a whole installation in this process, real processes to kill, and the invariants.

pub mod app;
pub mod browser;
pub mod client_log;
pub mod installation;
pub mod invariants;
pub mod process;
pub mod surroundings;
pub mod watched;

pub use app::TestApp;
pub use client_log::ClientLog;
pub use installation::Installation;
pub use invariants::Invariants;
pub use process::Process;

/// Runs each of these tests over SQLite and over PostgreSQL.
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
            async fn $name() {
                super::$name($crate::support::TestApp::builder().postgres()).await;
            })+
        }
    };
}
pub(crate) use over_both_databases;
