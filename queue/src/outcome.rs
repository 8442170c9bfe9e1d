//! The outcome of a run, and its effect on the job.

use std::{any::Any, error::Error, time::Duration};

use apalis_core::error::{AbortError, BoxDynError, DeferredError, RetryAfterError};

/// Maximum length of a stored error message, in bytes.
const MAX_ERROR_LEN: usize = 2_000;

/// An error of a handler that determines its own retry delay. It is found anywhere in the error's source chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct RetryAfter {
    /// The job becomes ready again after exactly this delay, precise to the millisecond. At most 10 years.
    pub delay: Duration,
    /// Stored as the job's last error.
    pub reason: String,
    /// Whether this run counts as an attempt (and as a failure in the statistics).
    pub counts: bool,
}

impl RetryAfter {
    /// A failure with its own retry delay; counts as an attempt.
    pub fn failed(delay: Duration, reason: impl Into<String>) -> Self {
        Self {
            delay,
            reason: reason.into(),
            counts: true,
        }
    }

    /// There is nothing to do yet; does not count as an attempt.
    pub fn not_yet(delay: Duration, reason: impl Into<String>) -> Self {
        Self {
            delay,
            reason: reason.into(),
            counts: false,
        }
    }
}

/// The handler panicked; treated like any other error.
#[derive(Debug, thiserror::Error)]
#[error("panicked: {0}")]
pub(crate) struct JobPanic(pub(crate) String);

impl JobPanic {
    pub(crate) fn new(payload: &(dyn Any + Send)) -> Self {
        let text = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned());
        Self(text.unwrap_or_else(|| "with a payload that is not text".to_owned()))
    }
}

/// Another worker acquired the lease while the handler was running; the handler was dropped.
#[derive(Debug, thiserror::Error)]
#[error("the lease of the job was lost")]
pub(crate) struct LeaseLost;

/// What happens to a job whose run has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Done,
    /// Counts as an attempt; without a delay the queue's backoff applies.
    Failed(Option<Duration>),
    /// Ready again after the delay; does not count as an attempt.
    Later(Duration),
    /// Not to be retried.
    Dead,
    /// Never ran, or was stopped: back to the front, as if it had not been fetched.
    Released,
}

pub(crate) fn judge(error: &BoxDynError) -> Verdict {
    let mut link: Option<&(dyn Error + 'static)> = Some(error.as_ref());
    while let Some(current) = link {
        if let Some(retry) = current.downcast_ref::<RetryAfter>() {
            return if retry.counts {
                Verdict::Failed(Some(retry.delay))
            } else {
                Verdict::Later(retry.delay)
            };
        }
        if let Some(retry) = current.downcast_ref::<RetryAfterError>() {
            return Verdict::Failed(Some(retry.get_duration()));
        }
        if current.is::<DeferredError>() {
            return Verdict::Later(Duration::ZERO);
        }
        if current.is::<AbortError>() {
            return Verdict::Dead;
        }
        link = current.source();
    }
    Verdict::Failed(None)
}

/// The error and its causes on one line, truncated to a bounded length.
pub(crate) fn describe(error: &BoxDynError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(current) = cause {
        let more = current.to_string();
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = current.source();
    }
    let mut end = text.len().min(MAX_ERROR_LEN);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}
