//! Multipart uploads that a crash has left open: found, and aborted.

use super::{S3Storage, error, moment};
use crate::storage::StorageError;
use chrono::{DateTime, Utc};
use std::sync::atomic::Ordering;

/// Where Landfall puts objects: what others upload elsewhere in the bucket is not its to abort.
const PREFIXES: [&str; 2] = ["uploads/", "staging/"];

impl S3Storage {
    /// Aborts at most `limit` multipart uploads begun before `before`; answers how many.
    pub(crate) async fn abort_abandoned(
        &self,
        before: DateTime<Utc>,
        limit: usize,
    ) -> Result<usize, StorageError> {
        let mut aborted = 0;
        for prefix in PREFIXES {
            if self.lists_uploads.load(Ordering::Relaxed) {
                aborted += self.abort_below(prefix, before, limit - aborted).await?;
            }
        }
        Ok(aborted)
    }

    async fn abort_below(
        &self,
        prefix: &str,
        before: DateTime<Utc>,
        limit: usize,
    ) -> Result<usize, StorageError> {
        let mut aborted = 0;
        let mut request = self
            .client
            .list_multipart_uploads()
            .bucket(self.bucket())
            .prefix(prefix);
        while aborted < limit {
            let page = match request.clone().send().await {
                Ok(page) => page,
                Err(error) if error::answer(&error).is_some_and(|a| error::is_unknown(&a)) => {
                    self.lists_uploads.store(false, Ordering::Relaxed);
                    tracing::warn!(
                        "the object store cannot list multipart uploads; set a rule of the bucket that aborts old ones"
                    );
                    return Ok(aborted);
                }
                Err(error) => return Err(error::sorted("list multipart uploads")(error)),
            };
            let stale = page
                .uploads()
                .iter()
                .filter(|upload| {
                    upload.initiated().is_some() && moment(upload.initiated()) < before
                })
                .filter_map(|upload| upload.key().zip(upload.upload_id()))
                .take(limit - aborted);
            for (key, id) in stale {
                self.abort(key, id).await;
                aborted += 1;
            }
            if !page.is_truncated().unwrap_or(false) {
                break;
            }
            request = request
                .set_key_marker(page.next_key_marker().map(str::to_owned))
                .set_upload_id_marker(page.next_upload_id_marker().map(str::to_owned));
        }
        Ok(aborted)
    }
}
