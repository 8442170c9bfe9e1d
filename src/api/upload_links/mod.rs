//! `/v1/upload-links`: links that a backend creates for its users.

mod access;
mod public;

use super::{
    auth::{Reader, Uploader},
    files::upload_fields::UploadFields,
    idempotency::IdempotentRequest,
    json::OptionalJson,
    page_stream::PageResponse,
    problem::Problem,
    response::{JsonResponse, NoContent},
    schema,
    state::ApiState,
};
pub(super) use access::{LinkAccess, is_link_path, look_up};
use entity::{BatchId, UploadLinkId};
use http::header;
use landfall_core::{
    app::App,
    files::OwnerScope,
    pagination::{DEFAULT_LIMIT, Page, PageRequest},
    upload_links::{self, NewUploadLink, UploadLink},
};
use poem::web::Data;
use poem_openapi::{
    OpenApi,
    param::{Path, Query},
};
pub(super) use public::Links;
use secrecy::{ExposeSecret, SecretString};
use std::time::Duration;
use uuid::Uuid;

/// Lifetime of a link whose creation names none.
const DEFAULT_LIFETIME: u64 = 60 * 60;

/// Upload links.
#[derive(Clone, Copy, Debug)]
pub(super) struct UploadLinks;

#[OpenApi(prefix_path = "/v1")]
impl UploadLinks {
    /// Create an upload link
    ///
    /// Give its `url` to a browser or a phone, which can send files without a token. The URL contains a secret and is
    /// not shown again.
    #[oai(
        path = "/upload-links",
        method = "post",
        operation_id = "createUploadLink"
    )]
    async fn create(
        &self,
        caller: Uploader,
        state: Data<&ApiState>,
        idempotent: IdempotentRequest,
        body: OptionalJson<schema::NewUploadLink>,
    ) -> Result<JsonResponse<schema::UploadLink, 201>, Problem> {
        let body = body.0;
        let new = requested(caller.0.owner.clone(), body.value)?;
        let app = state.app.clone();
        let work = async move |keep| Ok(upload_links::create(&app, new, keep).await?);
        idempotent
            .once(&state, &caller.0, body.digest, created, work)
            .await
    }

    /// List upload links
    ///
    /// Newest first, including those that are used up, expired or revoked, without their URLs. A link is listed for a
    /// week after its expiry.
    #[oai(
        path = "/upload-links",
        method = "get",
        operation_id = "listUploadLinks"
    )]
    async fn list(
        &self,
        caller: Reader,
        state: Data<&ApiState>,
        /// The maximum number of items; 50 by default.
        #[oai(validator(minimum(value = "1"), maximum(value = "200")))]
        limit: Query<Option<u64>>,
        /// The `next_cursor` of the previous page.
        cursor: Query<Option<String>>,
    ) -> Result<PageResponse<schema::UploadLink>, Problem> {
        let page = PageRequest::decode(limit.0.unwrap_or(DEFAULT_LIMIT), cursor.0.as_deref())?;
        let (app, scope) = (state.app.clone(), caller.0.sees());
        PageResponse::read(page, move |page| {
            let (app, scope) = (app.clone(), scope.clone());
            async move { page_of(&app, &scope, page).await }
        })
        .await
    }

    /// Get an upload link
    ///
    /// With the files that were sent by it, and without its URL.
    #[oai(
        path = "/upload-links/:id",
        method = "get",
        operation_id = "getUploadLink"
    )]
    async fn get(
        &self,
        caller: Reader,
        state: Data<&ApiState>,
        id: Path<Uuid>,
    ) -> Result<JsonResponse<schema::UploadLink>, Problem> {
        let (app, scope) = (&state.app, caller.0.sees());
        let link = upload_links::get(&app.db, &scope, UploadLinkId(id.0)).await?;
        JsonResponse::new(&to_schema(app, link).await?)
    }

    /// Revoke an upload link
    ///
    /// It is refused from the next request on. Files that were accepted stay.
    #[oai(
        path = "/upload-links/:id",
        method = "delete",
        operation_id = "revokeUploadLink"
    )]
    async fn revoke(
        &self,
        caller: Uploader,
        state: Data<&ApiState>,
        id: Path<Uuid>,
    ) -> Result<NoContent, Problem> {
        let app = &state.app;
        let id = UploadLinkId(id.0);
        upload_links::revoke(&app.db, &app.clock, &caller.0.sees(), id).await?;
        Ok(NoContent)
    }
}

fn requested(
    owner: Option<String>,
    value: schema::NewUploadLink,
) -> Result<NewUploadLink, Problem> {
    let mut fields = UploadFields::default();
    if let Some(metadata) = &value.metadata {
        fields.set("metadata", &metadata.to_string())?;
    }
    Ok(NewUploadLink {
        owner,
        lifetime: Duration::from_secs(value.expires_in.unwrap_or(DEFAULT_LIFETIME)),
        max_files: u32::try_from(value.max_files.unwrap_or(1)).unwrap_or(u32::MAX),
        max_size: value.max_size_bytes,
        allowed_types: value.allowed_types.unwrap_or_default(),
        batch_id: value.batch_id.map(BatchId),
        metadata: fields.metadata.unwrap_or_else(|| serde_json::json!({})),
        cors_origins: value.cors_origins.unwrap_or_default(),
    })
}

fn created(
    created: &(UploadLink, SecretString),
) -> Result<JsonResponse<schema::UploadLink, 201>, Problem> {
    let (link, url) = created;
    let (id, url, now) = (link.id, url.expose_secret(), link.created_at);
    let shown = schema::UploadLink {
        url: Some(url.to_owned()),
        tus_url: Some(format!("{url}/tus")),
        ..schema::UploadLink::from_link(link.clone(), Vec::new(), now)
    };
    JsonResponse::new(&shown)?
        .sealed()
        .with(header::LOCATION, &format!("/v1/upload-links/{id}"))
}

async fn page_of(
    app: &App,
    scope: &OwnerScope,
    page: PageRequest,
) -> Result<Page<schema::UploadLink>, Problem> {
    let page = upload_links::list(&app.db, scope, page).await?;
    let ids: Vec<UploadLinkId> = page.items.iter().map(|link| link.id).collect();
    let mut files = upload_links::files_of(app.db.read(), &ids).await?;
    let now = app.clock.now();
    Ok(page.map(|link| {
        let sent = files.remove(&link.id).unwrap_or_default();
        schema::UploadLink::from_link(link, schema::LinkFile::from_rows(sent), now)
    }))
}

/// Converts a link to its API type, with its files.
async fn to_schema(app: &App, link: UploadLink) -> Result<schema::UploadLink, Problem> {
    let mut files = upload_links::files_of(app.db.read(), &[link.id]).await?;
    let sent = files.remove(&link.id).unwrap_or_default();
    let files = schema::LinkFile::from_rows(sent);
    Ok(schema::UploadLink::from_link(link, files, app.clock.now()))
}
