//! Pages of lists, streamed in steps.
//!
//! Clients determine the size of items (metadata, names, webhook responses), so a page is limited in bytes as well as
//! items, and never held completely: a few rows are read, serialized and sent before the next are read. A client that
//! does not read its response holds one step of it.

use super::{problem::Problem, response::JsonResponse, schema};
use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use http::{HeaderValue, header};
use landfall_core::pagination::{Page, PageRequest};
use poem::{Body, IntoResponse, Response};
use poem_openapi::{
    ApiResponse,
    registry::{MetaResponses, Registry},
    types::{ParseFromJSON, ToJSON, Type},
};
use serde::Serialize;
use std::{fmt, io, marker::PhantomData};

/// A page ends, with a next cursor, after the step that reaches this size, in bytes.
const MAX_PAGE_BYTES: usize = 1024 * 1024;

/// Rows read in the first step, when their size is unknown.
const FIRST_STEP_ROWS: u64 = 8;

/// Target size of a step, in bytes, and its maximum number of rows.
const TARGET_STEP_BYTES: usize = 64 * 1024;
const MAX_STEP_ROWS: u64 = 64;

/// A page that is streamed to the client.
pub(super) struct PageResponse<T> {
    body: Body,
    of: PhantomData<fn() -> T>,
}

impl<T> fmt::Debug for PageResponse<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageResponse").finish_non_exhaustive()
    }
}

type StepFuture<T> = BoxFuture<'static, Result<Page<T>, Problem>>;

/// What remains to be read and sent.
struct RemainingPage<T> {
    read: Box<dyn Fn(PageRequest) -> StepFuture<T> + Send + Sync>,
    /// Where the next step starts; `None` once the page is complete.
    next: Option<PageRequest>,
    /// Maximum number of remaining items.
    wanted: u64,
    sent_items: u64,
    sent_bytes: usize,
}

impl<T: Serialize + Send + 'static> PageResponse<T> {
    /// Streams the page; `read` reads the requested number of rows.
    ///
    /// # Errors
    /// Errors of the first step. A later error aborts the response.
    pub(super) async fn read<F>(
        request: PageRequest,
        read: impl Fn(PageRequest) -> F + Send + Sync + 'static,
    ) -> Result<Self, Problem>
    where
        F: Future<Output = Result<Page<T>, Problem>> + Send + 'static,
    {
        let mut rest = RemainingPage {
            read: Box::new(move |request| read(request).boxed()),
            next: Some(request),
            wanted: request.limit,
            sent_items: 0,
            sent_bytes: 0,
        };
        let mut first = br#"{"items":["#.to_vec();
        first.extend(rest.step(request).await?);
        let first = stream::iter([Ok::<_, io::Error>(Bytes::from(first))]);
        let later = stream::try_unfold(rest, |mut rest| async move {
            let Some(next) = rest.next else {
                return Ok(None);
            };
            let step = rest.step(next).await.map_err(|problem| {
                tracing::warn!(causes = problem.causes(), "a list response was aborted");
                io::Error::other("the rest of the list could not be read")
            })?;
            Ok(Some((Bytes::from(step), rest)))
        });
        Ok(Self {
            body: Body::from_bytes_stream(first.chain(later)),
            of: PhantomData,
        })
    }
}

impl<T: Serialize> RemainingPage<T> {
    /// Returns the next items as JSON, and the end of the page after the last.
    async fn step(&mut self, from: PageRequest) -> Result<Vec<u8>, Problem> {
        let limit = self.step_size();
        let page = (self.read)(PageRequest { limit, ..from }).await?;
        let mut json = Vec::new();
        for item in &page.items {
            if self.sent_items > 0 {
                json.push(b',');
            }
            serde_json::to_writer(&mut json, item).map_err(Problem::failed)?;
            self.sent_items += 1;
        }
        self.wanted -= (page.items.len() as u64).min(self.wanted);
        self.sent_bytes += json.len();
        let looked_enough = (page.items.len() as u64) < limit;
        let full = self.wanted == 0 || self.sent_bytes >= MAX_PAGE_BYTES;
        self.next = match &page.next_cursor {
            Some(cursor) if !looked_enough && !full => {
                Some(PageRequest::decode(limit, Some(cursor))?)
            }
            _ => None,
        };
        if self.next.is_none() {
            json.extend_from_slice(br#"],"next_cursor":"#);
            serde_json::to_writer(&mut json, &page.next_cursor).map_err(Problem::failed)?;
            json.push(b'}');
        }
        Ok(json)
    }

    /// Reads fewer rows if the previous ones were large.
    fn step_size(&self) -> u64 {
        let fits = match usize::try_from(self.sent_items) {
            Ok(items @ 1..) => (TARGET_STEP_BYTES / (self.sent_bytes / items).max(1)) as u64,
            _ => FIRST_STEP_ROWS,
        };
        fits.clamp(1, MAX_STEP_ROWS).min(self.wanted.max(1))
    }
}

impl<T> IntoResponse for PageResponse<T> {
    fn into_response(self) -> Response {
        let mut response = Response::builder().body(self.body);
        for (name, value) in [
            (header::CONTENT_TYPE, "application/json"),
            (header::CACHE_CONTROL, "private, no-cache"),
        ] {
            let value = HeaderValue::from_static(value);
            response.headers_mut().insert(name, value);
        }
        response
    }
}

impl<T: Type + ParseFromJSON + ToJSON> ApiResponse for PageResponse<T> {
    fn meta() -> MetaResponses {
        JsonResponse::<schema::Page<T>>::meta()
    }

    fn register(registry: &mut Registry) {
        JsonResponse::<schema::Page<T>>::register(registry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    use serde_json::Value;
    use std::sync::{Arc, Mutex};
    use uuid::Uuid;

    /// Returns a page of a list of texts of this length, and the number of rows of each read.
    async fn page(texts: u128, length: usize, limit: u64) -> (Value, Vec<u64>) {
        let steps: Arc<Mutex<Vec<u64>>> = Arc::default();
        let seen = Arc::clone(&steps);
        let read = move |request: PageRequest| {
            seen.lock().unwrap().push(request.limit);
            let end = request.before.map_or(texts, |id| id.as_u128());
            let begin = end.saturating_sub(u128::from(request.limit));
            let items = (begin..end).rev().map(|_| "x".repeat(length)).collect();
            let cursor = URL_SAFE_NO_PAD.encode(Uuid::from_u128(begin));
            let next_cursor = (begin > 0).then_some(cursor);
            async move { Ok(Page { items, next_cursor }) }
        };
        let request = PageRequest {
            limit,
            before: None,
        };
        let answer = PageResponse::read(request, read).await.unwrap();
        let body = answer.into_response().into_body().into_string().await;
        let steps = steps.lock().unwrap().clone();
        (serde_json::from_str(&body.unwrap()).unwrap(), steps)
    }

    #[tokio::test]
    async fn small_items_come_in_full_pages() {
        let (first, _) = page(300, 500, 200).await;
        assert_eq!(first["items"].as_array().unwrap().len(), 200);
        assert!(first["next_cursor"].is_string());
        let (only, _) = page(200, 500, 200).await;
        assert_eq!(only["items"].as_array().unwrap().len(), 200);
        assert!(only["next_cursor"].is_null());
        let (none, _) = page(0, 0, 200).await;
        assert_eq!(none, serde_json::json!({"items": [], "next_cursor": null}));
        let (one, steps) = page(300, 500, 1).await;
        assert_eq!(one["items"].as_array().unwrap().len(), 1);
        assert_eq!(steps, [1]);
    }

    #[tokio::test]
    async fn large_items_come_a_few_at_a_time_and_end_the_page() {
        let (first, steps) = page(300, 16 * 1024, 200).await;
        let items = first["items"].as_array().unwrap().len();
        assert!((64..72).contains(&items), "{items}");
        assert!(first["next_cursor"].is_string());
        assert!(
            steps.iter().all(|rows| *rows <= FIRST_STEP_ROWS),
            "{steps:?}"
        );
    }
}
