//! Finds and aborts multipart uploads that a crash has left open.

use super::{
    S3Storage,
    error::{self, ErrorResponse},
    moment,
};
use crate::storage::{PROBES, StorageError, UnfinishedWrite, UnfinishedWritePages};
use futures::{StreamExt, stream};
use std::sync::{Arc, atomic::Ordering};

/// Prefixes of Landfall's objects. Uploads elsewhere in the bucket belong to others and are not aborted.
const PREFIXES: [&str; 3] = ["uploads/", "staging/", PROBES];

/// Start of the next page: after this key and upload id.
#[derive(Clone, Debug, Default)]
pub(super) struct PageMarker {
    key: Option<String>,
    id: Option<String>,
}

impl S3Storage {
    /// Lists every open multipart upload below Landfall's prefixes, page by page.
    pub(crate) fn unfinished(self: &Arc<Self>) -> UnfinishedWritePages {
        let storage = Arc::clone(self);
        let below = move |prefix| {
            let storage = Arc::clone(&storage);
            stream::try_unfold(Some(PageMarker::default()), move |marker| {
                let storage = Arc::clone(&storage);
                async move {
                    let Some(marker) = marker else {
                        return Ok(None);
                    };
                    storage.open_uploads(prefix, marker).await.map(Some)
                }
            })
        };
        stream::iter(PREFIXES).flat_map(below).boxed()
    }

    pub(super) async fn open_uploads(
        &self,
        prefix: &str,
        after: PageMarker,
    ) -> Result<(Vec<UnfinishedWrite>, Option<PageMarker>), StorageError> {
        let listing = &self.capabilities.multipart_listing;
        let is_final = !self.capabilities.listing_forbidden.load(Ordering::Relaxed);
        if !listing.is_usable() && is_final {
            return Ok((Vec::new(), None));
        }
        let request = self
            .client()
            .await
            .list_multipart_uploads()
            .bucket(self.bucket())
            .prefix(self.full_key(prefix))
            .set_key_marker(after.key)
            .set_upload_id_marker(after.id);
        let page = match request.send().await {
            Ok(page) => page,
            Err(error) if error::answer(&error).is_some_and(|a| is_unavailable(&a)) => {
                // A policy can be changed, so it is asked again.
                let is_forbidden = error::answer(&error).is_some_and(|a| a.status == 403);
                let forbidden = &self.capabilities.listing_forbidden;
                forbidden.store(is_forbidden, Ordering::Relaxed);
                listing.refuse();
                return Ok((Vec::new(), None));
            }
            Err(error) => return Err(error::map_error("list multipart uploads")(error)),
        };
        listing.confirm();
        let open = page.uploads().iter().filter_map(|upload| {
            // Uploads of unknown age are not aborted.
            upload.initiated()?;
            Some(UnfinishedWrite {
                key: Some(upload.key()?.strip_prefix(&self.prefix)?.to_owned()),
                id: upload.upload_id()?.to_owned(),
                since: moment(upload.initiated()),
            })
        });
        let more = page.is_truncated().unwrap_or(false);
        let next = more.then(|| PageMarker {
            key: page.next_key_marker().map(str::to_owned),
            id: page.next_upload_id_marker().map(str::to_owned),
        });
        Ok((open.collect(), next))
    }

    /// Aborts an upload; if that is impossible now, the sweep will do it.
    pub(crate) async fn abort_unfinished(&self, upload: &UnfinishedWrite) {
        if let Some(key) = &upload.key {
            self.abort(&self.full_key(key), &upload.id).await;
        }
    }
}

/// Whether the store cannot list multipart uploads, or does not let this key do so.
fn is_unavailable(answer: &ErrorResponse) -> bool {
    matches!(answer.status, 403 | 405) || error::is_unknown(answer)
}
