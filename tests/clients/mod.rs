//! What common clients send, and what stands between them and this server.

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
