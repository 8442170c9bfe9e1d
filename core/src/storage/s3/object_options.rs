//! The settings of new objects, in the types of the SDK.

use super::NewObject;
use crate::config::{ObjectEncryption, ObjectStorageClass, S3Settings};
use aws_sdk_s3::types::{ServerSideEncryption, StorageClass};

impl S3Settings {
    pub(super) fn encryption(&self) -> Option<ServerSideEncryption> {
        self.server_side_encryption
            .map(|encryption| match encryption {
                ObjectEncryption::Aes256 => ServerSideEncryption::Aes256,
                ObjectEncryption::Kms => ServerSideEncryption::AwsKms,
            })
    }

    /// The class of an object: what is staged is deleted soon, which the cheaper classes charge for.
    pub(super) fn class_of(&self, object: &NewObject<'_>) -> Option<StorageClass> {
        let class = self.storage_class.filter(|_| !object.is_staged)?;
        Some(match class {
            ObjectStorageClass::Standard => StorageClass::Standard,
            ObjectStorageClass::StandardIa => StorageClass::StandardIa,
            ObjectStorageClass::OnezoneIa => StorageClass::OnezoneIa,
            ObjectStorageClass::IntelligentTiering => StorageClass::IntelligentTiering,
            ObjectStorageClass::GlacierIr => StorageClass::GlacierIr,
            ObjectStorageClass::ReducedRedundancy => StorageClass::ReducedRedundancy,
            ObjectStorageClass::ExpressOnezone => StorageClass::ExpressOnezone,
        })
    }
}
