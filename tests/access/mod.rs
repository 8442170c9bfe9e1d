//! Who gets in, from where, and how often: for every route there is.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod bodies;
mod bounds;
mod cross_origin;
mod effective_method;
mod floods;
mod hostile;
mod hosts;
mod jwt;
mod limits;
mod matrix;
mod pages;
mod secrets;
mod timing;

use crate::support::TestApp;
use landfall_core::tokens::{self, TokenScope};
use reqwest::Response;
use secrecy::ExposeSecret;
use std::time::Duration;

async fn token(app: &TestApp, owner: &str, scopes: &[TokenScope]) -> String {
    token_for(app, owner, scopes, None).await
}

async fn token_for(
    app: &TestApp,
    owner: &str,
    scopes: &[TokenScope],
    life: Option<Duration>,
) -> String {
    let landfall = &app.parts.app;
    let made = tokens::create(&landfall.db, &landfall.clock, owner, scopes, life).await;
    made.unwrap().1.expose_secret().to_owned()
}

fn header<'r>(response: &'r Response, name: &str) -> Option<&'r str> {
    let value = response.headers().get(name)?;
    Some(value.to_str().unwrap())
}
