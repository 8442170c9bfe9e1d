//! Authentication and authorization: one extractor per scope.

use super::{
    middleware::RequestOwner,
    problem::{Code, Problem},
    rate_limit::RequestLimits,
    state::ApiState,
};
use http::{HeaderValue, header};
use landfall_core::{
    config::AuthMode,
    jwt::JwtError,
    tokens::{self, Identity, TokenScope},
};
use poem::{Request, RequestBody, Result};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    registry::{MetaSecurityScheme, Registry},
};

/// The name of the security scheme in `/openapi.json`.
const SCHEME: &str = "token";

macro_rules! caller {
    ($(#[$doc:meta])* $name:ident, $scope:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub(crate) struct $name(pub(crate) Identity);

        impl<'a> ApiExtractor<'a> for $name {
            const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];

            type ParamType = ();
            type ParamRawType = ();

            fn register(registry: &mut Registry) {
                registry.create_security_scheme(SCHEME, scheme());
            }

            fn security_schemes() -> Vec<&'static str> {
                vec![SCHEME]
            }

            async fn from_request(
                request: &'a Request,
                _: &mut RequestBody,
                _: ExtractParamOptions<()>,
            ) -> Result<Self> {
                Ok(Self(identify(request, TokenScope::$scope).await?))
            }
        }
    };
}

caller!(
    /// A caller with the scope `upload`: may send and delete files.
    Uploader,
    Upload
);
caller!(
    /// A caller with the scope `read`: may see files.
    Reader,
    Read
);
caller!(
    /// A caller with the scope `admin`: may do everything.
    Admin,
    Admin
);

fn scheme() -> MetaSecurityScheme {
    MetaSecurityScheme {
        ty: "http",
        description: Some(
            "A token created with `landfall token create`, or a JWT where `auth.jwt` is configured. Not needed while \
             `auth.mode` is `none`.",
        ),
        name: None,
        key_in: None,
        scheme: Some("bearer"),
        bearer_format: Some("lf_…"),
        flows: None,
        openid_connect_url: None,
    }
}

/// Returns the caller's identity if it has the required scope.
///
/// # Errors
/// 401 without a valid token (RFC 6750, section 3), 403 if the token lacks the scope, 429 if the owner has exceeded its
/// rate limit.
pub(super) async fn identify(request: &Request, scope: TokenScope) -> Result<Identity, Problem> {
    let state: &ApiState = request
        .data()
        .ok_or_else(|| Problem::failed("a request without state"))?;
    let app = &state.app;
    if app.config.auth.mode == AuthMode::None {
        return Ok(Identity::anonymous());
    }
    // The dashboard has already authenticated the user by session.
    if let Some(identity) = request.data::<Identity>() {
        RequestOwner::record(request, identity.owner.as_deref());
        return allowed(identity.clone(), scope);
    }
    let token = bearer(request)
        .ok_or_else(|| unauthorized("Send `Authorization: Bearer lf_…`.", "Bearer"))?;
    let identity = holder(state, token).await?.ok_or_else(|| {
        unauthorized(
            "The token is unknown, expired or revoked.",
            r#"Bearer error="invalid_token""#,
        )
    })?;
    RequestOwner::record(request, identity.owner.as_deref());
    if let (Some(limits), Some(owner)) = (request.data::<RequestLimits>(), &identity.owner) {
        limits.admit_owner(owner).await?;
    }
    allowed(identity, scope)
}

/// Returns whom a token or JWT speaks for; `None` if it is not valid. Why a JWT is not valid is only logged.
///
/// # Errors
/// 503 if the database, or the keys for JWTs, are not available.
async fn holder(state: &ApiState, token: &str) -> Result<Option<Identity>, Problem> {
    let jwt = state.jwt.as_ref();
    let Some(jwt) = jwt.filter(|_| !token.starts_with(tokens::PREFIX)) else {
        let app = &state.app;
        return Ok(tokens::authenticate(&app.db, &app.clock, token).await?);
    };
    match jwt.authenticate(token).await {
        Ok(identity) => Ok(Some(identity)),
        Err(error @ JwtError::Invalid(_)) => {
            tracing::debug!(%error, "a JWT was rejected");
            Ok(None)
        }
        Err(error @ JwtError::KeysUnavailable(_)) => Err(Problem::unavailable(error)),
    }
}

fn allowed(identity: Identity, scope: TokenScope) -> Result<Identity, Problem> {
    if identity.may(scope) {
        return Ok(identity);
    }
    Err(Problem::new(
        Code::Forbidden,
        format!("This requires a token with the scope `{scope}`."),
    ))
}

fn bearer(request: &Request) -> Option<&str> {
    let (scheme, token) = request.header(header::AUTHORIZATION)?.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then_some(token.trim())
}

fn unauthorized(detail: &str, challenge: &'static str) -> Problem {
    Problem::new(Code::Unauthorized, detail).with_header(
        header::WWW_AUTHENTICATE,
        HeaderValue::from_static(challenge),
    )
}
