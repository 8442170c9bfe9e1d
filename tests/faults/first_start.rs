//! First starts that are killed while they migrate a SQLite database: the next start continues.

use crate::support::{Installation, process};
use landfall_core::db::Database;
use rand::RngExt;
use std::{process::ExitStatus, time::Duration};
use tokio::process::Child;

/// The default; `LANDFALL_TEST_KILLS` sets another number.
const KILLS: usize = 30;

/// From the moment the file is there, all migrations take about this long.
const MIGRATING_FOR: Duration = Duration::from_millis(60);

async fn ended_within(child: &mut Child, time: Duration) -> Option<ExitStatus> {
    let ended = tokio::time::timeout(time, child.wait()).await;
    Some(ended.ok()?.expect("a process ends"))
}

/// Waits until the database's file is there, or the process is over.
async fn begins_to_migrate(child: &mut Child, installation: &Installation) {
    let file = installation.folder().join("data").join("landfall.db");
    while !file.exists()
        && ended_within(child, Duration::from_millis(1))
            .await
            .is_none()
    {}
}

#[tokio::test(flavor = "multi_thread")]
async fn first_starts_killed_at_any_moment_are_continued_by_the_next() {
    let kills = std::env::var("LANDFALL_TEST_KILLS").ok();
    let kills = kills.map_or(KILLS, |kills| kills.parse().expect("a number"));
    let (mut killed, mut halfway) = (0, 0);
    for _ in 0..kills {
        let installation = Installation::new();
        let environment = installation.environment();
        let migrate = || process::command(&["migrate", "up"], &environment);
        let mut first = migrate()
            .kill_on_drop(true)
            .spawn()
            .expect("landfall starts");
        begins_to_migrate(&mut first, &installation).await;
        let moment = MIGRATING_FOR.mul_f64(rand::rng().random());
        if ended_within(&mut first, moment).await.is_none() {
            first.kill().await.expect("it is killed");
            killed += 1;
        }
        let url = installation.config().database.url.clone();
        let states = match Database::open(&url, 1).await {
            Ok(db) => db.migrations().await.expect("the states of all migrations"),
            Err(error) => panic!("it cannot be opened: {error:?}"),
        };
        let applied = states.iter().filter(|state| state.applied).count();
        halfway += usize::from(applied > 0 && applied < states.len());
        let next = migrate().output().await.expect("landfall runs");
        let said = String::from_utf8_lossy(&next.stderr);
        assert!(next.status.success(), "after {applied} migrations: {said}");
        let db = Database::open(&url, 1).await.expect("it opens");
        db.require_current()
            .await
            .expect("every migration is applied");
    }
    println!("{killed} of {kills} first starts killed, {halfway} between two migrations");
    assert!(killed > kills / 3, "{killed} killed");
    assert!(halfway > 0, "none was killed between two migrations");
}
