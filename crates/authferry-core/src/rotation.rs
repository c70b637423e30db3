//! *Rotate first* as a machine: a rotation at a chosen moment, under the claim.
//!
//! It looks whether a rotation is due, takes the claim, proves that the login can be
//! written, has the rotation made and gives the claim back. Whoever finds the claim held
//! waits and looks again: what the holder rotated is due no more.
//!
//! The proof is a swap of the login for itself. A store may give the claim and take no
//! login, and a look may show what was there before: either would cost the login once its
//! token is spent. Whoever finds it moved looks again, for a claim on a login that moved is
//! worth nothing.
//!
//! The rotation itself is a [`Trip`](crate::Trip) like any other, in a home of its own,
//! whose command is Codex's own refresh. It begins with what was proven, and its
//! write-through, its conflicts and its rescue are those of every trip.
//!
//! `rotation/model.rs` walks through every order of events of two of them.

use alloc::{vec, vec::Vec};
use core::time::Duration;

use crate::{Trouble, backoff};

#[cfg(test)]
mod model;

/// A rotation under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rotation {
    terms: Terms,
    state: State,
    /// Why it has not got any further, should the time be over.
    hindrance: Hindrance,
    /// Whether the claim is ours.
    won: bool,
    attempt: u32,
}

/// What a rotation goes by, fixed before it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Terms {
    /// Whether the store has claims. Without one nothing keeps two jobs from spending the
    /// same token.
    pub claims: bool,
    /// Spreads out the pauses of many jobs; drawn at random, once.
    pub salt: u64,
}

/// What the machine asks for. Each but `Finish` is answered by one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Look at what the store holds; answered by [`Event::Looked`].
    Look,
    /// Ask for the claim, with the same bid each time; answered by [`Event::Claimed`].
    Claim,
    /// Swap the login that was looked at for itself; answered by [`Event::Proven`].
    Prove,
    /// Make the trip that rotates, and renew the claim meanwhile; answered by
    /// [`Event::Turned`] or [`Event::Left`].
    Turn,
    /// Give the claim back; answered by [`Event::Released`], whatever comes of it.
    Release,
    /// Let some time pass; answered by [`Event::Woke`], unless the machine moved on.
    Wait(Duration),
    /// The rotation is over.
    Finish(Outcome),
}

/// What happened in the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The store was looked at.
    Looked(Sight),
    /// The claim was won, or was not.
    Claimed(Grant),
    /// The login was swapped for itself, or was not.
    Proven(Proof),
    /// The trip is over, however it ended.
    Turned,
    /// The trip is over, but its Codex runs on and may have spent the token.
    Left,
    /// The claim is given back, or is left to its end.
    Released,
    /// The wait is over.
    Woke,
    /// The time is over: for getting the claim, or for what comes between it and the trip.
    /// Means nothing once the trip has begun.
    Deadline,
}

/// What a look at the store shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sight {
    /// A login that is due for rotation.
    Due,
    /// A login that is not.
    Fresh,
    /// No login that could be rotated.
    Nothing,
    /// A login that is due, and a rotation of it is under way on this machine.
    Held,
    /// The store did not show what it holds.
    Trouble(Trouble),
}

/// What became of a bid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Grant {
    /// The claim is ours.
    Won,
    /// Somebody else holds it.
    Held,
    /// The store did not answer as asked. The claim may be ours all the same.
    Trouble(Trouble),
}

/// What became of a login that was swapped for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Proof {
    /// The store holds what was looked at, and takes a login.
    Landed,
    /// The store holds something else by now.
    Moved,
    /// Nothing was written: the login is known to be dead.
    InVain,
    /// The store did not answer as asked. It may have been written all the same.
    Trouble(Trouble),
}

/// How a rotation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Nothing is due, or no more.
    Fresh,
    /// There is nothing that could be rotated.
    Nothing,
    /// The trip was made, and its own outcome tells the rest; or it would be in vain.
    Turned,
    /// The trip was made, and its Codex runs on. The claim is not given back: the process that
    /// watches this Codex renews it, and without one it ends by itself.
    Left,
    /// It was not even begun.
    Hindered(Hindrance),
}

/// Why a rotation was not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hindrance {
    /// Somebody else held the claim until the time was over.
    Held,
    /// The store could not be read.
    Unreadable,
    /// The store did not give the claim, or took no login: it cannot be written.
    Unwritable,
    /// The store did not answer in time.
    OutOfTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum State {
    Looking,
    Claiming,
    /// The time is over, and what becomes of the bid that is under way is awaited.
    Retracting,
    Pausing,
    Proving,
    Turning,
    Releasing(Outcome),
    Done,
}

type Step = (Rotation, Vec<Effect>);

impl Rotation {
    /// Begins with a look at the store.
    #[must_use]
    pub fn start(terms: Terms) -> Step {
        let rotation = Self {
            terms,
            state: State::Looking,
            hindrance: Hindrance::OutOfTime,
            won: false,
            attempt: 0,
        };
        rotation.go(State::Looking, Effect::Look)
    }

    /// Takes one event in. An event that answers nothing that is still asked changes nothing.
    #[must_use]
    pub fn step(mut self, event: Event) -> Step {
        match (self.state, event) {
            (State::Looking, Event::Looked(sight)) => match sight {
                Sight::Due if self.terms.claims && !self.won => {
                    self.go(State::Claiming, Effect::Claim)
                }
                Sight::Due => self.go(State::Proving, Effect::Prove),
                Sight::Fresh => self.end(Outcome::Fresh),
                Sight::Nothing => self.end(Outcome::Nothing),
                Sight::Held => {
                    self.hindrance = Hindrance::Held;
                    self.pause()
                }
                Sight::Trouble(Trouble::Transient) => self.pause(),
                Sight::Trouble(Trouble::Permanent) => self.hindered(Hindrance::Unreadable),
            },
            (State::Claiming, Event::Claimed(grant)) => match grant {
                Grant::Won => {
                    self.won = true;
                    self.hindrance = Hindrance::OutOfTime;
                    self.go(State::Proving, Effect::Prove)
                }
                Grant::Held => {
                    self.hindrance = Hindrance::Held;
                    self.pause()
                }
                Grant::Trouble(Trouble::Transient) => self.pause(),
                Grant::Trouble(Trouble::Permanent) => self.hindered(Hindrance::Unwritable),
            },
            (State::Retracting, Event::Claimed(Grant::Won)) => {
                self.won = true;
                self.out_of_time()
            }
            (State::Proving, Event::Proven(proof)) => match proof {
                Proof::Landed => self.go(State::Turning, Effect::Turn),
                Proof::Moved | Proof::Trouble(Trouble::Transient) => self.pause(),
                Proof::InVain => self.end(Outcome::Turned),
                Proof::Trouble(Trouble::Permanent) => self.hindered(Hindrance::Unwritable),
            },
            (State::Pausing, Event::Woke) => self.go(State::Looking, Effect::Look),
            (State::Turning, Event::Turned) => self.end(Outcome::Turned),
            (State::Turning, Event::Left) => self.finish(Outcome::Left),
            (State::Releasing(outcome), Event::Released) => self.finish(outcome),
            (State::Retracting, Event::Claimed(_))
            | (State::Looking | State::Pausing | State::Proving, Event::Deadline) => {
                self.out_of_time()
            }
            (State::Claiming, Event::Deadline) => {
                self.state = State::Retracting;
                (self, vec![])
            }
            _ => (self, vec![]),
        }
    }

    /// Returns whether somebody else was found to hold the claim.
    #[must_use]
    pub fn is_held_up(&self) -> bool {
        self.hindrance == Hindrance::Held
    }

    fn go(mut self, state: State, effect: Effect) -> Step {
        self.state = state;
        (self, vec![effect])
    }

    /// Each attempt starts from a fresh look: whoever holds the claim may be done.
    fn pause(mut self) -> Step {
        self.attempt = self.attempt.saturating_add(1);
        let delay = backoff::pause(self.attempt, self.terms.salt);
        self.go(State::Pausing, Effect::Wait(delay))
    }

    fn out_of_time(self) -> Step {
        let why = self.hindrance;
        self.hindered(why)
    }

    fn hindered(self, why: Hindrance) -> Step {
        self.end(Outcome::Hindered(why))
    }

    /// Gives the claim back before anything is over.
    fn end(self, outcome: Outcome) -> Step {
        if self.won {
            self.go(State::Releasing(outcome), Effect::Release)
        } else {
            self.finish(outcome)
        }
    }

    fn finish(self, outcome: Outcome) -> Step {
        self.go(State::Done, Effect::Finish(outcome))
    }
}
