//! The pages in a real browser: what only script does, and what an operator sees happen.

use crate::support::{
    TestApp,
    app::SOON,
    browser::{Browser, ENTER},
};
use landfall_test_servers::{Behaviour, wait_until};
use serde_json::Value;

/// Drops files of these names and contents onto the page, as a hand would.
async fn drop_files(browser: &Browser, files: &[(&str, &str)]) {
    let files = serde_json::to_string(files).expect("JSON");
    let script = format!(
        "const dropped = new DataTransfer();
         for (const [name, content] of {files}) dropped.items.add(new File([content], name, {{ type: 'text/plain' }}));
         const event = (kind) => new DragEvent(kind, {{ dataTransfer: dropped, bubbles: true, cancelable: true }});
         document.getElementById('drop').dispatchEvent(event('dragover'));
         document.getElementById('drop').dispatchEvent(event('drop'));"
    );
    browser.run(&script).await;
}

async fn count(browser: &Browser, selector: &str) -> u64 {
    let script = format!("return document.querySelectorAll({selector:?}).length");
    browser.run(&script).await.as_u64().unwrap_or(0)
}

/// Asserts an empty console, and no requests to other hosts.
async fn assert_clean(browser: &Browser, app: &TestApp) {
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    for url in browser.requested().await {
        assert!(
            url.starts_with(&app.url) || url.starts_with("data:"),
            "{url} was asked for"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs a browser: scripts/test runs it"
)]
async fn three_dropped_files_are_shown_as_stored_and_announced() {
    let app = TestApp::start().await;
    app.webhook("/hook", &["file.stored"]).await;
    let browser = Browser::open(1280, 900).await;
    browser.go(&format!("{}/upload", app.url)).await;
    browser.sees("Drop files here").await;
    drop_files(
        &browser,
        &[("one.txt", "1"), ("two.txt", "22"), ("Drei <b>.txt", "333")],
    )
    .await;
    wait_until(SOON, async || {
        (count(&browser, "li[data-state=announced]").await == 3).then_some(())
    })
    .await;
    browser.sees("3 announced").await;
    browser.sees("Drei <b>.txt").await;
    assert_eq!(app.receiver.wait_for_at("/hook", 3, SOON).await.len(), 3);
    let stored: Value = app.read("/v1/files?status=stored").await;
    assert_eq!(stored["items"].as_array().unwrap().len(), 3);
    browser.click("#uploads li a").await;
    browser.sees("Committed").await;
    assert_clean(&browser, &app).await;
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs a browser: scripts/test runs it"
)]
async fn a_paused_upload_waits_and_resumes() {
    let app = TestApp::start().await;
    let browser = Browser::open(1280, 900).await;
    browser.go(&format!("{}/upload", app.url)).await;
    browser.sees("Drop files here").await;
    // Three are sent concurrently; the fourth waits long enough to be paused.
    browser
        .run(
            "const dropped = new DataTransfer();
             for (const n of [1, 2, 3, 4]) dropped.items.add(new File([new Uint8Array(4 << 20)], `part-${n}.bin`));
             document.dispatchEvent(new DragEvent('drop', { dataTransfer: dropped, bubbles: true, cancelable: true }));
             document.querySelector('#uploads li button').click();",
        )
        .await;
    wait_until(SOON, async || {
        (count(&browser, "li[data-state=announced]").await == 3).then_some(())
    })
    .await;
    assert_eq!(count(&browser, "li[data-state=paused]").await, 1);
    browser.click("#pause-all").await;
    wait_until(SOON, async || {
        (count(&browser, "li[data-state=announced]").await == 4).then_some(())
    })
    .await;
    browser.click("#clear").await;
    assert_eq!(count(&browser, "#uploads li").await, 0);
    assert_clean(&browser, &app).await;
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs a browser: scripts/test runs it"
)]
async fn a_failing_receiver_is_shown_fixed_and_gets_redeliveries() {
    let app = TestApp::builder()
        .set("webhooks.max_attempts", "1")
        .start()
        .await;
    let webhook = app.webhook("/hook", &["file.stored"]).await;
    let browser = Browser::open(1280, 900).await;
    browser
        .go(&format!(
            "{}/webhooks/{}",
            app.url,
            webhook["id"].as_str().unwrap()
        ))
        .await;
    browser.sees("No deliveries match these filters.").await;
    app.receiver
        .set("/hook", Behaviour::status(503).body("out of order"));
    for name in ["one", "two"] {
        app.upload(name, "hello").await;
    }
    browser.sees("2 deliveries failed.").await;
    browser.sees("503").await;
    app.receiver.mend("/hook");
    browser.click("a.go[href$='replay?status=failed']").await;
    browser.sees("2 deliveries will be sent").await;
    browser.click("form[method=post] button.go").await;
    browser.sees("2 deliveries enqueued.").await;
    wait_until(SOON, async || {
        (!browser.text().await.contains("2 deliveries failed.")).then_some(())
    })
    .await;
    assert_eq!(app.receiver.wait_for_at("/hook", 4, SOON).await.len(), 4);
    assert_clean(&browser, &app).await;
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs a browser: scripts/test runs it"
)]
async fn file_is_shown_being_stored_and_found_by_its_digest() {
    let app = TestApp::builder().workers(&[]).start().await;
    let file = app.upload("found.txt", "hello").await;
    let id = file["id"].as_str().unwrap();
    let browser = Browser::open(1280, 900).await;
    browser.go(&format!("{}/files/{id}", app.url)).await;
    browser.sees("Finalize now").await;
    let file = entity::FileId(id.parse().unwrap());
    landfall_core::finalize::Finalizer::new(&app.parts.app, "by hand")
        .finalize(file)
        .await
        .unwrap();
    browser.sees("Hashed and copied to storage as").await;
    let sha256 = app.file(id).await["sha256"].as_str().unwrap().to_owned();
    browser.press("/").await;
    browser.press(&sha256).await;
    browser.press(ENTER).await;
    // The page before has the name on it too.
    browser.comes_to(&format!("/files?q={sha256}")).await;
    browser.sees("found.txt").await;
    assert_clean(&browser, &app).await;
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs a browser: scripts/test runs it"
)]
async fn no_page_scrolls_horizontally_on_a_phone() {
    let app = TestApp::start().await;
    let webhook = app.webhook("/hook", &[]).await;
    let name = format!("{}.txt", "a-very-long-name-".repeat(12));
    let file = app.settled(&app.upload(&name, "hello").await["id"]).await;
    let event: Value = app.read("/v1/events").await;
    let id = |value: &Value| value["id"].as_str().unwrap().to_owned();
    let browser = Browser::open(390, 844).await;
    for path in [
        "/files".to_owned(),
        format!("/files/{}", id(&file)),
        "/events".into(),
        format!("/events/{}", id(&event["items"][0])),
        "/webhooks".into(),
        format!("/webhooks/{}", id(&webhook)),
        format!("/webhooks/{}/replay", id(&webhook)),
        "/upload".into(),
    ] {
        browser.go(&format!("{}{path}", app.url)).await;
        let wide = browser
            .run("return document.documentElement.scrollWidth - window.innerWidth")
            .await;
        assert!(wide.as_i64().unwrap() <= 0, "{path} is {wide} px too wide");
    }
    assert_clean(&browser, &app).await;
    browser.close().await;
}
