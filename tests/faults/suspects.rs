//! The consequences of an expired lease, depending on the rows about its worker.

use crate::support::{TestApp, app::Builder, over_both_databases};
use entity::{
    FileId, Timestamp,
    file::{self, FileStatus},
    worker_process,
};
use landfall_core::finalize::{FinalizeOutcome, Finalizer};
use sea_orm::{ColumnTrait, EntityTrait, IntoActiveModel, QueryFilter, sea_query::Expr};
use std::time::Duration;

over_both_databases!(
    files_beside_a_crash_become_suspects_without_counting,
    lease_of_a_live_process_makes_no_suspect,
    only_the_death_of_a_process_that_ran_a_file_alone_counts,
    unrelated_deaths_raise_the_limit,
);

struct SuspectTest {
    app: TestApp,
    finalizer: Finalizer,
}

impl SuspectTest {
    async fn start(builder: Builder) -> Self {
        let app = builder
            .set("workers.lease", "10s")
            .workers(&[])
            .start()
            .await;
        let finalizer = Finalizer::new(&app.parts.app, "this");
        Self { app, finalizer }
    }

    async fn upload(&self) -> FileId {
        let file = self.app.upload("a.txt", "hello").await;
        FileId(file["id"].as_str().expect("an id").parse().expect("an id"))
    }

    async fn row(&self, id: FileId) -> file::Model {
        let row = file::Entity::find_by_id(id)
            .one(self.app.parts.app.db.read())
            .await;
        row.expect("the database").expect("the row")
    }

    /// A process whose last heartbeat was at this time.
    async fn process(&self, name: &str, beat_at: Timestamp, alone: Option<FileId>) {
        let row = worker_process::Model {
            name: name.to_owned(),
            started_at: beat_at,
            beat_at,
            alone_file: alone,
        };
        let db = &self.app.parts.app.db;
        let written = db.write(move |transaction| {
            Box::pin(async move {
                worker_process::Entity::insert(row.into_active_model())
                    .exec_without_returning(transaction)
                    .await
                    .map(drop)
            })
        });
        let written: Result<(), sea_orm::DbErr> = written.await;
        written.expect("the database");
    }

    /// The process claimed the file, and its lease ran out a second ago.
    async fn claimed_by(&self, name: &str, id: FileId) {
        let ended = self.app.parts.app.clock.before(Duration::from_secs(1));
        let claimed = file::Entity::update_many()
            .col_expr(file::Column::Status, Expr::value(FileStatus::Finalizing))
            .col_expr(file::Column::LeaseOwner, Expr::value(name))
            .col_expr(file::Column::LeaseExpiresAt, Expr::value(ended))
            .filter(file::Column::Id.eq(id));
        let db = &self.app.parts.app.db;
        let changed =
            db.write(move |transaction| Box::pin(async move { claimed.exec(transaction).await }));
        assert_eq!(changed.await.expect("the database").rows_affected, 1);
    }

    async fn finalize(&self, id: FileId) -> FinalizeOutcome {
        self.finalizer.finalize(id).await.expect("an outcome")
    }

    fn ago(&self, seconds: u64) -> Timestamp {
        self.app
            .parts
            .app
            .clock
            .before(Duration::from_secs(seconds))
    }

    /// Simulates the noticed death of a process that ran the file alone, and returns the result of the next run.
    async fn dies_alone(&self, name: &str, id: FileId) -> FinalizeOutcome {
        self.process(name, self.ago(20), Some(id)).await;
        self.claimed_by(name, id).await;
        let watched = self.finalize(id).await;
        assert!(
            matches!(watched, FinalizeOutcome::Later(_)),
            "its heartbeat is waited for: {watched:?}"
        );
        self.app.parts.app.clock.advance(Duration::from_secs(11));
        self.finalize(id).await
    }

    async fn forget_processes(&self) {
        let db = &self.app.parts.app.db;
        let all = worker_process::Entity::delete_many();
        let deleted =
            db.write(move |transaction| Box::pin(async move { all.exec(transaction).await }));
        assert!(deleted.await.expect("the database").rows_affected > 0);
    }

    async fn make_suspect(&self, id: FileId) {
        let since = self.ago(3600);
        let suspect = file::Entity::update_many()
            .col_expr(file::Column::SuspectSince, Expr::value(since))
            .filter(file::Column::Id.eq(id));
        let db = &self.app.parts.app.db;
        let changed =
            db.write(move |transaction| Box::pin(async move { suspect.exec(transaction).await }));
        assert_eq!(changed.await.expect("the database").rows_affected, 1);
    }

    async fn count_deaths(&self, id: FileId, deaths: i32) {
        let counted = file::Entity::update_many()
            .col_expr(file::Column::AloneDeaths, Expr::value(deaths))
            .filter(file::Column::Id.eq(id));
        let db = &self.app.parts.app.db;
        let changed =
            db.write(move |transaction| Box::pin(async move { counted.exec(transaction).await }));
        assert_eq!(changed.await.expect("the database").rows_affected, 1);
    }
}

async fn files_beside_a_crash_become_suspects_without_counting(builder: Builder) {
    let stage = SuspectTest::start(builder).await;
    stage.process("dead", stage.ago(20), None).await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        let id = stage.upload().await;
        stage.claimed_by("dead", id).await;
        ids.push(id);
    }
    for id in ids {
        assert_eq!(stage.finalize(id).await, FinalizeOutcome::Stored);
        let file = stage.row(id).await;
        assert!(file.lease_lost_at.is_some(), "it was a suspect");
        assert_eq!(
            (file.alone_deaths, file.suspect_since),
            (0, None),
            "an orderly end clears it"
        );
    }
}

async fn lease_of_a_live_process_makes_no_suspect(builder: Builder) {
    let stage = SuspectTest::start(builder).await;
    let id = stage.upload().await;
    stage.process("slow", stage.ago(0), None).await;
    stage.claimed_by("slow", id).await;
    assert!(
        matches!(stage.finalize(id).await, FinalizeOutcome::Later(_)),
        "it is released"
    );
    let file = stage.row(id).await;
    assert_eq!(
        (file.status, file.suspect_since),
        (FileStatus::Staged, None)
    );
    assert_eq!(stage.finalize(id).await, FinalizeOutcome::Stored);
}

async fn only_the_death_of_a_process_that_ran_a_file_alone_counts(builder: Builder) {
    let stage = SuspectTest::start(builder).await;
    let id = stage.upload().await;
    stage.make_suspect(id).await;
    // It returns before its heartbeat has been missing for a lease.
    stage.process("frozen", stage.ago(20), Some(id)).await;
    stage.claimed_by("frozen", id).await;
    assert!(matches!(
        stage.finalize(id).await,
        FinalizeOutcome::Later(_)
    ));
    let beats = worker_process::Entity::update_many()
        .col_expr(
            worker_process::Column::BeatAt,
            Expr::value(stage.app.parts.app.clock.after(Duration::from_secs(1))),
        )
        .filter(worker_process::Column::Name.eq("frozen"));
    let db = &stage.app.parts.app.db;
    let changed =
        db.write(move |transaction| Box::pin(async move { beats.exec(transaction).await }));
    assert_eq!(changed.await.expect("the database").rows_affected, 1);
    stage.app.parts.app.clock.advance(Duration::from_secs(11));
    assert_eq!(
        stage.finalize(id).await,
        FinalizeOutcome::Stored,
        "nothing counted"
    );

    let id = stage.upload().await;
    stage.make_suspect(id).await;
    assert_eq!(
        stage.dies_alone("first", id).await,
        FinalizeOutcome::Stored,
        "one death is none too many"
    );
    assert_eq!(
        stage.row(id).await.alone_deaths,
        0,
        "an orderly end clears the count"
    );

    stage.forget_processes().await;
    let id = stage.upload().await;
    stage.make_suspect(id).await;
    stage.count_deaths(id, 1).await;
    assert_eq!(
        stage.dies_alone("second", id).await,
        FinalizeOutcome::Failed
    );
    let file = stage.row(id).await;
    assert_eq!(file.error_code.as_deref(), Some("poison"));
    assert!(
        file.staging_key.is_some() && file.retryable_until.is_some(),
        "its bytes are kept"
    );
}

async fn unrelated_deaths_raise_the_limit(builder: Builder) {
    let stage = SuspectTest::start(builder).await;
    let id = stage.upload().await;
    stage.make_suspect(id).await;
    stage.count_deaths(id, 1).await;
    stage
        .process("killed for nothing", stage.ago(600), None)
        .await;
    assert_eq!(
        stage.dies_alone("second", id).await,
        FinalizeOutcome::Stored
    );
}
