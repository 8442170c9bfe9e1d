//! Receives a file as the raw body of the request.

use super::{
    staged_body::{self, StagedBody},
    upload::UploadRequest,
    upload_fields::{self, UploadFields},
};
use crate::api::{
    content_disposition::Disposition,
    problem::{Code, Problem},
    state::ApiState,
};
use http::header;
use landfall_core::{
    digest::Sha256Digest,
    files::FileName,
    media_policy::{self, ContentGuard, DeclaredContent},
    tokens::Identity,
};

/// The fields in the query string.
#[derive(Clone, Debug, Default)]
pub(in crate::api) struct QueryFields {
    pub(in crate::api) filename: Option<String>,
    pub(in crate::api) metadata: Option<String>,
    pub(in crate::api) batch_id: Option<String>,
    pub(in crate::api) sha256: Option<String>,
    pub(in crate::api) expires_in: Option<String>,
    /// The name of a file without a name; `None` if a name is required.
    pub(in crate::api) unnamed: Option<&'static str>,
}

/// A received file and its fields.
#[derive(Debug)]
pub(super) struct ReceivedFile {
    pub(super) name: FileName,
    pub(super) content_type: String,
    pub(super) fields: UploadFields,
    pub(super) bytes: StagedBody,
}

/// Receives the body. Everything that can be rejected early is rejected before it is read.
pub(super) async fn receive(
    state: &ApiState,
    caller: &Identity,
    upload: UploadRequest,
    given: QueryFields,
    digest: Option<Sha256Digest>,
) -> Result<ReceivedFile, Problem> {
    let fields = given.read()?;
    let disposition = upload.headers.get(header::CONTENT_DISPOSITION);
    let disposition = disposition.map(|value| Disposition::parse(value.as_bytes(), false));
    let named = given
        .filename
        .or_else(|| disposition.and_then(|disposition| disposition.filename));
    if named.is_none() && upload.is_bare()? {
        return Err(Problem::new(
            Code::MissingFile,
            "The request has no body. Send the file as `multipart/form-data`, or as the raw body with `?filename=`.",
        ));
    }
    let name = upload_fields::name(named.as_deref().or(given.unnamed))?;
    let uploads = &state.app.config.uploads;
    let content_type = upload_fields::content_type(upload.content_type()?)?;
    media_policy::require_declared(uploads, name.as_str(), &content_type)?;
    let length = upload.length()?;
    upload.refuse_larger_than(uploads.max_file_size.0, uploads.max_file_size.0)?;
    let declared = DeclaredContent {
        name: name.as_str().to_owned(),
        content_type,
    };
    let guard = ContentGuard::new(uploads, declared, length, true, Vec::new());
    let bytes = staged_body::stage(state, caller, guard.watch(upload.body), length).await?;
    bytes.verify(digest)?;
    bytes.verify(fields.sha256)?;
    let content_type = guard.verdict()?;
    Ok(ReceivedFile {
        name,
        content_type,
        fields,
        bytes,
    })
}

impl QueryFields {
    fn read(&self) -> Result<UploadFields, Problem> {
        let mut fields = UploadFields::default();
        for (name, value) in [
            ("metadata", &self.metadata),
            ("batch_id", &self.batch_id),
            ("sha256", &self.sha256),
            ("expires_in", &self.expires_in),
        ] {
            if let Some(value) = value {
                fields.set(name, value)?;
            }
        }
        Ok(fields)
    }
}
