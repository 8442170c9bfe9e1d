//! Creating a link.

use super::{PREFIX, UploadLink, UploadLinkError};
use crate::{
    app::App, batches::JoinBatchError, config::Origin, digest::Sha256Digest,
    idempotency::PendingResponse, media_policy,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use entity::{
    BatchId, UploadLinkId, batch,
    upload_link::{Entity, Model},
};
use sea_orm::{ConnectionTrait, EntityTrait, IntoActiveModel};
use secrecy::SecretString;
use std::time::Duration;

/// The shortest and the longest lifetime of a link.
pub const MIN_LIFETIME: Duration = Duration::from_secs(60);
pub const MAX_LIFETIME: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Maximum number of files that a link permits.
pub const MAX_LINK_FILES: u32 = 1000;

/// Maximum number of entries of the lists.
pub const MAX_ALLOWED_TYPES: usize = 100;
pub const MAX_CORS_ORIGINS: usize = 100;

/// Maximum length of an entry, in bytes.
const MAX_ENTRY_LEN: usize = 255;

/// A link to create.
#[derive(Clone, Debug)]
pub struct NewUploadLink {
    pub owner: Option<String>,
    /// [`MIN_LIFETIME`] to [`MAX_LIFETIME`].
    pub lifetime: Duration,
    /// 1 to [`MAX_LINK_FILES`].
    pub max_files: u32,
    /// In bytes, at least 1.
    pub max_size: Option<u64>,
    pub allowed_types: Vec<String>,
    /// An open batch of the owner.
    pub batch_id: Option<BatchId>,
    /// A JSON object.
    pub metadata: serde_json::Value,
    pub cors_origins: Vec<String>,
}

/// An invalid field of a new link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidLinkField {
    pub field: &'static str,
    /// What is allowed.
    pub message: String,
}

/// Creates a link, and returns it with its URL. The URL must be shown now, because only the hash of its secret is
/// stored.
///
/// # Errors
/// [`UploadLinkError::Invalid`] with every invalid field; [`UploadLinkError::Batch`] for a batch that does not exist,
/// belongs to another owner, or is closed; [`UploadLinkError::Response`], and database errors.
pub async fn create(
    app: &App,
    new: NewUploadLink,
    response: Option<PendingResponse<(UploadLink, SecretString)>>,
) -> Result<(UploadLink, SecretString), UploadLinkError> {
    let origins = validate(&new)?;
    let clock = &app.clock;
    let secret = format!(
        "{PREFIX}{}",
        URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
    );
    let row = Model {
        id: UploadLinkId::generate(),
        owner: new.owner,
        secret_sha256: Sha256Digest::compute(secret.as_bytes()).to_string(),
        max_files: i32::try_from(new.max_files).unwrap_or(i32::MAX),
        used_files: 0,
        partial_uploads: 0,
        max_size_bytes: new
            .max_size
            .map(|size| i64::try_from(size).unwrap_or(i64::MAX)),
        allowed_types: new.allowed_types.into(),
        batch_id: new.batch_id,
        metadata: new.metadata,
        cors_origins: origins.into(),
        created_at: clock.now(),
        expires_at: clock.after(new.lifetime),
        revoked_at: None,
    };
    let stored = row.clone().into_active_model();
    let base = app.public_url.as_str().trim_end_matches('/');
    let url = format!("{base}/v1/links/{secret}");
    let created = (UploadLink::from(row), SecretString::from(url));
    app.db
        .write(move |transaction| {
            Box::pin(async move {
                require_open_batch(transaction, &created.0).await?;
                Entity::insert(stored)
                    .exec_without_returning(transaction)
                    .await?;
                PendingResponse::write(response, transaction, &created).await?;
                Ok(created)
            })
        })
        .await
}

/// Checks the batch in advance. Each file checks it again when it joins.
async fn require_open_batch(
    db: &impl ConnectionTrait,
    link: &UploadLink,
) -> Result<(), UploadLinkError> {
    let Some(id) = link.batch_id else {
        return Ok(());
    };
    let found = batch::Entity::find_by_id(id).one(db).await?;
    let own = found.filter(|batch| link.owner.is_none() || batch.owner == link.owner);
    let batch = own.ok_or(JoinBatchError::Unknown(id))?;
    match batch.finalized_at {
        Some(_) => Err(JoinBatchError::Closed(id).into()),
        None => Ok(()),
    }
}

/// Returns the origins as browsers serialize them, or every invalid field.
fn validate(new: &NewUploadLink) -> Result<Vec<String>, UploadLinkError> {
    let mut faults = Vec::new();
    let mut fault = |field, message: String| faults.push(InvalidLinkField { field, message });
    if !(MIN_LIFETIME..=MAX_LIFETIME).contains(&new.lifetime) {
        let (least, most) = (MIN_LIFETIME.as_secs(), MAX_LIFETIME.as_secs());
        fault(
            "expires_in",
            format!("must be a number of seconds from {least} to {most}"),
        );
    }
    if !(1..=MAX_LINK_FILES).contains(&new.max_files) {
        fault("max_files", format!("must be from 1 to {MAX_LINK_FILES}"));
    }
    if new.max_size == Some(0)
        || new
            .max_size
            .is_some_and(|size| i64::try_from(size).is_err())
    {
        fault("max_size_bytes", "must be at least 1".to_owned());
    }
    if new.allowed_types.len() > MAX_ALLOWED_TYPES {
        fault(
            "allowed_types",
            format!("must have at most {MAX_ALLOWED_TYPES} entries"),
        );
    } else if let Some(wrong) = new.allowed_types.iter().find(|entry| !is_type(entry)) {
        let shown: String = wrong.chars().take(100).collect();
        fault(
            "allowed_types",
            format!("must be media types such as image/png or image/*, which `{shown}` is not"),
        );
    }
    let mut origins = Vec::with_capacity(new.cors_origins.len());
    if new.cors_origins.len() > MAX_CORS_ORIGINS {
        fault(
            "cors_origins",
            format!("must have at most {MAX_CORS_ORIGINS} entries"),
        );
    } else {
        for entry in &new.cors_origins {
            match entry.parse::<Origin>() {
                Ok(origin) if entry.len() <= MAX_ENTRY_LEN => origins.push(origin.to_string()),
                _ => {
                    let shown: String = entry.chars().take(100).collect();
                    fault(
                        "cors_origins",
                        format!(
                            "must be origins such as https://app.example.com, or *, which `{shown}` is not"
                        ),
                    );
                    break;
                }
            }
        }
    }
    match faults.is_empty() {
        true => Ok(origins),
        false => Err(UploadLinkError::Invalid(faults)),
    }
}

fn is_type(entry: &str) -> bool {
    entry.len() <= MAX_ENTRY_LEN && media_policy::is_type_pattern(entry)
}
