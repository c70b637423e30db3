//! *Rotate first* as a state machine: rotates a login before the job, under the lease.
//!
//! The machine reads the store, acquires the lease if a rotation is due, proves that the store
//! accepts a write, refreshes the login, and releases the lease. If another job holds the lease,
//! the machine backs off and reads again: after the holder's rotation the login is no longer due.
//!
//! The proof is a swap of the login for itself. A store may grant the lease but accept no login,
//! and a read may be stale; either would lose the login once the refresh token is spent. If the
//! proof conflicts, the machine reads again, because a lease protects nothing if the login
//! changed.
//!
//! The refresh is a [`RoundTrip`](crate::RoundTrip) in a private home, with Codex's own refresh
//! as its command. It starts from the proven login. Its write-through, conflicts and rescue work
//! as in every round trip.
//!
//! `rotation/model.rs` explores every order of events of two rotations.

use alloc::{vec, vec::Vec};
use core::time::Duration;

use crate::{Retryable, backoff};

#[cfg(test)]
mod model;

/// A rotation in progress: a pure state machine.
///
/// # Examples
///
/// ```
/// use authferry_core::rotation::*;
///
/// let terms = RotationTerms { leases: true, salt: 7 };
/// let (rotation, effects) = Rotation::start(terms);
/// assert_eq!(effects, [RotationEffect::Read]);
/// let (_, effects) = rotation.step(RotationEvent::Read(DueState::Fresh));
/// assert_eq!(effects, [RotationEffect::Finish(RotationOutcome::Fresh)]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rotation {
    terms: RotationTerms,
    state: RotationState,
    /// The outcome to report if the deadline passes now.
    blocker: Blocker,
    /// Whether we hold the lease.
    holds_lease: bool,
    attempt: u32,
}

/// The settings of a rotation, fixed before it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RotationTerms {
    /// Whether the store supports leases. Without a lease, two jobs may spend the same refresh
    /// token.
    pub leases: bool,
    /// Jitter for the backoff: random, drawn once.
    pub salt: u64,
}

/// What the caller must do next. The caller answers each effect except `Finish` with one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RotationEffect {
    /// Read the store; answered by [`RotationEvent::Read`].
    Read,
    /// Acquire the lease, with the same holder on every attempt; answered by
    /// [`RotationEvent::Acquired`].
    Acquire,
    /// Swap the login that was read for itself; answered by [`RotationEvent::Proven`].
    Prove,
    /// Run the round trip that rotates, and renew the lease meanwhile; answered by
    /// [`RotationEvent::Refreshed`] or [`RotationEvent::CodexRunning`].
    Refresh,
    /// Release the lease; answered by [`RotationEvent::Released`], even after a failure.
    Release,
    /// Wait this long; answered by [`RotationEvent::Waited`], unless another event comes first.
    Wait(Duration),
    /// The rotation is over.
    Finish(RotationOutcome),
}

/// The answer to an effect, or a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RotationEvent {
    /// The store was read, or the read failed.
    Read(DueState),
    /// The answer to the lease request.
    Acquired(AcquireResult),
    /// The answer to the swap of the login for itself.
    Proven(Proof),
    /// The round trip is over, with any outcome.
    Refreshed,
    /// The round trip is over, but its Codex still runs and may have spent the refresh token.
    CodexRunning,
    /// The lease is released, or expires by itself.
    Released,
    /// The wait is over.
    Waited,
    /// The timeout passed: for the lease, or for the steps between the lease and the round trip.
    /// Ignored once the round trip has begun.
    Deadline,
}

/// What a read of the store found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DueState {
    /// A login that is due for rotation.
    Due,
    /// A login that is not due.
    Fresh,
    /// No login that a rotation could use.
    NoLogin,
    /// A login that is due, but another rotation on this machine is in progress.
    Busy,
    /// The read failed.
    Failed(Retryable),
}

/// The result of a request to acquire the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AcquireResult {
    /// We hold the lease.
    Acquired,
    /// Another job holds the lease.
    Held,
    /// The request failed. We may hold the lease nevertheless.
    Failed(Retryable),
}

/// The result of the swap of the login for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Proof {
    /// The store still held the login that was read, and accepted the write.
    Landed,
    /// The store no longer holds the login that was read.
    Conflict,
    /// Nothing was written, because no token will be spent: the login is marked as dead, or there
    /// is no private home for the rotation.
    Skipped,
    /// The write failed. It may have landed nevertheless.
    Failed(Retryable),
}

/// How a rotation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RotationOutcome {
    /// No rotation is due, or no longer.
    Fresh,
    /// The store holds no login that a rotation could use.
    NoLogin,
    /// The round trip ran and has its own outcome, or was skipped ([`Proof::Skipped`]).
    Refreshed,
    /// The round trip ran, and its Codex still runs. The lease is not released: the process that
    /// watches this Codex renews the lease. Without such a process the lease expires.
    CodexRunning,
    /// The round trip did not start.
    Blocked(Blocker),
}

/// Why a rotation did not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Blocker {
    /// Another job held the lease until the timeout, or another rotation on this machine was in
    /// progress ([`DueState::Busy`]).
    Held,
    /// The store could not be read.
    Unreadable,
    /// The store cannot be written: it refused the lease or the login.
    Unwritable,
    /// The store did not answer before the timeout.
    OutOfTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum RotationState {
    Reading,
    Acquiring,
    /// The deadline passed while a lease request is in flight: awaits the answer, to release the
    /// lease if it is ours.
    AcquiringAfterDeadline,
    Pausing,
    Proving,
    Refreshing,
    Releasing(RotationOutcome),
    Done,
}

type RotationStep = (Rotation, Vec<RotationEffect>);

impl Rotation {
    /// Starts with a read of the store.
    #[must_use]
    pub fn start(terms: RotationTerms) -> RotationStep {
        let rotation = Self {
            terms,
            state: RotationState::Reading,
            blocker: Blocker::OutOfTime,
            holds_lease: false,
            attempt: 0,
        };
        rotation.go(RotationState::Reading, RotationEffect::Read)
    }

    /// Processes one event. Ignores an event that does not answer a pending effect.
    #[must_use]
    pub fn step(mut self, event: RotationEvent) -> RotationStep {
        match (self.state, event) {
            (RotationState::Reading, RotationEvent::Read(state)) => match state {
                DueState::Due if self.terms.leases && !self.holds_lease => {
                    self.go(RotationState::Acquiring, RotationEffect::Acquire)
                }
                DueState::Due => self.go(RotationState::Proving, RotationEffect::Prove),
                DueState::Fresh => self.end(RotationOutcome::Fresh),
                DueState::NoLogin => self.end(RotationOutcome::NoLogin),
                DueState::Busy => {
                    self.blocker = Blocker::Held;
                    self.pause()
                }
                DueState::Failed(Retryable::Yes) => self.pause(),
                DueState::Failed(Retryable::No) => self.block(Blocker::Unreadable),
            },
            (RotationState::Acquiring, RotationEvent::Acquired(result)) => match result {
                AcquireResult::Acquired => {
                    self.holds_lease = true;
                    self.blocker = Blocker::OutOfTime;
                    self.go(RotationState::Proving, RotationEffect::Prove)
                }
                AcquireResult::Held => {
                    self.blocker = Blocker::Held;
                    self.pause()
                }
                AcquireResult::Failed(Retryable::Yes) => self.pause(),
                AcquireResult::Failed(Retryable::No) => self.block(Blocker::Unwritable),
            },
            (
                RotationState::AcquiringAfterDeadline,
                RotationEvent::Acquired(AcquireResult::Acquired),
            ) => {
                self.holds_lease = true;
                self.out_of_time()
            }
            (RotationState::Proving, RotationEvent::Proven(proof)) => match proof {
                Proof::Landed => self.go(RotationState::Refreshing, RotationEffect::Refresh),
                Proof::Conflict | Proof::Failed(Retryable::Yes) => self.pause(),
                Proof::Skipped => self.end(RotationOutcome::Refreshed),
                Proof::Failed(Retryable::No) => self.block(Blocker::Unwritable),
            },
            (RotationState::Pausing, RotationEvent::Waited) => {
                self.go(RotationState::Reading, RotationEffect::Read)
            }
            (RotationState::Refreshing, RotationEvent::Refreshed) => {
                self.end(RotationOutcome::Refreshed)
            }
            (RotationState::Refreshing, RotationEvent::CodexRunning) => {
                self.finish(RotationOutcome::CodexRunning)
            }
            (RotationState::Releasing(outcome), RotationEvent::Released) => self.finish(outcome),
            (RotationState::AcquiringAfterDeadline, RotationEvent::Acquired(_))
            | (
                RotationState::Reading | RotationState::Pausing | RotationState::Proving,
                RotationEvent::Deadline,
            ) => self.out_of_time(),
            (RotationState::Acquiring, RotationEvent::Deadline) => {
                self.state = RotationState::AcquiringAfterDeadline;
                (self, vec![])
            }
            _ => (self, vec![]),
        }
    }

    /// Returns whether another job or another rotation on this machine blocks this one.
    #[must_use]
    pub fn is_waiting_for_holder(&self) -> bool {
        self.blocker == Blocker::Held
    }

    fn go(mut self, state: RotationState, effect: RotationEffect) -> RotationStep {
        self.state = state;
        (self, vec![effect])
    }

    /// Backs off. Each retry starts with a new read, because the lease holder may be done.
    fn pause(mut self) -> RotationStep {
        self.attempt = self.attempt.saturating_add(1);
        let delay = backoff::pause(self.attempt, self.terms.salt);
        self.go(RotationState::Pausing, RotationEffect::Wait(delay))
    }

    fn out_of_time(self) -> RotationStep {
        let why = self.blocker;
        self.block(why)
    }

    fn block(self, why: Blocker) -> RotationStep {
        self.end(RotationOutcome::Blocked(why))
    }

    /// Releases the lease, if we hold it, before finishing.
    fn end(self, outcome: RotationOutcome) -> RotationStep {
        if self.holds_lease {
            self.go(RotationState::Releasing(outcome), RotationEffect::Release)
        } else {
            self.finish(outcome)
        }
    }

    fn finish(self, outcome: RotationOutcome) -> RotationStep {
        self.go(RotationState::Done, RotationEffect::Finish(outcome))
    }
}
