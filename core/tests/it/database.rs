//! Connections to the database.

use futures::FutureExt;
use landfall_core::db::Database;
use landfall_test_servers::{PostgresServer, wait_until};
use sea_orm::{ConnectionTrait, DbErr};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);
const CONNECTIONS: u32 = 4;

/// Enough for BEGIN, the statement and the COMMIT to be on their way at some of them.
const MOST_TURNS: u32 = 300;

#[tokio::test]
async fn writes_nobody_waits_for_any_more_leave_no_transaction_open() {
    let server = tokio::task::spawn_blocking(PostgresServer::shared)
        .await
        .unwrap();
    let url = server.create_database().await;
    let db = Database::open(&url.clone().into(), CONNECTIONS)
        .await
        .unwrap();
    let mut given_up = 0;
    // The last ones are given up before BEGIN is answered; one that came to its end would hide what those before left.
    for turns in (0..MOST_TURNS).rev() {
        let write = db.write(|transaction| {
            async move { transaction.execute_unprepared("SELECT 1").await.map(drop) }.boxed()
        });
        let written = tokio::select! {
            biased;
            written = write => Some(written),
            () = turns_of_the_runtime(turns) => None,
        };
        given_up += u32::from(written.is_none());
        written.unwrap_or(Ok::<_, DbErr>(())).unwrap();
    }
    assert!(given_up > MOST_TURNS / 10, "{given_up} were given up");
    wait_until(SOON, async || {
        let open = "SELECT count(*) FROM pg_stat_activity \
                    WHERE datname = current_database() AND state LIKE 'idle in transaction%'";
        match server.query(&url, open).await.trim() {
            "0" => Ok(()),
            open => Err(format!("{open} connections rest in a transaction")),
        }
    })
    .await;
}

async fn turns_of_the_runtime(turns: u32) {
    for _ in 0..turns {
        tokio::task::yield_now().await;
    }
}
