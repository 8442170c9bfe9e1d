//! Pages show what the database knows, and every number leads to what it counts.

use super::dashboard_user::DashboardUser;
use crate::support::TestApp;
use entity::file::{self, FileStatus};
use landfall_bench::seed_rows::{self as seed, SeedAmount};
use landfall_core::{
    files::{self, FileFilter, OwnerScope},
    pagination::PageRequest,
};
use landfall_test_servers::{Behaviour, wait_until};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};

#[tokio::test]
async fn a_file_is_found_by_any_of_its_attributes() {
    let app = TestApp::start().await;
    let first = app
        .settled(&app.upload("Bericht März.pdf", "hello").await["id"])
        .await;
    let other = app
        .settled(&app.upload("photo.png", "other").await["id"])
        .await;
    let user = DashboardUser::local(&app).await;
    let (id, sha256) = (
        first["id"].as_str().unwrap(),
        first["sha256"].as_str().unwrap(),
    );
    let (now, later) = ("2020-01-01", "2099-01-01");
    for query in [
        format!("q={id}"),
        format!("q={sha256}"),
        format!("sha256={sha256}"),
        "q=bericht%20m%C3%A4rz".to_owned(),
        format!("q=BERICHT&status=stored&since={now}&until={later}"),
    ] {
        let page = user.page(&format!("/files?{query}")).await;
        assert!(page.contains("Bericht März.pdf"), "{query}");
        assert!(!page.contains("photo.png"), "{query}");
    }
    let all = user.page("/files").await;
    for file in [&first, &other] {
        assert!(all.contains(&format!("/files/{}", file["id"].as_str().unwrap())));
    }
    for nothing in ["status=failed", "q=zzz", "owner=nobody", "since=2099-01-01"] {
        assert!(
            user.page(&format!("/files?{nothing}"))
                .await
                .contains("No files match these filters."),
            "{nothing}"
        );
    }
}

#[tokio::test]
async fn a_list_keeps_its_filters_to_the_last_page() {
    let app = TestApp::builder().workers(&[]).start().await;
    for number in 0..51 {
        app.upload(&format!("page-{number}"), "x").await;
    }
    app.upload("other", "x").await;
    let user = DashboardUser::local(&app).await;
    let first = user.page("/files?q=page-&status=staged").await;
    assert!(first.contains("page-50") && !first.contains(">page-0<"));
    let next = first
        .split("rel=\"next\" href=\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    let last = user.page(&next.replace("&amp;", "&")).await;
    assert!(last.contains("page-0") && !last.contains("page-50") && !last.contains("rel=\"next\""));
    assert!(!last.contains(">other<"), "the filter is in the link");
}

#[tokio::test]
async fn invalid_filters_are_named() {
    let app = TestApp::builder().workers(&[]).start().await;
    for (path, field) in [
        ("/files?status=odd", "status"),
        ("/files?batch=odd", "batch"),
        ("/files?since=yesterday", "since"),
        ("/files?q=a%00b", "q"),
        ("/files?cursor=odd", "first"),
        ("/events?about=odd", "about"),
    ] {
        let response = app.get(path).send().await.unwrap();
        assert_eq!(response.status(), 400, "{path}");
        assert!(response.text().await.unwrap().contains(field), "{path}");
    }
    for path in [
        "/files/nonsense",
        "/files/019a0000-0000-7000-8000-000000000000",
        "/batches/019a0000-0000-7000-8000-000000000000",
        "/events/019a0000-0000-7000-8000-000000000000",
        "/webhooks/019a0000-0000-7000-8000-000000000000",
    ] {
        assert_eq!(app.get(path).send().await.unwrap().status(), 404, "{path}");
    }
}

#[tokio::test]
async fn a_file_shows_its_whole_timeline() {
    let app = TestApp::start().await;
    app.receiver
        .set("/life", Behaviour::status(200).body("taken, thank you"));
    let webhook = app.webhook("/life", &["file.stored"]).await;
    let id = app
        .settled(&app.upload("life.txt", "hello").await["id"])
        .await["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let user = DashboardUser::local(&app).await;
    let page = wait_until(crate::support::app::SOON, async || {
        let page = user.page(&format!("/files/{id}")).await;
        page.contains("taken, thank you").then_some(page)
    })
    .await;
    let order = [
        "Upload started on",
        "Staged",
        "Claimed by",
        "Hashed and copied to storage as",
        "Committed",
        "file.stored",
        ">200<",
    ];
    let mut rest = page.as_str();
    for step in order {
        let at = rest
            .find(step)
            .unwrap_or_else(|| panic!("{step} is not there, or not in its place: {page}"));
        rest = &rest[at..];
    }
    assert!(page.contains(&format!("/webhooks/{}", webhook["id"].as_str().unwrap())));
    let sent = user
        .get(&format!("/files/{id}/content"))
        .send()
        .await
        .unwrap();
    assert_eq!(
        sent.headers()["content-disposition"],
        "attachment; filename=\"life.txt\""
    );
    assert_eq!(sent.text().await.unwrap(), "hello");
}

#[tokio::test]
async fn a_batch_shows_its_counts_and_its_files() {
    let app = TestApp::start().await;
    let batch: serde_json::Value = app
        .post("/v1/batches")
        .json(&serde_json::json!({}))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let batch = batch["id"].as_str().unwrap();
    let path = format!("/v1/files?filename=of-it.txt&batch_id={batch}");
    let file: serde_json::Value = app
        .post(&path)
        .body("hello")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    app.settled(&file["id"]).await;
    let user = DashboardUser::local(&app).await;
    let page = user.page(&format!("/batches/{batch}")).await;
    assert!(page.contains("of-it.txt") && page.contains("in_progress"));
    let closed = user
        .press_and_follow(&format!("/batches/{batch}/finalize"), &[])
        .await;
    assert!(closed.contains("Batch closed.") && closed.contains("complete"));
}

#[tokio::test]
async fn a_common_name_prefix_is_listed_by_name() {
    let app = TestApp::builder().workers(&[]).start().await;
    let landfall = &app.parts.app;
    let amount = SeedAmount {
        files: 15_000,
        events: 0,
        until: chrono::Utc::now(),
    };
    seed::seed(&landfall.db, amount, |_| {}).await.unwrap();
    let filter = FileFilter {
        q: Some("IMG_".to_owned()),
        ..FileFilter::default()
    };
    let listed = all_of(&app, &filter).await;
    let mut names = Vec::new();
    for id in &listed {
        let file = files::get(landfall.db.read(), &OwnerScope::All, *id).await;
        names.push(file.unwrap().unwrap().search_name);
    }
    assert_eq!(names.len(), 2_500, "every sixth of them, and each once");
    assert!(names.is_sorted());
}

/// Every page of a list, one after the other.
async fn all_of(app: &TestApp, filter: &FileFilter) -> Vec<entity::FileId> {
    let db = app.parts.app.db.read();
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let page = PageRequest::decode(100, cursor.as_deref()).expect("a cursor of ours");
        let listed = files::list(db, &OwnerScope::All, filter, page)
            .await
            .expect("a page");
        found.extend(listed.items.into_iter().map(|file| file.id));
        cursor = listed.next_cursor;
        if cursor.is_none() {
            return found;
        }
    }
}

async fn several_filters_find_all_and_each_once(app: TestApp) {
    let landfall = &app.parts.app;
    let amount = SeedAmount {
        files: 12_000,
        events: 0,
        until: chrono::Utc::now(),
    };
    seed::seed(&landfall.db, amount, |_| {})
        .await
        .expect("rows by the thousand");
    let filter = |status, owner: &str, q: &str| FileFilter {
        status,
        owner: Some(owner.to_owned()).filter(|owner| !owner.is_empty()),
        q: Some(q.to_owned()).filter(|q| !q.is_empty()),
        ..FileFilter::default()
    };
    for (status, owner, q) in [
        (Some(FileStatus::Deleted), "billing", ""),
        (Some(FileStatus::Stored), "surveys", ""),
        (Some(FileStatus::Failed), "", "inv"),
        (None, "media", "img_1"),
        (None, "nobody", ""),
    ] {
        let mut expected = file::Entity::find()
            .select_only()
            .column(file::Column::Id)
            .order_by_desc(file::Column::Id);
        expected = match status {
            Some(status) => expected.filter(file::Column::Status.eq(status)),
            None => expected,
        };
        if !owner.is_empty() {
            expected = expected.filter(file::Column::Owner.eq(owner));
        }
        if !q.is_empty() {
            expected = expected.filter(file::Column::SearchName.starts_with(q));
        }
        let expected: Vec<entity::FileId> = expected
            .into_tuple()
            .all(landfall.db.read())
            .await
            .expect("the ids");
        let found = all_of(&app, &filter(status, owner, q)).await;
        assert_eq!(found, expected, "{status:?} {owner} {q}");
    }
    let again = seed::seed(&landfall.db, amount, |_| {}).await;
    assert!(
        matches!(again, Err(seed::SeedError::NotEmpty)),
        "nobody's data is mixed with it"
    );
}

#[tokio::test]
async fn several_filters_find_all_and_each_once_on_sqlite() {
    several_filters_find_all_and_each_once(TestApp::builder().workers(&[]).start().await).await;
}

#[tokio::test]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn several_filters_find_all_and_each_once_on_postgres() {
    several_filters_find_all_and_each_once(
        TestApp::builder().workers(&[]).postgres().start().await,
    )
    .await;
}
