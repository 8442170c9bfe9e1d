//! Maps S3 errors to storage errors.

use crate::storage::StorageError;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use std::error::Error;

/// The setting that an error points to: its key, its environment name, how to correct it.
type SettingHint = (&'static str, &'static str, &'static str);

const BUCKET: SettingHint = (
    "storage.s3.bucket_name",
    "AWS_STORAGE_BUCKET_NAME",
    "there is no such bucket; create it, or name another",
);
const ACCESS_KEY: SettingHint = (
    "storage.s3.access_key_id",
    "AWS_ACCESS_KEY_ID",
    "the store does not know this access key",
);
const SECRET: SettingHint = (
    "storage.s3.secret_access_key",
    "AWS_SECRET_ACCESS_KEY",
    "the signature is not right: this is not the secret of AWS_ACCESS_KEY_ID",
);
const REGION: SettingHint = (
    "storage.s3.region_name",
    "AWS_S3_REGION_NAME",
    "the bucket is in another region",
);

/// A parsed error response.
#[derive(Debug)]
pub(super) struct ErrorResponse {
    pub(super) status: u16,
    pub(super) code: String,
    pub(super) message: String,
}

/// Returns the response in an error; `None` if there was none.
pub(super) fn answer<E: ProvideErrorMetadata>(error: &SdkError<E>) -> Option<ErrorResponse> {
    let SdkError::ServiceError(answered) = error else {
        return None;
    };
    Some(ErrorResponse {
        status: answered.raw().status().as_u16(),
        code: answered.err().code().unwrap_or_default().to_owned(),
        message: answered.err().message().unwrap_or_default().to_owned(),
    })
}

/// Maps an SDK error; `action` follows "to".
pub(super) fn map_error<E>(action: &'static str) -> impl FnOnce(SdkError<E>) -> StorageError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    move |error| match answer(&error) {
        None => StorageError::NoAnswer {
            action,
            source: error.into(),
        },
        Some(answer) => refused(action, answer, error.into()),
    }
}

/// [`map_error`] for a HEAD, whose response has no body with an error code. For any other request, a 404 without a code
/// comes from a proxy and proves nothing about the object.
pub(super) fn map_head_error<E>(action: &'static str) -> impl FnOnce(SdkError<E>) -> StorageError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    move |error| match answer(&error) {
        Some(answer) if answer.status == 404 && answer.code.is_empty() => StorageError::NotFound,
        _ => map_error(action)(error),
    }
}

fn refused(
    action: &'static str,
    answer: ErrorResponse,
    source: Box<dyn Error + Send + Sync>,
) -> StorageError {
    if let Some((key, environment, problem)) = setting_at_fault(&answer) {
        return StorageError::Setting {
            key,
            environment,
            problem: problem.to_owned(),
            source: Some(source),
        };
    }
    match (answer.status, answer.code.as_str()) {
        (404, "NoSuchKey" | "NotFound") => StorageError::NotFound,
        (412, _) => StorageError::KeyTaken,
        (507, _) => StorageError::Full,
        _ => StorageError::Refused {
            action,
            status: answer.status,
            code: answer.code,
            message: answer.message,
        },
    }
}

/// Source of the codes: "Error responses", Amazon S3 API Reference. The hints explain what the codes do not.
fn setting_at_fault(answer: &ErrorResponse) -> Option<SettingHint> {
    match answer.code.as_str() {
        "NoSuchBucket" | "InvalidBucketName" => Some(BUCKET),
        "InvalidAccessKeyId" => Some(ACCESS_KEY),
        "SignatureDoesNotMatch" => Some(SECRET),
        "AuthorizationHeaderMalformed" if answer.message.contains("region") => Some(REGION),
        "PermanentRedirect" | "IllegalLocationConstraintException" => Some(REGION),
        _ => None,
    }
}

/// Whether the store says that it does not support the request.
pub(super) fn is_unknown(answer: &ErrorResponse) -> bool {
    answer.status == 501 || answer.code == "NotImplemented"
}
