//! Every way of uploading in pieces, each request to another node: nothing of an upload is in one process.

use super::topology::Topology;
use futures::future::join_all;
use landfall_core::digest::Sha256Digest;
use landfall_test_servers::wait_until;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
const PART: usize = 64 * 1024;

fn bytes(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at % 251) as u8).collect()
}

async fn patch(topology: &Topology, path: &str, offset: usize, bytes: &[u8]) -> Response {
    let request = topology.request(Method::PATCH, path).await;
    let request = request
        .header("Upload-Offset", offset)
        .header("Content-Type", "application/offset+octet-stream");
    let response = request.body(bytes.to_vec()).send().await;
    response.expect("a response")
}

async fn begin(topology: &Topology, headers: &[(&str, &str)]) -> String {
    let mut request = topology.request(Method::POST, "/v1/tus").await;
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.expect("a response");
    assert_eq!(response.status(), 201, "{response:?}");
    let location = response.headers()["location"].to_str().expect("text");
    location.to_owned()
}

async fn offset(topology: &Topology, path: &str) -> String {
    let head = topology.request(Method::HEAD, path).await;
    let head = head.send().await.expect("a response");
    head.headers()["upload-offset"]
        .to_str()
        .expect("text")
        .to_owned()
}

async fn stored(topology: &Topology, id: &str, bytes: &[u8]) {
    let path = format!("/v1/files/{id}?wait=30");
    let file = wait_until(SOON, async || {
        let file = topology.json(Method::GET, &path, None).await;
        (file["status"] == "stored").then_some(file)
    })
    .await;
    assert_eq!(file["sha256"], Sha256Digest::compute(bytes).to_string());
    topology.log.acknowledged(id, bytes);
}

fn id(path: &str) -> &str {
    path.rsplit('/').next().expect("an id")
}

async fn in_parts(topology: &Topology, batch: &Value) {
    let bytes = bytes(40 * PART + 7);
    let asked = json!({
        "original_filename": "parts", "total_size_bytes": bytes.len(), "chunk_size_bytes": PART,
        "batch_id": batch,
    });
    let begun = topology
        .json(Method::POST, "/v1/uploads", Some(asked))
        .await;
    let session = format!("/v1/uploads/{}", begun["id"].as_str().expect("an id"));
    // Each part in two concurrent requests, to both nodes.
    let parts = bytes.chunks(PART).enumerate().flat_map(|(at, part)| {
        let path = format!("{session}/parts/{}", at + 1);
        [(path.clone(), part), (path, part)]
    });
    let put = parts.map(|(path, part)| async move {
        let request = topology.request(Method::PUT, &path).await;
        let response = request
            .body(part.to_vec())
            .send()
            .await
            .expect("a response");
        assert_eq!(response.status(), 200, "{path}");
    });
    join_all(put).await;
    let known = topology.json(Method::GET, &session, None).await;
    assert_eq!(known["received_parts"], "1-41");
    let complete = format!("{session}/complete");
    let twice = [(); 2].map(|()| topology.json(Method::POST, &complete, None));
    let [first, second]: [Value; 2] = join_all(twice).await.try_into().expect("two answers");
    assert_eq!(
        first["id"], second["id"],
        "completed twice at once, one file"
    );
    stored(topology, first["id"].as_str().expect("an id"), &bytes).await;
}

async fn by_tus(topology: &Topology) {
    let bytes = bytes(300_000);
    let path = begin(topology, &[("Upload-Length", "300000")]).await;
    for (at, piece) in bytes.chunks(30_000).enumerate() {
        let raced = [(); 2].map(|()| patch(topology, &path, at * 30_000, piece));
        let mut answers: Vec<u16> = join_all(raced)
            .await
            .iter()
            .map(|response| response.status().as_u16())
            .collect();
        answers.sort_unstable();
        assert_eq!(answers, [204, 409], "{at}");
        let expected = ((at + 1) * 30_000).to_string();
        for _node in 0..2 {
            assert_eq!(offset(topology, &path).await, expected);
        }
    }
    for _node in 0..2 {
        let response = topology.ask(Method::GET, &path, None).await;
        assert!(response.bytes().await.expect("a body") == bytes);
    }
    stored(topology, id(&path), &bytes).await;
}

async fn by_joining(topology: &Topology) {
    let bytes = bytes(900_000);
    let pieces = bytes.chunks(300_000).map(|piece| async move {
        let headers = [("Upload-Length", "300000"), ("Upload-Concat", "partial")];
        let path = begin(topology, &headers).await;
        assert_eq!(
            patch(topology, &path, 0, &piece[..1000]).await.status(),
            204
        );
        assert_eq!(
            patch(topology, &path, 1000, &piece[1000..]).await.status(),
            204
        );
        path
    });
    let list = format!("final;{}", join_all(pieces).await.join(" "));
    let headers = [("Upload-Concat", list.as_str())];
    let (first, second) = (
        begin(topology, &headers).await,
        begin(topology, &headers).await,
    );
    assert_eq!(
        first, second,
        "a repeated concatenation makes no second file"
    );
    stored(topology, id(&first), &bytes).await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn uploads_spread_over_all_nodes_are_stored_and_announced_once() {
    let topology = Topology::start().await;
    let batch = topology
        .json(Method::POST, "/v1/batches", Some(json!({})))
        .await;
    in_parts(&topology, &batch["id"]).await;
    by_tus(&topology).await;
    by_joining(&topology).await;
    let path = format!("/v1/batches/{}", batch["id"].as_str().expect("an id"));
    let finalize = format!("{path}/finalize");
    let twice = [(); 2].map(|()| topology.json(Method::POST, &finalize, None));
    join_all(twice).await;
    let closed = topology.json(Method::GET, &path, None).await;
    assert_eq!(
        (&closed["status"], &closed["stored_count"]),
        (&json!("complete"), &json!(1))
    );
    // Three files and one batch.
    topology.receiver.wait_for(4, SOON).await;
    topology.invariants().hold().await;

    let given_up = begin(&topology, &[("Upload-Length", "10")]).await;
    assert_eq!(patch(&topology, &given_up, 0, b"12345").await.status(), 204);
    let deleted = topology.ask(Method::DELETE, &given_up, None).await;
    assert_eq!(deleted.status(), 204);
    let head = topology.ask(Method::HEAD, &given_up, None).await;
    assert!([404, 410].contains(&head.status().as_u16()), "{head:?}");
    let given_up = id(&given_up);
    let invariants = topology.invariants().fails(given_up, "upload_aborted");
    invariants.hold().await;
}
