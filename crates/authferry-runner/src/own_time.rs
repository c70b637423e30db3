//! Time limits measured in the time that this process has run.
//!
//! A paused container, a stopped process and a sleeping machine stop a Codex as well: the
//! provider's answer may have arrived meanwhile, and Codex has not read it yet. So a gap counts as
//! one tick, however long it was.

use std::time::Duration;

use tokio::time::Instant;

use crate::deadline;

/// The longest interval between two reads of the clock while a limit is pending.
pub(crate) const TICK: Duration = Duration::from_secs(1);

/// How long this process has run since the clock started.
///
/// Read the clock at least once per [`TICK`]: a longer gap between two reads counts as one tick.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnClock {
    run: Duration,
    read_at: Instant,
}

impl OwnClock {
    /// Starts a clock at zero.
    pub(crate) fn start() -> Self {
        Self {
            run: Duration::ZERO,
            read_at: Instant::now(),
        }
    }

    /// Reads the clock.
    pub(crate) fn read(&mut self) -> Duration {
        let now = Instant::now();
        self.run += now.duration_since(self.read_at).min(TICK);
        self.read_at = now;
        self.run
    }

    /// Returns what the last read returned.
    pub(crate) fn last(&self) -> Duration {
        self.run
    }
}

/// A timeout measured in the time that this process has run.
///
/// The caller checks [`is_over`](Self::is_over) again at [`wake`](Self::wake).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    total: Duration,
    clock: OwnClock,
}

impl Limit {
    /// Starts a limit now.
    pub(crate) fn new(total: Duration) -> Self {
        Self {
            total,
            clock: OwnClock::start(),
        }
    }

    /// Reads the clock, and returns whether the limit is over.
    pub(crate) fn is_over(&mut self) -> bool {
        self.elapsed() >= self.total
    }

    /// Reads the clock, and returns how long this process has run since the limit began.
    pub(crate) fn elapsed(&mut self) -> Duration {
        self.clock.read()
    }

    /// Returns when to check again.
    pub(crate) fn wake(&self) -> Instant {
        let left = self.total.saturating_sub(self.clock.last());
        deadline::from(self.clock.read_at, left.min(TICK))
    }

    /// Shortens the limit to at most `rest` from now.
    pub(crate) fn shorten(&mut self, rest: Duration) {
        let end = self.elapsed().saturating_add(rest);
        self.total = self.total.min(end);
    }

    /// Extends the limit to at least `total`, counted from its start.
    pub(crate) fn extend(&mut self, total: Duration) {
        self.total = self.total.max(total);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, sleep_until};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_limit_ends_after_its_run_time() {
        let begin = Instant::now();
        let mut limit = Limit::new(Duration::from_millis(2500));
        while !limit.is_over() {
            sleep_until(limit.wake()).await;
        }
        let took = begin.elapsed();
        assert!(
            took >= Duration::from_millis(2500) && took < 3 * SECOND,
            "{took:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_container_pause_counts_as_one_tick() {
        let mut clock = OwnClock::start();
        assert_eq!(clock.read(), Duration::ZERO);
        let step = SECOND / 10;
        for _ in 0..10 {
            advance(step).await;
            clock.read();
        }
        assert_eq!(clock.last(), step * 10);
        advance(Duration::from_hours(1)).await;
        assert_eq!(clock.read(), step * 10 + TICK);
    }

    #[tokio::test(start_paused = true)]
    async fn a_gap_counts_as_one_tick() {
        let mut limit = Limit::new(10 * SECOND);
        advance(Duration::from_secs(62)).await;
        assert!(!limit.is_over());
        assert_eq!(limit.elapsed(), TICK);
        for _ in 0..9 {
            assert!(!limit.is_over());
            advance(SECOND).await;
        }
        assert!(limit.is_over());
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_is_shortened_from_now_and_extended_from_its_start() {
        let mut limit = Limit::new(60 * SECOND);
        advance(SECOND).await;
        limit.shorten(Duration::ZERO);
        assert!(limit.is_over());
        limit.extend(3 * SECOND);
        assert!(!limit.is_over());
        limit.shorten(60 * SECOND);
        for _ in 0..2 {
            advance(SECOND).await;
            limit.elapsed();
        }
        assert!(limit.is_over(), "`shorten` extended the limit");
    }
}
