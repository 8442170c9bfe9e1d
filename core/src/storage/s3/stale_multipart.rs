//! Finds and aborts multipart uploads that a crash has left open.

use super::{S3Storage, error, moment};
use crate::storage::{StorageError, UnfinishedWrite, UnfinishedWritePages};
use futures::{StreamExt, stream};
use std::sync::{Arc, atomic::Ordering};

/// Prefixes of Landfall's objects. Uploads elsewhere in the bucket belong to others and are not aborted.
const PREFIXES: [&str; 2] = ["uploads/", "staging/"];

/// Start of the next page: after this key and upload id.
#[derive(Clone, Debug, Default)]
struct PageMarker {
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

    async fn open_uploads(
        &self,
        prefix: &str,
        after: PageMarker,
    ) -> Result<(Vec<UnfinishedWrite>, Option<PageMarker>), StorageError> {
        if !self.lists_uploads.load(Ordering::Relaxed) {
            return Ok((Vec::new(), None));
        }
        let request = self
            .client
            .list_multipart_uploads()
            .bucket(self.bucket())
            .prefix(prefix)
            .set_key_marker(after.key)
            .set_upload_id_marker(after.id);
        let page = match request.send().await {
            Ok(page) => page,
            Err(error) if error::answer(&error).is_some_and(|a| error::is_unknown(&a)) => {
                self.lists_uploads.store(false, Ordering::Relaxed);
                tracing::warn!(
                    "the object store cannot list multipart uploads; set a rule of the bucket that aborts old ones"
                );
                return Ok((Vec::new(), None));
            }
            Err(error) => return Err(error::map_error("list multipart uploads")(error)),
        };
        let open = page.uploads().iter().filter_map(|upload| {
            // Uploads of unknown age are not aborted.
            upload.initiated()?;
            Some(UnfinishedWrite {
                key: Some(upload.key()?.to_owned()),
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
            self.abort(key, &upload.id).await;
        }
    }
}
