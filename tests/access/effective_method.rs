//! Every way to say a method, against every limit, with every kind of credential.

use super::{bodies::endless, token};
use crate::{
    support::{TestApp, app::SOON},
    web::dashboard_user::DashboardUser,
};
use bytes::Bytes;
use landfall_core::tokens::TokenScope;
use landfall_test_servers::wait_until;
use reqwest::{Body, Method, RequestBuilder, Response};
use tokio::sync::mpsc;

const OVERRIDE: &str = "X-HTTP-Method-Override";

/// A body that ends when the sender is dropped.
fn slow_body() -> (mpsc::Sender<Bytes>, Body) {
    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    let stream = futures::stream::unfold(receiver, |mut receiver| async move {
        let bytes = receiver.recv().await?;
        Some((Ok::<_, std::io::Error>(bytes), receiver))
    });
    (sender, Body::wrap_stream(stream))
}

/// Who calls, and where.
#[derive(Clone, Debug)]
enum Caller {
    Anybody,
    Bearer(String),
    /// The session's cookie and CSRF token.
    Session(String, String),
}

impl Caller {
    async fn all(app: &TestApp) -> Vec<Self> {
        let scopes = [TokenScope::Upload, TokenScope::Read];
        let visitor = DashboardUser::new(app, "ann", &scopes).await;
        vec![
            Self::Bearer(token(app, "ann", &scopes).await),
            Self::Session(visitor.cookie.clone(), visitor.csrf().await),
        ]
    }

    fn base(&self) -> &'static str {
        match self {
            Self::Session(..) => "/upload/tus",
            _ => "/v1/tus",
        }
    }

    fn signed(&self, request: RequestBuilder) -> RequestBuilder {
        let request = request.header("Tus-Resumable", "1.0.0");
        match self {
            Self::Anybody => request,
            Self::Bearer(token) => request.bearer_auth(token),
            Self::Session(cookie, csrf) => request
                .header("cookie", cookie)
                .header("x-csrf-token", csrf),
        }
    }

    async fn begin(&self, app: &TestApp) -> Response {
        let request = self.signed(app.post(self.base()));
        let request = request.header("Upload-Length", "1000000");
        request.send().await.unwrap()
    }

    /// A PATCH, plain or as an overridden POST.
    fn append(&self, app: &TestApp, path: &str, way: MethodForm, offset: usize) -> RequestBuilder {
        let request = match way {
            MethodForm::Plain => app.request(Method::PATCH, path),
            MethodForm::Overridden => app.post(path).header(OVERRIDE, "PATCH"),
        };
        self.signed(request)
            .header("Upload-Offset", offset)
            .header("Content-Type", "application/offset+octet-stream")
    }
}

#[derive(Clone, Copy, Debug)]
enum MethodForm {
    Plain,
    Overridden,
}

fn location(response: &Response) -> String {
    assert_eq!(response.status(), 201);
    response.headers()["location"].to_str().unwrap().to_owned()
}

async fn app(settings: &[(&str, &str)]) -> TestApp {
    let mut builder = TestApp::builder().workers(&[]);
    for (key, value) in settings {
        builder = builder.set(key, value);
    }
    builder.start().await
}

/// Sends ten bytes after ten bytes until that is too much, at most so often.
async fn refused_within(app: &TestApp, caller: &Caller, way: MethodForm, most: usize) -> bool {
    let path = location(&caller.begin(app).await);
    for number in 0..most {
        let append = caller.append(app, &path, way, number * 10);
        let response = append.body("ten bytes.").send().await.unwrap();
        match response.status().as_u16() {
            204 => {}
            429 => return true,
            other => panic!("{other} for {caller:?} {way:?}"),
        }
    }
    false
}

/// A caller of each kind, each at a server of its own with this limit.
async fn callers(limit: &[(&str, &str)], of_owner: bool) -> Vec<(TestApp, Caller)> {
    let mut all = Vec::new();
    if !of_owner {
        all.push((app(limit).await, Caller::Anybody));
    }
    for number in 0..2 {
        let settings = [limit, &[("auth.mode", "tokens")]].concat();
        let app = app(&settings).await;
        let caller = Caller::all(&app).await.swap_remove(number);
        all.push((app, caller));
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_and_bytes_are_limited_with_and_without_method_override() {
    for (kind, of_owner) in [("address", false), ("owner", true)] {
        let rate = format!("limits.{kind}.requests_per_second");
        let burst = format!("limits.{kind}.burst");
        let bytes = format!("limits.{kind}.bytes_per_day");
        let of_requests = [(rate.as_str(), "1"), (burst.as_str(), "12")];
        let of_bytes = [(bytes.as_str(), "40")];
        for limit in [&of_requests[..], &of_bytes[..]] {
            for way in [MethodForm::Plain, MethodForm::Overridden] {
                for (app, caller) in callers(limit, of_owner).await {
                    let refused = refused_within(&app, &caller, way, 60).await;
                    assert!(refused, "{caller:?} {way:?} {limit:?}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_uploads_are_limited_with_and_without_method_override() {
    for kind in ["address", "owner"] {
        let limit = format!("limits.{kind}.concurrent_uploads");
        let app = app(&[("auth.mode", "tokens"), (limit.as_str(), "1")]).await;
        for caller in Caller::all(&app).await {
            for way in [MethodForm::Plain, MethodForm::Overridden] {
                let begun = wait_until(SOON, async || {
                    let begun = caller.begin(&app).await;
                    (begun.status() == 201).then_some(begun)
                })
                .await;
                let path = location(&begun);
                let held = wait_until(SOON, async || {
                    let (sender, body) = slow_body();
                    let slow = caller.append(&app, &path, way, 0).body(body).send();
                    let slow = tokio::spawn(slow);
                    sender.send("first".into()).await.ok()?;
                    let refused = caller.begin(&app).await;
                    // One that ended before may have had the place for a moment more.
                    let is_held = refused.status() == 429 && !slow.is_finished();
                    is_held.then_some((sender, slow, refused))
                });
                let (sender, slow, refused) = held.await;
                assert!(refused.headers().contains_key("retry-after"));
                drop(sender);
                assert_eq!(slow.await.unwrap().unwrap().status(), 204);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_post_can_be_overridden_and_only_with_tus_methods() {
    let app = app(&[("auth.mode", "tokens")]).await;
    for caller in Caller::all(&app).await {
        let path = location(&caller.begin(&app).await);
        for method in [
            Method::OPTIONS,
            Method::HEAD,
            Method::GET,
            Method::PUT,
            Method::DELETE,
            Method::PATCH,
        ] {
            for wanted in ["PATCH", "DELETE"] {
                if method.as_str() == wanted {
                    continue;
                }
                let request = caller.signed(app.request(method.clone(), &path));
                let request = request
                    .header(OVERRIDE, wanted)
                    .header("Upload-Offset", "0")
                    .header("Content-Type", "application/offset+octet-stream");
                let response = request.body("bytes").send().await.unwrap();
                assert_eq!(response.status(), 400, "{method} {wanted} {caller:?}");
            }
        }
        let look = caller.signed(app.request(Method::HEAD, &path));
        let look = look.send().await.unwrap();
        assert_eq!(look.headers()["upload-offset"], "0", "{caller:?}");
        let ended = caller.signed(app.post(&path).header(OVERRIDE, "delete"));
        assert_eq!(ended.send().await.unwrap().status(), 204, "{caller:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_needs_its_csrf_token_for_every_change() {
    let app = app(&[("auth.mode", "tokens")]).await;
    let visitor = DashboardUser::new(&app, "ann", &[TokenScope::Upload, TokenScope::Read]).await;
    let caller = Caller::Session(visitor.cookie.clone(), visitor.csrf().await);
    let path = location(&caller.begin(&app).await);
    let forged = Caller::Session(visitor.cookie.clone(), "guessed".to_owned());
    for (method, wanted) in [("DELETE", "DELETE"), ("POST", "DELETE"), ("POST", "PATCH")] {
        let request = app.request(method.parse().unwrap(), &path);
        let request = forged.signed(request).header(OVERRIDE, wanted);
        let refused = request.send().await.unwrap().status();
        assert_eq!(refused, 403, "{method} {wanted}");
    }
    let cookie = format!("cookie: {}\r\ntus-resumable: 1.0.0\r\n", visitor.cookie);
    let endless = endless(&app, &Method::PATCH, &path, &cookie).await;
    assert!(endless.contains(" 403 "), "{endless}");
    let look = caller.signed(app.request(Method::HEAD, &path));
    assert_eq!(look.send().await.unwrap().status(), 200);
}
