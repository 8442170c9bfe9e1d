//! `GET /v1/files`, and the other lists.

use super::get;
use crate::support::{
    app::{Builder, json, problem},
    over_both_databases,
};
use serde_json::Value;

over_both_databases!(
    pages_are_newest_first_and_continue_to_the_last,
    filters_select_items,
    empty_parameters_are_ignored,
    invalid_parameters_are_named,
);

fn names(page: &Value) -> Vec<&str> {
    let items = page["items"].as_array().expect("items");
    items
        .iter()
        .filter_map(|file| file["original_filename"].as_str())
        .collect()
}

async fn pages_are_newest_first_and_continue_to_the_last(builder: Builder) {
    let app = builder.workers(&[]).start().await;
    for name in ["a", "b", "c", "d", "e"] {
        app.upload(name, "hello").await;
    }
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = json(get(&app, &format!("/v1/files?limit=2{cursor}")).await, 200).await;
        seen.extend(names(&page).into_iter().map(str::to_owned));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, ["e", "d", "c", "b", "a"]);
}

async fn filters_select_items(builder: Builder) {
    let app = builder.workers(&[]).start().await;
    app.upload("Bericht.pdf", "hello").await;
    let other = app.upload("photo.png", "hello").await;
    let id = other["id"].as_str().expect("an id");
    for (query, found) in [
        ("q=beri".to_owned(), vec!["Bericht.pdf"]),
        (format!("q={id}"), vec!["photo.png"]),
        ("q=100%25_".to_owned(), vec![]),
        ("status=staged&q=photo".to_owned(), vec!["photo.png"]),
        ("status=stored".to_owned(), vec![]),
        (format!("sha256={}", "0".repeat(64)), vec![]),
    ] {
        let page = json(get(&app, &format!("/v1/files?{query}")).await, 200).await;
        assert_eq!(names(&page), found, "{query}");
    }
}

async fn empty_parameters_are_ignored(builder: Builder) {
    let app = builder.workers(&[]).start().await;
    app.upload("a", "hello").await;
    let webhook = app.webhook("/hook", &[]).await;
    let deliveries = format!(
        "/v1/webhooks/{}/deliveries?status=&limit=&cursor=",
        webhook["id"].as_str().expect("an id")
    );
    for (path, found) in [
        ("/v1/files?status=&batch_id=&sha256=&q=&limit=&cursor=", 1),
        ("/v1/files?status=staged&q=&limit", 1),
        ("/v1/files?status=&q=b", 0),
        (
            "/v1/events?status=&event_type=&aggregate_id=&limit=&cursor=",
            0,
        ),
        ("/v1/webhooks?limit=&cursor=", 1),
        (deliveries.as_str(), 0),
    ] {
        let page = json(get(&app, path).await, 200).await;
        assert_eq!(
            page["items"].as_array().map(Vec::len),
            Some(found),
            "{path}"
        );
    }
    let waited = app.upload("b", "hello").await;
    let path = format!("/v1/files/{}?wait=", waited["id"].as_str().expect("an id"));
    json(get(&app, &path).await, 200).await;
}

async fn invalid_parameters_are_named(builder: Builder) {
    let app = builder.workers(&[]).start().await;
    for (query, code, field) in [
        ("cursor=x", "invalid_cursor", "cursor"),
        ("cursor=AAAA", "invalid_cursor", "cursor"),
        ("limit=0", "malformed_request", "limit"),
        ("limit=201", "malformed_request", "limit"),
        ("limit=many", "malformed_request", "limit"),
        ("status=odd", "malformed_request", "status"),
        ("batch_id=odd", "malformed_request", "batch_id"),
        ("sha256=odd", "malformed_request", "sha256"),
        ("q=a%00b", "malformed_request", "q"),
    ] {
        let refused = problem(get(&app, &format!("/v1/files?{query}")).await, 400, code).await;
        assert_eq!(refused["errors"][0]["field"], field, "{query}");
        let message = refused["errors"][0]["message"].as_str().expect("a message");
        assert!(!message.contains("pars"), "{message}");
    }
}
