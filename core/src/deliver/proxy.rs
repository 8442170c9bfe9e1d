//! Tunnels through an HTTP proxy (`webhooks.proxy`): CONNECT (RFC 9110, section 9.3.6).
//!
//! The proxy is asked for the address that was vetted, not for the name of the receiver, which it might resolve to another
//! one.

use super::connector::ConnectError;
use crate::config::HttpProxy;
use std::{io, net::SocketAddr};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Maximum size of the head of the proxy's response, in bytes.
const MAX_HEAD_LEN: usize = 16 * 1024;

/// Connects to the proxy, and through it to the target.
pub(super) async fn connect(
    proxy: &HttpProxy,
    target: SocketAddr,
) -> Result<TcpStream, ConnectError> {
    let host = proxy.host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, proxy.port)).await;
    let mut stream = stream.map_err(ConnectError::ProxyUnreachable)?;
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
    if let Some(authorization) = proxy.authorization() {
        request.push_str("Proxy-Authorization: ");
        request.push_str(authorization);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    let sent = stream.write_all(request.as_bytes()).await;
    sent.map_err(ConnectError::ProxyUnreachable)?;
    let head = read_head(&mut stream).await;
    let head = head.map_err(ConnectError::ProxyUnreachable)?;
    match status(&head) {
        Some(200..=299) => Ok(stream),
        Some(status) => Err(ConnectError::ProxyRefused(status)),
        None => Err(ConnectError::ProxyUnreachable(io::Error::new(
            io::ErrorKind::InvalidData,
            "its response is not HTTP",
        ))),
    }
}

/// Reads to the end of the head and no further: the bytes after it are the receiver's.
async fn read_head(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= MAX_HEAD_LEN {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "its response is too long",
            ));
        }
        head.push(stream.read_u8().await?);
    }
    Ok(head)
}

fn status(head: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(head).ok()?.lines().next()?;
    let (version, rest) = line.split_once(' ')?;
    let status = rest.split(' ').next()?;
    version
        .starts_with("HTTP/1.")
        .then(|| status.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::status;

    #[test]
    fn the_status_is_in_the_first_line() {
        for (head, expected) in [
            ("HTTP/1.1 200 Connection established\r\n\r\n", Some(200)),
            (
                "HTTP/1.0 407 Proxy Authentication Required\r\nx: y\r\n\r\n",
                Some(407),
            ),
            ("HTTP/1.1 200\r\n\r\n", Some(200)),
            ("SSH-2.0-x 200\r\n\r\n", None),
            ("\r\n\r\n", None),
        ] {
            assert_eq!(status(head.as_bytes()), expected, "{head:?}");
        }
    }
}
