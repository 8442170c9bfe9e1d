//! Upload links: what their holders can do, what they cannot, and what their backends see.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod access;
mod browsers;
mod crashes;
mod creation;
mod hidden;
mod limits;
mod resumable;
mod sending;

use crate::support::{
    TestApp,
    app::{Builder, json},
};
use landfall_core::tokens::{self, TokenScope};
use reqwest::{Method, RequestBuilder, Response};
use secrecy::ExposeSecret;
use serde_json::Value;

/// An installation with tokens, and a backend that may upload and read.
pub(crate) struct Backend {
    pub(crate) app: TestApp,
    pub(crate) token: String,
}

impl Backend {
    async fn start(builder: Builder) -> Self {
        let app = builder.set("auth.mode", "tokens").start().await;
        let token = token(&app, "web", &[TokenScope::Upload, TokenScope::Read]).await;
        Self { app, token }
    }

    /// Creates a link, and returns the UploadLink of the 201.
    async fn link(&self, body: Value) -> Value {
        let request = self.app.post("/v1/upload-links").bearer_auth(&self.token);
        json(request.json(&body).send().await.unwrap(), 201).await
    }

    /// What the backend sees of a link.
    async fn shown(&self, link: &Value) -> Value {
        let path = format!("/v1/upload-links/{}", link["id"].as_str().unwrap());
        let request = self.app.get(&path).bearer_auth(&self.token);
        json(request.send().await.unwrap(), 200).await
    }

    /// The File with this id.
    async fn file(&self, id: &Value) -> Value {
        let path = format!("/v1/files/{}?wait=20", id.as_str().unwrap());
        let request = self.app.get(&path).bearer_auth(&self.token);
        json(request.send().await.unwrap(), 200).await
    }

    async fn revoke(&self, link: &Value) -> Response {
        let path = format!("/v1/upload-links/{}", link["id"].as_str().unwrap());
        let request = self.app.delete(&path).bearer_auth(&self.token);
        request.send().await.unwrap()
    }

    /// A request without a token.
    fn request(&self, method: Method, url: &str) -> RequestBuilder {
        self.app.client.request(method, url)
    }

    /// Sends bytes to a link by PUT.
    async fn put(&self, link: &Value, bytes: &'static str) -> Response {
        let request = self.request(Method::PUT, url(link));
        request.body(bytes).send().await.unwrap()
    }
}

async fn token(app: &TestApp, owner: &str, scopes: &[TokenScope]) -> String {
    let landfall = &app.parts.app;
    let made = tokens::create(&landfall.db, &landfall.clock, owner, scopes, None).await;
    made.unwrap().1.expose_secret().to_owned()
}

/// The URL of a new link.
fn url(link: &Value) -> &str {
    link["url"].as_str().unwrap()
}

/// The tus URL of a new link.
fn tus_url(link: &Value) -> &str {
    link["tus_url"].as_str().unwrap()
}

fn secret(link: &Value) -> &str {
    url(link).rsplit('/').next().unwrap()
}

fn header<'r>(response: &'r Response, name: &str) -> Option<&'r str> {
    let value = response.headers().get(name)?;
    Some(value.to_str().unwrap())
}
