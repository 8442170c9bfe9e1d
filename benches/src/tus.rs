//! tus 1.0.0 for any server: creation, then bytes at an offset.

use super::{connection::Connection, payload::Payload};
use anyhow::{Context, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::Method;

const VERSION: (&str, &str) = ("tus-resumable", "1.0.0");

/// The creation URL: the given URL for another server, `/v1/tus` below it for Landfall.
pub(super) fn creation(connection: &Connection<'_>, foreign: bool) -> String {
    if foreign {
        connection.target.base.path().to_owned()
    } else {
        connection.target.path("/v1/tus")
    }
}

/// Creates an upload of `size` bytes, and returns its path.
pub(super) async fn create(
    connection: &mut Connection<'_>,
    creation: &str,
    name: &str,
    size: u64,
) -> anyhow::Result<String> {
    let (length, metadata) = (
        size.to_string(),
        format!("filename {}", STANDARD.encode(name)),
    );
    let headers = [
        VERSION,
        ("upload-length", &length),
        ("upload-metadata", &metadata),
    ];
    let response = connection
        .call(Method::POST, creation, &headers, Payload::empty())
        .await?
        .done("creating an upload")?;
    let location = response
        .header("location")
        .context("the upload has no Location")?;
    let url = connection.target.base.join(creation)?.join(location)?;
    // Keeps the current connection, whatever host the server names.
    Ok(url[url::Position::BeforePath..url::Position::AfterQuery].to_owned())
}

/// Sends the bytes at `offset`. Returns the path of Landfall's file if they were the last.
pub(super) async fn append(
    connection: &mut Connection<'_>,
    location: &str,
    offset: u64,
    payload: Payload,
) -> anyhow::Result<Option<String>> {
    let (at, end) = (offset.to_string(), offset + payload.len());
    let headers = [
        VERSION,
        ("upload-offset", &at),
        ("content-type", "application/offset+octet-stream"),
    ];
    let response = connection
        .call(Method::PATCH, location, &headers, payload)
        .await?
        .done("sending bytes")?;
    let offset = response.header("upload-offset").unwrap_or("none");
    if offset != end.to_string() {
        bail!("the server is at offset {offset} after {end} bytes");
    }
    Ok(response.header("landfall-file").map(str::to_owned))
}
