//! The file as the whole body of the request.

use super::{
    staged_body::{self, StagedBytes},
    upload::Upload,
    upload_fields::{self, Said},
};
use crate::api::{
    content_disposition::Disposition,
    problem::{Code, Problem},
    state::State,
};
use http::header;
use landfall_core::{
    digest::Sha256Digest,
    files::FileName,
    media_policy::{self, ContentGuard, DeclaredContent},
    tokens::Identity,
};

/// What was said in the query.
#[derive(Clone, Debug, Default)]
pub(super) struct Parameters {
    pub(super) filename: Option<String>,
    pub(super) metadata: Option<String>,
    pub(super) batch_id: Option<String>,
    pub(super) sha256: Option<String>,
    pub(super) expires_in: Option<String>,
}

/// A file that has arrived, and what was said of it.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) name: FileName,
    pub(super) content_type: String,
    pub(super) said: Said,
    pub(super) bytes: StagedBytes,
}

/// Takes in the body. All that can be refused is refused before it is read.
pub(super) async fn take_in(
    state: &State,
    caller: &Identity,
    upload: Upload,
    given: Parameters,
    digest: Option<Sha256Digest>,
) -> Result<Arrived, Problem> {
    let said = given.read()?;
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
    let name = upload_fields::name(named.as_deref())?;
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
    bytes.verify(said.sha256)?;
    let content_type = guard.verdict()?;
    Ok(Arrived {
        name,
        content_type,
        said,
        bytes,
    })
}

impl Parameters {
    fn read(&self) -> Result<Said, Problem> {
        let mut said = Said::default();
        for (name, value) in [
            ("metadata", &self.metadata),
            ("batch_id", &self.batch_id),
            ("sha256", &self.sha256),
            ("expires_in", &self.expires_in),
        ] {
            if let Some(value) = value {
                said.take(name, value)?;
            }
        }
        Ok(said)
    }
}
