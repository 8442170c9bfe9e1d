//! Upload sessions: all connections send parts of one session until it is complete, then of the next.

use super::sender::{CreatedFile, Sender};
use crate::{OCTETS, connection::Connection, payload::Payload};
use http::Method;
use serde::Deserialize;
use serde_json::json;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::OnceCell;

/// One session, shared by the connections.
#[derive(Debug, Default)]
pub(super) struct SharedSession {
    session: OnceCell<CreatedSession>,
    /// Number of parts started, and sent.
    started: AtomicU64,
    sent: AtomicU64,
}

/// The server's response.
#[derive(Debug, Deserialize)]
struct CreatedSession {
    id: String,
    chunk_size_bytes: u64,
    total_parts: u64,
}

impl SharedSession {
    /// The part size, once the server has reported it.
    pub(super) fn chunk(&self) -> Option<u64> {
        self.session.get().map(|session| session.chunk_size_bytes)
    }

    /// Sends parts until none are left. The connection that sends the last part completes the session and returns the
    /// file's id.
    pub(super) async fn help(
        &self,
        sender: &Sender,
        connection: &mut Connection<'_>,
        number: usize,
    ) -> anyhow::Result<Option<String>> {
        let reborrowed = &mut *connection;
        let session = self
            .session
            .get_or_try_init(move || make(sender, reborrowed, number))
            .await?;
        loop {
            let part = self.started.fetch_add(1, Ordering::Relaxed);
            if part >= session.total_parts {
                return Ok(None);
            }
            let start = part * session.chunk_size_bytes;
            let end = (start + session.chunk_size_bytes).min(sender.args.size);
            let path = format!("/v1/uploads/{}/parts/{}", session.id, part + 1);
            let path = connection.target.path(&path);
            let (headers, payload) = (
                [("content-type", OCTETS)],
                sender.content.payload(start..end),
            );
            let response = connection.call(Method::PUT, &path, &headers, payload);
            response.await?.done("sending a part")?;
            // Counting is serialized: the connection that counts last knows that all others are done.
            if self.sent.fetch_add(1, Ordering::AcqRel) + 1 == session.total_parts {
                let path = connection
                    .target
                    .path(&format!("/v1/uploads/{}/complete", session.id));
                let response = connection
                    .call(Method::POST, &path, &[], Payload::empty())
                    .await?;
                let file: CreatedFile = response.done("completing an upload")?.json()?;
                return Ok(Some(file.id));
            }
        }
    }
}

async fn make(
    sender: &Sender,
    connection: &mut Connection<'_>,
    number: usize,
) -> anyhow::Result<CreatedSession> {
    let mut body = json!({
        "original_filename": sender.name(number),
        "total_size_bytes": sender.args.size,
    });
    if let Some(piece) = sender.args.piece {
        body["chunk_size_bytes"] = piece.into();
    }
    let path = connection.target.path("/v1/uploads");
    let headers = [("content-type", "application/json")];
    let payload = Payload::text(body.to_string());
    let response = connection
        .call(Method::POST, &path, &headers, payload)
        .await?;
    response.done("creating an upload session")?.json()
}
