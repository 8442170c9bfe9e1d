//! The startup check of a bucket: performs every operation Landfall needs once, with a small object.

use super::{
    MultipartUpload, NewObject, S3Storage, addressing::AddressingStyle, client,
    stale_multipart::PageMarker,
};
use crate::{
    digest::Sha256Digest,
    storage::{PROBES, StorageError, StorageKey, UrlOptions},
};
use aws_credential_types::provider::error::CredentialsError;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{HttpConnector, dns::Name},
    },
    rt::TokioExecutor,
};
use std::{error::Error, io, net::SocketAddr, sync::Arc};
use url::Url;
use uuid::Uuid;

/// Maximum number of bytes read of the response to a signed URL.
const MAX_RESPONSE_LEN: usize = 64 * 1024;

/// Writes, reads back, lists, downloads by a signed URL, and deletes an object.
pub(crate) async fn probe(storage: &Arc<S3Storage>) -> Result<(), StorageError> {
    // Without credentials every request fails in a way that does not tell why.
    storage
        .credentials
        .info()
        .await
        .map_err(missing_credentials)?;
    let name = format!("{PROBES}{}", Uuid::now_v7());
    let key: StorageKey = name.parse().map_err(|_| StorageError::NotFound)?;
    let content = Bytes::from(name);
    let object = NewObject {
        key: key.as_str(),
        content_type: "text/plain",
        origin: key.as_str(),
        size: content.len() as u64,
        sha256: None,
        overwrite: false,
        is_staged: false,
    };
    let put = storage.put_object(&object, content.clone()).await;
    put.map_err(|error| explain(storage, "write", error))?;
    let used = async {
        use_object(storage, &key, &content).await?;
        try_overwriting(storage, &object, &content).await;
        use_multipart(storage, &object, &content).await
    };
    let used = used.await;
    let deleted = storage.delete(&key).await;
    used?;
    deleted.map_err(|error| explain(storage, "delete", error))
}

/// Finds out whether the store heeds `If-None-Match`, which some accept and ignore.
async fn try_overwriting(storage: &S3Storage, object: &NewObject<'_>, content: &Bytes) {
    let conditional_writes = &storage.capabilities.conditional_writes;
    if !conditional_writes.is_usable() {
        return;
    }
    let other = NewObject {
        origin: "another writer",
        ..*object
    };
    match storage.put_object(&other, content.clone()).await {
        Ok(_) => conditional_writes.refuse(),
        Err(StorageError::KeyTaken) if conditional_writes.is_usable() => {
            conditional_writes.confirm();
        }
        // The next write shows it.
        Err(_) => {}
    }
}

/// Begins a multipart upload, sends a part, copies another, lists it and aborts it.
async fn use_multipart(
    storage: &Arc<S3Storage>,
    object: &NewObject<'_>,
    content: &Bytes,
) -> Result<(), StorageError> {
    let begun = MultipartUpload::begin(storage, object).await;
    let upload = begun.map_err(|error| explain_multipart(storage, error))?;
    let digest = Sha256Digest::compute(content);
    let digest = storage.signs_parts().then_some(digest);
    let sent = upload.send(1, content.clone(), digest).await;
    let capabilities = &storage.capabilities;
    if sent.is_ok() {
        let range = 0..content.len() as u64;
        match upload.copy(2, object.key, range, None).await {
            Ok(_) => capabilities.part_copy.confirm(),
            Err(error) if capabilities.learn_from_refused_copy(&error) => {
                capabilities.part_copy.refuse();
            }
            // The next copy shows it.
            Err(_) => {}
        }
        // Records whether it is possible.
        let _ = storage.open_uploads(PROBES, PageMarker::default()).await;
    }
    upload.abort().await;
    sent.map(drop)
        .map_err(|error| explain_multipart(storage, error))
}

fn explain_multipart(storage: &S3Storage, error: StorageError) -> StorageError {
    match &error {
        StorageError::Refused { status, code, .. }
            if matches!(status, 405 | 501) || code == "NotImplemented" =>
        {
            StorageError::Setting {
                key: "storage.s3.endpoint_url",
                environment: "AWS_S3_ENDPOINT_URL",
                problem: "the store at this URL does not support multipart uploads, which large files need"
                    .to_owned(),
                source: Some(error.into()),
            }
        }
        _ => explain(storage, "write", error),
    }
}

async fn use_object(
    storage: &Arc<S3Storage>,
    key: &StorageKey,
    content: &Bytes,
) -> Result<(), StorageError> {
    let read = async {
        storage
            .read(key, None)
            .await?
            .try_collect::<BytesMut>()
            .await
    };
    let found = read
        .await
        .map_err(|error| explain(storage, "read", error))?;
    if found != content {
        return Err(StorageError::NotAsSent(
            "other bytes were read back".to_owned(),
        ));
    }
    let page = storage.list(key.as_str()).next().await.transpose();
    let page = page.map_err(|error| explain(storage, "list", error))?;
    if !page.is_some_and(|page| page.iter().any(|object| object.key == key.as_str())) {
        return Err(StorageError::NotAsSent(
            "a list of the bucket does not show it".to_owned(),
        ));
    }
    if storage.settings.querystring_auth {
        let url = storage.url(key, UrlOptions::default()).await?;
        fetch(storage, url, content).await?;
    }
    Ok(())
}

/// Downloads the object as a browser would.
async fn fetch(storage: &S3Storage, url: Url, content: &Bytes) -> Result<(), StorageError> {
    let patience = storage.pace.answer;
    let (status, body) = tokio::time::timeout(patience, get(url))
        .await
        .unwrap_or_else(|late| Err(late.into()))
        .map_err(|source| StorageError::NoAnswer {
            action: "serve a signed URL",
            source,
        })?;
    if status != 200 {
        return Err(StorageError::Refused {
            action: "serve a signed URL",
            status,
            code: String::new(),
            message: "the same credentials work for other requests; check the clocks of both machines, and any proxy \
                      between AWS_S3_ENDPOINT_URL and the store"
                .to_owned(),
        });
    }
    if body != content {
        return Err(StorageError::NotAsSent(
            "a signed URL served other bytes".to_owned(),
        ));
    }
    Ok(())
}

async fn get(url: Url) -> Result<(u16, Bytes), Box<dyn Error + Send + Sync>> {
    let provider = rustls::crypto::ring::default_provider();
    let resolver = tower::service_fn(|name: Name| async move {
        let addresses = client::resolve(name.as_str()).await?;
        let addresses = addresses
            .into_iter()
            .map(|address| SocketAddr::new(address, 0));
        Ok::<_, io::Error>(addresses.collect::<Vec<_>>().into_iter())
    });
    let mut connector = HttpConnector::new_with_resolver(resolver);
    connector.enforce_http(false);
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_provider_and_native_roots(provider)?
        .https_or_http()
        .enable_http1()
        .wrap_connector(connector);
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let answer = client.get(url.as_str().parse()?).await?;
    let status = answer.status().as_u16();
    let body = Limited::new(answer.into_body(), MAX_RESPONSE_LEN);
    Ok((status, body.collect().await?.to_bytes()))
}

pub(super) fn missing_credentials(error: CredentialsError) -> StorageError {
    StorageError::Setting {
        key: "storage.s3.access_key_id",
        environment: "AWS_ACCESS_KEY_ID",
        problem: "no key pair is set, and AWS provides no credentials".to_owned(),
        source: Some(error.into()),
    }
}

fn not_a_store() -> (&'static str, &'static str, String) {
    (
        "storage.s3.endpoint_url",
        "AWS_S3_ENDPOINT_URL",
        "the server at this URL is not an S3 store".to_owned(),
    )
}

/// Finds the setting at fault where the response alone does not show it.
fn explain(storage: &S3Storage, what: &str, error: StorageError) -> StorageError {
    let error = match error {
        // The store refused both styles of addresses, or the bucket's host name does not resolve.
        StorageError::Setting {
            key,
            environment,
            problem,
            source,
        } if storage.clients.style() == Some(AddressingStyle::Unproven) => StorageError::Setting {
            key,
            environment,
            problem: format!(
                "{problem} (or the store takes virtual-host addresses only, and the host name of the bucket does not \
                 resolve)"
            ),
            source,
        },
        error => error,
    };
    let (key, environment, problem) = match &error {
        StorageError::NoAnswer { .. } if storage.settings.endpoint_url.is_none() => (
            "storage.s3.region_name",
            "AWS_S3_REGION_NAME",
            "Amazon S3 cannot be reached in this region".to_owned(),
        ),
        StorageError::NoAnswer { .. } => (
            "storage.s3.endpoint_url",
            "AWS_S3_ENDPOINT_URL",
            "no S3 store responds at this URL".to_owned(),
        ),
        StorageError::Refused {
            status: 401 | 403, ..
        } => (
            "storage.s3.access_key_id",
            "AWS_ACCESS_KEY_ID",
            format!("this key may not {what} objects of the bucket"),
        ),
        // A store without such a bucket responds with its own error code.
        StorageError::NotFound => not_a_store(),
        StorageError::Refused { code, .. } if code.is_empty() => not_a_store(),
        _ => return error,
    };
    StorageError::Setting {
        key,
        environment,
        problem,
        source: Some(error.into()),
    }
}
