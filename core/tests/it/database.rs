//! Connections to the database, its lock and its clock.

use chrono::{TimeDelta, Utc};
use futures::{FutureExt, future::join_all};
use landfall_core::{clock::Clock, db::Database};
use landfall_test_servers::{PostgresServer, wait_until};
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, Statement};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::oneshot;

const SOON: Duration = Duration::from_secs(20);
const CONNECTIONS: u32 = 4;

const INSERT: &str = "INSERT INTO kept (name) VALUES ('a')";

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
    // How many it is depends on how fast the machine is; the first few always are.
    assert!(given_up > MOST_TURNS / 30, "{given_up} were given up");
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

#[tokio::test]
async fn clock_that_is_an_hour_off_is_set_by_the_database() {
    let server = tokio::task::spawn_blocking(PostgresServer::shared)
        .await
        .unwrap();
    let url = server.create_database().await;
    let db = Database::open(&url.into(), 1).await.unwrap();
    for hours in [1, -1] {
        let clock = Clock::system();
        clock.set_offset(TimeDelta::hours(hours));
        db.set_clock(&clock).await.unwrap();
        // The server runs on this machine, and a loaded one may take its time to answer.
        let off = (clock.now() - Utc::now()).abs();
        assert!(off < TimeDelta::seconds(5), "{off}");
    }
}

/// As of a backup, or a process beside this one.
#[tokio::test]
async fn sqlite_whose_lock_somebody_else_has_is_read_and_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("a.db").display());
    let one = Database::open(&url.clone().into(), CONNECTIONS)
        .await
        .unwrap();
    let other = Database::open(&url.into(), CONNECTIONS).await.unwrap();
    let made = one.write(|transaction| {
        async move {
            let make = "CREATE TABLE kept (name TEXT NOT NULL)";
            transaction.execute_unprepared(make).await.map(drop)
        }
        .boxed()
    });
    made.await.unwrap_or_else(|error: DbErr| panic!("{error}"));
    let (has_lock, locked) = oneshot::channel();
    let (unlock, unlocked) = oneshot::channel::<()>();
    let holding = tokio::spawn(async move {
        one.write(move |transaction| {
            async move {
                transaction.execute_unprepared(INSERT).await?;
                has_lock.send(()).unwrap();
                unlocked.await.unwrap();
                Ok::<_, DbErr>(())
            }
            .boxed()
        })
        .await
    });
    locked.await.unwrap();
    let rows = async || {
        let count = "SELECT name FROM kept".to_owned();
        let count = Statement::from_string(DbBackend::Sqlite, count);
        other.read().query_all_raw(count).await.unwrap().len()
    };
    let waiting = other.write(|transaction| {
        async move { transaction.execute_unprepared(INSERT).await.map(drop) }.boxed()
    });
    tokio::pin!(waiting);
    tokio::select! {
        biased;
        written = &mut waiting => panic!("it did not wait: {written:?}"),
        there = rows() => assert_eq!(there, 0, "what is not committed is not read"),
    }
    unlock.send(()).unwrap();
    holding.await.unwrap().unwrap();
    waiting
        .await
        .unwrap_or_else(|error: DbErr| panic!("{error}"));
    assert_eq!(rows().await, 2);
}

async fn insert_or_fail(transaction: &DatabaseTransaction, fails: bool) -> Result<(), DbErr> {
    transaction.execute_unprepared(INSERT).await?;
    match fails {
        true => Err(DbErr::Custom("refused".to_owned())),
        false => Ok(()),
    }
}

/// Alone without a savepoint, together with others in one of its own; and those that can be repeated without any.
#[tokio::test]
async fn sqlite_write_that_fails_leaves_nothing_and_disturbs_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("a.db").display());
    let db = Database::open(&url.into(), CONNECTIONS).await.unwrap();
    let make = db.write(|transaction| {
        async move {
            let make = "CREATE TABLE kept (name TEXT NOT NULL)";
            transaction.execute_unprepared(make).await.map(drop)
        }
        .boxed()
    });
    make.await.unwrap_or_else(|error: DbErr| panic!("{error}"));
    let insert =
        |fails: bool| db.write(move |transaction| insert_or_fail(transaction, fails).boxed());
    let rows = async || {
        let count = "SELECT name FROM kept".to_owned();
        let count = Statement::from_string(DbBackend::Sqlite, count);
        db.read().query_all_raw(count).await.unwrap().len()
    };
    let runs = Arc::new(AtomicUsize::new(0));
    let insert_repeatably = |fails: bool| {
        let runs = Arc::clone(&runs);
        db.write_repeatable(move |transaction| {
            runs.fetch_add(1, Ordering::Relaxed);
            insert_or_fail(transaction, fails).boxed()
        })
    };
    assert!(insert(true).await.is_err());
    assert!(insert_repeatably(true).await.is_err());
    assert_eq!(rows().await, 0);
    let together = join_all((0..60).map(|number| insert(number % 3 == 0))).await;
    for (number, written) in together.into_iter().enumerate() {
        assert_eq!(written.is_err(), number % 3 == 0);
    }
    assert_eq!(rows().await, 40);
    runs.store(0, Ordering::Relaxed);
    let (insert, insert_repeatably) = (&insert, &insert_repeatably);
    let mixed = join_all((0..60).map(|number| async move {
        match number % 2 == 0 {
            true => insert_repeatably(number % 3 == 0).await,
            false => insert(number % 3 == 0).await,
        }
    }));
    for (number, written) in mixed.await.into_iter().enumerate() {
        assert_eq!(written.is_err(), number % 3 == 0);
    }
    assert_eq!(rows().await, 80);
    assert!(runs.load(Ordering::Relaxed) > 30, "none was repeated");
}

/// What SQLite does by itself when the disk is full or fails in the middle of a transaction.
const AS_IF_THE_DISK_FAILED: &str = "ROLLBACK";

async fn sqlite_with_table(folder: &tempfile::TempDir) -> (String, Database) {
    let url = format!("sqlite://{}", folder.path().join("a.db").display());
    let db = Database::open(&url.clone().into(), CONNECTIONS)
        .await
        .unwrap();
    let make = db.write(|transaction| {
        async move {
            let make = "CREATE TABLE kept (name TEXT NOT NULL)";
            transaction.execute_unprepared(make).await.map(drop)
        }
        .boxed()
    });
    make.await.unwrap_or_else(|error: DbErr| panic!("{error}"));
    (url, db)
}

async fn rows_seen_by_another_process(url: &str) -> usize {
    let db = Database::open(&url.to_owned().into(), 1).await.unwrap();
    let rows = Statement::from_string(DbBackend::Sqlite, "SELECT name FROM kept");
    db.read().query_all_raw(rows).await.unwrap().len()
}

#[tokio::test]
async fn sqlite_commit_that_fails_is_reported_and_what_is_answered_afterwards_is_committed() {
    let folder = tempfile::tempdir().unwrap();
    let (url, db) = sqlite_with_table(&folder).await;
    let write = |fails: bool| {
        db.write(move |transaction| {
            async move {
                transaction.execute_unprepared(INSERT).await?;
                if fails {
                    transaction
                        .execute_unprepared(AS_IF_THE_DISK_FAILED)
                        .await?;
                }
                Ok::<_, DbErr>(())
            }
            .boxed()
        })
    };
    let mut committed = 0;
    for round in 0..6 {
        let error = write(true).await.expect_err("its commit cannot succeed");
        assert!(landfall_core::db::is_transient(&error), "{error}");
        assert!(db.write_fault().is_some(), "the fault is not reported");
        let together = join_all((0..20).map(|number| write(number == round))).await;
        committed += together.iter().filter(|written| written.is_ok()).count();
        assert_eq!(rows_seen_by_another_process(&url).await, committed);
        write(false).await.unwrap();
        committed += 1;
        assert_eq!(rows_seen_by_another_process(&url).await, committed);
    }
    wait_until(SOON, async || match db.write_fault() {
        None => Ok(()),
        Some(fault) => Err(fault.cause),
    })
    .await;
    assert_eq!(rows_seen_by_another_process(&url).await, committed);
}

#[tokio::test]
async fn write_that_panics_is_an_error_of_its_own_caller_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (url, db) = sqlite_with_table(&folder).await;
    for _ in 0..3 {
        let mixed = join_all((0..30).map(|number| {
            db.write(move |transaction| {
                async move {
                    transaction.execute_unprepared(INSERT).await?;
                    assert!(number % 10 != 7, "it is seven");
                    Ok::<_, DbErr>(())
                }
                .boxed()
            })
        }));
        for (number, written) in mixed.await.into_iter().enumerate() {
            assert_eq!(written.is_err(), number % 10 == 7, "{written:?}");
        }
    }
    assert_eq!(rows_seen_by_another_process(&url).await, 81);
    assert_eq!(db.write_fault(), None);
}
