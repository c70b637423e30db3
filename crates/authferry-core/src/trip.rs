//! The round trip as a machine: an event goes in, effects come out.
//!
//! Three activities advance side by side: the command (not yet, running, exited), the
//! file that it rewrites, and the one conversation with the store. Writing through while
//! the command runs and persisting after it are the same path, and at most one request
//! is under way. The machine holds no secret, so it can be printed, logged and explored:
//! `trip/model.rs` walks through every order of events.
//!
//! A swap that did not clearly succeed is settled by looking. What is there is then
//! ours (it landed after all), still the base (try again, same write id), or theirs.

use alloc::{vec, vec::Vec};

use crate::backoff;
use crate::policy::Winner;
use crate::verdict::{self, Held, Refusal, Seen, Start};
use crate::{Fingerprint, Generation, Version, WriteId};

mod messages;
#[cfg(test)]
mod model;
#[cfg(test)]
mod rows;

pub use messages::{
    Base, Cause, Effect, Event, Goal, Keep, Outcome, Placing, Reply, Terms, Trouble, Write,
};

/// A round trip under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Trip {
    terms: Terms,
    child: Child,
    sync: Sync,
    /// What was on disk before the trip; what a restore is judged by.
    before: Seen,
    /// The version that the file on disk is known to descend from, if it is.
    descent: Option<Version>,
    /// `None` only until the first read.
    base: Option<Base>,
    /// The newest generation seen on disk that may be persisted.
    newest: Option<Generation>,
    /// Generations that were on disk before the newest: a file set back to one of them is
    /// no news.
    past: Vec<Fingerprint>,
    /// Why the file cannot be persisted as it was left, if so.
    left: Option<Cause>,
    /// Writes that are not settled: each may have landed, or may yet.
    sent: Vec<Write>,
    /// The base is known not to be current any more: look before the next swap.
    moved: bool,
    /// A generation that is not tried again until it changes or the command ends.
    parked: Option<Fingerprint>,
    /// Something of ours has landed.
    written: bool,
    buried: Vec<Fingerprint>,
    attempt: u32,
    writes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Child {
    NotYet,
    Running,
    Exited,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Sync {
    Idle,
    Reading,
    Placing,
    /// What is on disk is kept first; then theirs is placed over it.
    Yielding,
    Swapping(Write),
    /// After the pause: read (`true`), or go on with what is due.
    Pausing(bool),
    /// Theirs is kept first; then ours is swapped over it.
    Burying(Base),
    Rescuing(Outcome),
    Done,
}

type Step = (Trip, Vec<Effect>);

impl Trip {
    /// Begins a trip that restores; `seen` is the file before anything was touched, and
    /// `descent` the version that it is known to descend from, if it is.
    #[must_use]
    pub fn start(terms: Terms, seen: Seen, descent: Option<Version>) -> Step {
        let mut trip = Self::new(terms, Child::NotYet);
        trip.before = seen;
        trip.descent = descent;
        trip.look()
    }

    /// Begins the second half of a trip whose first half another process made: persists
    /// what `seen` found on disk, which descends from `base`.
    #[must_use]
    pub fn resume(terms: Terms, base: Base, seen: Seen) -> Step {
        let mut trip = Self::new(terms, Child::Running);
        trip.base = Some(base);
        trip.step(Event::Exited(seen))
    }

    /// Joins a trip that another process has begun, and that is still under way: `seen` is on
    /// disk now, and descends from `base`. Until it is told that the command has exited, it
    /// writes through and does nothing else.
    #[must_use]
    pub fn join(terms: Terms, base: Base, seen: Seen) -> Step {
        let mut trip = Self::new(terms, Child::Running);
        trip.base = Some(base);
        match seen {
            Seen::Usable(generation) => trip.step(Event::Changed(generation)),
            // It may be so for an instant.
            Seen::Missing | Seen::Unusable => (trip, vec![]),
        }
    }

    /// Goes on with a trip that was about to end well, for the file changed after the last
    /// look at it.
    #[must_use]
    pub fn reopen(mut self, seen: Seen) -> Step {
        self.child = Child::Running;
        self.sync = Sync::Idle;
        self.left = None;
        self.step(Event::Exited(seen))
    }

    /// Takes one event in. An event that answers nothing that is still asked changes nothing.
    #[must_use]
    pub fn step(mut self, event: Event) -> Step {
        match (self.sync.clone(), event) {
            (Sync::Reading, Event::Read(Ok(held))) if self.child == Child::NotYet => {
                self.begin(held)
            }
            (Sync::Reading, Event::Read(Ok(held))) => self.settle(held),
            (Sync::Reading, Event::Read(Err(trouble))) => self.hindered(trouble, true),
            (Sync::Placing, Event::Placed(placing)) => match placing {
                Placing::Done => self.ready(),
                Placing::Overtaken => self.refuse(Refusal::Overtaken),
                Placing::Failed => self.refuse(Refusal::NotPlaced),
            },
            (Sync::Yielding, Event::Rescued(true)) => self.place(),
            (Sync::Yielding, Event::Rescued(false)) => self.refuse(Refusal::NotKept),
            (Sync::Swapping(write), Event::Swapped(reply)) => self.swapped(write, reply),
            (Sync::Pausing(true), Event::Woke) => self.look(),
            (Sync::Pausing(false), Event::Woke) => self.advance(),
            (Sync::Burying(theirs), Event::Rescued(kept)) => self.bury(theirs, kept),
            (Sync::Rescuing(outcome), Event::Rescued(kept)) => self.finish(rescued(outcome, kept)),
            (sync, Event::Changed(generation)) if self.child == Child::Running => {
                self.see(generation);
                if sync == Sync::Idle {
                    self.advance()
                } else {
                    (self, vec![])
                }
            }
            (sync, Event::Exited(seen)) if self.child == Child::Running => {
                self.child = Child::Exited;
                self.parked = None;
                self.attempt = 0;
                match seen {
                    Seen::Usable(generation) => self.left = self.see(generation),
                    Seen::Unusable => self.left = Some(Cause::Unusable),
                    Seen::Missing => self.left = Some(Cause::Missing),
                }
                match sync {
                    Sync::Idle | Sync::Pausing(false) => self.advance(),
                    Sync::Pausing(true) => self.look(),
                    Sync::Reading
                    | Sync::Placing
                    | Sync::Yielding
                    | Sync::Swapping(_)
                    | Sync::Burying(_)
                    | Sync::Rescuing(_)
                    | Sync::Done => (self, vec![]),
                }
            }
            (Sync::Reading | Sync::Swapping(_) | Sync::Pausing(_), Event::Deadline)
                if self.child != Child::Running =>
            {
                self.out_of_time()
            }
            _ => (self, vec![]),
        }
    }

    /// Returns the generation in the store that the file descends from; `None` until the
    /// store was read.
    #[must_use]
    pub fn base(&self) -> Option<&Base> {
        self.base.as_ref()
    }

    /// Returns the generation that the store should hold and, as far as is known, does not.
    #[must_use]
    pub fn due(&self) -> Option<&Generation> {
        let base = self.base.as_ref()?;
        self.newest
            .as_ref()
            .filter(|g| g.fingerprint != base.generation.fingerprint)
    }

    /// Lets a model forget how often something was tried: only the length of a pause
    /// depends on it.
    #[cfg(test)]
    pub(crate) fn forget_attempts(&mut self) {
        self.attempt = self.attempt.min(1);
    }

    fn new(terms: Terms, child: Child) -> Self {
        Self {
            terms,
            child,
            sync: Sync::Idle,
            before: Seen::Missing,
            descent: None,
            base: None,
            newest: None,
            past: Vec::new(),
            left: None,
            sent: Vec::new(),
            moved: false,
            parked: None,
            written: false,
            buried: Vec::new(),
            attempt: 0,
            writes: 0,
        }
    }

    /// The store was read before the command: the table *What restore does*.
    fn begin(mut self, held: Option<Held>) -> Step {
        let derived = held
            .as_ref()
            .is_some_and(|held| self.descent.as_ref() == Some(&held.version));
        let start = verdict::start(&self.before, held.as_ref(), derived, self.terms.replace);
        if let Some(Held {
            version,
            generation: Some(generation),
            count,
            ..
        }) = held
        {
            self.base = Some(Base {
                version,
                generation,
                count,
            });
        }
        match start {
            Start::Keep => self.ready(),
            Start::Place => self.place(),
            Start::Yield => {
                self.sync = Sync::Yielding;
                (self, vec![Effect::Rescue(Keep::Ours)])
            }
            Start::Adopt(ours) => {
                self.newest = Some(ours.clone());
                match &self.base {
                    Some(theirs) if !derived && !self.terms.history => {
                        self.sync = Sync::Burying(theirs.clone());
                        (self, vec![Effect::Rescue(Keep::Theirs)])
                    }
                    _ => self.swap(ours),
                }
            }
            Start::Refuse(why) => self.refuse(why),
        }
    }

    fn place(mut self) -> Step {
        self.newest = None;
        self.sync = Sync::Placing;
        (self, vec![Effect::Place])
    }

    /// File and store agree, and nothing is under way.
    fn ready(mut self) -> Step {
        self.sent.clear();
        self.attempt = 0;
        match self.terms.goal {
            Goal::Restore => self.finish(Outcome::Restored),
            Goal::Run => {
                self.child = Child::Running;
                self.sync = Sync::Idle;
                (self, vec![Effect::Run])
            }
        }
    }

    /// Takes note of a generation on disk; returns why it must not be persisted, if so.
    fn see(&mut self, generation: Generation) -> Option<Cause> {
        let latest = self
            .newest
            .as_ref()
            .or(self.base.as_ref().map(|base| &base.generation))?;
        let known = latest.fingerprint;
        if generation.fingerprint == known || self.past.contains(&generation.fingerprint) {
            return None;
        }
        if generation.account != latest.account {
            if !self.terms.allow_account_change {
                return Some(Cause::OtherAccount);
            }
        } else if generation.issued.is_surely_before(&latest.issued) {
            return Some(Cause::Older);
        }
        self.past.push(known);
        self.newest = Some(generation);
        None
    }

    /// Whether the newest generation descends from this one.
    fn is_past(&self, fingerprint: Fingerprint) -> bool {
        let base = self.base.as_ref().map(|base| base.generation.fingerprint);
        base == Some(fingerprint) || self.past.contains(&fingerprint)
    }

    /// Nothing is under way: does what is due, or rests, or ends.
    fn advance(mut self) -> Step {
        if self.child == Child::NotYet {
            return self.ready();
        }
        match self.due().cloned() {
            Some(ours) if self.parked != Some(ours.fingerprint) => {
                if self.moved {
                    self.look()
                } else {
                    self.swap(ours)
                }
            }
            _ if self.child == Child::Running => {
                self.sync = Sync::Idle;
                (self, vec![])
            }
            _ => match self.left {
                // Nothing is left that could be kept.
                Some(cause @ Cause::Missing) => self.finish(Outcome::Stranded {
                    cause,
                    rescued: false,
                }),
                Some(cause) => self.strand(cause),
                None if self.written => {
                    let buried = core::mem::take(&mut self.buried);
                    self.finish(Outcome::Persisted { buried })
                }
                None => self.finish(Outcome::Unchanged),
            },
        }
    }

    /// Sends a generation on top of the base, under the write id it had before if this is
    /// another attempt at the same write.
    fn swap(mut self, generation: Generation) -> Step {
        let Some(base) = &self.base else {
            return (self, vec![]);
        };
        let earlier = self.sent.iter().find(|w| {
            w.generation.fingerprint == generation.fingerprint && w.expected == base.version
        });
        let write = if let Some(write) = earlier {
            write.clone()
        } else {
            self.writes += 1;
            let write = Write {
                id: WriteId {
                    trip: self.terms.trip,
                    number: self.writes,
                },
                expected: base.version.clone(),
                generation,
                count: base.count + 1,
            };
            self.sent.push(write.clone());
            write
        };
        self.sync = Sync::Swapping(write.clone());
        (self, vec![Effect::Swap(write)])
    }

    fn swapped(mut self, write: Write, reply: Reply) -> Step {
        match reply {
            Reply::Landed(version) => {
                self.landed(write, version);
                self.advance()
            }
            // Before the command the look leads straight to the next swap, hence the pause.
            Reply::Conflict | Reply::Ambiguous if self.child == Child::NotYet => self.pause(true),
            Reply::Conflict | Reply::Ambiguous => self.look(),
            Reply::Refused(trouble) => self.hindered(trouble, false),
        }
    }

    /// A write of ours is what the store holds. None sent before it can land any more: each
    /// expects a version that is gone for good.
    fn landed(&mut self, write: Write, version: Version) {
        self.base = Some(Base {
            version,
            generation: write.generation,
            count: write.count,
        });
        self.sent.clear();
        self.moved = false;
        self.written = true;
        self.attempt = 0;
    }

    fn look(mut self) -> Step {
        self.sync = Sync::Reading;
        (self, vec![Effect::Read])
    }

    /// The store was read to settle what became of our writes: the table *What persist does*.
    fn settle(mut self, held: Option<Held>) -> Step {
        let Some(held) = held else {
            return self.yield_to(Outcome::Stranded {
                cause: Cause::Emptied,
                rescued: false,
            });
        };
        if let Some(write) = self.ours(&held) {
            self.landed(write, held.version);
            return self.advance();
        }
        if self
            .base
            .as_ref()
            .is_some_and(|base| base.version == held.version)
        {
            self.moved = false;
            return self.pause(false);
        }
        let (Some(ours), Some(theirs)) = (self.due().cloned(), held.generation) else {
            return self.yield_to(Outcome::Stranded {
                cause: Cause::Stranger,
                rescued: false,
            });
        };
        if theirs.account != ours.account {
            return self.yield_to(Outcome::Stranded {
                cause: Cause::Stranger,
                rescued: false,
            });
        }
        // What ours descends from was put back, or only touched: no news, and spent.
        if self.is_past(theirs.fingerprint) {
            let (version, count) = (held.version, held.count);
            self.base = Some(Base {
                version,
                generation: theirs,
                count,
            });
            self.moved = false;
            return self.pause(false);
        }
        match self.terms.policy.judge(&ours, &theirs, held.reseed) {
            Winner::Theirs => self.yield_to(Outcome::Superseded {
                by: theirs.fingerprint,
                rescued: false,
            }),
            Winner::Ours => {
                let (version, count) = (held.version, held.count);
                let theirs = Base {
                    version,
                    generation: theirs,
                    count,
                };
                if self.terms.history {
                    return self.bury(theirs, true);
                }
                self.sync = Sync::Burying(theirs);
                (self, vec![Effect::Rescue(Keep::Theirs)])
            }
        }
    }

    /// The write of ours that the store shows, by its id or by its tokens.
    fn ours(&self, held: &Held) -> Option<Write> {
        let shown = held.generation.as_ref().map(|g| g.fingerprint);
        let by_id = self.sent.iter().find(|w| held.id == Some(w.id));
        let by_tokens = self
            .sent
            .iter()
            .find(|w| shown == Some(w.generation.fingerprint));
        if let Some(write) = by_id.or(by_tokens) {
            return Some(write.clone());
        }
        // Somebody else carried our very tokens there: as good as our own write.
        let due = self.due().filter(|ours| shown == Some(ours.fingerprint))?;
        Some(Write {
            id: WriteId {
                trip: self.terms.trip,
                number: 0,
            },
            expected: held.version.clone(),
            generation: due.clone(),
            count: held.count,
        })
    }

    /// Theirs is to be replaced, which it may be only if it can be had elsewhere (`kept`).
    fn bury(mut self, theirs: Base, kept: bool) -> Step {
        let fingerprint = theirs.generation.fingerprint;
        if !kept && self.child == Child::NotYet {
            return self.refuse(Refusal::NotKept);
        }
        if !kept {
            return self.yield_to(Outcome::Superseded {
                by: fingerprint,
                rescued: false,
            });
        }
        if !self.buried.contains(&fingerprint) {
            self.buried.push(fingerprint);
        }
        self.base = Some(theirs);
        self.moved = false;
        match self.due().cloned() {
            Some(ours) if self.child == Child::NotYet => self.swap(ours),
            _ => self.advance(),
        }
    }

    /// What is in the store stays. While the command runs, its next generation is judged
    /// afresh; after it, this is the end.
    fn yield_to(mut self, outcome: Outcome) -> Step {
        self.moved = true;
        if self.child == Child::Running {
            self.parked = self.due().map(|ours| ours.fingerprint);
            return self.advance();
        }
        self.rescue(outcome)
    }

    /// The store did not do as asked; `reading`: it was asked to show what it holds.
    fn hindered(mut self, trouble: Trouble, reading: bool) -> Step {
        match (trouble, self.child) {
            (Trouble::Transient, _) => self.pause(reading),
            (Trouble::Permanent, Child::NotYet) if reading => self.refuse(Refusal::Unreadable),
            (Trouble::Permanent, Child::NotYet) => self.refuse(Refusal::Unwritable),
            (Trouble::Permanent, Child::Running) => {
                self.moved |= reading;
                self.parked = self.due().map(|ours| ours.fingerprint);
                self.advance()
            }
            (Trouble::Permanent, Child::Exited) => self.strand(Cause::Store),
        }
    }

    fn pause(mut self, then_look: bool) -> Step {
        self.attempt = self.attempt.saturating_add(1);
        // Before the command every attempt starts from a fresh look at the store.
        self.sync = Sync::Pausing(then_look || self.child == Child::NotYet);
        let delay = backoff::pause(self.attempt, self.terms.trip);
        (self, vec![Effect::Wait(delay)])
    }

    fn out_of_time(self) -> Step {
        match self.child {
            Child::NotYet => self.refuse(Refusal::OutOfTime),
            Child::Running | Child::Exited => self.strand(Cause::Store),
        }
    }

    fn strand(self, cause: Cause) -> Step {
        self.rescue(Outcome::Stranded {
            cause,
            rescued: false,
        })
    }

    fn rescue(mut self, outcome: Outcome) -> Step {
        self.sync = Sync::Rescuing(outcome);
        (self, vec![Effect::Rescue(Keep::Ours)])
    }

    fn refuse(self, why: Refusal) -> Step {
        self.finish(Outcome::Refused(why))
    }

    fn finish(mut self, outcome: Outcome) -> Step {
        self.sync = Sync::Done;
        (self, vec![Effect::Finish(outcome)])
    }
}

/// The outcome, now that it is known whether the rescue succeeded.
fn rescued(outcome: Outcome, kept: bool) -> Outcome {
    match outcome {
        Outcome::Superseded { by, .. } => Outcome::Superseded { by, rescued: kept },
        Outcome::Stranded { cause, .. } => Outcome::Stranded {
            cause,
            rescued: kept,
        },
        Outcome::Refused(_)
        | Outcome::Restored
        | Outcome::Unchanged
        | Outcome::Persisted { .. } => outcome,
    }
}
