//! Upload sessions: all connections send parts of one until it is complete, then of the next.

use super::sending::{Sending, Taken};
use crate::{OCTETS, connection::Connection, payload::Payload};
use http::Method;
use serde::Deserialize;
use serde_json::json;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::OnceCell;

/// One upload, as the connections share it.
#[derive(Debug, Default)]
pub(super) struct Session {
    made: OnceCell<Made>,
    /// Parts somebody has begun, and has sent.
    begun: AtomicU64,
    sent: AtomicU64,
}

/// What the server said of it.
#[derive(Debug, Deserialize)]
struct Made {
    id: String,
    chunk_size_bytes: u64,
    total_parts: u64,
}

impl Session {
    /// The size of its parts, once the server has said it.
    pub(super) fn chunk(&self) -> Option<u64> {
        self.made.get().map(|made| made.chunk_size_bytes)
    }

    /// Sends parts until there are none left to begin. The file's id from whoever sent the last: only that one knows
    /// that all are there.
    pub(super) async fn help(
        &self,
        sending: &Sending,
        connection: &mut Connection<'_>,
        number: usize,
    ) -> anyhow::Result<Option<String>> {
        let reborrowed = &mut *connection;
        let made = self
            .made
            .get_or_try_init(move || make(sending, reborrowed, number))
            .await?;
        loop {
            let part = self.begun.fetch_add(1, Ordering::Relaxed);
            if part >= made.total_parts {
                return Ok(None);
            }
            let start = part * made.chunk_size_bytes;
            let end = (start + made.chunk_size_bytes).min(sending.args.size);
            let path = format!("/v1/uploads/{}/parts/{}", made.id, part + 1);
            let path = connection.target.path(&path);
            let (headers, payload) = (
                [("content-type", OCTETS)],
                sending.content.payload(start..end),
            );
            let answer = connection.call(Method::PUT, &path, &headers, payload);
            answer.await?.done("sending a part")?;
            // One after another, whoever counts: the last to count has all before it answered.
            if self.sent.fetch_add(1, Ordering::AcqRel) + 1 == made.total_parts {
                let path = connection
                    .target
                    .path(&format!("/v1/uploads/{}/complete", made.id));
                let answer = connection
                    .call(Method::POST, &path, &[], Payload::empty())
                    .await?;
                let file: Taken = answer.done("completing an upload")?.json()?;
                return Ok(Some(file.id));
            }
        }
    }
}

async fn make(
    sending: &Sending,
    connection: &mut Connection<'_>,
    number: usize,
) -> anyhow::Result<Made> {
    let mut asked = json!({
        "original_filename": sending.name(number),
        "total_size_bytes": sending.args.size,
    });
    if let Some(piece) = sending.args.piece {
        asked["chunk_size_bytes"] = piece.into();
    }
    let path = connection.target.path("/v1/uploads");
    let headers = [("content-type", "application/json")];
    let payload = Payload::text(asked.to_string());
    let answer = connection
        .call(Method::POST, &path, &headers, payload)
        .await?;
    answer.done("creating an upload session")?.json()
}
