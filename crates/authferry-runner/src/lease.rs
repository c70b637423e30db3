//! A claim that is held for longer than its term.

use std::{
    fmt,
    future::{Future, pending},
    pin::Pin,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use authferry_core::{Bid, CLOCK_SKEW, Claim, ClaimError, Claims, RecordState, Standing};
use tokio::time::{Instant, sleep_until};

use crate::deadline;

/// How long a claim lasts that nobody renews: as long as others wait for a holder that died.
const TERM: Duration = Duration::from_mins(1);

/// How long a record is seen unchanged before it is taken over, whatever end it names: a holder
/// renews at a third of its term.
pub(crate) const EXPIRY: Duration = Duration::from_secs(TERM.as_secs() + CLOCK_SKEW);

/// Between a renewal that the store did not answer and the next attempt.
const AGAIN: Duration = Duration::from_secs(5);

/// How long the store may take to take a claim back.
const RELEASE: Duration = Duration::from_secs(3);

/// A claim, renewed at a third of its term for as long as it is awaited.
pub struct Lease<'a> {
    claims: &'a dyn Claims,
    claim: Claim,
    next: Instant,
    renewal: Option<Renewal<'a>>,
    lost: bool,
}

type Renewal<'a> = Pin<Box<dyn Future<Output = Result<Claim, ClaimError>> + 'a>>;

impl<'a> Lease<'a> {
    pub(crate) fn new(claims: &'a dyn Claims, claim: Claim) -> Self {
        // One that was won by an earlier attempt, whose answer was lost, ends sooner.
        let left = Duration::from_secs(claim.until.saturating_sub(now()));
        Self {
            claims,
            claim,
            next: deadline::after(left.min(TERM) / 3),
            renewal: None,
            lost: false,
        }
    }

    /// What the last holder left.
    pub(crate) fn note(&self) -> Option<&str> {
        self.claim.note.as_deref()
    }

    /// What the next holder will find.
    pub(crate) fn leave(&mut self, note: Option<String>) {
        self.claim.note = note;
    }

    /// Whether the store is at work on a renewal.
    pub(crate) fn is_at_work(&self) -> bool {
        self.renewal.is_some()
    }

    /// Returns whether somebody else has taken the claim over.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lost
    }

    /// Whether nobody else may act on the claim: it is ours, and has not ended.
    pub(crate) fn is_held(&self) -> bool {
        !self.lost && now() < self.claim.until
    }

    /// Begins a renewal when it is time, or waits for the answer to one. Loses nothing when
    /// dropped half-way.
    pub(crate) async fn renew(&mut self) {
        if self.lost {
            return pending().await;
        }
        let Some(renewal) = &mut self.renewal else {
            sleep_until(self.next).await;
            let (claims, claim) = (self.claims, self.claim.clone());
            let until = now().saturating_add(TERM.as_secs());
            self.renewal = Some(Box::pin(async move { claims.renew(&claim, until).await }));
            return;
        };
        let renewed = renewal.as_mut().await;
        self.renewal = None;
        self.next = deadline::after(TERM / 3);
        match renewed {
            Ok(claim) => self.claim = claim,
            Err(ClaimError::Lost | ClaimError::Held { .. }) => self.lost = true,
            Err(ClaimError::Store(_)) => self.next = deadline::after(AGAIN),
        }
    }

    /// Lets go of a renewal that is not answered.
    pub(crate) fn give_up(&mut self) {
        self.renewal = None;
        self.next = deadline::after(AGAIN);
    }

    /// Gives the claim back. If that fails it ends by itself.
    pub async fn release(self) {
        drop(self.renewal);
        if !self.lost {
            let _in_time = tokio::time::timeout(RELEASE, self.claims.release(&self.claim)).await;
        }
    }
}

impl fmt::Debug for Lease<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({:?})", self.claim)
    }
}

/// What to ask for.
pub(crate) fn bid(owner: &str, holder: u64) -> Bid {
    let now = now();
    Bid {
        owner: owner.to_owned(),
        holder,
        now,
        until: now.saturating_add(TERM.as_secs()),
        expired: None,
    }
}

/// The state of the record that another job holds, and since when this process has seen it.
#[derive(Debug, Default)]
pub(crate) struct Observation(Option<(RecordState, Instant)>);

impl Observation {
    /// Notes the state that an attempt to acquire was answered.
    pub(crate) fn note(&mut self, state: RecordState) {
        let is_known = self.0.as_ref().is_some_and(|(known, _)| *known == state);
        if !is_known {
            self.0 = Some((state, Instant::now()));
        }
    }

    /// Returns the state if it has not changed for long enough.
    pub(crate) fn expired(&self) -> Option<RecordState> {
        let (state, since) = self.0.as_ref()?;
        (since.elapsed() >= EXPIRY).then(|| state.clone())
    }
}

/// What is wrong with the record of a lease, so that jobs wait for it in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseDefect {
    /// It is not as authferry wrote it: copied, or written by hand.
    Foreign,
    /// It ends later than any lease that is acquired now: the clock of its holder, or this one,
    /// is wrong.
    EndsTooLate,
}

impl LeaseDefect {
    /// How long a job waits for such a lease before it takes it over.
    pub const WAIT: Duration = EXPIRY;

    /// Returns what is wrong with a record that is not free yet. Since when it is so, one read
    /// cannot tell.
    #[must_use]
    pub fn of(standing: &Standing) -> Option<Self> {
        let (until, now) = (standing.until?, now());
        if standing.is_foreign && until.saturating_add(CLOCK_SKEW) > now {
            Some(Self::Foreign)
        } else if until > now.saturating_add(EXPIRY.as_secs()) {
            Some(Self::EndsTooLate)
        } else {
            None
        }
    }
}

/// The time, in seconds since 1970.
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

    async fn claim(claims: &dyn Claims, holder: u64) -> Claim {
        let claim = claims.acquire(&bid("a job", holder)).await;
        claim.expect("a free claim")
    }

    /// Lets as much time pass as a lease asks for, and the store answer.
    async fn renewed(lease: &mut Lease<'_>) {
        lease.renew().await;
        assert!(lease.is_at_work(), "nothing was sent");
        lease.renew().await;
        assert!(!lease.is_at_work());
    }

    #[tokio::test(start_paused = true)]
    async fn a_claim_is_renewed_long_before_it_ends() {
        let store = MemoryStore::new("memory:lease");
        let claims = store.claims().expect("claims");
        let first = claim(claims, 1).await;
        let mut lease = Lease::new(claims, first.clone());
        assert!(lease.is_held());
        let begin = Instant::now();
        for round in 1..=6 {
            renewed(&mut lease).await;
            assert!(begin.elapsed() <= round * TERM / 3 + Duration::from_secs(1));
        }
        assert!(begin.elapsed() > TERM, "outlived");
        assert_ne!(lease.claim.version, first.version);
        lease.release().await;
        claim(claims, 2).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_somebody_else_took_over_is_lost_and_left_alone() {
        let store = MemoryStore::new("memory:lost");
        let claims = store.claims().expect("claims");
        let mut lease = Lease::new(claims, claim(claims, 1).await);
        let mut late = bid("another job", 2);
        late.now += 10 * TERM.as_secs();
        let theirs = claims.acquire(&late).await.expect("an ended claim");
        renewed(&mut lease).await;
        assert!(lease.is_lost());
        assert!(!lease.is_held());
        lease.release().await;
        claims
            .renew(&theirs, late.until)
            .await
            .expect("still theirs");
    }

    #[tokio::test(start_paused = true)]
    async fn a_claim_that_was_won_a_while_ago_is_renewed_sooner() {
        let store = MemoryStore::new("memory:sooner");
        let claims = store.claims().expect("claims");
        let mut claim = claim(claims, 1).await;
        claim.until = now() + 3;
        let mut lease = Lease::new(claims, claim);
        let begin = Instant::now();
        renewed(&mut lease).await;
        assert!(
            begin.elapsed() <= Duration::from_secs(1),
            "{:?}",
            begin.elapsed()
        );
    }

    #[test]
    fn a_lease_that_jobs_wait_for_in_vain_is_named() {
        let now = now();
        let standing = |until, is_foreign| Standing {
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
                LeaseDefect::of(&standing(until, is_foreign)),
                defect,
                "{until:?} {is_foreign}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_is_found_by_the_next_holder() {
        let store = MemoryStore::new("memory:note");
        let claims = store.claims().expect("claims");
        let mut lease = Lease::new(claims, claim(claims, 1).await);
        assert_eq!(lease.note(), None);
        lease.leave(Some("a made-up note".to_owned()));
        lease.release().await;
        let next = Lease::new(claims, claim(claims, 2).await);
        assert_eq!(next.note(), Some("a made-up note"));
    }
}
