//! How long to wait before the next attempt.

use core::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// Returns the pause before attempt number `attempt` (the first retry is 1).
///
/// Doubles from 100 ms up to 5 s, and takes between half and all of that: `salt`, which
/// is different for each trip, spreads out many jobs that failed at the same moment.
#[must_use]
pub fn pause(attempt: u32, salt: u64) -> Duration {
    let doublings = attempt.saturating_sub(1).min(16);
    let full = FIRST.saturating_mul(1 << doublings).min(LONGEST);
    let spread = mix(salt ^ u64::from(attempt)) % 1000;
    full / 2 + full / 2 * u32::try_from(spread).unwrap_or(0) / 1000
}

/// The finaliser of the `SplitMix64` generator: every bit in moves every bit out.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_ceiling_and_stay_within_their_band() {
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
    fn jobs_that_fail_together_do_not_come_back_together() {
        let pauses: alloc::collections::BTreeSet<_> = (0..100).map(|salt| pause(5, salt)).collect();
        assert!(pauses.len() > 50, "{}", pauses.len());
    }
}
