//! The application context that every part of the domain works with.

use crate::{
    clock::Clock,
    config::Config,
    db::Database,
    enqueue::JobSink,
    files::FileIntake,
    staging::Staging,
    storage::{Storage, StorageError, StorageKey, UrlOptions},
    uploads,
};
use entity::FileId;
use std::sync::Arc;
use url::Url;

/// One process's handle on the installation; cheap to clone.
#[derive(Clone, Debug)]
pub struct App {
    pub config: Arc<Config>,
    pub clock: Clock,
    pub db: Database,
    pub staging: Staging,
    pub storage: Storage,
    pub intake: FileIntake,
    pub uploads: uploads::UploadWrites,
    pub dispatch: Arc<dyn JobSink>,
    /// The server's public URL; the base of the URLs handed out for objects on a filesystem.
    pub public_url: Url,
}

impl App {
    /// Returns the URL a stored file can be downloaded from. Signed URLs expire, so a new one is made on each call.
    ///
    /// # Errors
    /// [`StorageError::Setting`] when no URL can be made with the S3 settings. No request is sent.
    pub async fn url_of(&self, id: FileId, key: &StorageKey) -> Result<String, StorageError> {
        Ok(match self.storage.url(key, UrlOptions::default()).await? {
            Some(url) => url.into(),
            None => {
                format!(
                    "{}/v1/files/{id}/content",
                    self.public_url.as_str().trim_end_matches('/')
                )
            }
        })
    }
}
