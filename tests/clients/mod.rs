//! Common clients, and the proxies between them and the server.

mod forwarded;
mod http2;
mod names;
mod wire;

use reqwest::Response;

fn header<'r>(response: &'r Response, name: &str) -> Option<&'r str> {
    response
        .headers()
        .get(name)
        .map(|value| value.to_str().expect("text"))
}
