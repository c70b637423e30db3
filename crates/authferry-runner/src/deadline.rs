//! Deadlines that cannot overflow.

use std::time::Duration;

use tokio::time::Instant;

/// Longer than any job takes, and short enough for every clock.
const MAX_SPAN: Duration = Duration::from_hours(24 * 365 * 30);

/// Returns the deadline `span` from now. A span that the clock cannot hold counts as infinite:
/// `--exit-grace 500000000000years` must not abort the job after the command has run.
pub(crate) fn after(span: Duration) -> Instant {
    from(Instant::now(), span)
}

/// Returns the deadline `span` after `begin`.
pub(crate) fn from(begin: Instant, span: Duration) -> Instant {
    begin.checked_add(span.min(MAX_SPAN)).unwrap_or(begin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_span_overflows() {
        let begin = Instant::now();
        let seconds = Duration::from_secs;
        assert_eq!(from(begin, seconds(5)) - begin, seconds(5));
        for span in [seconds(u64::MAX), Duration::MAX, seconds(u64::MAX / 2)] {
            assert_eq!(from(begin, span) - begin, MAX_SPAN);
            assert!(after(span) - begin >= MAX_SPAN);
        }
    }
}
