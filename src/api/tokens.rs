//! `/v1/tokens`: bearer tokens, managed by administrators.

use super::{
    auth::Admin,
    idempotency::IdempotentRequest,
    json::Json,
    page_stream::PageResponse,
    problem::{Code, FieldError, Problem},
    response::{JsonResponse, NoContent},
    schema,
    state::ApiState,
};
use entity::TokenId;
use http::header;
use landfall_core::{
    pagination::{DEFAULT_LIMIT, PageRequest},
    tokens::{self, Token, TokenScope},
};
use poem::web::Data;
use poem_openapi::{
    OpenApi,
    param::{Path, Query},
};
use secrecy::{ExposeSecret, SecretString};
use std::time::Duration;
use uuid::Uuid;

/// Maximum lifetime of a token, in seconds: a hundred years of 365 days.
const MAX_LIFETIME: u64 = 100 * 365 * 24 * 60 * 60;

/// Bearer tokens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tokens;

#[OpenApi(prefix_path = "/v1")]
impl Tokens {
    /// Create a token
    ///
    /// The response contains the token. It is not shown again.
    #[oai(path = "/tokens", method = "post", operation_id = "createToken")]
    async fn create(
        &self,
        caller: Admin,
        state: Data<&ApiState>,
        idempotent: IdempotentRequest,
        body: Json<schema::NewToken>,
    ) -> Result<JsonResponse<schema::Token, 201>, Problem> {
        let Json { value, digest } = body;
        let (scopes, lifetime) = validate(&value)?;
        let app = state.app.clone();
        let work = async move |keep| {
            let (db, clock) = (&app.db, &app.clock);
            Ok(tokens::create_idempotent(db, clock, &value.owner, &scopes, lifetime, keep).await?)
        };
        idempotent
            .once(&state, &caller.0, digest, created, work)
            .await
    }

    /// List tokens
    ///
    /// Newest first, revoked and expired ones included, without their secrets.
    #[oai(path = "/tokens", method = "get", operation_id = "listTokens")]
    async fn list(
        &self,
        _caller: Admin,
        state: Data<&ApiState>,
        /// The maximum number of items; 50 by default.
        #[oai(validator(minimum(value = "1"), maximum(value = "200")))]
        limit: Query<Option<u64>>,
        /// The `next_cursor` of the previous page.
        cursor: Query<Option<String>>,
    ) -> Result<PageResponse<schema::Token>, Problem> {
        let page = PageRequest::decode(limit.0.unwrap_or(DEFAULT_LIMIT), cursor.0.as_deref())?;
        let db = state.app.db.clone();
        PageResponse::read(page, move |page| {
            let db = db.clone();
            async move { Ok(tokens::list(&db, page).await?.map(schema::Token::from)) }
        })
        .await
    }

    /// Revoke a token
    ///
    /// It is refused from the next request on.
    #[oai(path = "/tokens/:id", method = "delete", operation_id = "revokeToken")]
    async fn revoke(
        &self,
        _caller: Admin,
        state: Data<&ApiState>,
        id: Path<Uuid>,
    ) -> Result<NoContent, Problem> {
        let app = &state.app;
        tokens::revoke(&app.db, &app.clock, TokenId(id.0)).await?;
        Ok(NoContent)
    }
}

/// The scopes and the lifetime; every invalid field is reported at once.
fn validate(new: &schema::NewToken) -> Result<(Vec<TokenScope>, Option<Duration>), Problem> {
    let mut faults = Vec::new();
    if let Err(error) = tokens::validate_owner(&new.owner) {
        faults.push(FieldError::new("owner", error.to_string()));
    }
    let scopes: Result<Vec<TokenScope>, _> = new.scopes.iter().map(|name| name.parse()).collect();
    match &scopes {
        Ok(scopes) if scopes.is_empty() => {
            let allowed = "must contain at least one of upload, read, admin";
            faults.push(FieldError::new("scopes", allowed));
        }
        Ok(_) => {}
        Err(unknown) => faults.push(FieldError::new("scopes", unknown.to_string())),
    }
    if new
        .expires_in
        .is_some_and(|seconds| !(1..=MAX_LIFETIME).contains(&seconds))
    {
        let allowed = format!("must be a number of seconds from 1 to {MAX_LIFETIME}");
        faults.push(FieldError::new("expires_in", allowed));
    }
    match scopes {
        Ok(scopes) if faults.is_empty() => Ok((scopes, new.expires_in.map(Duration::from_secs))),
        _ => {
            let detail = "Some fields of the token are invalid, listed in `errors`.";
            let mut problem = Problem::new(Code::MalformedRequest, detail);
            problem.errors = faults;
            Err(problem)
        }
    }
}

fn created(created: &(Token, SecretString)) -> Result<JsonResponse<schema::Token, 201>, Problem> {
    let (token, secret) = created;
    let shown = schema::Token {
        token: Some(secret.expose_secret().to_owned()),
        ..token.clone().into()
    };
    let location = format!("/v1/tokens/{}", token.id);
    JsonResponse::new(&shown)?
        .sealed()
        .with(header::LOCATION, &location)
}
