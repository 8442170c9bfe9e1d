//! Authorization: every route and method, with every kind of insufficient token.

use super::{jwt, token, token_for};
use crate::support::{TestApp, app::json};
use landfall_core::tokens::{self, TokenScope};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json as object};
use std::{collections::BTreeMap, time::Duration};
use uuid::Uuid;

/// One operation there is.
#[derive(Clone, Debug)]
pub(super) struct Route {
    pub(super) method: Method,
    /// With `{id}` in it, or not.
    pub(super) path: String,
}

/// What alice has, by the beginning of the paths that lead to it.
pub(super) type Resources = BTreeMap<&'static str, String>;

pub(super) struct TwoOwners {
    pub(super) app: TestApp,
    /// The URL for requests.
    pub(super) url: String,
    resources: Resources,
    pub(super) routes: Vec<Route>,
}

impl TwoOwners {
    pub(super) async fn new() -> Self {
        let app = jwt::with_secret(TestApp::builder()).start().await;
        let resources = resources(&app).await;
        let definition = app.read("/openapi.json").await;
        let mut routes = Vec::new();
        for (path, operations) in definition["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                // Some need no token; see tests/api/definition.rs.
                if operation["security"].as_array().is_none_or(Vec::is_empty) {
                    continue;
                }
                let method = method.to_uppercase().parse().unwrap();
                let path = path.clone();
                routes.push(Route { method, path });
            }
        }
        assert!(routes.len() > 30, "the definition has {}", routes.len());
        let of_tus = routes.iter().filter(|r| r.path.starts_with("/v1/tus"));
        assert_eq!(of_tus.count(), 5);
        Self {
            url: app.url.clone(),
            app,
            resources,
            routes,
        }
    }

    /// A request as it would be right, about alice's thing or about one that does not exist.
    pub(super) fn request(&self, route: &Route, exists: bool) -> RequestBuilder {
        let thing = self.resources.iter().find(|(base, _)| {
            let rest = route.path.strip_prefix(**base);
            rest.is_some_and(|rest| rest.starts_with("/{id}"))
        });
        let id = match thing {
            Some((_, id)) if exists => id.clone(),
            Some(_) => Uuid::now_v7().to_string(),
            None => {
                assert!(!route.path.contains("{id}"), "nothing for {}", route.path);
                String::new()
            }
        };
        let path = route.path.replace("{id}", &id).replace("{number}", "1");
        assert!(!path.contains('{'), "{path}");
        let url = format!("{}{path}", self.url);
        let request = self.app.client.request(route.method.clone(), url);
        let request = request.header("Tus-Resumable", "1.0.0");
        match (route.method.as_str(), route.path.as_str()) {
            ("POST", "/v1/files") => request.query(&[("filename", "a")]).body("bytes"),
            ("PUT", _) => request.body("bytes"),
            ("PATCH", "/v1/tus/{id}") => request
                .header("Upload-Offset", "0")
                .header("Content-Type", "application/offset+octet-stream")
                .body("bytes"),
            ("POST", "/v1/tus") => request.header("Upload-Length", "5"),
            ("POST" | "PATCH", path) => request.json(&match path {
                "/v1/uploads" => object!({"original_filename": "a", "total_size_bytes": 5}),
                "/v1/webhooks" => object!({"url": "https://example.com/hook"}),
                "/v1/tokens" => object!({"owner": "mallory", "scopes": ["admin"]}),
                "/v1/webhooks/{id}/replay" => object!({"since": "2026-01-01T00:00:00Z"}),
                _ => object!({}),
            }),
            _ => request,
        }
    }
}

/// One of everything, alice's.
pub(super) async fn resources(app: &TestApp) -> Resources {
    let all = [TokenScope::Upload, TokenScope::Read, TokenScope::Admin];
    let alice = token(app, "alice", &all).await;
    let file = app
        .post("/v1/files?filename=secret.txt")
        .bearer_auth(&alice);
    let file = json(file.body("alice's").send().await.unwrap(), 202).await;
    let made = async |path: &str, body: Value, status: u16| {
        let request = app.post(path).bearer_auth(&alice).json(&body);
        let made = json(request.send().await.unwrap(), status).await;
        made["id"].as_str().unwrap().to_owned()
    };
    let session = object!({"original_filename": "a", "total_size_bytes": 5});
    let webhook = object!({"url": app.receiver.url("/hook")});
    let upload = made("/v1/uploads", session, 201).await;
    let batch = made("/v1/batches", object!({}), 201).await;
    let webhook = made("/v1/webhooks", webhook, 201).await;
    let of_alice = object!({"owner": "alice", "scopes": ["read"]});
    let token = made("/v1/tokens", of_alice, 201).await;
    let link = made("/v1/upload-links", object!({}), 201).await;
    let event = made(&format!("/v1/webhooks/{webhook}/test"), object!({}), 202).await;
    let tus = app.post("/v1/tus").bearer_auth(&alice);
    let tus = tus
        .header("Tus-Resumable", "1.0.0")
        .header("Upload-Length", "5")
        .send()
        .await
        .unwrap();
    let tus = tus.headers()["location"].to_str().unwrap().to_owned();
    let tus = tus.rsplit('/').next().unwrap().to_owned();
    let id = file["id"].as_str().unwrap().to_owned();
    Resources::from([
        ("/v1/files", id),
        ("/v1/uploads", upload),
        ("/v1/batches", batch),
        ("/v1/webhooks", webhook),
        ("/v1/events", event),
        ("/v1/tokens", token),
        ("/v1/upload-links", link),
        ("/v1/tus", tus),
    ])
}

/// Returns the status and the text of a response, without its request id.
pub(super) async fn status_and_text(request: RequestBuilder) -> (u16, String) {
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

pub(super) async fn revoked(app: &TestApp) -> String {
    let secret = token(app, "alice", &[TokenScope::Admin]).await;
    let landfall = &app.parts.app;
    let page = tokens::list(&landfall.db, Default::default())
        .await
        .unwrap();
    let newest = page.items.iter().max_by_key(|token| token.id).unwrap();
    tokens::revoke(&landfall.db, &landfall.clock, newest.id)
        .await
        .unwrap();
    secret
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_valid_token_no_route_reveals_whether_a_resource_exists() {
    let fixture = TwoOwners::new().await;
    let app = &fixture.app;
    let second = Duration::from_secs(1);
    let expired = token_for(app, "alice", &[TokenScope::Admin], Some(second)).await;
    app.parts.app.clock.advance(2 * second);
    let bad = [
        None,
        Some("lf_made_up".to_owned()),
        Some(expired),
        Some(revoked(app).await),
        Some(jwt::expired("alice", "admin")),
        Some(format!("{}x", jwt::hs256("alice", "admin"))),
    ];
    for route in &fixture.routes {
        for token in &bad {
            let with = |request: RequestBuilder| match token {
                Some(token) => request.bearer_auth(token),
                None => request,
            };
            let there = status_and_text(with(fixture.request(route, true))).await;
            let absent = status_and_text(with(fixture.request(route, false))).await;
            assert_eq!(there.0, 401, "{route:?}: {}", there.1);
            assert_eq!(there, absent, "{route:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_rejects_a_token_without_the_scope() {
    let fixture = TwoOwners::new().await;
    let app = &fixture.app;
    let one_scope = [TokenScope::Read, TokenScope::Upload];
    let mut tokens = Vec::new();
    for scope in one_scope {
        tokens.push(token(app, "alice", &[scope]).await);
    }
    // JWTs permit the same as tokens with their scopes.
    let jwts = one_scope.map(|scope| jwt::hs256("alice", scope.as_str()));
    for route in &fixture.routes {
        let mut refused = 0;
        for (token, jwt) in tokens.iter().zip(&jwts) {
            // About a thing that does not exist first: some requests would end the one that does.
            let absent = status_and_text(fixture.request(route, false).bearer_auth(token)).await;
            let with_jwt = status_and_text(fixture.request(route, false).bearer_auth(jwt)).await;
            assert_eq!(
                with_jwt.0 == 403,
                absent.0 == 403,
                "{route:?}: {with_jwt:?}"
            );
            if absent.0 == 403 {
                let there = status_and_text(fixture.request(route, true).bearer_auth(token)).await;
                assert_eq!(there, absent, "{route:?}");
                refused += 1;
            }
        }
        assert!(refused > 0, "{route:?} is open to read and to upload alike");
        let is_admins = ["/v1/webhooks", "/v1/events", "/v1/tokens"];
        if is_admins.iter().any(|base| route.path.starts_with(base)) {
            assert_eq!(refused, 2, "{route:?} is the administrators'");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_owner_cannot_tell_whether_a_resource_exists() {
    let fixture = TwoOwners::new().await;
    let app = &fixture.app;
    let bob = token(app, "bob", &[TokenScope::Read, TokenScope::Upload]).await;
    for route in fixture.routes.iter().filter(|r| r.path.contains("{id}")) {
        let there = status_and_text(fixture.request(route, true).bearer_auth(&bob)).await;
        let absent = status_and_text(fixture.request(route, false).bearer_auth(&bob)).await;
        assert!([403, 404].contains(&there.0), "{route:?}: {there:?}");
        assert_eq!(there, absent, "{route:?}");
    }
    for path in ["/v1/files", "/v1/batches", "/v1/upload-links"] {
        let list = app.get(path).bearer_auth(&bob).send().await.unwrap();
        if list.status() == 200 {
            assert_eq!(json(list, 200).await["items"], object!([]), "{path}");
        }
    }
    // Nothing of alice's has changed.
    let admin = token(app, "root", &[TokenScope::Admin]).await;
    for (base, id) in &fixture.resources {
        let request = match *base {
            "/v1/tus" => app.request(Method::HEAD, &format!("{base}/{id}")),
            // Tokens have no page of their own.
            "/v1/tokens" => app.get(base),
            _ => app.get(&format!("{base}/{id}")),
        };
        let request = request.header("Tus-Resumable", "1.0.0").bearer_auth(&admin);
        let found = status_and_text(request).await;
        assert_eq!(found.0, 200, "{base}: {found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_and_partial_uploads_of_others_are_not_found() {
    let fixture = TwoOwners::new().await;
    let app = &fixture.app;
    let bob = token(app, "bob", &[TokenScope::Read, TokenScope::Upload]).await;
    let in_batch = async |batch: &str| {
        let session = object!({"original_filename": "a", "total_size_bytes": 5, "batch_id": batch});
        let request = app.post("/v1/uploads").bearer_auth(&bob).json(&session);
        let (status, text) = status_and_text(request).await;
        (status, text.replace(batch, "BATCH"))
    };
    let there = in_batch(&fixture.resources["/v1/batches"]).await;
    assert_eq!(there.0, 404, "{there:?}");
    assert_eq!(there, in_batch(&Uuid::now_v7().to_string()).await);
    let joined = async |upload: &str| {
        let request = app.post("/v1/tus").bearer_auth(&bob);
        let request = request
            .header("Tus-Resumable", "1.0.0")
            .header("Upload-Concat", format!("final;/v1/tus/{upload}"));
        let (status, text) = status_and_text(request).await;
        (status, text.replace(upload, "UPLOAD"))
    };
    let there = joined(&fixture.resources["/v1/tus"]).await;
    assert!((400..500).contains(&there.0), "{there:?}");
    assert_eq!(there, joined(&Uuid::now_v7().to_string()).await);
}
