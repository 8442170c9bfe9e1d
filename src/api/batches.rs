//! `/v1/batches`.

use super::{
    auth::{Reader, Uploader},
    files::{list, upload_fields},
    idempotency::{IdempotentRequest, detached},
    json::{Json, OptionalJson},
    page_stream::PageResponse,
    problem::Problem,
    response::JsonResponse,
    schema,
    state::ApiState,
};
use entity::{BatchId, batch};
use http::header;
use landfall_core::{
    batches,
    files::{FileFilter, OwnerScope},
    pagination::{DEFAULT_LIMIT, PageRequest},
};
use poem::web::Data;
use poem_openapi::{
    OpenApi,
    param::{Path, Query},
};
use uuid::Uuid;

/// Groups of files.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batches;

#[OpenApi(prefix_path = "/v1")]
impl Batches {
    /// Create a batch
    #[oai(path = "/batches", method = "post", operation_id = "createBatch")]
    async fn create(
        &self,
        caller: Uploader,
        state: Data<&ApiState>,
        idempotent: IdempotentRequest,
        body: OptionalJson<schema::NewBatch>,
    ) -> Result<JsonResponse<schema::Batch, 201>, Problem> {
        let OptionalJson(Json { value, digest }) = body;
        let mut fields = upload_fields::UploadFields::default();
        if let Some(metadata) = &value.metadata {
            fields.set("metadata", &metadata.to_string())?;
        }
        let (app, owner) = (state.app.clone(), caller.0.owner.clone());
        let work = async move |keep| {
            let metadata = fields.metadata.unwrap_or_else(|| serde_json::json!({}));
            let (db, clock) = (&app.db, &app.clock);
            Ok(batches::create(db, clock, owner, metadata, keep).await?)
        };
        idempotent
            .once(&state, &caller.0, digest, opened, work)
            .await
    }

    /// Get a batch
    #[oai(path = "/batches/:id", method = "get", operation_id = "getBatch")]
    async fn get(
        &self,
        caller: Reader,
        state: Data<&ApiState>,
        id: Path<Uuid>,
    ) -> Result<JsonResponse<schema::Batch>, Problem> {
        let row = find(&state, &caller.0.sees(), BatchId(id.0)).await?;
        JsonResponse::new(&schema::Batch::from(row))
    }

    /// List the files of a batch
    ///
    /// Newest first.
    #[oai(
        path = "/batches/:id/files",
        method = "get",
        operation_id = "listBatchFiles"
    )]
    async fn files(
        &self,
        caller: Reader,
        state: Data<&ApiState>,
        id: Path<Uuid>,
        /// The maximum number of items; 50 by default.
        #[oai(validator(minimum(value = "1"), maximum(value = "200")))]
        limit: Query<Option<u64>>,
        /// The `next_cursor` of the previous page.
        cursor: Query<Option<String>>,
    ) -> Result<PageResponse<schema::File>, Problem> {
        let page = PageRequest::decode(limit.0.unwrap_or(DEFAULT_LIMIT), cursor.0.as_deref())?;
        let scope = caller.0.sees();
        let batch = find(&state, &scope, BatchId(id.0)).await?;
        let filter = FileFilter {
            batch_id: Some(batch.id),
            ..FileFilter::default()
        };
        list(&state, scope, filter, page).await
    }

    /// Close a batch
    ///
    /// It accepts no more files, and is announced once all its files are final. Closing a closed batch has no effect.
    #[oai(
        path = "/batches/:id/finalize",
        method = "post",
        operation_id = "finalizeBatch"
    )]
    async fn finalize(
        &self,
        caller: Uploader,
        state: Data<&ApiState>,
        id: Path<Uuid>,
    ) -> Result<JsonResponse<schema::Batch, 202>, Problem> {
        let (app, scope) = (state.app.clone(), caller.0.sees());
        detached(async move {
            let (db, clock) = (&app.db, &app.clock);
            let (row, written) = batches::finalize(db, clock, &scope, BatchId(id.0)).await?;
            if let Some(written) = written {
                app.dispatch.deliver(&written.due).await;
            }
            JsonResponse::new(&schema::Batch::from(row))
        })
        .await
    }
}

fn opened(row: &batch::Model) -> Result<JsonResponse<schema::Batch, 201>, Problem> {
    let location = format!("/v1/batches/{}", row.id);
    JsonResponse::new(&schema::Batch::from(row.clone()))?.with(header::LOCATION, &location)
}

async fn find(state: &ApiState, scope: &OwnerScope, id: BatchId) -> Result<batch::Model, Problem> {
    let found = batches::get(state.app.db.read(), scope, id).await?;
    found.ok_or_else(|| Problem::not_found("batch"))
}
