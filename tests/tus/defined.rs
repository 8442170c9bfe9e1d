//! Checks every response in these tests against `/openapi.json`: status, headers and code must be documented.

use super::{answered, begin, header, patch, send, tus};
use crate::support::TestApp;
use reqwest::{Method, Request, Response, header::HeaderMap};
use serde_json::Value;
use std::{collections::BTreeSet, sync::LazyLock};

static SPEC: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(&landfall::api::spec()).expect("JSON"));

/// The path in the definition a path is of, if it is one of tus.
fn pattern(path: &str) -> Option<&'static str> {
    match path.strip_prefix("/v1/tus")? {
        "" => Some("/v1/tus"),
        rest if rest.len() > 1 && !rest[1..].contains('/') => Some("/v1/tus/{id}"),
        _ => None,
    }
}

/// The methods a path of tus has.
fn methods(pattern: &str) -> BTreeSet<String> {
    let operations = SPEC["paths"][pattern].as_object().expect("operations");
    operations.keys().map(|name| name.to_uppercase()).collect()
}

/// Whether a header must be documented; common headers need not be.
fn is_of_tus(name: &str) -> bool {
    let own = ["tus-", "upload-", "landfall-"];
    own.iter().any(|begin| name.starts_with(begin))
        || ["location", "content-disposition", "allow"].contains(&name)
}

/// A request, for checking its response against the definition.
#[derive(Debug)]
pub(super) struct DefinedRequest {
    method: String,
    path: String,
    sent: HeaderMap,
}

impl DefinedRequest {
    pub(super) fn of(request: &Request) -> Self {
        let given = request.headers().get("x-http-method-override");
        let given = given.map(|name| name.to_str().expect("text").to_uppercase());
        Self {
            method: given.unwrap_or_else(|| request.method().to_string()),
            path: request.url().path().to_owned(),
            sent: request.headers().clone(),
        }
    }

    /// Panics if the definition does not have this response; returns it unchanged.
    pub(super) async fn held_to_the_definition(self, response: Response) -> Response {
        let preflight = self.sent.contains_key("access-control-request-method");
        let Some(pattern) = pattern(&self.path).filter(|_| !preflight) else {
            return response;
        };
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        if status == 405 {
            let allowed = headers["allow"].to_str().expect("text").split(", ");
            assert_eq!(
                allowed.map(str::to_owned).collect::<BTreeSet<_>>(),
                methods(pattern)
            );
            return response;
        }
        let operation = &SPEC["paths"][pattern][self.method.to_lowercase()];
        // An invalid method has no operation.
        if status == 400 && !operation.is_object() {
            return response;
        }
        let said = &operation["responses"][status.to_string()];
        assert!(
            said.is_object(),
            "{status} is not said of {self:?}: {headers:?}"
        );
        self.has_headers(said, &headers);
        if status < 400 {
            self.sent_what_is_said(operation);
            return response;
        }
        let body = response.bytes().await.expect("a body");
        // HEAD has none, and the draft has its own problem types.
        let is_drafts = String::from_utf8_lossy(&body).contains("iana.org");
        if !body.is_empty() && !is_drafts {
            let problem: Value = serde_json::from_slice(&body).expect("a problem");
            let code = problem["code"].as_str().expect("a code");
            let codes = &said["content"]["application/problem+json"]["examples"];
            assert!(codes[code].is_object(), "{code} is not said of {self:?}");
        }
        let mut again = http::Response::new(body);
        *again.status_mut() = http::StatusCode::from_u16(status).expect("a status");
        *again.headers_mut() = headers;
        again.into()
    }

    fn has_headers(&self, said: &Value, headers: &HeaderMap) {
        let known = said["headers"].as_object().cloned().unwrap_or_default();
        let names: BTreeSet<String> = known.keys().map(|name| name.to_lowercase()).collect();
        for name in headers
            .keys()
            .map(|name| name.as_str())
            .filter(|name| is_of_tus(name))
        {
            assert!(
                names.contains(name),
                "{name} is not said of {self:?}: {headers:?}"
            );
        }
        for (name, header) in &known {
            let is_always = header["required"] == true;
            assert!(
                !is_always || headers.contains_key(name),
                "{self:?} lacks {name}: {headers:?}"
            );
        }
    }

    /// A request that is taken has no header that the definition does not know.
    fn sent_what_is_said(&self, operation: &Value) {
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let known: BTreeSet<String> = parameters
            .filter_map(|parameter| Some(parameter["name"].as_str()?.to_lowercase()))
            .collect();
        let sent = self.sent.keys().map(|name| name.as_str());
        let own =
            sent.filter(|name| is_of_tus(name) && self.method != "OPTIONS" && self.method != "GET");
        for name in own {
            assert!(
                known.contains(name),
                "{name} of {self:?} is not in the definition"
            );
        }
    }
}

#[tokio::test]
async fn exactly_the_methods_in_the_definition_are_supported() {
    let app = TestApp::start().await;
    let path = begin(&app, 5).await;
    for (pattern, path) in [("/v1/tus", "/v1/tus"), ("/v1/tus/{id}", path.as_str())] {
        let refused = app
            .request(Method::PUT, path)
            .header("Tus-Resumable", "1.0.0");
        let refused = refused.send().await.expect("a response");
        assert_eq!(refused.status(), 405);
        let allowed = header(&refused, "allow").expect("methods").split(", ");
        assert_eq!(
            allowed.map(str::to_owned).collect::<BTreeSet<_>>(),
            methods(pattern)
        );
    }
}

#[tokio::test]
async fn an_undocumented_response_is_noticed() {
    let app = TestApp::start().await;
    let path = begin(&app, 5).await;
    answered(&send(patch(&app, &path, 0, "hello")).await, 204);
    let ask = || tus(&app, "HEAD", &path).build().expect("a request");
    let answer = async || app.client.execute(ask()).await.expect("a response");
    let asked = DefinedRequest::of(&ask());
    asked.held_to_the_definition(answer().await).await;
    // The same response to another request.
    let mut asked = DefinedRequest::of(&ask());
    asked.method = "DELETE".to_owned();
    let held = tokio::spawn(asked.held_to_the_definition(answer().await));
    assert!(
        held.await
            .expect_err("200 is not said of DELETE")
            .is_panic()
    );
}
