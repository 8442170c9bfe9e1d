//! Runs blocking work outside of the test's runtime thread, so that an API under test keeps responding while a server
//! stops or starts.

use std::panic::resume_unwind;

/// Runs `work` on a blocking thread; a panic in it is a panic of the caller.
pub(crate) async fn in_background<T, F>(work: F) -> T
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => resume_unwind(error.into_panic()),
    }
}
