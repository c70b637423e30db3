//! Times as text.

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// A time, to the second.
pub(crate) fn text(at: OffsetDateTime) -> String {
    let seconds = at.replace_nanosecond(0).unwrap_or(at);
    seconds.format(&Rfc3339).unwrap_or_default()
}

/// A time in Unix seconds.
pub(crate) fn at(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds).map_or_else(|_| "some time".to_owned(), text)
}
