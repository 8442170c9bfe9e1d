/// Why a call to the queue failed.
///
/// Workers never end because of one of these: inside a worker, Redis errors are retried until Redis responds again.
/// Callers that push or inspect get the error at once.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// The URL is not one of `redis://`, `rediss://`, `unix://`, `redis+unix://`, `redis-cluster://`,
    /// `rediss-cluster://`, `redis-sentinel://` or `rediss-sentinel://`.
    #[error("the Redis URL cannot be used")]
    Url(#[source] redis::RedisError),

    /// The key prefix is empty, longer than 64 bytes, or contains braces or control characters.
    #[error("the key prefix must be 1 to 64 bytes without braces or control characters")]
    Prefix,

    /// Redis rejected the command, or could not be reached.
    #[error("Redis did not carry out the command")]
    Redis(#[source] redis::RedisError),

    /// No response within the command timeout. The command may still have been carried out.
    #[error("Redis did not answer within {} seconds", .0.as_secs())]
    Timeout(std::time::Duration),

    /// The arguments of a job cannot be serialized as JSON.
    #[error("the arguments of the job cannot be encoded")]
    Encode(#[source] serde_json::Error),

    /// A job id is empty, longer than 256 bytes, or contains control characters.
    #[error("a job id must be 1 to 256 bytes without control characters")]
    InvalidId,

    /// A group key is empty, longer than 256 bytes, or contains control characters.
    #[error("a group key must be 1 to 256 bytes without control characters")]
    InvalidGroup,
}

impl QueueError {
    /// Whether Redis rejected the command because the user lacks permission (`NOPERM`).
    #[must_use]
    pub fn is_permission(&self) -> bool {
        matches!(self, Self::Redis(error) if error.code() == Some("NOPERM"))
    }
}
