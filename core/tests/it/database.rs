//! Connections to the database, its lock and its clock.

use chrono::{TimeDelta, Utc};
use futures::{FutureExt, future::join_all};
use landfall_core::{
    clock::Clock,
    db::{Database, is_transient},
};
use landfall_test_servers::{PostgresServer, wait_until};
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, Statement};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::oneshot,
};

const SOON: Duration = Duration::from_secs(20);
const CONNECTIONS: u32 = 4;

const INSERT: &str = "INSERT INTO kept (name) VALUES ('a')";

/// Enough for BEGIN, the statement and the COMMIT to be in flight at some of them.
const MAX_TURNS: u32 = 300;

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
    // The last ones are cancelled before BEGIN is answered; a completed one would hide what earlier ones left behind.
    for turns in (0..MAX_TURNS).rev() {
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
    // How many depends on the speed of the machine; the first few always are.
    assert!(given_up > MAX_TURNS / 30, "{given_up} were given up");
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
        // The server runs on this machine, and a loaded machine may respond slowly.
        let off = (clock.now() - Utc::now()).abs();
        assert!(off < TimeDelta::seconds(5), "{off}");
    }
}

/// As held by a backup, or by another process.
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

/// Alone without a savepoint, with others in its own savepoint, and repeatable ones without any.
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

/// What SQLite does itself when the disk is full or fails in the middle of a transaction.
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
        assert!(is_transient(&error), "{error}");
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

/// A proxy between a database client and its server. While it is cut, data is silently dropped.
struct Wire {
    url: String,
    is_cut: Arc<AtomicBool>,
}

impl Wire {
    async fn to(url: &str) -> Self {
        let mut url: url::Url = url.parse().unwrap();
        let server = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        url.set_port(Some(listener.local_addr().unwrap().port()))
            .unwrap();
        let is_cut = Arc::new(AtomicBool::new(false));
        let cut = Arc::clone(&is_cut);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await.unwrap();
                tokio::spawn(carry(client, server, Arc::clone(&cut)));
            }
        });
        Self {
            url: url.into(),
            is_cut,
        }
    }
}

async fn carry(client: TcpStream, server: TcpStream, is_cut: Arc<AtomicBool>) {
    let (client, server) = (client.into_split(), server.into_split());
    let one_way = async |mut from: OwnedReadHalf, mut to: OwnedWriteHalf| {
        let mut piece = vec![0; 16 * 1024];
        while let Ok(read @ 1..) = from.read(&mut piece).await {
            if is_cut.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            to.write_all(&piece[..read]).await.unwrap();
        }
    };
    tokio::join!(one_way(client.0, server.1), one_way(server.0, client.1));
}

#[tokio::test]
async fn server_that_vanishes_without_a_word_is_noticed_and_found_again() {
    let server = tokio::task::spawn_blocking(PostgresServer::shared)
        .await
        .unwrap();
    let wire = Wire::to(&server.create_database().await).await;
    let db = Database::open(&wire.url.clone().into(), CONNECTIONS)
        .await
        .unwrap();
    let write = || {
        db.write(|transaction| {
            async move { transaction.execute_unprepared("SELECT 1").await.map(drop) }.boxed()
        })
    };
    let read = || db.ping();
    write()
        .await
        .unwrap_or_else(|error: DbErr| panic!("{error}"));
    wire.is_cut.store(true, Ordering::SeqCst);
    let began = Instant::now();
    let (reads, writes) = tokio::join!(
        join_all((0..CONNECTIONS * 2).map(|_| read())),
        join_all((0..CONNECTIONS * 2).map(|_| write())),
    );
    for error in reads
        .into_iter()
        .chain(writes)
        .map(|call| call.unwrap_err())
    {
        assert!(is_transient(&error), "{error}");
    }
    assert!(began.elapsed() < SOON / 2, "{:?}", began.elapsed());
    // From then on, no call waits for it.
    let began = Instant::now();
    assert!(read().await.is_err() && write().await.is_err());
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
    wire.is_cut.store(false, Ordering::SeqCst);
    wait_until(SOON, async || {
        let (read, written) = (read().await, write().await);
        match read.and(written) {
            Ok(()) => Ok(()),
            Err::<_, DbErr>(error) => Err(error.to_string()),
        }
    })
    .await;
}

#[tokio::test]
async fn server_that_refuses_connections_is_named_at_once() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let url = format!("postgres://nobody@{address}/nothing");
    let began = Instant::now();
    let refused = Database::open(&url.into(), CONNECTIONS).await.unwrap_err();
    let cause = std::error::Error::source(&refused).unwrap().to_string();
    assert!(
        cause.contains("refused") && cause.contains(&address.to_string()),
        "{cause}"
    );
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
}

/// As after a failover, or on a primary that was demoted.
#[tokio::test]
async fn connections_that_became_read_only_are_replaced_and_reported() {
    let server = tokio::task::spawn_blocking(PostgresServer::shared)
        .await
        .unwrap();
    let url = server.create_database().await;
    let db = Database::open(&url.clone().into(), CONNECTIONS)
        .await
        .unwrap();
    let execute = |statement: &'static str| {
        db.write(move |transaction| {
            async move { transaction.execute_unprepared(statement).await.map(drop) }.boxed()
        })
    };
    execute("CREATE TABLE kept (name TEXT NOT NULL)")
        .await
        .unwrap_or_else(|error: DbErr| panic!("{error}"));
    let name = url.rsplit('/').next().unwrap();
    let elsewhere = server.create_database().await;
    let read_only = async |value: &str| {
        let set = format!("ALTER DATABASE {name} SET default_transaction_read_only = {value}");
        server.query(&elsewhere, &set).await;
    };
    read_only("on").await;
    // Existing connections do not know it yet.
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
               WHERE datname = current_database() AND pid <> pg_backend_pid()";
    server.query(&url, end).await;
    wait_until(SOON, async || match execute(INSERT).await {
        Err::<_, DbErr>(error) if error.to_string().contains("read-only") => {
            assert!(is_transient(&error), "{error}");
            Ok(())
        }
        other => Err(format!("{other:?}")),
    })
    .await;
    assert_eq!(
        db.write_fault().map(|fault| fault.reason),
        Some("it is read-only".to_owned())
    );
    db.ping().await.unwrap();
    read_only("off").await;
    // The connections are not closed: each is replaced after it has rejected a write.
    wait_until(SOON, async || match execute(INSERT).await {
        Ok::<_, DbErr>(()) => Ok(()),
        Err(error) => Err(error.to_string()),
    })
    .await;
    wait_until(SOON, async || match db.write_fault() {
        None => Ok(()),
        Some(fault) => Err(fault.cause),
    })
    .await;
}

#[tokio::test]
async fn transactions_that_wait_in_a_circle_are_run_again_and_all_commit() {
    let server = tokio::task::spawn_blocking(PostgresServer::shared)
        .await
        .unwrap();
    let url = server.create_database().await;
    let db = Database::open(&url.clone().into(), CONNECTIONS)
        .await
        .unwrap();
    server
        .query(
            &url,
            "CREATE TABLE counts (id INT PRIMARY KEY, count INT NOT NULL)",
        )
        .await;
    server
        .query(&url, "INSERT INTO counts VALUES (1, 0), (2, 0)")
        .await;
    let runs = Arc::new(AtomicUsize::new(0));
    let both_locked = Arc::new(tokio::sync::Barrier::new(2));
    let writes = [[1, 2], [2, 1]].map(|ids| {
        let (runs, both_locked) = (Arc::clone(&runs), Arc::clone(&both_locked));
        db.write_repeatable(move |transaction| {
            let is_first = runs.fetch_add(1, Ordering::SeqCst) < 2;
            let both_locked = Arc::clone(&both_locked);
            async move {
                for (step, id) in ids.into_iter().enumerate() {
                    if step == 1 && is_first {
                        both_locked.wait().await;
                    }
                    let count = format!("UPDATE counts SET count = count + 1 WHERE id = {id}");
                    transaction.execute_unprepared(&count).await?;
                }
                Ok::<_, DbErr>(())
            }
            .boxed()
        })
    });
    for written in join_all(writes).await {
        written.unwrap();
    }
    assert_eq!(
        runs.load(Ordering::SeqCst),
        3,
        "one of the two was run again"
    );
    let sum = server.query(&url, "SELECT sum(count) FROM counts").await;
    assert_eq!(sum.trim(), "4");
}
