//! `/v1/uploads`: upload sessions.

use super::{
    auth::Uploader,
    files::{declared, to_schema, upload_fields},
    idempotency::{IdempotentRequest, detached},
    json::Json,
    middleware::TraceParent,
    problem::{Code, Problem},
    response::{JsonResponse, NoContent},
    schema,
    state::ApiState,
};
use entity::{
    UploadId,
    upload::{Model, UploadKind, UploadStatus},
};
use futures::{StreamExt, TryStreamExt};
use http::{HeaderMap, header};
use landfall_core::{
    app::App,
    files::{FileName, OwnerScope},
    tokens::{Identity, TokenScope},
    uploads::{self, NewPart, NewUpload, Ranges, UploadBytes, UploadShape},
};
use poem::{Request, RequestBody, Result, web::Data};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions, OpenApi,
    param::Path,
    registry::{MetaMediaType, MetaRequest, MetaSchema, MetaSchemaRef, Registry},
};
use std::{fmt, time::Instant};
use uuid::Uuid;

/// Uploads in numbered parts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Uploads;

#[OpenApi(prefix_path = "/v1")]
impl Uploads {
    /// Create an upload session
    ///
    /// Send the parts in any order and in parallel, then complete the upload.
    #[oai(path = "/uploads", method = "post", operation_id = "createUpload")]
    async fn create(
        &self,
        caller: Uploader,
        state: Data<&ApiState>,
        idempotent: IdempotentRequest,
        request: &Request,
        body: Json<schema::NewUpload>,
    ) -> Result<JsonResponse<schema::Session, 201>, Problem> {
        let Json { value, digest } = body;
        let app = state.app.clone();
        let trace = request.data::<TraceParent>().map(|trace| trace.0.clone());
        let (shape, new) = checked(&app, &caller.0, value, trace)?;
        let work = async move |keep| Ok(uploads::create(&app, shape, new, keep).await?);
        idempotent
            .once(&state, &caller.0, digest, started, work)
            .await
    }

    /// Get an upload session
    #[oai(path = "/uploads/:id", method = "get", operation_id = "getUpload")]
    async fn get(
        &self,
        caller: Uploader,
        state: Data<&ApiState>,
        id: Path<Uuid>,
    ) -> Result<JsonResponse<schema::Session>, Problem> {
        let app = &state.app;
        let row = find(app, &caller.0.sees(), UploadId(id.0)).await?;
        let received = match row.status {
            UploadStatus::Complete => Ranges::all(row.total_parts.unwrap_or(0).unsigned_abs()),
            _ => Ranges::received(app.db.read(), row.id).await?,
        };
        let status = uploads::status_at(&row, app.clock.now());
        JsonResponse::new(&schema::Session::from_row(&row, status, &received))
    }

    /// Upload a part
    ///
    /// The body is the bytes of the part. Sending the same bytes again has no effect; different bytes are a conflict.
    #[oai(
        path = "/uploads/:id/parts/:number",
        method = "put",
        operation_id = "putPart"
    )]
    async fn put_part(
        &self,
        caller: Uploader,
        state: Data<&ApiState>,
        id: Path<Uuid>,
        /// The number of the part, starting at 1.
        number: Path<u32>,
        body: PartBody,
    ) -> Result<JsonResponse<schema::Part>, Problem> {
        let part = NewPart {
            number: number.0,
            content_length: body.length(),
            digest: declared(&body.headers)?,
        };
        let (app, scope) = (&state.app, caller.0.sees());
        let started = Instant::now();
        let put = uploads::put_part(app, &scope, UploadId(id.0), part, body.bytes).await;
        state.metrics.record_staged(put.is_ok(), started.elapsed());
        let put = put?;
        state.metrics.record_received(put.size);
        JsonResponse::new(&schema::Part {
            part_number: put.number,
            size_bytes: put.size,
            sha256: put.sha256.to_string(),
        })
    }

    /// Complete an upload session
    ///
    /// Requires all parts. Stages the file, and a job stores it. Repeating the request returns the same file.
    #[oai(
        path = "/uploads/:id/complete",
        method = "post",
        operation_id = "completeUpload"
    )]
    async fn complete(
        &self,
        caller: Uploader,
        state: Data<&ApiState>,
        id: Path<Uuid>,
    ) -> Result<JsonResponse<schema::File, 202>, Problem> {
        let (state, scope) = (state.clone(), caller.0.sees());
        let may_read = caller.0.may(TokenScope::Read);
        detached(async move {
            let row = uploads::complete(&state.app, &scope, UploadId(id.0)).await?;
            let location = format!("/v1/files/{}", row.id);
            // A signed URL is equivalent to read access.
            let file = match may_read {
                true => to_schema(&state, row).await?,
                false => schema::File::from_row(row, None),
            };
            JsonResponse::new(&file)?.with(header::LOCATION, &location)
        })
        .await
    }

    /// Abort an upload session
    ///
    /// Its file fails, and its bytes are deleted. After completion, delete the file instead.
    #[oai(path = "/uploads/:id", method = "delete", operation_id = "abortUpload")]
    async fn abort(
        &self,
        caller: Uploader,
        state: Data<&ApiState>,
        id: Path<Uuid>,
    ) -> Result<NoContent, Problem> {
        let (app, scope) = (state.app.clone(), caller.0.sees());
        detached(async move {
            let row = find(&app, &scope, UploadId(id.0)).await?;
            if row.status == UploadStatus::Complete {
                return Err(Problem::new(
                    Code::UploadClosed,
                    "The upload is complete. Delete its file instead.",
                ));
            }
            uploads::abort(&app, &scope, row.id).await?;
            Ok(NoContent)
        })
        .await
    }
}

fn started(row: &Model) -> Result<JsonResponse<schema::Session, 201>, Problem> {
    let location = format!("/v1/uploads/{}", row.id);
    let session = schema::Session::from_row(row, row.status, &Ranges::default());
    JsonResponse::new(&session)?.with(header::LOCATION, &location)
}

/// Finds a session; uploads of other protocols are not visible here.
async fn find(app: &App, scope: &OwnerScope, id: UploadId) -> Result<Model, Problem> {
    let row = uploads::get(app.db.read(), scope, id).await?;
    match row.kind {
        UploadKind::Parts => Ok(row),
        _ => Err(Problem::not_found("upload")),
    }
}

/// Validates the request.
fn checked(
    app: &App,
    caller: &Identity,
    new_upload: schema::NewUpload,
    traceparent: Option<String>,
) -> Result<(UploadShape, NewUpload), Problem> {
    let mut fields = upload_fields::UploadFields::default();
    if let Some(metadata) = &new_upload.metadata {
        fields.set("metadata", &metadata.to_string())?;
    }
    if let Some(batch) = new_upload.batch_id {
        fields.set("batch_id", &batch.to_string())?;
    }
    if let Some(sha256) = &new_upload.sha256 {
        fields.set("sha256", sha256)?;
    }
    let new = NewUpload {
        owner: caller.owner.clone(),
        original_filename: FileName::parse(&new_upload.original_filename).map_err(|error| {
            Problem::field(Code::InvalidName, "original_filename", error.to_string())
        })?,
        content_type: upload_fields::content_type(new_upload.content_type.as_deref())?,
        declared_sha256: fields.sha256,
        expires_in: fields.ttl(&app.config),
        metadata: fields.metadata.unwrap_or_else(|| serde_json::json!({})),
        batch_id: fields.batch_id,
        traceparent,
        tus_metadata: None,
        link: None,
        tus_concat: None,
    };
    let shape = UploadShape::Parts {
        total: new_upload.total_size_bytes,
        chunk: new_upload.chunk_size_bytes,
    };
    Ok((shape, new))
}

/// The bytes of a part, and their declared length and digest.
struct PartBody {
    headers: HeaderMap,
    bytes: UploadBytes,
}

impl fmt::Debug for PartBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartBody").finish_non_exhaustive()
    }
}

impl PartBody {
    /// The declared length, in bytes.
    fn length(&self) -> Option<u64> {
        let value = self.headers.get(header::CONTENT_LENGTH)?;
        value.to_str().ok()?.parse().ok()
    }
}

impl<'a> ApiExtractor<'a> for PartBody {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];

    type ParamType = ();
    type ParamRawType = ();

    fn register(_: &mut Registry) {}

    fn request_meta() -> Option<MetaRequest> {
        let bytes = MetaSchema::new_with_format("string", "binary");
        Some(MetaRequest {
            description: Some("The bytes of the part."),
            content: vec![MetaMediaType {
                content_type: "application/octet-stream",
                schema: MetaSchemaRef::Inline(Box::new(bytes)),
            }],
            required: true,
        })
    }

    async fn from_request(
        request: &'a Request,
        body: &mut RequestBody,
        _: ExtractParamOptions<()>,
    ) -> Result<Self> {
        let bytes = body.take()?.into_bytes_stream();
        Ok(Self {
            headers: request.headers().clone(),
            bytes: bytes.map_err(Into::into).boxed(),
        })
    }
}
