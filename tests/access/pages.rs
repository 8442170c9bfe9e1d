//! Authorization in the dashboard: every page and every button, with every kind of insufficient session.

use super::{
    matrix::{Resources, resources},
    token, token_for,
};
use crate::support::TestApp;
use landfall::server;
use landfall_core::tokens::{self, TokenScope};
use reqwest::{Method, RequestBuilder, Response, header};
use std::time::Duration;
use uuid::Uuid;

/// Public paths: assets, and the sign-in.
const OPEN: [&str; 3] = ["GET /assets/:file", "GET /sign-in", "POST /sign-in"];

/// What a session is for that may only upload.
const UPLOADS: [&str; 7] = [
    "GET /upload",
    "GET /upload/states",
    "POST /upload/tus",
    "HEAD /upload/tus/:id",
    "PATCH /upload/tus/:id",
    "DELETE /upload/tus/:id",
    "POST /sign-out",
];

struct DashboardFixture {
    app: TestApp,
    resources: Resources,
}

/// A page or a button.
struct Page {
    method: Method,
    path: &'static str,
}

impl Page {
    fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

fn pages() -> Vec<Page> {
    let all = server::pages().into_iter();
    let all: Vec<Page> = all.map(|(method, path)| Page { method, path }).collect();
    assert!(all.len() > 40, "there are {} pages", all.len());
    for name in OPEN.iter().chain(&UPLOADS) {
        assert!(all.iter().any(|page| page.name() == **name), "{name}");
    }
    all
}

impl DashboardFixture {
    async fn new() -> Self {
        let app = TestApp::builder().set("auth.mode", "tokens").start().await;
        let resources = resources(&app).await;
        Self { app, resources }
    }

    /// The path of a page about alice's thing, or about one that does not exist; and the ids in it.
    fn path(&self, page: &Page, exists: bool) -> (String, Vec<String>) {
        let mut ids = Vec::new();
        let bare = page.path.strip_prefix("/live").unwrap_or(page.path);
        let of = |base: &str| self.resources[base].clone();
        let thing = self.resources.keys().find(|base| {
            let own = base.strip_prefix("/v1").unwrap();
            bare.strip_prefix(own)
                .is_some_and(|rest| rest.starts_with("/:id"))
        });
        let mut id = |known: Option<String>| {
            let made_up = Uuid::now_v7().to_string();
            ids.push(known.filter(|_| exists).unwrap_or(made_up));
            ids[ids.len() - 1].clone()
        };
        let segments = page.path.split('/').map(|segment| match segment {
            ":queue" => "finalize".to_owned(),
            ":state" => "dead".to_owned(),
            ":file" => "nothing.css".to_owned(),
            ":webhook" => id(Some(of("/v1/webhooks"))),
            ":id" if bare.starts_with("/upload/tus") => id(Some(of("/v1/tus"))),
            ":id" if bare.starts_with("/jobs") => format!("file:{}", id(Some(of("/v1/files")))),
            ":id" => id(Some(of(thing.expect("a thing for the page")))),
            other => {
                assert!(!other.starts_with(':'), "nothing for {other}");
                other.to_owned()
            }
        });
        let path = segments.collect::<Vec<_>>().join("/");
        (path, ids)
    }

    async fn ask(&self, page: &Page, exists: bool, session: Option<&Session>) -> PageResponse {
        let (path, ids) = self.path(page, exists);
        let request = self.app.request(page.method.clone(), &path);
        let request = request.header("Tus-Resumable", "1.0.0");
        let request = match session {
            Some(session) => session.sign(request),
            None => request,
        };
        PageResponse::of(request.send().await.unwrap(), &ids).await
    }

    async fn both(&self, page: &Page, session: Option<&Session>) -> PageResponse {
        let there = self.ask(page, true, session).await;
        let absent = self.ask(page, false, session).await;
        assert_eq!(there, absent, "{}", page.name());
        there
    }

    async fn sign_in(&self, token: &str) -> Session {
        let request = self.app.post("/sign-in");
        let kind = "application/x-www-form-urlencoded";
        let request = request.header(header::CONTENT_TYPE, kind);
        let entered = request.body(format!("token={token}")).send().await.unwrap();
        assert_eq!(entered.status(), 303);
        let cookie = entered.headers()[header::SET_COOKIE].to_str().unwrap();
        let mut session = Session {
            cookie: cookie.split(';').next().unwrap().to_owned(),
            csrf: String::new(),
        };
        // An error page has the form as well.
        let page = session.sign(self.app.get("/")).send().await.unwrap();
        let page = page.text().await.unwrap();
        let (_, rest) = page.split_once(r#"name="csrf" value=""#).unwrap();
        session.csrf = rest[..64].to_owned();
        session
    }
}

/// A browser that has a cookie and what pages give it.
struct Session {
    cookie: String,
    csrf: String,
}

impl Session {
    fn sign(&self, request: RequestBuilder) -> RequestBuilder {
        let request = request.header(header::COOKIE, &self.cookie);
        request.header("x-csrf-token", &self.csrf)
    }
}

/// Everything in a response that could reveal something.
#[derive(Debug, PartialEq)]
struct PageResponse {
    status: u16,
    location: String,
    text: String,
}

impl PageResponse {
    /// Removes the requested ids. A stream does not end, so only rejections are read.
    async fn of(response: Response, ids: &[String]) -> Self {
        let status = response.status().as_u16();
        let location = response.headers().get(header::LOCATION);
        let location = location
            .map_or("", |path| path.to_str().unwrap())
            .to_owned();
        let text = match status {
            200 => String::new(),
            _ => response.text().await.unwrap(),
        };
        let bare = |text: String| ids.iter().fold(text, |text, id| text.replace(id, "ID"));
        Self {
            status,
            location: bare(location),
            text: bare(text),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_session_no_page_is_shown_or_reveals_whether_a_resource_exists() {
    let fixture = DashboardFixture::new().await;
    let landfall = &fixture.app.parts.app;
    let second = Duration::from_secs(1);
    let expiring = token_for(&fixture.app, "alice", &[TokenScope::Admin], Some(second)).await;
    let expired = fixture.sign_in(&expiring).await;
    let revoking = token(&fixture.app, "alice", &[TokenScope::Admin]).await;
    let revoked = fixture.sign_in(&revoking).await;
    let all = tokens::list(&landfall.db, Default::default())
        .await
        .unwrap();
    let newest = all.items.iter().max_by_key(|token| token.id).unwrap();
    let ended = tokens::revoke(&landfall.db, &landfall.clock, newest.id).await;
    ended.unwrap();
    landfall.clock.advance(2 * second);
    let made_up = Session {
        cookie: "landfall_session=made-up".to_owned(),
        csrf: "0".repeat(64),
    };
    for session in [None, Some(&made_up), Some(&expired), Some(&revoked)] {
        for page in pages() {
            if OPEN.contains(&page.name().as_str()) {
                continue;
            }
            let response = fixture.both(&page, session).await;
            match page.path.starts_with("/live/") {
                true => assert_eq!(response.status, 401, "{}", page.name()),
                false => {
                    assert_eq!(response.status, 303, "{}: {response:?}", page.name());
                    let to = response.location.split('?').next();
                    assert_eq!(to, Some("/sign-in"), "{}", page.name());
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_user_changes_nothing_and_sees_nothing_of_others() {
    let fixture = DashboardFixture::new().await;
    let bob = token(&fixture.app, "bob", &[TokenScope::Read]).await;
    let bob = fixture.sign_in(&bob).await;
    let mut refused = 0;
    for page in pages() {
        let name = page.name();
        if OPEN.contains(&name.as_str()) || name == "POST /sign-out" {
            continue;
        }
        let response = fixture.both(&page, Some(&bob)).await;
        let is_own = page.method == Method::GET && !page.path.contains(':');
        match response.status {
            403 | 404 => refused += 1,
            200 => assert!(is_own, "{name} is shown to bob"),
            // The search without a question leads somewhere.
            status => assert!(
                is_own && (303..=400).contains(&status),
                "{name}: {response:?}"
            ),
        }
        if page.method != Method::GET {
            assert_eq!(response.status, 403, "{name}: {response:?}");
        }
    }
    assert!(refused > 35, "{refused} pages refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_may_upload_sees_nothing_else() {
    let fixture = DashboardFixture::new().await;
    let carl = token(&fixture.app, "carl", &[TokenScope::Upload]).await;
    let carl = fixture.sign_in(&carl).await;
    for page in pages() {
        let name = page.name();
        if OPEN.contains(&name.as_str()) || UPLOADS.contains(&name.as_str()) {
            continue;
        }
        let response = fixture.both(&page, Some(&carl)).await;
        assert_eq!(response.status, 403, "{name}: {response:?}");
    }
    for name in [
        "HEAD /upload/tus/:id",
        "PATCH /upload/tus/:id",
        "DELETE /upload/tus/:id",
    ] {
        let page = pages()
            .into_iter()
            .find(|page| page.name() == name)
            .unwrap();
        let response = fixture.both(&page, Some(&carl)).await;
        assert!(
            (400..=415).contains(&response.status),
            "{name}: {response:?}"
        );
    }
}
