use std::time::{Duration, Instant};

use landfall_queue::Limiter;
use landfall_test_servers::wait_until;

use crate::setup::{Place, RedisServer};

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn rate_lets_a_burst_through_and_then_its_rate() {
    let limiter = Limiter::new(Place::new().redis.clone());
    let begun = Instant::now();
    let mut taken = 0_u64;
    for _ in 0..50 {
        let answer = limiter.rate("a", 2, 10).await.unwrap();
        if answer.allowed {
            taken += 1;
        } else {
            assert!(answer.retry_after <= Duration::from_millis(500));
            assert!(answer.full_after <= Duration::from_secs(5));
        }
    }
    let refilled = begun.elapsed().as_secs() * 2 + 1;
    assert!((10..=10 + refilled).contains(&taken), "{taken}");
    assert!(limiter.rate("b", 2, 10).await.unwrap().allowed);
    wait_until(SOON, async || {
        let answer = limiter.rate("a", 2, 10).await.unwrap();
        answer.allowed.then_some(())
    })
    .await;
}

#[tokio::test]
async fn sum_is_shared_and_forgotten() {
    let place = Place::new();
    let (one, other) = (
        Limiter::new(place.redis.clone()),
        Limiter::new(place.redis.clone()),
    );
    let kept = Duration::from_secs(60);
    assert_eq!(one.add("day", 5, kept).await.unwrap(), 5);
    assert_eq!(other.add("day", 0, kept).await.unwrap(), 5);
    assert_eq!(
        other.add("day", u64::from(u32::MAX), kept).await.unwrap(),
        4_294_967_300
    );
    one.add("short", 1, Duration::from_secs(1)).await.unwrap();
    // Reading it keeps it alive, so it is read only once, when it must be gone.
    let asked = Instant::now();
    wait_until(SOON, async || {
        (asked.elapsed() > Duration::from_millis(1500)).then_some(())
    })
    .await;
    assert_eq!(one.add("short", 1, kept).await.unwrap(), 1);
}

#[tokio::test]
async fn slots_are_as_many_as_there_are_and_end_with_their_lease() {
    let limiter = Limiter::new(Place::new().redis.clone());
    let (long, short) = (Duration::from_secs(60), Duration::from_millis(50));
    assert!(limiter.acquire("a", "one", 2, long).await.unwrap());
    assert!(limiter.acquire("a", "one", 2, long).await.unwrap());
    assert!(limiter.acquire("a", "two", 2, short).await.unwrap());
    wait_until(SOON, async || {
        // The second holder does not renew.
        let entered = limiter.acquire("a", "three", 2, long).await.unwrap();
        entered.then_some(())
    })
    .await;
    assert!(!limiter.acquire("a", "four", 2, long).await.unwrap());
    limiter.release("a", "one").await.unwrap();
    assert!(limiter.acquire("a", "four", 2, long).await.unwrap());
}

#[tokio::test]
async fn limits_hold_on_a_cluster() {
    let server = RedisServer::start_cluster().await;
    let place = Place::at(&server.url(), crate::setup::settings());
    let limiter = Limiter::new(place.redis.clone());
    let kept = Duration::from_secs(60);
    assert!(limiter.rate("a", 1, 1).await.unwrap().allowed);
    assert!(!limiter.rate("a", 1, 1).await.unwrap().allowed);
    assert_eq!(limiter.add("a", 7, kept).await.unwrap(), 7);
    assert!(limiter.acquire("a", "one", 1, kept).await.unwrap());
}
