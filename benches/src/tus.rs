//! tus 1.0.0 as every server of it speaks it: creation, then bytes at an offset.

use super::{connection::Connection, payload::Payload};
use anyhow::{Context, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::Method;

const VERSION: (&str, &str) = ("tus-resumable", "1.0.0");

/// Where uploads are made: the URL of the command for a foreign server, `/v1/tus` below it for Landfall.
pub(super) fn creation(connection: &Connection<'_>, foreign: bool) -> String {
    if foreign {
        connection.target.base.path().to_owned()
    } else {
        connection.target.path("/v1/tus")
    }
}

/// Makes an upload of `size` bytes; the path its bytes are sent to.
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
    let answer = connection
        .call(Method::POST, creation, &headers, Payload::empty())
        .await?
        .done("creating an upload")?;
    let location = answer
        .header("location")
        .context("the upload has no Location")?;
    let url = connection.target.base.join(creation)?.join(location)?;
    // On the connection there is, whatever the server calls itself.
    Ok(url[url::Position::BeforePath..url::Position::AfterQuery].to_owned())
}

/// Sends the bytes that begin at `offset`. The path of Landfall's file, once they were the last.
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
    let answer = connection
        .call(Method::PATCH, location, &headers, payload)
        .await?
        .done("sending bytes")?;
    let offset = answer.header("upload-offset").unwrap_or("none");
    if offset != end.to_string() {
        bail!("the server is at offset {offset} after {end} bytes");
    }
    Ok(answer.header("landfall-file").map(str::to_owned))
}
