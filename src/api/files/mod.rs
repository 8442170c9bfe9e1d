//! `/v1/files`.

mod content;
mod multipart;
mod raw_body;
mod staged_body;
mod upload;
pub(super) mod upload_fields;

use super::{
    auth::{Reader, Uploader},
    conditional,
    idempotency::IdempotentRequest,
    middleware::TraceParent,
    page_stream::PageResponse,
    problem::{Code, Problem},
    response::{JsonResponse, NoContent},
    schema,
    state::ApiState,
};
pub(crate) use content::{Download, download};
use entity::{
    BatchId, FileId,
    file::{self, FileStatus},
};
use http::header;
use landfall_core::{
    digest::Sha256Digest,
    files::{self, FileFilter, OwnerScope},
    pagination::{DEFAULT_LIMIT, Page, PageRequest},
    storage::StorageKey,
};
pub(super) use multipart::FormError;
use poem::{Request, web::Data};
use poem_openapi::{
    OpenApi,
    param::{Path, Query},
};
pub(super) use raw_body::QueryFields;
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, sleep_until};
pub(super) use upload::{UploadRequest, declared, receive};
use uuid::Uuid;

/// Maximum `wait`, in seconds.
const MAX_WAIT_SECS: u64 = 60;

/// The first and the maximum interval at which a waiting request polls the database.
const POLL_INTERVALS: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(1));

/// Maximum length of a search, in characters.
const MAX_SEARCH_LEN: usize = 255;

/// Uploading, listing, downloading and deleting files.
#[derive(Clone, Copy, Debug)]
pub(super) struct Files;

#[OpenApi(prefix_path = "/v1")]
impl Files {
    /// Upload a file
    ///
    /// As `multipart/form-data` with one `file` part, or as the raw body with `?filename=` or `Content-Disposition`.
    /// The file is staged and its row committed before the response; a job then stores it.
    #[oai(path = "/files", method = "post", operation_id = "createFile")]
    #[expect(clippy::too_many_arguments, reason = "each is a parameter of the API")]
    async fn create(
        &self,
        caller: Uploader,
        state: Data<&ApiState>,
        idempotent: IdempotentRequest,
        request: &Request,
        /// The file name, if the body is the file.
        filename: Query<Option<String>>,
        /// A JSON object of up to 16 KiB, if the body is the file.
        metadata: Query<Option<String>>,
        /// The open batch to add the file to, if the body is the file.
        batch_id: Query<Option<String>>,
        /// The expected SHA-256 of the file in hexadecimal, if the body is the file.
        sha256: Query<Option<String>>,
        /// Seconds after which the file is deleted, if the body is the file.
        expires_in: Query<Option<String>>,
        upload: UploadRequest,
    ) -> Result<JsonResponse<schema::File, 202>, Problem> {
        let given = QueryFields {
            filename: filename.0,
            metadata: metadata.0,
            batch_id: batch_id.0,
            sha256: sha256.0,
            expires_in: expires_in.0,
            unnamed: None,
        };
        let trace = request.data::<TraceParent>().map(|trace| trace.0.clone());
        receive(&state, &caller.0, None, &idempotent, upload, given, trace).await
    }

    /// List files
    ///
    /// Newest first. A search for a name prefix that thousands of files share is sorted by name instead. A page with
    /// several filters may be short and still have a next page.
    #[oai(path = "/files", method = "get", operation_id = "listFiles")]
    #[expect(clippy::too_many_arguments, reason = "each is a parameter of the API")]
    async fn list(
        &self,
        caller: Reader,
        state: Data<&ApiState>,
        status: Query<Option<schema::FileStatus>>,
        batch_id: Query<Option<Uuid>>,
        /// The SHA-256 of the stored bytes, in hexadecimal.
        sha256: Query<Option<String>>,
        /// An id, a SHA-256, or a name prefix (case-insensitive).
        q: Query<Option<String>>,
        /// The maximum number of items; 50 by default.
        #[oai(validator(minimum(value = "1"), maximum(value = "200")))]
        limit: Query<Option<u64>>,
        /// The `next_cursor` of the previous page.
        cursor: Query<Option<String>>,
    ) -> Result<PageResponse<schema::File>, Problem> {
        let page = PageRequest::decode(limit.0.unwrap_or(DEFAULT_LIMIT), cursor.0.as_deref())?;
        let filter = FileFilter {
            status: status.0.map(FileStatus::from),
            batch_id: batch_id.0.map(BatchId),
            sha256: sha256.0.map(hexadecimal).transpose()?,
            q: q.0.map(searchable).transpose()?,
            ..FileFilter::default()
        };
        list(&state, caller.0.sees(), filter, page).await
    }

    /// Get a file
    ///
    /// With `wait` the response is held until the file is `stored`, `failed` or `deleted`.
    #[oai(path = "/files/:id", method = "get", operation_id = "getFile")]
    async fn get(
        &self,
        caller: Reader,
        state: Data<&ApiState>,
        request: &Request,
        id: Path<Uuid>,
        /// Seconds to wait for the file to become final.
        #[oai(validator(minimum(value = "0"), maximum(value = "60")))]
        wait: Query<Option<u64>>,
    ) -> Result<JsonResponse<schema::File>, Problem> {
        let wait = Duration::from_secs(wait.0.unwrap_or(0).min(MAX_WAIT_SECS));
        let row = find_final(&state, &caller.0.sees(), FileId(id.0), wait).await?;
        let etag = etag(&row);
        let retry = !is_final(row.status);
        let mut response =
            JsonResponse::new(&to_schema(&state, row).await?)?.with(header::ETAG, &etag)?;
        if retry {
            response = response.with(header::RETRY_AFTER, "1")?;
        }
        Ok(match conditional::has_tag(request.headers(), &etag) {
            true => response.not_modified(),
            false => response,
        })
    }

    /// Download a file
    ///
    /// With storage on a file system, returns the bytes or a range of them; with S3, redirects to a signed URL.
    #[oai(
        path = "/files/:id/content",
        method = "get",
        operation_id = "getContent"
    )]
    async fn content(
        &self,
        caller: Reader,
        state: Data<&ApiState>,
        request: &Request,
        id: Path<Uuid>,
    ) -> Result<Download, Problem> {
        let row = find(&state, &caller.0.sees(), FileId(id.0)).await?;
        download(&state, row, request).await
    }

    /// Retry a failed file
    ///
    /// The file is staged again, and a job finalizes it like a new one. Possible until `retryable_until`, while its
    /// bytes are kept.
    #[oai(path = "/files/:id/retry", method = "post", operation_id = "retryFile")]
    async fn retry(
        &self,
        caller: Uploader,
        state: Data<&ApiState>,
        idempotent: IdempotentRequest,
        id: Path<Uuid>,
    ) -> Result<JsonResponse<schema::File, 202>, Problem> {
        let (app, scope, id) = (state.app.clone(), caller.0.sees(), FileId(id.0));
        let work = async move |keep| {
            let row = files::retry(&app, &scope, id, keep).await?;
            app.dispatch.finalize(&[id]).await;
            Ok(row)
        };
        let content = Sha256Digest::compute(b"");
        idempotent
            .once(&state, &caller.0, content, retried, work)
            .await
    }

    /// Delete a file
    ///
    /// The file is deleted at once; a job deletes its object. A failed file stays in the list, and its bytes are
    /// deleted.
    #[oai(path = "/files/:id", method = "delete", operation_id = "deleteFile")]
    async fn delete(
        &self,
        caller: Uploader,
        state: Data<&ApiState>,
        id: Path<Uuid>,
    ) -> Result<NoContent, Problem> {
        delete(&state, &caller.0.sees(), FileId(id.0)).await
    }
}

/// Returns a page of files, each with its URL.
pub(super) async fn list(
    state: &ApiState,
    scope: OwnerScope,
    filter: FileFilter,
    page: PageRequest,
) -> Result<PageResponse<schema::File>, Problem> {
    let (state, criteria) = (state.clone(), Arc::new((scope, filter)));
    PageResponse::read(page, move |page| {
        let (state, criteria) = (state.clone(), Arc::clone(&criteria));
        async move {
            let (scope, filter) = &*criteria;
            let rows = files::list(state.app.db.read(), scope, filter, page).await?;
            let mut items = Vec::with_capacity(rows.items.len());
            for row in rows.items {
                items.push(to_schema(&state, row).await?);
            }
            let next_cursor = rows.next_cursor;
            Ok(Page { items, next_cursor })
        }
    })
    .await
}

async fn delete(state: &ApiState, scope: &OwnerScope, id: FileId) -> Result<NoContent, Problem> {
    let app = &state.app;
    let written = files::delete(&app.db, &app.clock, scope, id).await?;
    let dispatch = &app.dispatch;
    dispatch.purge(&[id]).await;
    if let Some(written) = written {
        state.waiters.settled(id);
        dispatch.deliver(&written.due).await;
        dispatch.settled(id).await;
    }
    Ok(NoContent)
}

fn retried(row: &file::Model) -> Result<JsonResponse<schema::File, 202>, Problem> {
    let location = format!("/v1/files/{}", row.id);
    JsonResponse::new(&schema::File::from_row(row.clone(), None))?.with(header::LOCATION, &location)
}

async fn find(state: &ApiState, scope: &OwnerScope, id: FileId) -> Result<file::Model, Problem> {
    let found = files::get(state.app.db.read(), scope, id).await?;
    found.ok_or_else(|| Problem::not_found("file"))
}

/// Returns the file once it is final or the timeout has passed.
async fn find_final(
    state: &ApiState,
    scope: &OwnerScope,
    id: FileId,
    wait: Duration,
) -> Result<file::Model, Problem> {
    let until = Instant::now() + wait;
    let waiting = state.waiters.wait_for(id);
    let (mut pause, longest) = POLL_INTERVALS;
    loop {
        // Registered before the query, so that no change in between is missed.
        let woken = waiting.woken();
        let row = find(state, scope, id).await?;
        if is_final(row.status) || Instant::now() >= until || state.shutdown.stop().is_cancelled() {
            return Ok(row);
        }
        tokio::select! {
            () = woken => {}
            () = sleep(pause) => pause = (pause * 2).min(longest),
            () = sleep_until(until) => {}
            () = state.shutdown.stop().cancelled() => {}
        }
    }
}

fn is_final(status: FileStatus) -> bool {
    matches!(
        status,
        FileStatus::Stored | FileStatus::Failed | FileStatus::Deleted
    )
}

/// A weak ETag, because the URL in the response may differ each time.
fn etag(row: &file::Model) -> String {
    let status = schema::FileStatus::from(row.status) as u8;
    format!("W/\"{:x}-{status}\"", row.updated_at.timestamp_micros())
}

/// Converts the file to its API type, with a fresh URL.
pub(super) async fn to_schema(state: &ApiState, row: file::Model) -> Result<schema::File, Problem> {
    let key = row
        .storage_key
        .as_ref()
        .filter(|_| row.status == FileStatus::Stored);
    let url = match key {
        Some(key) => Some(
            state
                .app
                .url_of(row.id, &key.parse::<StorageKey>()?)
                .await?,
        ),
        None => None,
    };
    Ok(schema::File::from_row(row, url))
}

fn hexadecimal(text: String) -> Result<String, Problem> {
    let digest = text.parse::<Sha256Digest>();
    digest
        .map(|digest| digest.to_string())
        .map_err(|error| Problem::field(Code::MalformedRequest, "sha256", error.to_string()))
}

fn searchable(text: String) -> Result<String, Problem> {
    if text.chars().count() <= MAX_SEARCH_LEN && !text.contains('\0') {
        return Ok(text);
    }
    let allowed = format!("must be text of at most {MAX_SEARCH_LEN} characters");
    Err(Problem::field(Code::MalformedRequest, "q", allowed))
}
