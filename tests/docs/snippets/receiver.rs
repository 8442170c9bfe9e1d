use http::{HeaderMap, StatusCode};
use standardwebhooks::Webhook;

/// Handles a request, and returns the status to respond with.
pub fn receive(secret: &str, headers: &HeaderMap, body: &[u8]) -> StatusCode {
    let webhook = Webhook::new(secret).expect("the secret begins with whsec_");
    if webhook.verify(body, headers).is_err() {
        return StatusCode::BAD_REQUEST;
    }
    let Ok(event) = serde_json::from_slice::<serde_json::Value>(body) else {
        return StatusCode::BAD_REQUEST;
    };
    if event["type"] == "file.stored" {
        println!("{} {}", event["data"]["file_id"], event["data"]["sha256"]);
    }
    StatusCode::NO_CONTENT
}
