//! Sends uploads by each protocol, one after another per connection.

use super::{Protocol, UploadArgs, parts::SharedSession};
use crate::{OCTETS, connection::Connection, payload::Content, tus};
use anyhow::Context;
use http::Method;
use serde::Deserialize;
use std::sync::atomic::{AtomicU32, Ordering};

/// The state shared by all connections.
#[derive(Debug)]
pub(super) struct Sender {
    pub(super) args: UploadArgs,
    pub(super) content: Content,
    /// Part of every name, so that a server that stores by name does not overwrite files of an earlier run.
    run: u32,
    next: AtomicU32,
    /// The sessions of the `parts` protocol.
    sessions: Vec<SharedSession>,
}

/// The fields of a File that are read.
#[derive(Debug, Deserialize)]
pub(super) struct CreatedFile {
    pub(super) id: String,
}

impl Sender {
    pub(super) fn new(args: UploadArgs, content: Content) -> Self {
        let sessions = match args.protocol {
            Protocol::Parts => (0..args.uploads)
                .map(|_| SharedSession::default())
                .collect(),
            _ => Vec::new(),
        };
        Self {
            args,
            content,
            run: rand::random(),
            next: AtomicU32::new(0),
            sessions,
        }
    }

    /// The size of each PATCH or part; of parts the one the server chose.
    pub(super) fn piece(&self) -> Option<u64> {
        let chunk = self.sessions.first().and_then(SharedSession::chunk);
        chunk.or(self.args.piece)
    }

    pub(super) fn name(&self, number: usize) -> String {
        format!("bench-{:08x}-{number}.bin", self.run)
    }

    /// Sends until nothing is left. Returns the ids of the files it completed.
    pub(super) async fn work(
        &self,
        connection: &mut Connection<'_>,
    ) -> anyhow::Result<Vec<String>> {
        let mut files = Vec::new();
        if self.args.protocol == Protocol::Parts {
            for (number, session) in self.sessions.iter().enumerate() {
                files.extend(session.help(self, connection, number).await?);
            }
            return Ok(files);
        }
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.args.uploads {
                return Ok(files);
            }
            let name = self.name(usize::try_from(number)?);
            files.extend(self.upload(connection, &name).await?);
        }
    }

    async fn upload(
        &self,
        connection: &mut Connection<'_>,
        name: &str,
    ) -> anyhow::Result<Option<String>> {
        match self.args.protocol {
            Protocol::Raw => self.raw(connection, name).await.map(Some),
            Protocol::Form => self.form(connection, name).await.map(Some),
            Protocol::Tus => self.tus(connection, name).await,
            Protocol::Plain => self.plain(connection, name).await.map(|()| None),
            Protocol::Parts => unreachable!("parts are not sent upload by upload"),
        }
    }

    async fn raw(&self, connection: &mut Connection<'_>, name: &str) -> anyhow::Result<String> {
        let path = connection
            .target
            .path(&format!("/v1/files?filename={name}"));
        let payload = self.content.payload(0..self.args.size);
        let headers = [("content-type", OCTETS)];
        let response = connection
            .call(Method::POST, &path, &headers, payload)
            .await?;
        Ok(response.done("sending a file")?.json::<CreatedFile>()?.id)
    }

    async fn form(&self, connection: &mut Connection<'_>, name: &str) -> anyhow::Result<String> {
        // Random bytes do not contain a text of this length.
        let boundary = format!("landfall-bench-{:08x}-end-of-part", self.run);
        let before = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
             Content-Type: {OCTETS}\r\n\r\n"
        );
        let payload = self.content.payload(0..self.args.size);
        let payload = payload.between(before, format!("\r\n--{boundary}--\r\n"));
        let path = connection.target.path("/v1/files");
        let of = format!("multipart/form-data; boundary={boundary}");
        let headers = [("content-type", of.as_str())];
        let response = connection
            .call(Method::POST, &path, &headers, payload)
            .await?;
        Ok(response.done("sending a form")?.json::<CreatedFile>()?.id)
    }

    async fn tus(
        &self,
        connection: &mut Connection<'_>,
        name: &str,
    ) -> anyhow::Result<Option<String>> {
        let (size, creation) = (self.args.size, tus::creation(connection, self.args.foreign));
        let location = tus::create(connection, &creation, name, size).await?;
        let piece = self.args.piece.unwrap_or(size);
        let (mut offset, mut file) = (0, None);
        while offset < size {
            let end = offset.saturating_add(piece).min(size);
            let payload = self.content.payload(offset..end);
            file = tus::append(connection, &location, offset, payload).await?;
            offset = end;
        }
        if self.args.foreign {
            return Ok(None);
        }
        let file = file.context(
            "the last response names no file: is this Landfall? Use --foreign for other servers",
        )?;
        Ok(file.rsplit('/').next().map(str::to_owned))
    }

    async fn plain(&self, connection: &mut Connection<'_>, name: &str) -> anyhow::Result<()> {
        let path = connection.target.path(&format!("/{name}"));
        let payload = self.content.payload(0..self.args.size);
        let response = connection.call(Method::PUT, &path, &[], payload).await?;
        response.done("sending a file").map(drop)
    }
}
