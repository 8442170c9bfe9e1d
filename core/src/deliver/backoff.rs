//! When a delivery is retried.
//!
//! Exponential backoff with full jitter (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015), with
//! a small minimum so that no retry follows immediately.

use crate::config::WebhooksConfig;
use chrono::{DateTime, NaiveDateTime, Utc};
use entity::Timestamp;
use std::time::Duration;

/// The retry delays of one round of attempts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    base: Duration,
    max: Duration,
}

impl Backoff {
    pub(super) fn new(config: &WebhooksConfig) -> Self {
        Self {
            base: config.base_delay,
            max: config.max_delay.max(config.base_delay),
        }
    }

    /// Returns the delay after `failures` failed attempts of this round (at least 1): a random duration between a tenth
    /// of `base_delay` and an upper bound that doubles with each failure, at most `max_delay`.
    pub(super) fn delay(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let ceiling = self.base.saturating_mul(1 << doublings).min(self.max);
        let floor = self.base / 10;
        floor + (ceiling - floor).mul_f64(rand::random::<f64>())
    }

    /// Like [`Self::delay`], but not before the time given in `Retry-After`, which is honored up to `max_delay`. A
    /// tenth of it is added as jitter, so that requests rejected together do not come back together.
    pub(super) fn delay_after(&self, failures: u32, requested: Duration) -> Duration {
        let requested = requested.min(self.max);
        let spread = (requested / 10).mul_f64(rand::random::<f64>());
        (requested + spread)
            .min(self.max)
            .max(self.delay(failures).min(self.max))
    }
}

/// Parses `Retry-After` (RFC 9110, section 10.2.3): seconds, or a date in any of the three formats of section 5.6.7. A
/// date in the past means no delay; anything else is ignored.
pub(super) fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a u64 holds means forever; the caller bounds the delay.
        return Some(Duration::from_secs(
            value.parse().unwrap_or(u64::from(u32::MAX)),
        ));
    }
    let date = http_date(value)?;
    Some((date - now).to_std().unwrap_or(Duration::ZERO))
}

fn http_date(value: &str) -> Option<DateTime<Utc>> {
    [
        "%a, %d %b %Y %H:%M:%S GMT",
        "%A, %d-%b-%y %H:%M:%S GMT",
        "%a %b %e %H:%M:%S %Y",
    ]
    .into_iter()
    .find_map(|form| NaiveDateTime::parse_from_str(value, form).ok())
    .map(|date| date.and_utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Duration = Duration::from_secs(5);
    const MAX: Duration = Duration::from_secs(6 * 60 * 60);

    fn backoff() -> Backoff {
        Backoff {
            base: BASE,
            max: MAX,
        }
    }

    #[test]
    fn delays_stay_between_floor_and_ceiling() {
        for failures in [1, 2, 5, 13, 20, 1000] {
            let ceiling = BASE.saturating_mul(1 << (failures - 1).min(20)).min(MAX);
            for _ in 0..200 {
                let delay = backoff().delay(failures);
                assert!(
                    delay >= BASE / 10 && delay <= ceiling,
                    "{failures}: {delay:?}"
                );
            }
        }
    }

    #[test]
    fn delays_are_spread_over_the_whole_range() {
        let delays: Vec<_> = (0..500).map(|_| backoff().delay(10)).collect();
        let ceiling = BASE * 512;
        assert!(delays.iter().any(|delay| *delay < ceiling / 4));
        assert!(delays.iter().any(|delay| *delay > ceiling / 4 * 3));
    }

    #[test]
    fn retry_after_is_kept_to_and_bounded() {
        for _ in 0..200 {
            let requested = Duration::from_secs(600);
            let delay = backoff().delay_after(1, requested);
            assert!(delay >= requested && delay <= requested + requested / 10);
            assert_eq!(backoff().delay_after(1, MAX * 10), MAX);
        }
    }

    #[test]
    fn retry_after_is_read_in_every_form() {
        let now = Timestamp::from_timestamp(784_111_777 - 30, 0).unwrap();
        let half_a_minute = Some(Duration::from_secs(30));
        assert_eq!(retry_after("30", now), half_a_minute);
        assert_eq!(
            retry_after("Sun, 06 Nov 1994 08:49:37 GMT", now),
            half_a_minute
        );
        assert_eq!(
            retry_after("Sunday, 06-Nov-94 08:49:37 GMT", now),
            half_a_minute
        );
        assert_eq!(retry_after("Sun Nov  6 08:49:37 1994", now), half_a_minute);
        assert_eq!(
            retry_after("Sun, 06 Nov 1994 08:00:00 GMT", now),
            Some(Duration::ZERO)
        );
        assert_eq!(retry_after("soon", now), None);
        assert_eq!(retry_after("", now), None);
        assert_eq!(retry_after("-5", now), None);
        assert!(retry_after("99999999999999999999999999", now).unwrap() > MAX);
    }
}
