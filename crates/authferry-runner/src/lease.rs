//! Keeps a lease beyond its term by renewing it.

use std::{
    fmt,
    future::{Future, pending},
    pin::Pin,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use authferry_core::{
    CLOCK_SKEW, Lease, LeaseError, LeaseRequest, LeaseStatus, Leases, RecordState,
};
use tokio::time::{Instant, sleep_until};

use crate::{RefusalNote, deadline};

/// How long a lease is valid without a renewal. If a holder died, other jobs wait this long, and
/// `CLOCK_SKEW` seconds more.
const TERM: Duration = Duration::from_mins(1);

/// How long a record stays unchanged before another job takes it over, regardless of its expiry:
/// a holder renews after a third of the term.
pub(crate) const EXPIRY: Duration = Duration::from_secs(TERM.as_secs() + CLOCK_SKEW);

/// The delay after a failed renewal.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// How long to wait for the release of a lease.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(3);

/// A lease that is renewed after each third of its term while `renew` is awaited.
pub struct LeaseKeeper<'a> {
    leases: &'a dyn Leases,
    lease: Lease,
    renew_at: Instant,
    renewal: Option<Renewal<'a>>,
    lost: bool,
}

type Renewal<'a> = Pin<Box<dyn Future<Output = Result<Lease, LeaseError>> + 'a>>;

impl<'a> LeaseKeeper<'a> {
    pub(crate) fn new(leases: &'a dyn Leases, lease: Lease) -> Self {
        // A lease acquired by an earlier attempt, whose answer was lost, expires sooner.
        let left = Duration::from_secs(lease.until.saturating_sub(now()));
        Self {
            leases,
            lease,
            renew_at: deadline::after(left.min(TERM) / 3),
            renewal: None,
            lost: false,
        }
    }

    /// Returns the note of the last holder.
    pub(crate) fn note(&self) -> Option<&str> {
        self.lease.note.as_deref()
    }

    /// Returns the note of an earlier holder that the provider refuses a login.
    #[must_use]
    pub fn refusal(&self) -> Option<RefusalNote> {
        RefusalNote::in_note(self.note()?)
    }

    /// Sets the note for the next holder. The next renewal or the release writes it.
    pub(crate) fn set_note(&mut self, note: Option<String>) {
        self.lease.note = note;
    }

    /// Whether a renewal is pending.
    pub(crate) fn is_renewing(&self) -> bool {
        self.renewal.is_some()
    }

    /// Returns whether another owner took the lease over.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lost
    }

    /// Whether the lease is ours and has not expired.
    pub(crate) fn is_held(&self) -> bool {
        !self.lost && now() < self.lease.until
    }

    /// Starts a renewal when it is due, or waits for the answer of a pending one. Cancel-safe.
    pub(crate) async fn renew(&mut self) {
        if self.lost {
            return pending().await;
        }
        let Some(renewal) = &mut self.renewal else {
            sleep_until(self.renew_at).await;
            let (leases, lease) = (self.leases, self.lease.clone());
            let until = now().saturating_add(TERM.as_secs());
            self.renewal = Some(Box::pin(async move { leases.renew(&lease, until).await }));
            return;
        };
        let renewed = renewal.as_mut().await;
        self.renewal = None;
        self.renew_at = deadline::after(TERM / 3);
        match renewed {
            Ok(lease) => self.lease = lease,
            Err(LeaseError::Lost | LeaseError::Held { .. }) => self.lost = true,
            Err(LeaseError::Store(_)) => self.renew_at = deadline::after(RETRY_INTERVAL),
        }
    }

    /// Abandons a renewal that the store does not answer.
    pub(crate) fn abandon_renewal(&mut self) {
        self.renewal = None;
        self.renew_at = deadline::after(RETRY_INTERVAL);
    }

    /// Releases the lease. If that fails, the lease expires.
    pub async fn release(self) {
        drop(self.renewal);
        if !self.lost {
            let _released =
                tokio::time::timeout(RELEASE_TIMEOUT, self.leases.release(&self.lease)).await;
        }
    }
}

impl fmt::Debug for LeaseKeeper<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LeaseKeeper({:?})", self.lease)
    }
}

/// Returns a request to acquire the lease.
pub(crate) fn new_request(owner: &str, holder: u64) -> LeaseRequest {
    let now = now();
    LeaseRequest {
        owner: owner.to_owned(),
        holder,
        now,
        until: now.saturating_add(TERM.as_secs()),
        expired: None,
    }
}

/// The state of another job's lease record, and when this process first saw that state.
#[derive(Debug, Default)]
pub(crate) struct Observation(Option<(RecordState, Instant)>);

impl Observation {
    /// Records the state from a failed attempt to acquire.
    pub(crate) fn record(&mut self, state: RecordState) {
        let is_known = self.0.as_ref().is_some_and(|(known, _)| *known == state);
        if !is_known {
            self.0 = Some((state, Instant::now()));
        }
    }

    /// Returns the state if it has not changed for [`EXPIRY`].
    pub(crate) fn expired(&self) -> Option<RecordState> {
        let (state, since) = self.0.as_ref()?;
        (since.elapsed() >= EXPIRY).then(|| state.clone())
    }
}

/// A defect of a lease record that makes jobs wait without need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseDefect {
    /// authferry did not write this record here: it was copied or edited.
    Foreign,
    /// The lease expires later than any lease acquired now: the holder's clock or ours is wrong.
    EndsTooLate,
}

impl LeaseDefect {
    /// How long a job waits before it takes over such a lease.
    pub const TAKEOVER_DELAY: Duration = EXPIRY;

    /// Returns the defect of a record that is not free yet. One read does not show its age.
    #[must_use]
    pub fn of(status: &LeaseStatus) -> Option<Self> {
        let (until, now) = (status.until?, now());
        if status.is_foreign && until.saturating_add(CLOCK_SKEW) > now {
            Some(Self::Foreign)
        } else if until > now.saturating_add(EXPIRY.as_secs()) {
            Some(Self::EndsTooLate)
        } else {
            None
        }
    }
}

/// The current time in Unix seconds.
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

#[cfg(test)]
mod tests {
    use authferry_conformance::MemoryStore;
    use authferry_core::SecretStore;

    use super::*;

    async fn acquire(leases: &dyn Leases, holder: u64) -> Lease {
        let lease = leases.acquire(&new_request("a job", holder)).await;
        lease.expect("a free lease")
    }

    /// Waits until the renewal is due, and for its answer.
    async fn renew_once(lease: &mut LeaseKeeper<'_>) {
        lease.renew().await;
        assert!(lease.is_renewing(), "no renewal was sent");
        lease.renew().await;
        assert!(!lease.is_renewing());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_renewed_after_a_third_of_its_term() {
        let store = MemoryStore::new("memory:lease");
        let leases = store.leases().expect("leases");
        let first = acquire(leases, 1).await;
        let mut lease = LeaseKeeper::new(leases, first.clone());
        assert!(lease.is_held());
        let started = Instant::now();
        for round in 1..=6 {
            renew_once(&mut lease).await;
            assert!(started.elapsed() <= round * TERM / 3 + Duration::from_secs(1));
        }
        assert!(started.elapsed() > TERM, "longer than one term");
        assert_ne!(lease.lease.version, first.version);
        lease.release().await;
        acquire(leases, 2).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_was_taken_over_is_lost_and_not_released() {
        let store = MemoryStore::new("memory:lost");
        let leases = store.leases().expect("leases");
        let mut lease = LeaseKeeper::new(leases, acquire(leases, 1).await);
        let mut late = new_request("another job", 2);
        late.now += 10 * TERM.as_secs();
        let theirs = leases.acquire(&late).await.expect("an expired lease");
        renew_once(&mut lease).await;
        assert!(lease.is_lost());
        assert!(!lease.is_held());
        lease.release().await;
        leases
            .renew(&theirs, late.until)
            .await
            .expect("still theirs");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_with_less_time_left_is_renewed_sooner() {
        let store = MemoryStore::new("memory:sooner");
        let leases = store.leases().expect("leases");
        let mut lease = acquire(leases, 1).await;
        lease.until = now() + 3;
        let mut lease = LeaseKeeper::new(leases, lease);
        let started = Instant::now();
        renew_once(&mut lease).await;
        assert!(
            started.elapsed() <= Duration::from_secs(1),
            "{:?}",
            started.elapsed()
        );
    }

    #[test]
    fn a_defective_lease_record_is_detected() {
        let now = now();
        let status = |until, is_foreign| LeaseStatus {
            owner: "a job".to_owned(),
            until,
            note: None,
            is_foreign,
        };
        for (until, is_foreign, defect) in [
            (None, true, None),
            (None, false, None),
            (Some(now + 40), false, None),
            (Some(now + 40), true, Some(LeaseDefect::Foreign)),
            (Some(now - 20), true, Some(LeaseDefect::Foreign)),
            (Some(now - 40), true, None),
            (Some(u64::MAX), true, Some(LeaseDefect::Foreign)),
            (Some(now + 85), false, None),
            (Some(now + 95), false, Some(LeaseDefect::EndsTooLate)),
            (Some(now + 86_400), false, Some(LeaseDefect::EndsTooLate)),
        ] {
            assert_eq!(
                LeaseDefect::of(&status(until, is_foreign)),
                defect,
                "{until:?} {is_foreign}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_holder_reads_the_note() {
        let store = MemoryStore::new("memory:note");
        let leases = store.leases().expect("leases");
        let mut lease = LeaseKeeper::new(leases, acquire(leases, 1).await);
        assert_eq!(lease.note(), None);
        lease.set_note(Some("a made-up note".to_owned()));
        lease.release().await;
        let next = LeaseKeeper::new(leases, acquire(leases, 2).await);
        assert_eq!(next.note(), Some("a made-up note"));
    }
}
