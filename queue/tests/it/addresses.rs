//! Addresses of Redis other than a single host.

use std::{collections::BTreeSet, time::Duration};

use futures::StreamExt as _;
use landfall_queue::{JobState, Limiter, MemoryUse, NewJob, Redis};
use landfall_test_servers::{RedisCluster, RedisSentinel, TlsRedisServer};
use tokio::time::timeout;

use crate::{
    process::WorkerProcess,
    setup::{Note, Place, RedisServer, SOON, raw, settings, wait_until},
};

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
    place.log.release(5);
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
    for key in keys.iter().filter(|key| !key.contains(":{registry}")) {
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

/// A user limited to keys and channels with the prefix, and without administrative commands.
#[tokio::test]
async fn user_limited_to_the_prefix_is_enough() {
    let server = RedisServer::start().await;
    let rules = [
        "limited",
        "on",
        ">secret",
        "~queue-test*",
        "resetchannels",
        "&queue-test*",
        "+@all",
        "-@admin",
        "-@dangerous",
    ];
    server.set_user(&rules).await;
    let url = format!("redis://limited:secret@127.0.0.1:{}", server.port());
    let place = Place::joining(&url, "queue-test", settings().group_limit(2));
    let mut messages = place.redis.subscribe("news");
    let worker = place.start(4);
    place.push_grouped("g", 0..3, Note::Succeed).await;
    place.push("fails", Note::Fail).await;
    place.wait_for_state("fails", JobState::Dead).await;
    place.wait_until_quiet().await;
    place.queue.set_group_limit("g", Some(1)).await.unwrap();
    place.inspector.pause("notes").await.unwrap();
    place.inspector.resume("notes").await.unwrap();
    assert_eq!(place.inspector.queues().await.unwrap(), ["notes"]);
    assert_eq!(place.inspector.workers().await.unwrap().len(), 1);
    assert_eq!(
        place.inspector.memory().await.unwrap(),
        MemoryUse::default(),
        "it may not ask"
    );
    let limiter = Limiter::new(place.redis.clone());
    assert!(limiter.rate("someone", 10, 10).await.unwrap().allowed);
    let heard = async {
        loop {
            place.redis.publish("news", "hello").await.unwrap();
            let heard = timeout(Duration::from_millis(100), messages.next()).await;
            if let Ok(Some(message)) = heard {
                return message;
            }
        }
    };
    assert_eq!(timeout(SOON, heard).await.unwrap(), "hello");
    let keys = server.keys("").await;
    assert!(
        keys.iter().all(|key| key.starts_with("queue-test:{")),
        "{keys:?}"
    );
    worker.stop().await;
}

#[tokio::test]
async fn certificate_of_a_private_authority_is_trusted_when_ssl_cert_file_names_it() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let server = TlsRedisServer::start().await;
    let place = Place::at(&server.plain().url(), settings());
    let refused = Redis::open(&server.url(), "p").unwrap().ping().await;
    let error = format!("{:?}", refused.unwrap_err());
    assert!(error.contains("UnknownIssuer"), "{error}");
    let trusted = ("SSL_CERT_FILE", server.authority().as_os_str());
    let _worker = WorkerProcess::start_with(&server.url(), place.redis.prefix(), &[trusted]);
    place.push("a", Note::Succeed).await;
    place.wait_for_state("a", JobState::Done).await;
}

/// Pushes jobs that have not run, as the application that owns the data does, until all have.
async fn push_until_all_ran(place: &Place, jobs: usize) {
    wait_until(Duration::from_secs(90), async || {
        let ran: BTreeSet<String> = place.log.ids().into_iter().collect();
        if ran.len() == jobs {
            return Ok(());
        }
        let missing = (0..jobs)
            .map(|i| format!("job:{i}"))
            .filter(|id| !ran.contains(id));
        let missing = missing.map(|id| NewJob::new(id, Note::Succeed).group("g"));
        let pushed = place.queue.push_many(missing).await;
        Err(format!("{} ran; {pushed:?}", ran.len()))
    })
    .await;
}

#[tokio::test]
async fn failover_of_a_sentinel_in_the_middle_of_work_loses_no_job() {
    let servers = RedisSentinel::start().await;
    let place = Place::at(&servers.url(), settings());
    let workers = [place.start(4), place.start(4)];
    push_until_all_ran(&place, 200).await;
    let pushing = async {
        let jobs =
            (200..1_000).map(|i| NewJob::new(format!("job:{i}"), Note::Sleep { ms: 5 }).group("g"));
        let _ = place.queue.push_many(jobs).await;
        place.log.wait_for(300).await;
        servers.first_master().kill().await;
        servers.wait_for_failover().await;
    };
    pushing.await;
    push_until_all_ran(&place, 1_000).await;
    // The old master comes back and becomes a replica: nothing is written to it.
    servers.first_master().start_again().await;
    place.push("last", Note::Succeed).await;
    place.wait_for_state("last", JobState::Done).await;
    for worker in workers {
        worker.stop().await;
    }
}

/// The old master is only frozen: its connections stay open and silent.
#[tokio::test]
async fn failover_from_a_master_that_hangs_is_noticed() {
    let servers = RedisSentinel::start().await;
    let place = Place::at(&servers.url(), settings());
    let worker = place.start(4);
    push_until_all_ran(&place, 20).await;
    servers.first_master().freeze();
    servers.wait_for_failover().await;
    push_until_all_ran(&place, 120).await;
    servers.first_master().thaw();
    push_until_all_ran(&place, 220).await;
    worker.stop().await;
}

#[tokio::test]
async fn cluster_fails_over_and_moves_the_queue_in_the_middle_of_work() {
    let cluster = RedisCluster::start().await;
    let place = Place::at(&cluster.url(), settings());
    let workers = [place.start(4), place.start(4)];
    push_until_all_ran(&place, 200).await;
    let jobs =
        (200..600).map(|i| NewJob::new(format!("job:{i}"), Note::Sleep { ms: 5 }).group("g"));
    place.queue.push_many(jobs).await.unwrap();
    place.log.wait_for(250).await;
    let queue = format!("{}:{{notes}}", place.redis.prefix());
    cluster.move_slot_of(&queue).await;
    push_until_all_ran(&place, 600).await;
    let jobs =
        (600..1_000).map(|i| NewJob::new(format!("job:{i}"), Note::Sleep { ms: 5 }).group("g"));
    let _ = place.queue.push_many(jobs).await;
    cluster.fail_over_master_of(&queue).await;
    push_until_all_ran(&place, 1_000).await;
    for worker in workers {
        worker.stop().await;
    }
}

#[tokio::test]
async fn eviction_policy_can_be_asked_for() {
    let server = RedisServer::start().await;
    let place = Place::at(&server.url(), settings());
    let policies = async || place.inspector.eviction_policies().await.unwrap();
    assert_eq!(policies().await, BTreeSet::from(["noeviction".to_owned()]));
    server.set_config("maxmemory-policy", "allkeys-lru").await;
    assert_eq!(policies().await, BTreeSet::from(["allkeys-lru".to_owned()]));
}

#[test]
fn address_that_cannot_be_one_is_refused_at_once() {
    for url in [
        "",
        "nonsense",
        "http://localhost",
        "redis-cluster://",
        "redis-sentinel://",
        "redis-sentinel://a:1",
        "redis-sentinel://a:1/",
        "redis-sentinel://a:1/name/0/more",
    ] {
        assert!(landfall_queue::Redis::open(url, "p").is_err(), "{url:?}");
    }
    let fine = [
        "rediss://user:pass@host:1/2",
        "redis-cluster://:pass@a:1,b:2,c:3",
        "redis-sentinel://user:pass@a:1,b:2,c/name/1",
        "rediss-sentinel://:pass@a:1/name",
    ];
    for url in fine {
        let redis = landfall_queue::Redis::open(url, "p").unwrap();
        assert!(!format!("{redis:?}").contains("pass"), "{redis:?}");
    }
}
