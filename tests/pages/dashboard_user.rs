//! A browser's session, over plain HTTP: what it gets, and the token its forms carry.

use crate::support::TestApp;
use landfall_core::tokens::{self, TokenScope};
use reqwest::{Client, RequestBuilder, Response, StatusCode, header};
use secrecy::ExposeSecret;

const FORM: &str = "application/x-www-form-urlencoded";

fn encoded(fields: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(fields)
        .finish()
}

/// A user of the dashboard.
#[derive(Debug)]
pub(super) struct DashboardUser {
    url: String,
    client: Client,
    cookie: String,
    csrf: String,
}

impl DashboardUser {
    /// A user of an installation without tokens.
    pub(super) async fn local(app: &TestApp) -> Self {
        let page = app.get("/").send().await.expect("a response");
        Self::of(app, page, "/").await
    }

    /// A user who has signed in with a token of this scope.
    pub(super) async fn with(app: &TestApp, owner: &str, scope: TokenScope) -> Self {
        let landfall = &app.parts.app;
        let made = tokens::create(&landfall.db, &landfall.clock, owner, &[scope], None).await;
        let secret = made.expect("a token").1;
        let form = [("token", secret.expose_secret())];
        let entered = app
            .post("/sign-in")
            .header(header::CONTENT_TYPE, FORM)
            .body(encoded(&form))
            .send()
            .await
            .expect("a response");
        assert_eq!(
            entered.status(),
            StatusCode::SEE_OTHER,
            "signing in leads on"
        );
        Self::of(
            app,
            entered,
            if scope == TokenScope::Upload {
                "/upload"
            } else {
                "/"
            },
        )
        .await
    }

    async fn of(app: &TestApp, first: Response, page: &str) -> Self {
        let cookie = first.headers()[header::SET_COOKIE]
            .to_str()
            .expect("a cookie");
        let mut user = Self {
            url: app.url.clone(),
            client: app.client.clone(),
            cookie: cookie.split(';').next().unwrap_or_default().to_owned(),
            csrf: String::new(),
        };
        let page = user.page(page).await;
        let field = page
            .split("name=\"csrf\" value=\"")
            .nth(1)
            .expect("a form with a token");
        user.csrf = field.split('"').next().unwrap_or_default().to_owned();
        user
    }

    pub(super) fn get(&self, path: &str) -> RequestBuilder {
        self.client
            .get(format!("{}{path}", self.url))
            .header(header::COOKIE, &self.cookie)
    }

    /// A page that must be there.
    pub(super) async fn page(&self, path: &str) -> String {
        let response = self.get(path).send().await.expect("a response");
        let status = response.status();
        let text = response.text().await.expect("a body");
        assert_eq!(status, StatusCode::OK, "{path}: {text}");
        text
    }

    /// Presses a button, with the token of the page's form.
    pub(super) async fn press(&self, path: &str, fields: &[(&str, &str)]) -> Response {
        let mut fields = fields.to_vec();
        fields.push(("csrf", &self.csrf));
        self.send(path, &fields).await
    }

    /// Sends a form without adding a CSRF token.
    pub(super) async fn send(&self, path: &str, fields: &[(&str, &str)]) -> Response {
        let request = self
            .client
            .post(format!("{}{path}", self.url))
            .header(header::COOKIE, &self.cookie);
        request
            .header(header::CONTENT_TYPE, FORM)
            .body(encoded(fields))
            .send()
            .await
            .expect("a response")
    }

    /// Presses a button and follows the redirect to the notice.
    pub(super) async fn press_and_follow(&self, path: &str, fields: &[(&str, &str)]) -> String {
        let response = self.press(path, fields).await;
        let status = response.status();
        let to = response.headers().get(header::LOCATION).cloned();
        assert_eq!(
            status,
            StatusCode::SEE_OTHER,
            "{path}: {:?}",
            response.text().await
        );
        self.page(to.expect("a way on").to_str().expect("a path"))
            .await
    }
}

/// Uploads, as the page's script does them.
impl DashboardUser {
    /// Creates an upload of five bytes with this token, or without one.
    pub(super) async fn begin_upload(&self, csrf: Option<&str>) -> Response {
        let request = self
            .client
            .post(format!("{}/upload/tus", self.url))
            .header(header::COOKIE, &self.cookie);
        let request = request
            .header("Tus-Resumable", "1.0.0")
            .header("Upload-Length", "5");
        let request = request.header("Upload-Metadata", "filename aGVsbG8=");
        let request = match csrf {
            Some(csrf) => request.header("X-CSRF-Token", csrf),
            None => request,
        };
        request.send().await.expect("a response")
    }

    pub(super) async fn begin_upload_signed(&self) -> Response {
        self.begin_upload(Some(&self.csrf)).await
    }

    /// Uploads some bytes, and returns the file's id.
    pub(super) async fn upload(&self, body: &'static str) -> String {
        let begun = self.begin_upload_signed().await;
        assert_eq!(begun.status(), StatusCode::CREATED);
        let place = begun.headers()[header::LOCATION]
            .to_str()
            .expect("a path")
            .to_owned();
        let request = self
            .client
            .patch(format!("{}{place}", self.url))
            .header(header::COOKIE, &self.cookie);
        let request = request
            .header("Tus-Resumable", "1.0.0")
            .header("Upload-Offset", "0");
        let request = request.header("Content-Type", "application/offset+octet-stream");
        let sent = request
            .header("X-CSRF-Token", &self.csrf)
            .body(body)
            .send()
            .await
            .expect("a response");
        assert_eq!(sent.status(), StatusCode::NO_CONTENT);
        place.rsplit('/').next().expect("an id").to_owned()
    }
}
