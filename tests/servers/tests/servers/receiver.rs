use std::time::{Duration, Instant};

use landfall_test_servers::{Behaviour, Receiver, wait_until};
use reqwest::{Client, Response, redirect};

const SOON: Duration = Duration::from_secs(10);

pub(crate) fn client() -> Client {
    // One for the whole process: the second test to get here finds it there.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .redirect(redirect::Policy::none())
        .no_proxy()
        .build()
        .unwrap()
}

async fn post(receiver: &Receiver, path: &str, body: &'static str) -> reqwest::Result<Response> {
    client()
        .post(receiver.url(path))
        .header("webhook-id", "7")
        .body(body)
        .send()
        .await
}

#[tokio::test]
async fn request_is_written_down_with_its_answer() {
    let receiver = Receiver::start().await;
    assert_eq!(
        post(&receiver, "/hook?a=b", "hello")
            .await
            .unwrap()
            .status(),
        200
    );
    let requests = receiver.wait_for(1, SOON).await;
    let request = &requests[0];
    assert_eq!((&*request.path, &*request.query), ("/hook", "a=b"));
    assert_eq!(request.method, "POST");
    assert_eq!(request.header("webhook-id"), "7");
    assert_eq!(request.body, "hello");
    assert_eq!(request.status, Some(200));
}

#[tokio::test]
async fn behaviour_is_for_its_path_until_mended() {
    let receiver = Receiver::start().await;
    receiver.set("/bad", Behaviour::retry_after(429, 3));
    let answer = post(&receiver, "/bad", "").await.unwrap();
    assert_eq!(answer.status(), 429);
    assert_eq!(answer.headers()["retry-after"], "3");
    assert_eq!(post(&receiver, "/good", "").await.unwrap().status(), 200);
    receiver.mend("/bad");
    assert_eq!(post(&receiver, "/bad", "").await.unwrap().status(), 200);
    assert_eq!(receiver.requests_to("/bad").len(), 2);
    assert_eq!(receiver.requests().len(), 3);
}

#[tokio::test]
async fn next_requests_misbehave_and_those_after_do_not() {
    let receiver = Receiver::start().await;
    receiver.set("/hook", Behaviour::gone());
    receiver.set_next("/hook", 2, &Behaviour::status(500));
    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.push(
            post(&receiver, "/hook", "")
                .await
                .unwrap()
                .status()
                .as_u16(),
        );
    }
    assert_eq!(answers, [500, 500, 410]);
}

#[tokio::test]
async fn redirect_names_its_target() {
    let receiver = Receiver::start().await;
    receiver.set(
        "/hook",
        Behaviour::redirect("http://169.254.169.254/latest"),
    );
    let answer = post(&receiver, "/hook", "").await.unwrap();
    assert_eq!(answer.status(), 302);
    assert_eq!(
        answer.headers()["location"],
        "http://169.254.169.254/latest"
    );
}

#[tokio::test]
async fn reset_comes_after_the_body_and_is_no_answer() {
    let receiver = Receiver::start().await;
    receiver.set("/hook", Behaviour::reset());
    assert!(post(&receiver, "/hook", "hello").await.is_err());
    let requests = receiver.wait_for_at("/hook", 1, SOON).await;
    assert_eq!(requests[0].body, "hello");
    assert_eq!(requests[0].status, None);
}

#[tokio::test]
async fn stalled_request_is_answered_late() {
    let receiver = Receiver::start().await;
    receiver.set("/hook", Behaviour::stall(Duration::from_millis(300)));
    let started = Instant::now();
    assert_eq!(post(&receiver, "/hook", "").await.unwrap().status(), 200);
    assert!(started.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn hanging_request_is_seen_and_never_answered() {
    let receiver = Receiver::start().await;
    receiver.set("/hook", Behaviour::hang());
    let request = client()
        .post(receiver.url("/hook"))
        .timeout(Duration::from_millis(300));
    assert!(request.send().await.unwrap_err().is_timeout());
    assert_eq!(receiver.wait_for(1, SOON).await[0].status, None);
}

#[tokio::test]
async fn big_and_dripping_bodies_come() {
    let receiver = Receiver::start().await;
    receiver.set("/big", Behaviour::big(1 << 20));
    let answer = post(&receiver, "/big", "").await.unwrap();
    assert_eq!(answer.bytes().await.unwrap().len(), 1 << 20);
    receiver.set("/drip", Behaviour::drip(Duration::from_millis(5)));
    let mut answer = post(&receiver, "/drip", "").await.unwrap();
    for _ in 0..3 {
        assert_eq!(answer.chunk().await.unwrap().unwrap(), ".");
    }
}

#[tokio::test]
async fn stopped_receiver_refuses_connections() {
    let receiver = Receiver::start().await;
    receiver.stop().await;
    assert!(post(&receiver, "/hook", "").await.unwrap_err().is_connect());
    receiver.start_again().await;
    wait_until(SOON, async || post(&receiver, "/hook", "").await).await;
}

#[tokio::test]
#[should_panic(expected = "0 of 1 requests reached /hook")]
async fn waiting_in_vain_says_how_many_came() {
    let receiver = Receiver::start().await;
    receiver
        .wait_for_at("/hook", 1, Duration::from_millis(30))
        .await;
}
