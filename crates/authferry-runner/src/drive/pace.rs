//! How fast the command rotates the login.

use std::time::Duration;

use authferry_core::Fingerprint;
use tokio::time::Instant;

use crate::deadline;

/// This many rotations within a [`WINDOW`] are a loop: by the clock of this machine each new access
/// token has already expired, and Codex rotates before each request. With a clock that is ten days
/// ahead, 79 rotations within 12 s were seen.
const LOOP_ROTATIONS: usize = 3;
const WINDOW: Duration = Duration::from_mins(1);

/// The minimum interval between two store writes in a loop. Generations in between are not written
/// through; the last one is persisted in the end.
const LOOP_WRITE_INTERVAL: Duration = Duration::from_secs(10);

/// The rotations seen so far.
#[derive(Debug, Default)]
pub(super) struct Pace {
    count: usize,
    /// When the last rotations were seen.
    times: [Option<Instant>; LOOP_ROTATIONS],
    last: Option<Fingerprint>,
    is_loop: bool,
    /// When a generation was last written through.
    passed: Option<Instant>,
}

impl Pace {
    /// Notes a new generation. If it follows too fast, returns when it may be written through.
    pub(super) fn note(&mut self, generation: Fingerprint, now: Instant) -> Option<Instant> {
        if self.last != Some(generation) {
            self.last = Some(generation);
            self.count += 1;
            self.times.rotate_left(1);
            self.times[LOOP_ROTATIONS - 1] = Some(now);
            let first = self.times[0];
            self.is_loop |= first.is_some_and(|first| now.duration_since(first) < WINDOW);
        }
        let next = self
            .passed
            .map(|passed| deadline::from(passed, LOOP_WRITE_INTERVAL));
        if let Some(next) = next.filter(|next| self.is_loop && now < *next) {
            return Some(next);
        }
        self.passed = Some(now);
        None
    }

    /// The number of rotations, if they are a loop.
    pub(super) fn rotations_in_a_loop(&self) -> Option<usize> {
        self.is_loop.then_some(self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of the generations seen at these seconds are written through, and whether they are
    /// a loop.
    fn passed(seconds: &[u64]) -> (usize, bool) {
        let (begin, mut pace) = (Instant::now(), Pace::default());
        let passed = (1..).zip(seconds).filter(|(number, second)| {
            let now = begin + Duration::from_secs(**second);
            pace.note(Fingerprint::new([*number; 8]), now).is_none()
        });
        (passed.count(), pace.rotations_in_a_loop().is_some())
    }

    #[test]
    fn a_rotation_loop_is_written_at_intervals() {
        assert_eq!(passed(&[0, 1]), (2, false));
        assert_eq!(passed(&[0, 59, 119, 178]), (4, false));
        assert_eq!(passed(&[0, 1, 2]), (2, true));
        assert_eq!(passed(&(0..12).collect::<Vec<_>>()), (3, true));
        assert_eq!(passed(&[0, 20, 40, 45, 50]), (4, true));
    }

    #[test]
    fn a_deferred_generation_counts_once_and_is_written_later() {
        let (begin, mut pace) = (Instant::now(), Pace::default());
        let mut note = |number, second| {
            let now = begin + Duration::from_secs(second);
            let until = pace.note(Fingerprint::new([number; 8]), now);
            until.map(|until| (until - begin).as_secs())
        };
        assert_eq!(note(1, 0), None);
        assert_eq!(note(2, 1), None);
        assert_eq!(note(3, 2), Some(11));
        assert_eq!(note(3, 5), Some(11));
        assert_eq!(note(3, 11), None);
        assert_eq!(pace.rotations_in_a_loop(), Some(3));
    }
}
