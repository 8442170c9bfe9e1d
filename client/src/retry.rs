//! Retries with backoff: temporary errors are retried, all others are not.

use super::api::{ApiClient, CallError};
use std::time::Duration;

/// Maximum number of attempts; with the delays below about two minutes, enough for a server restart.
const MAX_ATTEMPTS: u32 = 10;

const INITIAL_BACKOFF: Duration = Duration::from_millis(500);
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// A longer `Retry-After` is not waited for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(600);

/// Repeats a call until it succeeds, fails permanently, or has used all attempts; `notice` is called before each delay.
///
/// An unreachable server is only waited for if it has responded before; otherwise its address is wrong, or it is not
/// running.
pub(super) async fn with_retries<T>(
    api: &ApiClient,
    notice: impl Fn(&CallError, Duration),
    mut call: impl AsyncFnMut() -> Result<T, CallError>,
) -> Result<T, CallError> {
    let mut tries = 0;
    loop {
        let error = match call().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        tries += 1;
        let Some(backoff) = backoff(&error, tries, api.was_reached()) else {
            return Err(error);
        };
        notice(&error, backoff);
        tokio::time::sleep(backoff).await;
    }
}

/// Returns the delay after this many attempts, or `None` if the error is final.
fn backoff(error: &CallError, tries: u32, was_reached: bool) -> Option<Duration> {
    if !error.is_temporary() || (matches!(error, CallError::Unreachable { .. }) && !was_reached) {
        return None;
    }
    let retry_after = match error {
        CallError::Rejected(error) => error.retry_after,
        _ => None,
    };
    if tries >= MAX_ATTEMPTS || retry_after.is_some_and(|retry_after| retry_after > MAX_RETRY_AFTER)
    {
        return None;
    }
    let backoff = INITIAL_BACKOFF
        .saturating_mul(1 << (tries - 1))
        .min(MAX_BACKOFF);
    // Half of the delay is random (jitter), so that many clients do not retry at once.
    Some(
        backoff
            .mul_f64(rand::random_range(0.5..=1.0))
            .max(retry_after.unwrap_or_default()),
    )
}

#[cfg(test)]
mod tests {
    use super::super::problem::ErrorResponse;
    use super::*;
    use http::{HeaderMap, HeaderValue, StatusCode, header};

    fn refused(status: StatusCode, retry_after: Option<&'static str>) -> CallError {
        let mut headers = HeaderMap::new();
        if let Some(text) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(text));
        }
        ErrorResponse::new(status, &headers, "").into()
    }

    #[test]
    fn pauses_grow_to_a_limit_and_end() {
        let error = refused(StatusCode::BAD_GATEWAY, None);
        for tries in 1..MAX_ATTEMPTS {
            let backoff = backoff(&error, tries, true).unwrap();
            assert!(
                backoff >= INITIAL_BACKOFF / 2 && backoff <= MAX_BACKOFF,
                "{backoff:?}"
            );
        }
        assert!(backoff(&error, 1, true).unwrap() <= INITIAL_BACKOFF);
        assert!(backoff(&error, 9, true).unwrap() >= MAX_BACKOFF / 2);
        assert_eq!(backoff(&error, MAX_ATTEMPTS, true), None);
    }

    #[test]
    fn server_is_left_alone_as_long_as_it_asks_within_reason() {
        let of = |text| backoff(&refused(StatusCode::TOO_MANY_REQUESTS, Some(text)), 1, true);
        assert_eq!(of("42"), Some(Duration::from_secs(42)));
        assert!(of("0").unwrap() >= INITIAL_BACKOFF / 2);
        assert_eq!(of("601"), None);
    }

    #[test]
    fn refusals_that_stay_are_reported_at_once() {
        assert_eq!(
            backoff(&refused(StatusCode::NOT_FOUND, Some("1")), 1, true),
            None
        );
    }
}
