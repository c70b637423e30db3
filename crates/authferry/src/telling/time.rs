//! Times for people.

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// A time, to the second.
pub(crate) fn text(at: OffsetDateTime) -> String {
    let seconds = at.replace_nanosecond(0).unwrap_or(at);
    seconds.format(&Rfc3339).unwrap_or_default()
}
