//! `/v1/batches`.

use super::{
    auth::{Reader, Uploader},
    files::{list, upload_fields},
    idempotency::{Idempotent, detached},
    json::{Json, MaybeJson},
    page_stream::PageAnswer,
    problem::Problem,
    response::JsonResponse,
    schema,
    state::State,
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

/// Files that belong together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batches;

#[OpenApi(prefix_path = "/v1")]
impl Batches {
    /// Open a batch
    #[oai(path = "/batches", method = "post", operation_id = "createBatch")]
    async fn create(
        &self,
        caller: Uploader,
        state: Data<&State>,
        idempotent: Idempotent,
        body: MaybeJson<schema::NewBatch>,
    ) -> Result<JsonResponse<schema::Batch, 201>, Problem> {
        let MaybeJson(Json { value, digest }) = body;
        let mut said = upload_fields::Said::default();
        if let Some(metadata) = &value.metadata {
            said.take("metadata", &metadata.to_string())?;
        }
        let (app, owner) = (state.app.clone(), caller.0.owner.clone());
        let work = async move |keep| {
            let metadata = said.metadata.unwrap_or_else(|| serde_json::json!({}));
            let (db, clock) = (&app.db, &app.clock);
            Ok(batches::create(db, clock, owner, metadata, keep).await?)
        };
        idempotent
            .once(&state, &caller.0, digest, opened, work)
            .await
    }

    /// See a batch
    #[oai(path = "/batches/:id", method = "get", operation_id = "getBatch")]
    async fn get(
        &self,
        caller: Reader,
        state: Data<&State>,
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
        state: Data<&State>,
        id: Path<Uuid>,
        /// How many; 50 when absent.
        #[oai(validator(minimum(value = "1"), maximum(value = "200")))]
        limit: Query<Option<u64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<String>>,
    ) -> Result<PageAnswer<schema::File>, Problem> {
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
    /// It takes no further file, and is announced once its last is final. Closing it again changes nothing.
    #[oai(
        path = "/batches/:id/finalize",
        method = "post",
        operation_id = "finalizeBatch"
    )]
    async fn finalize(
        &self,
        caller: Uploader,
        state: Data<&State>,
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

async fn find(state: &State, scope: &OwnerScope, id: BatchId) -> Result<batch::Model, Problem> {
    let found = batches::get(state.app.db.read(), scope, id).await?;
    found.ok_or_else(|| Problem::not_found("batch"))
}
