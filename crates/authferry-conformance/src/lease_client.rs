//! A client of the leases of one place.

use std::{fmt, time::Instant};

use authferry_core::{
    Lease, LeaseError, LeaseRequest, LeaseStatus, Leases, Reads, RecordState, SecretStore,
};

use crate::{
    Fault, Faulty,
    cases::{Failure, ensure},
    place::{POLL_INTERVAL, Place, STALE_READ_TIMEOUT},
};

/// The cases' clock, in Unix seconds. Each call passes its time, so that no case waits for an
/// expiry.
pub(crate) const NOW: u64 = 1_760_000_000;

/// The term of a lease, in seconds.
pub(crate) const TERM: u64 = 60;

/// A client with a separate handle and a number.
pub(crate) struct LeaseClient {
    store: Box<dyn SecretStore>,
    reads: Reads,
    pub(crate) number: u64,
}

/// Returns `N` clients; `None` if the place has no leases.
pub(crate) async fn lease_clients<const N: usize>(
    place: &Place,
) -> Result<Option<[LeaseClient; N]>, Failure> {
    if !place.leases() {
        return Ok(None);
    }
    let mut clients = Vec::new();
    for number in (0..).take(N) {
        let store = place.open().await;
        ensure!(store.leases().is_some(), "{store} offers no leases");
        clients.push(LeaseClient {
            store,
            reads: place.guarantees().reads,
            number,
        });
    }
    Ok(clients.try_into().ok())
}

/// The result of a lease call.
pub(crate) type LeaseResult<T> = Result<T, LeaseError>;

impl LeaseClient {
    pub(crate) fn leases(&self) -> &dyn Leases {
        self.store.leases().expect("lease support")
    }

    pub(crate) fn request(&self, now: u64) -> LeaseRequest {
        lease_request(self.number, now)
    }

    /// Injects `faults` into the next calls.
    pub(crate) fn with_faults<const N: usize>(self, faults: [Fault; N]) -> Self {
        Self {
            store: Box::new(Faulty::new(self.store, faults)),
            ..self
        }
    }

    pub(crate) async fn acquire(&self, now: u64) -> Result<Lease, Failure> {
        let request = self.request(now);
        let call = || self.leases().acquire(&request);
        Ok(self.retry_until(Result::is_ok, call).await?)
    }

    /// Expects that the lease is refused, and that the error describes `held`.
    pub(crate) async fn expect_held(&self, now: u64, held: &Lease) -> Result<(), Failure> {
        let is_expected = |answer: &LeaseResult<Lease>| {
            matches!(answer, Err(LeaseError::Held { owner, until, .. })
                if *owner == held.owner && *until == held.until)
        };
        let request = self.request(now);
        let call = || self.leases().acquire(&request);
        let answer = self.retry_until(is_expected, call).await;
        ensure!(
            is_expected(&answer),
            "{held:?} is held, and {request:?} returned {answer:?}"
        );
        Ok(())
    }

    /// Expects that another client holds the lease. Returns the state of the record, which must
    /// not be in `before`.
    pub(crate) async fn observe_state(
        &self,
        now: u64,
        expired: Option<&RecordState>,
        before: &[RecordState],
    ) -> Result<RecordState, Failure> {
        let is_new = |answer: &LeaseResult<Lease>| matches!(answer, Err(LeaseError::Held { state, .. }) if !before.contains(state));
        let request = LeaseRequest {
            expired: expired.cloned(),
            ..self.request(now)
        };
        let answer = self
            .retry_until(is_new, || self.leases().acquire(&request))
            .await;
        match answer {
            Err(LeaseError::Held { state, .. }) if !before.contains(&state) => Ok(state),
            answer => Err(Failure::new(format!(
                "the lease is held in a new state, and {request:?} returned {answer:?}"
            ))),
        }
    }

    /// Acquires the lease, whose record has not changed since `expired` was read.
    pub(crate) async fn take_over(
        &self,
        now: u64,
        expired: &RecordState,
    ) -> Result<Lease, Failure> {
        let request = LeaseRequest {
            expired: Some(expired.clone()),
            ..self.request(now)
        };
        let call = || self.leases().acquire(&request);
        Ok(self.retry_until(Result::is_ok, call).await?)
    }

    /// Races against `owners`, and returns the lease if this client acquired it.
    pub(crate) async fn race(
        &self,
        request: &LeaseRequest,
        owners: &[String],
    ) -> Result<Option<Lease>, Failure> {
        let is_settled = |answer: &LeaseResult<Lease>| match answer {
            Ok(_) => true,
            Err(LeaseError::Held { owner, .. }) => owners.contains(owner),
            Err(LeaseError::Lost | LeaseError::Store(_)) => false,
        };
        let call = || self.leases().acquire(request);
        let answer = self.retry_until(is_settled, call).await;
        ensure!(
            is_settled(&answer),
            "{request:?} returned {answer:?} in a race of {owners:?}"
        );
        Ok(answer.ok())
    }

    pub(crate) async fn renew(&self, lease: &Lease, until: u64) -> Result<Lease, Failure> {
        let call = || self.leases().renew(lease, until);
        let renewed = self.retry_until(Result::is_ok, call).await?;
        ensure!(
            (&renewed.owner, renewed.holder, renewed.until) == (&lease.owner, lease.holder, until),
            "{lease:?} was renewed until {until}, and is {renewed:?}"
        );
        Ok(renewed)
    }

    pub(crate) async fn release(&self, lease: &Lease) -> Result<(), Failure> {
        let call = || self.leases().release(lease);
        Ok(self.retry_until(Result::is_ok, call).await?)
    }

    /// Expects this status.
    pub(crate) async fn expect_status(&self, status: Option<LeaseStatus>) -> Result<(), Failure> {
        let is_expected = |answer: &LeaseResult<Option<LeaseStatus>>| matches!(answer, Ok(found) if *found == status);
        let answer = self.retry_until(is_expected, || self.leases().look()).await;
        ensure!(
            is_expected(&answer),
            "the status should be {status:?}, and a look returned {answer:?}"
        );
        Ok(())
    }

    /// Expects a record that authferry did not write.
    pub(crate) async fn expect_foreign(&self, until: Option<u64>) -> Result<(), Failure> {
        let is_expected = |answer: &LeaseResult<Option<LeaseStatus>>| matches!(answer, Ok(Some(found)) if found.is_foreign && found.until == until);
        let answer = self.retry_until(is_expected, || self.leases().look()).await;
        ensure!(
            is_expected(&answer),
            "the record is foreign and expires at {until:?}, and a look returned {answer:?}"
        );
        Ok(())
    }

    /// Expects that the call fails because the lease is lost.
    pub(crate) async fn expect_lost<T: fmt::Debug, F: Future<Output = LeaseResult<T>>>(
        &self,
        call: impl Fn() -> F,
    ) -> Result<(), Failure> {
        let is_expected = |answer: &LeaseResult<T>| matches!(answer, Err(LeaseError::Lost));
        let answer = self.retry_until(is_expected, call).await;
        ensure!(
            is_expected(&answer),
            "a lease that was taken over must be lost, and the call returned {answer:?}"
        );
        Ok(())
    }

    /// Calls once. If reads may be stale, retries until the answer is expected or the timeout ends.
    async fn retry_until<T, F: Future<Output = LeaseResult<T>>>(
        &self,
        is_expected: impl Fn(&LeaseResult<T>) -> bool,
        call: impl Fn() -> F,
    ) -> LeaseResult<T> {
        let deadline = Instant::now() + STALE_READ_TIMEOUT;
        loop {
            let answer = call().await;
            match self.reads {
                Reads::Eventual if !is_expected(&answer) && Instant::now() < deadline => {
                    tokio::time::sleep(POLL_INTERVAL).await;
                }
                Reads::Eventual | Reads::Strong => return answer,
            }
        }
    }
}

/// Returns the request of the client with this number.
pub(crate) fn lease_request(number: u64, now: u64) -> LeaseRequest {
    LeaseRequest {
        owner: format!("https://ci.example/acme/app/runs/{number}?attempt=1"),
        // The leading zero must be preserved too.
        holder: 0x0123_4567_89ab_cdef ^ number,
        now,
        until: now + TERM,
        expired: None,
    }
}
