//! The schema is migrated from whatever state an interrupted start left, by whichever version.

use landfall_core::db::{Database, OpenError};
use landfall_test_servers::PostgresServer;
use migration::{Migrator, MigratorTrait, SchemaManager, runner};
use sea_orm::{
    ConnectOptions, ConnectionTrait, DatabaseConnection, DbBackend, Statement, TransactionTrait,
};
use tempfile::TempDir;

/// A database file with the migrations before the one at `place`.
async fn migrated_before(place: usize) -> (TempDir, String, DatabaseConnection) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}?mode=rwc", folder.path().join("a.db").display());
    let mut options = ConnectOptions::new(&url);
    options.max_connections(1).sqlx_logging(false);
    let connection = sea_orm::Database::connect(options).await.unwrap();
    for migration in &Migrator::migrations()[..place] {
        let transaction = connection.begin().await.unwrap();
        runner::up(&transaction, migration.as_ref()).await.unwrap();
        transaction.commit().await.unwrap();
    }
    (folder, url, connection)
}

async fn objects(connection: &impl ConnectionTrait) -> Vec<(String, String, String)> {
    let all = "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid";
    let all = Statement::from_string(DbBackend::Sqlite, all);
    let rows = connection.query_all_raw(all).await.unwrap();
    let text = |row: &sea_orm::QueryResult, column| row.try_get::<String>("", column).unwrap();
    rows.iter()
        .map(|row| (text(row, "type"), text(row, "name"), text(row, "sql")))
        .collect()
}

fn sorted(mut objects: Vec<(String, String, String)>) -> Vec<(String, String, String)> {
    objects.sort();
    objects
}

/// Earlier versions ran each statement separately, and recorded the migration last.
#[tokio::test]
async fn sqlite_left_in_the_middle_of_any_migration_is_migrated() {
    let all = Migrator::migrations().len();
    let (_folder, _, whole) = migrated_before(all).await;
    let whole = sorted(objects(&whole).await);
    let mut repaired = 0;
    for place in 0..all {
        let mut undone = 0;
        loop {
            let (_folder, url, connection) = migrated_before(place).await;
            let before = objects(&connection).await;
            let migration = &Migrator::migrations()[place];
            migration
                .up(&SchemaManager::new(&connection))
                .await
                .unwrap();
            let made: Vec<_> = objects(&connection)
                .await
                .into_iter()
                .filter(|made| !before.iter().any(|object| object.1 == made.1))
                .collect();
            for (kind, name, _) in made.iter().rev().take(undone) {
                let statement = format!("DROP {kind} \"{name}\"");
                connection.execute_unprepared(&statement).await.unwrap();
            }
            connection.close().await.unwrap();
            let db = Database::open(&url.into(), 2).await.unwrap();
            let applied = db.migrate_up().await.unwrap_or_else(|error| {
                panic!("{}, {undone} undone: {error:?}", migration.name());
            });
            assert_eq!(applied.len(), all - place);
            assert_eq!(
                sorted(objects(db.read()).await),
                whole,
                "{}",
                migration.name()
            );
            db.require_current().await.unwrap();
            repaired += 1;
            if undone == made.len() {
                break;
            }
            undone += 1;
        }
    }
    assert!(repaired > 2 * all, "{repaired}");
}

async fn databases() -> (TempDir, [String; 2]) {
    let folder = tempfile::tempdir().unwrap();
    let sqlite = format!("sqlite://{}", folder.path().join("a.db").display());
    let server = tokio::task::spawn_blocking(PostgresServer::shared)
        .await
        .unwrap();
    (folder, [sqlite, server.create_database().await])
}

#[tokio::test]
async fn schema_of_a_newer_version_is_worked_on_and_not_taken_back() {
    let (_folder, urls) = databases().await;
    for url in urls {
        let db = Database::open(&url.into(), 2).await.unwrap();
        let known = db.migrate_up().await.unwrap().len();
        let newer = "INSERT INTO seaql_migrations (version, applied_at) VALUES ('m99990101_000001_newer', 1)";
        db.read().execute_unprepared(newer).await.unwrap();
        db.require_current().await.unwrap();
        assert_eq!(db.migrate_up().await.unwrap(), Vec::<String>::new());
        let states = db.migrations().await.unwrap();
        assert_eq!(states.len(), known + 1);
        assert!(states.iter().all(|state| state.applied));
        let refused = db.migrate_down(1).await;
        assert!(matches!(refused, Err(OpenError::Ahead(1))), "{refused:?}");
    }
}

#[tokio::test]
async fn migrations_go_all_the_way_down_and_up_again() {
    let (_folder, urls) = databases().await;
    for url in urls {
        let db = Database::open(&url.into(), 2).await.unwrap();
        let up = db.migrate_up().await.unwrap();
        let mut down = db.migrate_down(u32::MAX).await.unwrap();
        down.reverse();
        assert_eq!(down, up);
        let missing = db.require_current().await;
        assert!(matches!(missing, Err(OpenError::Behind(all)) if all == up.len()));
        assert_eq!(db.migrate_up().await.unwrap(), up);
    }
}

/// The tables of the first release are empty when their indexes are made.
const FIRST_RELEASE: &str = "m20261124";

#[tokio::test]
async fn indexes_on_tables_that_may_be_large_are_built_concurrently() {
    let all = Migrator::migrations();
    let mut concurrent = 0;
    for (place, migration) in all.iter().enumerate() {
        if migration.name().starts_with(FIRST_RELEASE) {
            continue;
        }
        let (_folder, _, connection) = migrated_before(place).await;
        let before = objects(&connection).await;
        let schema = SchemaManager::new(&connection);
        migration.up(&schema).await.unwrap();
        let after = objects(&connection).await;
        let added = after.iter().filter(|one| !before.contains(one));
        for (_, name, sql) in added.filter(|one| one.0 == "index") {
            let table = sql.split(" ON ").nth(1).unwrap();
            let table = table.split([' ', '(']).next().unwrap().trim_matches('"');
            let is_old = before.iter().any(|one| one.0 == "table" && one.1 == table);
            let is_concurrent = runner::is_concurrent(DbBackend::Postgres, migration.as_ref());
            concurrent += usize::from(is_concurrent);
            assert_eq!(is_old, is_concurrent, "{name} of {}", migration.name());
        }
    }
    assert!(concurrent > 0);
}

#[tokio::test]
async fn interrupted_build_of_an_index_is_repeated() {
    let (_folder, [_, url]) = databases().await;
    let db = Database::open(&url.into(), 2).await.unwrap();
    db.migrate_up().await.unwrap();
    let all = Migrator::migrations();
    let built = all.iter().find(|one| one.name().ends_with("large_indexes"));
    let built = built.unwrap().name().to_owned();
    let valid =
        "SELECT indexrelid::regclass::text AS name FROM pg_index WHERE indisvalid ORDER BY 1";
    let valid = || Statement::from_string(DbBackend::Postgres, valid);
    let whole = db.read().query_all_raw(valid()).await.unwrap().len();
    // As a kill leaves it: one index is missing, one is invalid, and nothing is recorded.
    let left = format!(
        "DROP INDEX files_retryable; \
         UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'outbox_events_failed'::regclass; \
         DELETE FROM seaql_migrations WHERE version = '{built}'"
    );
    db.write(|transaction| {
        Box::pin(async move { transaction.execute_unprepared(&left).await.map(drop) })
    })
    .await
    .unwrap_or_else(|error: sea_orm::DbErr| panic!("{error}"));
    assert_eq!(db.migrate_up().await.unwrap(), [built]);
    let repeated = db.read().query_all_raw(valid()).await.unwrap().len();
    assert_eq!(repeated, whole);
}
