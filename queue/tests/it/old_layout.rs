//! Keys of the previous layout are removed once no worker uses them.

use landfall_queue::remove_old_keys;

use crate::setup::{Place, RedisServer, raw};

async fn run(server: &RedisServer, command: &str) {
    let mut parts = command.split(' ');
    let mut command = redis::cmd(parts.next().unwrap());
    parts.for_each(|part| {
        command.arg(part);
    });
    raw::<redis::Value>(&server.url(), &command).await;
}

#[tokio::test]
async fn keys_of_the_old_layout_are_removed_when_none_of_its_workers_is_alive() {
    let server = RedisServer::start().await;
    let place = Place::joining(&server.url(), "p", crate::setup::settings());
    for id in 0..1_000 {
        run(
            &server,
            &format!("HSET {{p:notes}}:job:{id} state ready group g{}", id % 7),
        )
        .await;
        run(&server, &format!("HSET {{p:notes}}:args {id} x")).await;
        run(
            &server,
            &format!("ZADD {{p:notes}}:lane:g{} 1 {id}", id % 7),
        )
        .await;
    }
    for name in ["grouped", "ring", "scheduled", "lease", "done", "dead"] {
        run(&server, &format!("ZADD {{p:notes}}:{name} 1 x")).await;
    }
    for name in ["slots", "limits", "meta"] {
        run(&server, &format!("HSET {{p:notes}}:{name} x 1")).await;
    }
    let time: (u64, u64) = raw(&server.url(), &redis::cmd("TIME")).await;
    run(
        &server,
        &format!("ZADD {{p:registry}}:workers {} alive", time.0 * 1_000),
    )
    .await;
    run(&server, "HSET {p:registry}:about alive {}").await;
    place.push("new", crate::setup::Note::Succeed).await;

    let before = server.keys("{p:").await.len();
    assert!(!remove_old_keys(&place.redis, &["notes"]).await.unwrap());
    assert_eq!(server.keys("{p:").await.len(), before, "in use");

    run(
        &server,
        &format!(
            "ZADD {{p:registry}}:workers {} alive",
            time.0 * 1_000 - 61_000
        ),
    )
    .await;
    assert!(remove_old_keys(&place.redis, &["notes"]).await.unwrap());
    assert_eq!(server.keys("{p:").await, Vec::<String>::new());
    assert_eq!(place.stats().await.ready, 1);
}
