//! Times of a login, relative to now.

use std::{fmt::Write, time::Duration};

use time::OffsetDateTime;

use crate::messages::time::text;

pub(crate) fn due_at(due: Option<OffsetDateTime>, now: OffsetDateTime) -> String {
    match due {
        None => "never due".to_owned(),
        Some(due) if due <= now => format!("due since {}", text(due)),
        Some(due) => format!("due from {} on", text(due)),
    }
}

pub(crate) fn expiry_at(ends: OffsetDateTime, now: OffsetDateTime) -> String {
    let mut line = String::new();
    let distance = (ends - now).unsigned_abs();
    let words = if ends > now {
        ("expires", "in ", "")
    } else {
        ("expired", "", " ago")
    };
    // Writing to a string cannot fail.
    write!(
        line,
        "{} {}, {}{}{}",
        words.0,
        text(ends),
        words.1,
        rounded(distance),
        words.2
    )
    .ok();
    line
}

/// A time in Unix seconds.
pub(crate) fn at(seconds: Option<i64>) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp(seconds?).ok()
}

/// A duration in its largest unit only.
pub(super) fn rounded(span: Duration) -> String {
    let seconds = span.as_secs();
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_rounded_down_to_the_largest_unit() {
        let text = |seconds| rounded(Duration::from_secs(seconds));
        assert_eq!(
            [text(1), text(59), text(60)],
            ["1 second", "59 seconds", "1 minute"]
        );
        assert_eq!([text(7200), text(86_400 * 10 - 1)], ["2 hours", "9 days"]);
    }

    #[test]
    fn an_expiry_is_in_the_future_or_in_the_past() {
        let at = |seconds| OffsetDateTime::from_unix_timestamp(seconds).expect("a time");
        assert_eq!(
            expiry_at(at(3600), at(0)),
            "expires 1970-01-01T01:00:00Z, in 1 hour"
        );
        assert_eq!(
            expiry_at(at(0), at(120)),
            "expired 1970-01-01T00:00:00Z, 2 minutes ago"
        );
    }
}
