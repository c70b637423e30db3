//! Exponential backoff with jitter.

use core::time::Duration;

const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// Returns the backoff before attempt number `attempt` (the first retry is 1).
///
/// Doubles from 100 ms up to 5 s, with jitter from half to all of that. `salt` differs for each
/// round trip, so jobs that failed at the same time retry at different times.
#[must_use]
pub fn pause(attempt: u32, salt: u64) -> Duration {
    let doublings = attempt.saturating_sub(1).min(16);
    let full = FIRST_BACKOFF
        .saturating_mul(1 << doublings)
        .min(MAX_BACKOFF);
    let spread = mix(salt ^ u64::from(attempt)) % 1000;
    full / 2 + full / 2 * u32::try_from(spread).unwrap_or(0) / 1000
}

/// The finaliser of the `SplitMix64` generator: each input bit affects every output bit.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backoff_doubles_to_a_maximum_within_its_jitter() {
        for (attempt, full) in [
            (1, 100),
            (2, 200),
            (3, 400),
            (6, 3200),
            (7, 5000),
            (u32::MAX, 5000),
        ] {
            for salt in 0..100 {
                let pause = pause(attempt, salt);
                assert!(
                    pause >= Duration::from_millis(full / 2),
                    "{attempt} {salt} {pause:?}"
                );
                assert!(
                    pause <= Duration::from_millis(full),
                    "{attempt} {salt} {pause:?}"
                );
            }
        }
    }

    #[test]
    fn jobs_that_fail_together_retry_at_different_times() {
        let pauses: alloc::collections::BTreeSet<_> = (0..100).map(|salt| pause(5, salt)).collect();
        assert!(pauses.len() > 50, "{}", pauses.len());
    }
}
