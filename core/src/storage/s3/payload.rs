//! Requests signed with a digest of the body that is already known.
//!
//! The SDK would hash the body once more, on the thread that drives all requests. If the SHA-256 is known, it is used
//! for the signature as it is, and a store that receives different bytes rejects them, whatever checksum headers it
//! supports. Source: "Signature calculations for the Authorization header", Amazon S3 API Reference
//! (`x-amz-content-sha256`).

use crate::digest::Sha256Digest;
use aws_runtime::auth::SigV4OperationSigningConfig;
use aws_sdk_s3::{
    config::{
        ConfigBag, Intercept, RuntimeComponents, interceptors::BeforeTransmitInterceptorContextMut,
    },
    error::BoxError,
};
use aws_sigv4::http_request::SignableBody;

/// Signs the request with this digest of the body.
#[derive(Debug)]
pub(super) struct SignWithDigest(pub(super) Sha256Digest);

impl Intercept for SignWithDigest {
    fn name(&self) -> &'static str {
        "SignAs"
    }

    fn modify_before_signing(
        &self,
        _context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        // Without it, the SDK hashes the body itself.
        if let Some(mut signing) = config.load::<SigV4OperationSigningConfig>().cloned() {
            let digest = SignableBody::Precomputed(self.0.to_string());
            signing.signing_options.payload_override = Some(digest);
            config.interceptor_state().store_put(signing);
        }
        Ok(())
    }
}
