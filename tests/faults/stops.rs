//! Graceful stops during a transfer, database outages and lost leases do not count against a file.

use super::cluster::{AFTER_A_KILL, Cluster};
use crate::support::{Installation, TestApp};
use entity::{FileId, file};
use landfall_test_servers::{Durability, PostgresServer, S3Operation, S3Server, wait_until};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, sea_query::Expr};
use std::time::{Duration, Instant};

const MIB: usize = 1024 * 1024;

async fn row(cluster: &Cluster, id: &str) -> file::Model {
    let id = FileId(id.parse().expect("an id"));
    // The pool of this process may take a moment to notice that the database is back.
    wait_until(AFTER_A_KILL, async || {
        let row = file::Entity::find_by_id(id)
            .one(cluster.parts.app.db.read())
            .await;
        row.map(|row| row.expect("the row"))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn three_graceful_stops_in_one_transfer_count_nothing() {
    let s3 = S3Server::start().await;
    let mut installation = Installation::new();
    installation.store_in(&s3);
    installation.set("server.shutdown_timeout", "1s");
    let cluster = Cluster::start(installation).await;
    cluster.webhook().await;
    s3.slow(MIB as u64);
    let id = cluster.upload("long.bin", vec![7; 40 * MIB]).await;
    for stop in 1..=3 {
        let before = s3.calls(S3Operation::UploadPart);
        let mut worker = cluster.worker(None);
        wait_until(AFTER_A_KILL, async || {
            (s3.calls(S3Operation::UploadPart) > before)
                .then_some(())
                .ok_or("no part is sent")
        })
        .await;
        assert!(
            worker.terminate().await.success(),
            "a worker ends well on SIGTERM"
        );
        let file = row(&cluster, &id).await;
        assert_eq!(
            file.status,
            file::FileStatus::Staged,
            "stop {stop}: the claim is released"
        );
        assert_eq!(
            (file.alone_deaths, file.suspect_since),
            (0, None),
            "stop {stop}"
        );
    }
    s3.heal();
    let _worker = cluster.worker(None);
    cluster.wait_for(&id, "stored", AFTER_A_KILL).await;
    cluster.check(3).await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn three_outages_of_the_database_longer_than_the_lease_end_in_a_stored_file() {
    let postgres = PostgresServer::start(Durability::Off).await;
    let s3 = S3Server::start().await;
    let mut installation = Installation::new();
    installation.store_in(&s3);
    installation.set("database.url", &postgres.create_database().await);
    let cluster = Cluster::start(installation).await;
    cluster.webhook().await;
    s3.slow(MIB as u64 / 4);
    let id = cluster.upload("long.bin", vec![7; 40 * MIB]).await;
    let mut worker = cluster.worker(None);
    for outage in 1..=3 {
        wait_until(AFTER_A_KILL * 2, async || {
            let file = row(&cluster, &id).await;
            (file.status == file::FileStatus::Finalizing).then_some(())
        })
        .await;
        postgres.stop().await;
        tokio::time::sleep(super::cluster::LEASE * 2).await;
        postgres.start_again().await;
        assert!(worker.is_running(), "outage {outage}");
    }
    s3.heal();
    // Read from the database, because the API may still respond with 503 for a moment.
    wait_until(AFTER_A_KILL * 4, async || {
        let file = row(&cluster, &id).await;
        (file.status == file::FileStatus::Stored).then_some(())
    })
    .await;
    let file = row(&cluster, &id).await;
    assert_eq!((file.alone_deaths, file.suspect_since), (0, None));
    cluster.check(3).await;
}

/// With a sweep once a day, nothing but the job itself brings the file back.
#[tokio::test(flavor = "multi_thread")]
async fn file_whose_lease_was_lost_runs_again_soon() {
    let s3 = S3Server::start().await;
    let app = TestApp::builder()
        .s3(&s3)
        .set("workers.lease", "3s")
        .set("sweep.interval", "24h")
        .start()
        .await;
    s3.slow(MIB as u64);
    let uploaded = app.upload("long.bin", vec![7; 24 * MIB]).await;
    let id = FileId(
        uploaded["id"]
            .as_str()
            .expect("an id")
            .parse()
            .expect("an id"),
    );
    wait_until(AFTER_A_KILL, async || {
        (s3.calls(S3Operation::UploadPart) > 0)
            .then_some(())
            .ok_or("no part is sent")
    })
    .await;
    let until = app.parts.app.clock.after(Duration::from_secs(3));
    let taken = file::Entity::update_many()
        .col_expr(file::Column::LeaseOwner, Expr::value("another"))
        .col_expr(file::Column::LeaseExpiresAt, Expr::value(until))
        .filter(file::Column::Id.eq(id))
        .filter(file::Column::Status.eq(file::FileStatus::Finalizing));
    let changed = app
        .parts
        .app
        .db
        .write(move |transaction| Box::pin(async move { taken.exec(transaction).await }))
        .await;
    assert_eq!(
        changed.expect("the database").rows_affected,
        1,
        "the lease was lost"
    );
    let lost_at = Instant::now();
    s3.heal();
    let stored = app.settled(&uploaded["id"]).await;
    assert_eq!(stored["status"], "stored", "{stored}");
    println!("stored {:?} after the lease was lost", lost_at.elapsed());
}

/// Four transfers that hang hold no small file up.
#[tokio::test(flavor = "multi_thread")]
async fn large_transfers_that_hang_never_stop_small_files() {
    let s3 = S3Server::start().await;
    let app = TestApp::builder().s3(&s3).start().await;
    s3.hang_next(S3Operation::UploadPart, 1000, Duration::from_secs(120));
    for number in 0..8 {
        app.upload(&format!("large-{number}.bin"), vec![7; 40 * MIB])
            .await;
    }
    wait_until(AFTER_A_KILL, async || {
        (s3.calls(S3Operation::UploadPart) >= 4)
            .then_some(())
            .ok_or("no part is sent")
    })
    .await;
    for number in 0..8 {
        let small = app
            .upload(&format!("small-{number}.bin"), vec![7; MIB])
            .await;
        let stored = app.settled(&small["id"]).await;
        assert_eq!(stored["status"], "stored", "{stored}");
    }
    s3.heal();
}
