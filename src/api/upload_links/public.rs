//! `/v1/links/{secret}`: uploading by a link, and asking what became of its files. `/tus` below it is in `api::tus`.

use super::{LinkAccess, to_schema};
use crate::api::{
    files::{QueryFields, UploadRequest, receive},
    idempotency::IdempotentRequest,
    middleware::TraceParent,
    problem::{Code, Problem},
    response::JsonResponse,
    schema,
};
use poem::Request;
use poem_openapi::{
    OpenApi,
    param::{Path, Query},
};

/// The name of a file that is sent without one, as browsers do with `fetch`.
const UNNAMED: &str = "unnamed";

/// What the holders of upload links may do.
#[derive(Clone, Copy, Debug)]
pub(in crate::api) struct Links;

#[OpenApi(prefix_path = "/v1")]
impl Links {
    /// Upload a file by a link
    ///
    /// As `multipart/form-data` with one `file` part, or as the raw body. The file belongs to the owner of the link and
    /// gets its metadata and batch; the client may add other metadata. Needs no token.
    #[oai(
        path = "/links/:secret",
        method = "post",
        operation_id = "createFileByLink"
    )]
    #[expect(clippy::too_many_arguments, reason = "each is a parameter of the API")]
    async fn create(
        &self,
        access: LinkAccess,
        idempotent: IdempotentRequest,
        request: &Request,
        /// The secret of the link.
        #[oai(name = "secret")]
        _secret: Path<String>,
        /// The file name, if the body is the file.
        filename: Query<Option<String>>,
        /// A JSON object of up to 16 KiB, if the body is the file.
        metadata: Query<Option<String>>,
        /// The expected SHA-256 of the file in hexadecimal, if the body is the file.
        sha256: Query<Option<String>>,
        upload: UploadRequest,
    ) -> Result<JsonResponse<schema::File, 202>, Problem> {
        let given = query(filename.0, metadata.0, sha256.0);
        receive_by(access, idempotent, request, upload, given).await
    }

    /// Upload a file by a link, as the raw body
    ///
    /// Each request sends a new file. Needs no token.
    #[oai(
        path = "/links/:secret",
        method = "put",
        operation_id = "putFileByLink"
    )]
    #[expect(clippy::too_many_arguments, reason = "each is a parameter of the API")]
    async fn put(
        &self,
        access: LinkAccess,
        idempotent: IdempotentRequest,
        request: &Request,
        /// The secret of the link.
        #[oai(name = "secret")]
        _secret: Path<String>,
        /// The file name; `unnamed` if absent.
        filename: Query<Option<String>>,
        /// A JSON object of up to 16 KiB.
        metadata: Query<Option<String>>,
        /// The expected SHA-256 of the file in hexadecimal.
        sha256: Query<Option<String>>,
        upload: UploadRequest,
    ) -> Result<JsonResponse<schema::File, 202>, Problem> {
        let kind = upload.content_type()?.unwrap_or_default();
        if kind
            .trim_start()
            .to_ascii_lowercase()
            .starts_with("multipart/")
        {
            return Err(Problem::new(
                Code::UnsupportedMediaType,
                "PUT sends the file as the raw body. Send a form with POST.",
            ));
        }
        let given = query(filename.0, metadata.0, sha256.0);
        receive_by(access, idempotent, request, upload, given).await
    }

    /// Get the state of a link and its files
    ///
    /// Needs no token, and shows nothing about other files.
    #[oai(path = "/links/:secret", method = "get", operation_id = "getLinkState")]
    async fn get(
        &self,
        access: LinkAccess,
        /// The secret of the link.
        #[oai(name = "secret")]
        _secret: Path<String>,
    ) -> Result<JsonResponse<schema::UploadLinkState>, Problem> {
        let link = (*access.link).clone();
        let link = to_schema(&access.state.app, link).await?;
        JsonResponse::new(&schema::UploadLinkState::from(link))
    }
}

fn query(
    filename: Option<String>,
    metadata: Option<String>,
    sha256: Option<String>,
) -> QueryFields {
    QueryFields {
        filename,
        metadata,
        sha256,
        unnamed: Some(UNNAMED),
        ..QueryFields::default()
    }
}

async fn receive_by(
    access: LinkAccess,
    idempotent: IdempotentRequest,
    request: &Request,
    upload: UploadRequest,
    given: QueryFields,
) -> Result<JsonResponse<schema::File, 202>, Problem> {
    let LinkAccess {
        link,
        caller,
        state,
    } = access;
    let trace = request.data::<TraceParent>().map(|trace| trace.0.clone());
    let idempotent = idempotent.within_link(link.id);
    receive(
        &state,
        &caller,
        Some(&link),
        &idempotent,
        upload,
        given,
        trace,
    )
    .await
}
