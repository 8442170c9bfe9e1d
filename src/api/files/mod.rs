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
    idempotency::Idempotent,
    middleware::TraceParent,
    page_stream::PageAnswer,
    problem::{Code, Problem},
    response::{JsonResponse, NoContent},
    schema,
    state::State,
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
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, sleep_until};
use upload::Upload;
pub(super) use upload::declared;
use uuid::Uuid;

/// How long the longest `wait` waits, in seconds.
const LONGEST_WAIT: u64 = 60;

/// When a request that waits first looks by itself, and how seldom it ends up looking.
const LOOK: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(1));

/// The longest search, in characters.
const LONGEST_SEARCH: usize = 255;

/// Taking files in, seeing, fetching and deleting them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Files;

#[OpenApi(prefix_path = "/v1")]
impl Files {
    /// Take in a file
    ///
    /// As `multipart/form-data` with one `file` part, or as the raw body with `?filename=` or `Content-Disposition`.
    /// The file is staged and its row committed before the answer; it is stored by a job.
    #[oai(path = "/files", method = "post", operation_id = "createFile")]
    #[expect(clippy::too_many_arguments, reason = "each is a parameter of the API")]
    async fn create(
        &self,
        caller: Uploader,
        state: Data<&State>,
        idempotent: Idempotent,
        request: &Request,
        /// The name, when the body is the file.
        filename: Query<Option<String>>,
        /// A JSON object of up to 16 KiB, when the body is the file.
        metadata: Query<Option<String>>,
        /// An open batch the file belongs to, when the body is the file.
        batch_id: Query<Option<String>>,
        /// What the file's SHA-256 must be, in hexadecimal, when the body is the file.
        sha256: Query<Option<String>>,
        /// Seconds after which the file is deleted, when the body is the file.
        expires_in: Query<Option<String>>,
        upload: Upload,
    ) -> Result<JsonResponse<schema::File, 202>, Problem> {
        let given = raw_body::Parameters {
            filename: filename.0,
            metadata: metadata.0,
            batch_id: batch_id.0,
            sha256: sha256.0,
            expires_in: expires_in.0,
        };
        let trace = request.data::<TraceParent>().map(|trace| trace.0.clone());
        upload::take_in(&state, &caller.0, &idempotent, upload, given, trace).await
    }

    /// List files
    ///
    /// Newest first; what begins with a name that thousands have, in the order of the names. With several filters a
    /// page may be short and still have a next one.
    #[oai(path = "/files", method = "get", operation_id = "listFiles")]
    #[expect(clippy::too_many_arguments, reason = "each is a parameter of the API")]
    async fn list(
        &self,
        caller: Reader,
        state: Data<&State>,
        status: Query<Option<schema::FileStatus>>,
        batch_id: Query<Option<Uuid>>,
        /// Of the stored bytes, in hexadecimal.
        sha256: Query<Option<String>>,
        /// An id, a SHA-256, or the beginning of a name in any case.
        q: Query<Option<String>>,
        /// How many; 50 when absent.
        #[oai(validator(minimum(value = "1"), maximum(value = "200")))]
        limit: Query<Option<u64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<String>>,
    ) -> Result<PageAnswer<schema::File>, Problem> {
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

    /// See a file
    ///
    /// With `wait` the answer is held until the file is `stored`, `failed` or `deleted`.
    #[oai(path = "/files/:id", method = "get", operation_id = "getFile")]
    async fn get(
        &self,
        caller: Reader,
        state: Data<&State>,
        request: &Request,
        id: Path<Uuid>,
        /// Seconds to wait for the file to become final.
        #[oai(validator(minimum(value = "0"), maximum(value = "60")))]
        wait: Query<Option<u64>>,
    ) -> Result<JsonResponse<schema::File>, Problem> {
        let wait = Duration::from_secs(wait.0.unwrap_or(0).min(LONGEST_WAIT));
        let row = find_final(&state, &caller.0.sees(), FileId(id.0), wait).await?;
        let etag = etag(&row);
        let retry = !is_final(row.status);
        let mut answer =
            JsonResponse::new(&to_wire(&state, row).await?)?.with(header::ETAG, &etag)?;
        if retry {
            answer = answer.with(header::RETRY_AFTER, "1")?;
        }
        Ok(match conditional::has_tag(request.headers(), &etag) {
            true => answer.not_modified(),
            false => answer,
        })
    }

    /// Fetch a file's bytes
    ///
    /// From storage on a filesystem the bytes themselves, or a range of them; from S3 a redirect to a signed URL.
    #[oai(
        path = "/files/:id/content",
        method = "get",
        operation_id = "getContent"
    )]
    async fn content(
        &self,
        caller: Reader,
        state: Data<&State>,
        request: &Request,
        id: Path<Uuid>,
    ) -> Result<Download, Problem> {
        let row = find(&state, &caller.0.sees(), FileId(id.0)).await?;
        download(&state, row, request).await
    }

    /// Retry a failed file
    ///
    /// It is staged again, and finalized by a job like a new one. Possible until `retryable_until`, while its bytes
    /// are kept.
    #[oai(path = "/files/:id/retry", method = "post", operation_id = "retryFile")]
    async fn retry(
        &self,
        caller: Uploader,
        state: Data<&State>,
        idempotent: Idempotent,
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
    /// It is gone at once; its object is removed by a job. A failed file stays in the list, and its bytes are removed.
    #[oai(path = "/files/:id", method = "delete", operation_id = "deleteFile")]
    async fn delete(
        &self,
        caller: Uploader,
        state: Data<&State>,
        id: Path<Uuid>,
    ) -> Result<NoContent, Problem> {
        delete(&state, &caller.0.sees(), FileId(id.0)).await
    }
}

/// A page of files, each with its URL.
pub(super) async fn list(
    state: &State,
    scope: OwnerScope,
    filter: FileFilter,
    page: PageRequest,
) -> Result<PageAnswer<schema::File>, Problem> {
    let (state, asked) = (state.clone(), Arc::new((scope, filter)));
    PageAnswer::read(page, move |page| {
        let (state, asked) = (state.clone(), Arc::clone(&asked));
        async move {
            let (scope, filter) = &*asked;
            let rows = files::list(state.app.db.read(), scope, filter, page).await?;
            let mut items = Vec::with_capacity(rows.items.len());
            for row in rows.items {
                items.push(to_wire(&state, row).await?);
            }
            let next_cursor = rows.next_cursor;
            Ok(Page { items, next_cursor })
        }
    })
    .await
}

async fn delete(state: &State, scope: &OwnerScope, id: FileId) -> Result<NoContent, Problem> {
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
    JsonResponse::new(&schema::File::of(row.clone(), None))?.with(header::LOCATION, &location)
}

async fn find(state: &State, scope: &OwnerScope, id: FileId) -> Result<file::Model, Problem> {
    let found = files::get(state.app.db.read(), scope, id).await?;
    found.ok_or_else(|| Problem::not_found("file"))
}

/// The file, once it is final or the time is over.
async fn find_final(
    state: &State,
    scope: &OwnerScope,
    id: FileId,
    wait: Duration,
) -> Result<file::Model, Problem> {
    let until = Instant::now() + wait;
    let waiting = state.waiters.wait_for(id);
    let (mut pause, longest) = LOOK;
    loop {
        // Asked for before the look, so that nothing falls in between.
        let woken = waiting.woken();
        let row = find(state, scope, id).await?;
        if is_final(row.status) || Instant::now() >= until || state.stop.is_cancelled() {
            return Ok(row);
        }
        tokio::select! {
            () = woken => {}
            () = sleep(pause) => pause = (pause * 2).min(longest),
            () = sleep_until(until) => {}
            () = state.stop.cancelled() => {}
        }
    }
}

fn is_final(status: FileStatus) -> bool {
    matches!(
        status,
        FileStatus::Stored | FileStatus::Failed | FileStatus::Deleted
    )
}

/// Weak: the URL in it may be another each time.
fn etag(row: &file::Model) -> String {
    let status = schema::FileStatus::from(row.status) as u8;
    format!("W/\"{:x}-{status}\"", row.updated_at.timestamp_micros())
}

/// The file with its URL, made now.
pub(super) async fn to_wire(state: &State, row: file::Model) -> Result<schema::File, Problem> {
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
    Ok(schema::File::of(row, url))
}

fn hexadecimal(text: String) -> Result<String, Problem> {
    let digest = text.parse::<Sha256Digest>();
    digest
        .map(|digest| digest.to_string())
        .map_err(|error| Problem::field(Code::MalformedRequest, "sha256", error.to_string()))
}

fn searchable(text: String) -> Result<String, Problem> {
    if text.chars().count() <= LONGEST_SEARCH && !text.contains('\0') {
        return Ok(text);
    }
    let allowed = format!("up to {LONGEST_SEARCH} characters of text are allowed");
    Err(Problem::field(Code::MalformedRequest, "q", allowed))
}
