//! Trying again: what may pass by itself is waited out, anything else is not.

use super::api::{ApiClient, CallError};
use std::time::Duration;

/// How often a call is made at most: with the pauses below about two minutes, enough for a server to start again.
const MAX_ATTEMPTS: u32 = 10;

const INITIAL_BACKOFF: Duration = Duration::from_millis(500);
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// A server that asks for more is not waited for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(600);

/// Makes a call until it succeeds, cannot succeed, or has failed too often; `notice` hears of each pause.
///
/// A server that cannot be reached is waited for only if it has answered before: else its address is wrong, or it
/// does not run.
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

/// How long to wait after this many tries, or none when the error is to be reported.
fn backoff(error: &CallError, tries: u32, was_reached: bool) -> Option<Duration> {
    if !error.is_temporary() || (matches!(error, CallError::Unreachable { .. }) && !was_reached) {
        return None;
    }
    let asked = match error {
        CallError::Rejected(error) => error.retry_after,
        _ => None,
    };
    if tries >= MAX_ATTEMPTS || asked.is_some_and(|asked| asked > MAX_RETRY_AFTER) {
        return None;
    }
    let backoff = INITIAL_BACKOFF
        .saturating_mul(1 << (tries - 1))
        .min(MAX_BACKOFF);
    // Half of it is by chance, so that many clients do not come back at once.
    Some(
        backoff
            .mul_f64(rand::random_range(0.5..=1.0))
            .max(asked.unwrap_or_default()),
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
