//! A user of the dashboard: a session, and the CSRF token of its forms.

use crate::support::TestApp;
use landfall_core::tokens::{self, TokenScope};
use reqwest::{RequestBuilder, Response, header};
use secrecy::ExposeSecret;

/// With tokens and without workers.
pub async fn app() -> TestApp {
    TestApp::builder()
        .workers(&[])
        .set("auth.mode", "tokens")
        .start()
        .await
}

pub async fn token(app: &TestApp, owner: &str, scopes: &[TokenScope]) -> String {
    let landfall = &app.parts.app;
    let created = tokens::create(&landfall.db, &landfall.clock, owner, scopes, None).await;
    created.expect("a token").1.expose_secret().to_owned()
}

/// Uploads a file with this name and token, and returns its id.
pub async fn uploaded(app: &TestApp, token: &str, name: &str) -> String {
    let request = app.post("/v1/files").query(&[("filename", name)]);
    let sent = request.bearer_auth(token).body("hello").send().await;
    let file = crate::support::app::json(sent.expect("a response"), 202).await;
    file["id"].as_str().expect("an id").to_owned()
}

/// A client that behaves like a browser.
#[derive(Debug)]
pub struct DashboardUser<'a> {
    pub app: &'a TestApp,
    pub cookie: String,
}

impl<'a> DashboardUser<'a> {
    /// Signs in with a new token of these scopes.
    pub async fn new(app: &'a TestApp, owner: &str, scopes: &[TokenScope]) -> Self {
        let token = token(app, owner, scopes).await;
        let response = sign_in(app, &token).await;
        assert_eq!(response.status(), 303);
        Self {
            app,
            cookie: cookie_of(&response),
        }
    }

    pub fn with_cookie(&self, request: RequestBuilder) -> RequestBuilder {
        request.header(header::COOKIE, &self.cookie)
    }

    pub async fn get(&self, path: &str) -> Response {
        let request = self.with_cookie(self.app.get(path));
        request.send().await.expect("a response")
    }

    /// The HTML of a page that must be there.
    pub async fn page(&self, path: &str) -> String {
        let response = self.get(path).await;
        assert_eq!(response.status(), 200, "{path}");
        response.text().await.expect("a page")
    }

    /// What the page's forms carry.
    pub async fn csrf(&self) -> String {
        let page = self.get("/").await.text().await.expect("a page");
        let (_, rest) = page
            .split_once(r#"name="csrf" value=""#)
            .expect("every page has a form");
        rest[..64].to_owned()
    }

    /// Presses a button.
    pub async fn press(&self, path: &str) -> Response {
        self.submit(path, &[]).await
    }

    /// Submits a form with these fields.
    pub async fn submit(&self, path: &str, fields: &[(&str, &str)]) -> Response {
        let csrf = self.csrf().await;
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("csrf", &csrf).extend_pairs(fields);
        let request = self.with_cookie(self.app.post(path));
        let request = request
            .header("origin", &self.app.url)
            .header("sec-fetch-site", "same-origin")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form.finish());
        request.send().await.expect("a response")
    }
}

pub async fn sign_in(app: &TestApp, token: &str) -> Response {
    let request = app.post("/sign-in").form(&[("token", token)]);
    request.send().await.expect("a response")
}

/// The first pair of `Set-Cookie`, as a browser sends it back.
pub fn cookie_of(response: &Response) -> String {
    let set = set_cookie(response);
    set.split(';').next().expect("a pair").to_owned()
}

pub fn set_cookie(response: &Response) -> String {
    let value = &response.headers()[header::SET_COOKIE];
    value.to_str().expect("text").to_owned()
}

pub fn location(response: &Response) -> &str {
    let value = &response.headers()[header::LOCATION];
    value.to_str().expect("text")
}

/// A form as browsers send it.
pub trait Fields {
    fn form<K: AsRef<str>, V: AsRef<str>, const N: usize>(self, fields: &[(K, V); N]) -> Self;
}

impl Fields for RequestBuilder {
    fn form<K: AsRef<str>, V: AsRef<str>, const N: usize>(self, fields: &[(K, V); N]) -> Self {
        let mut body = url::form_urlencoded::Serializer::new(String::new());
        for (name, value) in fields {
            body.append_pair(name.as_ref(), value.as_ref());
        }
        self.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(body.finish())
    }
}
