//! Trying again: what may pass by itself is waited out, anything else is not.

use super::api::{Api, CallError};
use std::time::Duration;

/// How often a call is made at most: with the pauses below about two minutes, enough for a server to start again.
const TRIES: u32 = 10;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A server that asks for more is not waited for.
const LONGEST_ASKED: Duration = Duration::from_secs(600);

/// Makes a call until it succeeds, cannot succeed, or has failed too often; `notice` hears of each pause.
///
/// A server that cannot be reached is waited for only if it has answered before: else its address is wrong, or it
/// does not run.
pub(super) async fn retrying<T>(
    api: &Api,
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
        let Some(pause) = pause(&error, tries, api.was_reached()) else {
            return Err(error);
        };
        notice(&error, pause);
        tokio::time::sleep(pause).await;
    }
}

/// How long to wait after this many tries, or none when the error is to be reported.
fn pause(error: &CallError, tries: u32, was_reached: bool) -> Option<Duration> {
    if !error.may_pass() || (matches!(error, CallError::Unreachable { .. }) && !was_reached) {
        return None;
    }
    let asked = match error {
        CallError::Refused(refusal) => refusal.retry_after,
        _ => None,
    };
    if tries >= TRIES || asked.is_some_and(|asked| asked > LONGEST_ASKED) {
        return None;
    }
    let backoff = FIRST_PAUSE
        .saturating_mul(1 << (tries - 1))
        .min(LONGEST_PAUSE);
    // Half of it is by chance, so that many clients do not come back at once.
    Some(
        backoff
            .mul_f64(rand::random_range(0.5..=1.0))
            .max(asked.unwrap_or_default()),
    )
}

#[cfg(test)]
mod tests {
    use super::super::problem::Refusal;
    use super::*;
    use http::{HeaderMap, HeaderValue, StatusCode, header};

    fn refused(status: StatusCode, retry_after: Option<&'static str>) -> CallError {
        let mut headers = HeaderMap::new();
        if let Some(text) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(text));
        }
        Refusal::new(status, &headers, "").into()
    }

    #[test]
    fn pauses_grow_to_a_limit_and_end() {
        let error = refused(StatusCode::BAD_GATEWAY, None);
        for tries in 1..TRIES {
            let pause = pause(&error, tries, true).unwrap();
            assert!(
                pause >= FIRST_PAUSE / 2 && pause <= LONGEST_PAUSE,
                "{pause:?}"
            );
        }
        assert!(pause(&error, 1, true).unwrap() <= FIRST_PAUSE);
        assert!(pause(&error, 9, true).unwrap() >= LONGEST_PAUSE / 2);
        assert_eq!(pause(&error, TRIES, true), None);
    }

    #[test]
    fn server_is_left_alone_as_long_as_it_asks_within_reason() {
        let of = |text| pause(&refused(StatusCode::TOO_MANY_REQUESTS, Some(text)), 1, true);
        assert_eq!(of("42"), Some(Duration::from_secs(42)));
        assert!(of("0").unwrap() >= FIRST_PAUSE / 2);
        assert_eq!(of("601"), None);
    }

    #[test]
    fn refusals_that_stay_are_reported_at_once() {
        assert_eq!(
            pause(&refused(StatusCode::NOT_FOUND, Some("1")), 1, true),
            None
        );
    }
}
