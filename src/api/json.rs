//! JSON request bodies: small, without unknown fields, with every error reported by field.

use super::{
    connection::body::{ReadError, interrupted, read_whole},
    problem::{Code, FieldError, Problem},
    state::ApiState,
};
use bytes::Bytes;
use landfall_core::digest::Sha256Digest;
use poem::{Request, RequestBody, Result};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    registry::{MetaMediaType, MetaRequest, Registry},
    types::Type,
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Maximum size of a body, in bytes. serde_json limits nesting to 128.
pub(super) const MAX_BODY_LEN: usize = 64 * 1024;

/// A JSON body.
#[derive(Clone, Debug)]
pub(super) struct Json<T> {
    pub value: T,
    /// The digest of the body as sent.
    pub digest: Sha256Digest,
}

/// An optional JSON body; a missing one is equivalent to an empty object.
#[derive(Clone, Debug)]
pub(super) struct OptionalJson<T>(pub Json<T>);

macro_rules! extractor {
    ($type:ident, $required:literal, $read:ident) => {
        impl<'a, T: Type + DeserializeOwned> ApiExtractor<'a> for $type<T> {
            const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];

            type ParamType = ();
            type ParamRawType = ();

            fn register(registry: &mut Registry) {
                T::register(registry);
            }

            fn request_meta() -> Option<MetaRequest> {
                Some(MetaRequest {
                    description: None,
                    content: vec![MetaMediaType {
                        content_type: "application/json",
                        schema: T::schema_ref(),
                    }],
                    required: $required,
                })
            }

            async fn from_request(
                request: &'a Request,
                body: &mut RequestBody,
                _: ExtractParamOptions<()>,
            ) -> Result<Self> {
                Ok($read(request, body).await?)
            }
        }
    };
}

extractor!(Json, true, read);
extractor!(OptionalJson, false, read_or_nothing);

async fn read<T: Type + DeserializeOwned>(
    request: &Request,
    body: &mut RequestBody,
) -> Result<Json<T>, Problem> {
    check_type(request)?;
    parse(&read_body(request, body).await?)
}

async fn read_or_nothing<T: Type + DeserializeOwned>(
    request: &Request,
    body: &mut RequestBody,
) -> Result<OptionalJson<T>, Problem> {
    let bytes = read_body(request, body).await?;
    if bytes.is_empty() {
        return parse(b"{}").map(OptionalJson);
    }
    check_type(request)?;
    parse(&bytes).map(OptionalJson)
}

fn check_type(request: &Request) -> Result<(), Problem> {
    let given = request.content_type().unwrap_or("");
    let essence = given.split(';').next().unwrap_or("").trim();
    let essence = essence.to_ascii_lowercase();
    if essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"))
    {
        return Ok(());
    }
    Err(Problem::new(
        Code::UnsupportedMediaType,
        "The body must be JSON, with `Content-Type: application/json`.",
    ))
}

async fn read_body(request: &Request, body: &mut RequestBody) -> Result<Bytes, Problem> {
    let within = request
        .data::<ApiState>()
        .ok_or_else(|| Problem::failed("a request without state"))?
        .app
        .config
        .server
        .idle_timeout;
    let body = body
        .take()
        .map_err(|_| Problem::failed("the body was taken twice"))?;
    read_whole(body, MAX_BODY_LEN, within)
        .await
        .map_err(|error| match error {
            ReadError::TooLarge => Problem::new(
                Code::TooLarge,
                format!("The body must be at most {MAX_BODY_LEN} bytes."),
            ),
            ReadError::TooSlow => Problem::new(
                Code::RequestTimeout,
                format!("The body did not arrive within {within:?}."),
            ),
            ReadError::BrokenOff(error) => interrupted(&error),
        })
}

fn parse<T: Type + DeserializeOwned>(bytes: &[u8]) -> Result<Json<T>, Problem> {
    let value: Value = serde_json::from_slice(bytes).map_err(|error| {
        Problem::new(
            Code::MalformedRequest,
            format!("The body is not valid JSON: {error}."),
        )
    })?;
    let Value::Object(fields) = value else {
        return Err(Problem::new(
            Code::MalformedRequest,
            "The body must be a JSON object.",
        ));
    };
    refuse_unknown::<T>(&fields)?;
    let value = serde_path_to_error::deserialize(Value::Object(fields)).map_err(fault)?;
    Ok(Json {
        value,
        digest: Sha256Digest::compute(bytes),
    })
}

/// Rejects fields that the definition does not have, all at once.
fn refuse_unknown<T: Type>(fields: &Map<String, Value>) -> Result<(), Problem> {
    let mut registry = Registry::new();
    T::register(&mut registry);
    let Some(schema) = registry.schemas.get(T::name().as_ref()) else {
        return Ok(());
    };
    let known: Vec<&str> = schema.properties.iter().map(|(name, _)| *name).collect();
    let unknown: Vec<FieldError> = fields
        .keys()
        .filter(|name| !known.contains(&name.as_str()))
        .map(|name| FieldError::new(name, format!("must be one of {}", known.join(", "))))
        .collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let mut problem = Problem::new(
        Code::UnknownField,
        "The body has unknown fields, listed in `errors`.",
    );
    problem.errors = unknown;
    Err(problem)
}

fn fault(error: serde_path_to_error::Error<serde_json::Error>) -> Problem {
    let path = error.path().to_string();
    let message = error.into_inner().to_string();
    // The name of a missing field is only in the message.
    let missing = message
        .strip_prefix("missing field `")
        .and_then(|rest| rest.split('`').next());
    match missing {
        Some(field) => Problem::field(Code::MalformedRequest, field, "is missing"),
        None => Problem::field(Code::MalformedRequest, &path, message),
    }
}
