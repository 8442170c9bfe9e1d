//! Other ways to reach Redis than one address.

use std::{collections::BTreeSet, time::Duration};

use landfall_queue::{JobState, NewJob};

use crate::setup::{Note, Place, RedisServer, SOON, raw, settings, wait_until};

async fn cluster() -> (RedisServer, Place) {
    let server = RedisServer::start_cluster().await;
    let url = server.url().replace("redis://", "redis-cluster://");
    let place = Place::at(&url, settings().group_limit(2));
    (server, place)
}

#[tokio::test]
async fn queue_works_on_a_cluster() {
    let (server, place) = cluster().await;
    let worker = place.start(8);
    place.push("first", Note::Succeed).await;
    place.wait_for_state("first", JobState::Done).await;
    place.push_grouped("g", 0..5, Note::Hold).await;
    place.push("fails", Note::Fail).await;
    place
        .push(
            "once",
            Note::RetryOnce {
                ms: 50,
                counts: true,
            },
        )
        .await;
    let later = NewJob::new("later", Note::Succeed).after(Duration::from_millis(100));
    place.queue.push(later).await.unwrap();
    place.wait_for_state("fails", JobState::Dead).await;
    wait_until(SOON, async || place.stats().await.running == 2).await;
    let workers = place.inspector.workers().await.unwrap();
    assert_eq!(workers.len(), 1);
    assert_eq!(place.inspector.queues().await.unwrap(), ["notes"]);
    place.inspector.pause("notes").await.unwrap();
    place.inspector.resume("notes").await.unwrap();
    assert!(place.inspector.run_again("notes", "fails").await.unwrap());
    place.log.let_go(5);
    place.wait_until_quiet().await;
    assert_eq!(place.log.most_at_once("g"), 2);
    assert_eq!(place.stats().await.done_total, 8);
    assert!(place.redis.memory_used().await.unwrap() > 0);
    server.drop_connections().await;
    place.wait_for_state("first", JobState::Done).await;
    place.push("last", Note::Succeed).await;
    place.wait_for_state("last", JobState::Done).await;
    worker.stop().await;
}

#[tokio::test]
async fn keys_of_one_queue_share_a_slot() {
    let (server, place) = cluster().await;
    let worker = place.start(4);
    place.queue.set_group_limit("g", Some(1)).await.unwrap();
    place.push_grouped("g", 0..3, Note::Hold).await;
    place.push("dead", Note::Abort).await;
    place.push("done", Note::Succeed).await;
    let later = NewJob::new("later", Note::Succeed).after(Duration::from_secs(600));
    place.queue.push(later).await.unwrap();
    place.wait_for_state("dead", JobState::Dead).await;
    place.wait_for_state("done", JobState::Done).await;
    let keys: Vec<String> = raw(&server.url(), redis::cmd("KEYS").arg("*")).await;
    assert!(keys.len() > 12, "{keys:?}");
    let mut slots = BTreeSet::new();
    for key in keys.iter().filter(|key| !key.contains(":registry}")) {
        let ask = redis::cmd("CLUSTER").arg("KEYSLOT").arg(key).to_owned();
        slots.insert(raw::<u16>(&server.url(), &ask).await);
    }
    assert_eq!(slots.len(), 1, "{keys:?}");
    worker.stop().await;
}

#[tokio::test]
async fn queue_works_over_a_unix_socket() {
    let server = RedisServer::start_with(&["--unixsocket", "redis.sock"]).await;
    let socket = server.folder().join("redis.sock");
    for scheme in ["unix", "redis+unix"] {
        let place = Place::at(&format!("{scheme}://{}", socket.display()), settings());
        let worker = place.start(1);
        place.push("a", Note::Succeed).await;
        place.wait_for_state("a", JobState::Done).await;
        worker.stop().await;
    }
}

#[test]
fn address_that_cannot_be_one_is_refused_at_once() {
    for url in ["", "nonsense", "http://localhost", "redis-cluster://"] {
        assert!(landfall_queue::Redis::open(url, "p").is_err(), "{url:?}");
    }
    let fine = [
        "rediss://user:pass@host:1/2",
        "redis-cluster://:pass@a:1,b:2,c:3",
    ];
    for url in fine {
        let redis = landfall_queue::Redis::open(url, "p").unwrap();
        assert!(!format!("{redis:?}").contains("pass"), "{redis:?}");
    }
}
