//! Names as clients send them.

use crate::support::{
    TestApp,
    app::{json, problem},
};
use serde_json::Value;

/// A form whose part has these bytes as its `Content-Disposition`.
async fn named(app: &TestApp, disposition: &[u8]) -> reqwest::Response {
    let mut body = b"--x\r\nContent-Disposition: ".to_vec();
    body.extend_from_slice(disposition);
    body.extend_from_slice(b"\r\n\r\nhello\r\n--x--\r\n");
    let request = app
        .post("/v1/files")
        .header("Content-Type", "multipart/form-data; boundary=x")
        .body(body);
    request.send().await.expect("a response")
}

#[tokio::test]
async fn names_are_decoded_for_each_client() {
    let app = TestApp::builder().workers(&[]).start().await;
    let cases: [(&[u8], &str); 12] = [
        // Browsers, curl since 7.81, requests, undici.
        (
            br#"form-data; name="file"; filename="a %22b%22.txt""#,
            "a \"b\".txt",
        ),
        (
            "form-data; name=\"file\"; filename=\"Привет 😀.txt\"".as_bytes(),
            "Привет 😀.txt",
        ),
        (br#"form-data; name="file"; filename="end\""#, r"end\"),
        (br#"form-data; name="file"; filename="a\b.txt""#, r"a\b.txt"),
        // Go, httpx, older curl.
        (
            br#"form-data; name="file"; filename="a \"b\".txt""#,
            "a \"b\".txt",
        ),
        (br#"form-data; name="file"; filename="end\\""#, r"end\"),
        // Java libraries and wget scripts.
        (b"form-data; name=file; filename=plain.txt", "plain.txt"),
        (
            b"form-data; name=\"file\"; filename=\"_.txt\"; filename*=UTF-8''%D1%84.txt",
            "ф.txt",
        ),
        (
            b"form-data; filename*=utf-8''%D1%84.txt; name=\"file\"",
            "ф.txt",
        ),
        // Windows programs of old.
        (
            b"form-data; name=\"file\"; filename=\"Gr\xfc\xdfe.txt\"",
            "Gr\u{fffd}\u{fffd}e.txt",
        ),
        (
            br#"form-data; name="file"; filename="C:\temp\a.txt""#,
            r"C:\temp\a.txt",
        ),
        (
            br#"form-data; name="file"; filename="a;b=c.txt""#,
            "a;b=c.txt",
        ),
    ];
    for (disposition, name) in cases {
        let file = json(named(&app, disposition).await, 202).await;
        assert_eq!(file["original_filename"], name);
    }
    for none in [
        &br#"form-data; name="file"; filename="""#[..],
        br#"form-data; name="file""#,
    ] {
        problem(named(&app, none).await, 400, "invalid_name").await;
    }
}

#[tokio::test]
async fn names_are_counted_in_characters() {
    let app = TestApp::start().await;
    let send = async |name: &str| {
        let request = app.post("/v1/files").query(&[("filename", name)]);
        request.body("hello").send().await.expect("a response")
    };
    for letter in ["ж", "😀", "İ"] {
        let longest = letter.repeat(255);
        let file = json(send(&longest).await, 202).await;
        assert_eq!(file["original_filename"], longest);
        assert_eq!(app.settled(&file["id"]).await["status"], "stored");
        let found: Value = app.read(&format!("/v1/files?q={longest}")).await;
        assert_eq!(found["items"][0]["id"], file["id"], "{letter}");
        let path = format!("/v1/files/{}/content", file["id"].as_str().expect("an id"));
        assert_eq!(app.text(&path).await, "hello");
        problem(send(&format!("{longest}x")).await, 400, "invalid_name").await;
    }
}

#[tokio::test]
async fn names_of_aiohttp_are_decoded_and_those_of_others_are_not() {
    let app = TestApp::builder().workers(&[]).start().await;
    for (agent, name) in [
        ("Python/3.12 aiohttp/3.14.5", "ф %.txt"),
        ("python-requests/2.34.2", "%D1%84%20%25.txt"),
    ] {
        let body = "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"%D1%84%20%25.txt\"\r\n\r\nhello\r\n--x--\r\n";
        let request = app
            .post("/v1/files")
            .header("User-Agent", agent)
            .header("Content-Type", "multipart/form-data; boundary=x");
        let response = request.body(body).send().await.expect("a response");
        assert_eq!(json(response, 202).await["original_filename"], name);
    }
}
