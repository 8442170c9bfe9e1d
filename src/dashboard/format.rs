//! Numbers, sizes, durations and times in human-readable form.

use chrono::{DateTime, TimeDelta, Utc};
use landfall_core::overview::BoundedCount;
use maud::{Markup, html};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::time::{Duration, SystemTime};
use url::Url;

/// Characters that need no encoding in a query (RFC 3986, `unreserved`).
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A number with thousands separators: `1,204,311`.
pub(crate) fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A bounded count: `10,000+`.
pub(crate) fn bounded(count: BoundedCount) -> String {
    match count.is_whole {
        true => number(count.counted),
        false => format!("{}+", number(count.counted)),
    }
}

/// `1 file`, `2 files`.
pub(crate) fn plural(count: u64, one: &str, many: &str) -> String {
    match count {
        1 => format!("1 {one}"),
        _ => format!("{} {many}", number(count)),
    }
}

/// Bytes in binary units with three digits: `1.42 GiB`.
pub(crate) fn bytes(value: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    if value < 1024 {
        return format!("{value} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let (mut shown, mut unit) = (value as f64, 0);
    // A value that would round to 1024 is shown in the next unit.
    while shown >= 1023.5 && unit + 1 < UNITS.len() {
        shown /= 1024.0;
        unit += 1;
    }
    let places = match shown {
        small if small < 9.995 => 2,
        middle if middle < 99.95 => 1,
        _ => 0,
    };
    format!("{shown:.places$} {}", UNITS[unit])
}

/// A duration in its largest unit: `0.3 s`, `14 min`, `3 h`, `2 d`.
pub(crate) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", duration.as_secs_f64()),
        10..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", number(seconds / 86_400)),
    }
}

/// How long ago a time was; zero for a time in the future.
pub(crate) fn age(moment: DateTime<Utc>, now: DateTime<Utc>) -> Duration {
    (now - moment).to_std().unwrap_or_default()
}

/// `3 min ago`, with the exact time as a tooltip.
pub(crate) fn ago(moment: DateTime<Utc>, now: DateTime<Utc>) -> Markup {
    let text = match now - moment {
        soon if soon < -TimeDelta::seconds(1) => {
            format!("in {}", span((moment - now).to_std().unwrap_or_default()))
        }
        _ => format!("{} ago", span(age(moment, now))),
    };
    html! { time datetime=(rfc3339(moment)) title=(when_text(moment)) { (text) } }
}

/// `2026-11-24 14:03:12`, in UTC.
pub(crate) fn when(moment: DateTime<Utc>) -> Markup {
    html! { time datetime=(rfc3339(moment)) title="UTC" { (when_text(moment)) } }
}

/// Converts a time from the queues.
pub(crate) fn moment(time: SystemTime) -> DateTime<Utc> {
    time.into()
}

fn when_text(moment: DateTime<Utc>) -> String {
    moment.format("%Y-%m-%d %H:%M:%S").to_string()
}

fn rfc3339(moment: DateTime<Utc>) -> String {
    moment.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

/// A URL of this dashboard: a path and its query, without empty parameters.
pub(crate) fn href(path: &str, query: &[(&str, &str)]) -> String {
    let mut url = path.to_owned();
    let pairs = query.iter().filter(|(_, value)| !value.is_empty());
    for (index, (name, value)) in pairs.enumerate() {
        let separator = if index == 0 { '?' } else { '&' };
        url.push(separator);
        url.push_str(name);
        url.push('=');
        url.extend(utf8_percent_encode(value, UNRESERVED));
    }
    url
}

/// A URL without its secret parts: user info, query and path (shown as `/…`).
pub(crate) fn shown_url(url: &str) -> String {
    let Ok(parsed) = url.parse::<Url>() else {
        return "…".to_owned();
    };
    let has_more = parsed.path() != "/" || parsed.query().is_some();
    let rest = if has_more { "/…" } else { "/" };
    format!("{}{rest}", parsed.origin().ascii_serialization())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_as_people_write_them() {
        assert_eq!(number(0), "0");
        assert_eq!(number(999), "999");
        assert_eq!(number(1_204_311), "1,204,311");
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1024), "1.00 KiB");
        assert_eq!(bytes(1_524_713_390), "1.42 GiB");
        assert_eq!(bytes(1024 * 1024 - 1), "1.00 MiB");
        assert_eq!(span(Duration::from_millis(300)), "0.3 s");
        assert_eq!(span(Duration::from_secs(14 * 60)), "14 min");
        assert_eq!(span(Duration::from_secs(172_800)), "2 d");
    }

    #[test]
    fn a_query_carries_any_text_and_nothing_empty() {
        let url = href("/files", &[("status", ""), ("q", "a&b=c d/é")]);
        assert_eq!(url, "/files?q=a%26b%3Dc%20d%2F%C3%A9");
        assert_eq!(href("/files", &[]), "/files");
    }

    #[test]
    fn urls_are_shown_without_their_secrets() {
        for (url, shown) in [
            ("https://a.example/", "https://a.example/"),
            (
                "https://user:secret@a.example:8443/hook/secret?token=secret",
                "https://a.example:8443/…",
            ),
            ("http://127.0.0.1:9/?token=secret", "http://127.0.0.1:9/…"),
            ("secret", "…"),
        ] {
            assert_eq!(shown_url(url), shown);
        }
    }
}
