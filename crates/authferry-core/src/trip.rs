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
use crate::copies::{self, Action, Copy, Origins, Place, Rules, Verdict};
use crate::order::{self, Order};
use crate::policy::Winner;
use crate::verdict::{Held, Refusal, Seen};
use crate::{Family, Fingerprint, Generation, Version, WriteId};

mod messages;
#[cfg(test)]
mod model;
#[cfg(test)]
mod rows;
#[cfg(test)]
mod walks;

pub use messages::{
    Base, Cause, Effect, Event, Goal, Keep, Outcome, Placing, Reply, SetAside, Terms, Trouble,
    Write,
};

/// A round trip under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Trip {
    terms: Terms,
    child: Child,
    sync: Sync,
    /// What was found on this machine before the trip; what a restore is judged by.
    copies: Vec<Copy>,
    /// Generations that the begin decided against: a cache may bring one back.
    against: Vec<Fingerprint>,
    /// The copy that is being adopted.
    adopting: Option<usize>,
    /// `None` only until the first read.
    base: Option<Base>,
    /// The newest generation seen on disk that may be persisted.
    newest: Option<Generation>,
    /// Generations that were on disk before the newest: a file set back to one of them is
    /// no news.
    past: Vec<Fingerprint>,
    /// Why the file cannot be persisted as it was left, if so.
    left: Option<Cause>,
    /// A Codex runs on that may still write the file.
    may_be_written: bool,
    /// Writes that are not settled: each may have landed, or may yet.
    sent: Vec<Write>,
    /// The base is known not to be current any more: look before the next swap.
    moved: bool,
    /// The version of the base that was read, so that its bytes are at hand.
    read: Option<Version>,
    /// The version of the base that was kept elsewhere, so that it may be replaced.
    kept: Option<Version>,
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
    /// Copies are kept elsewhere first; then comes what was decided.
    SettingAside(Action),
    Swapping(Write),
    /// After the pause: read (`true`), or go on with what is due.
    Pausing(bool),
    /// Theirs is kept first; then ours is swapped over it.
    Burying(Base),
    /// The base is kept first, for ours is not surely later; then ours is swapped over
    /// it.
    KeepingBase,
    Rescuing(Outcome),
    Done,
}

type Step = (Trip, Vec<Effect>);

impl Trip {
    /// Begins a trip that restores. `copies` are what was found on this machine before
    /// anything was touched: the auth file first, then records, newest first.
    #[must_use]
    pub fn start(terms: Terms, copies: Vec<Copy>) -> Step {
        let mut trip = Self::new(terms, Child::NotYet);
        trip.copies = copies;
        trip.look()
    }

    /// Begins the second half of a trip whose first half another process made: persists
    /// what `seen` found on disk, which descends from `base`, unless it is one of `copies`
    /// that counts less.
    #[must_use]
    pub fn resume(terms: Terms, base: Base, copies: &[Copy], seen: Seen) -> Step {
        let mut trip = Self::new(terms, Child::Running);
        trip.against = copies::decided_against(&base, copies);
        trip.base = Some(base);
        trip.step(Event::Exited(seen))
    }

    /// Joins a trip that another process has begun, and that is still under way: `seen` is on
    /// disk now, and descends from `base`, unless it is one of `copies` that counts less. Until
    /// it is told that the command has exited, it writes through and does nothing else.
    #[must_use]
    pub fn join(terms: Terms, base: Base, copies: &[Copy], seen: Seen) -> Step {
        let mut trip = Self::new(terms, Child::Running);
        trip.against = copies::decided_against(&base, copies);
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
            (Sync::SettingAside(action), Event::Rescued(true)) => self.act(&action),
            (Sync::SettingAside(_), Event::Rescued(false)) => self.refuse(Refusal::NotKept),
            (Sync::KeepingBase, Event::Rescued(true)) => {
                self.kept = self.base.as_ref().map(|base| base.version.clone());
                self.advance()
            }
            (Sync::KeepingBase, Event::Rescued(false)) if self.child == Child::Running => {
                self.parked = self.due().map(|ours| ours.fingerprint);
                self.advance()
            }
            (Sync::KeepingBase, Event::Rescued(false)) => self.strand(Cause::NotKept),
            (Sync::Swapping(write), Event::Swapped(reply)) => self.swapped(&write, reply),
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
            (_, Event::Left(seen)) if self.child == Child::Running => {
                self.may_be_written = true;
                self.step(Event::Exited(seen))
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
                    | Sync::SettingAside(_)
                    | Sync::Swapping(_)
                    | Sync::Burying(_)
                    | Sync::KeepingBase
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

    /// Returns what the generation that is due descends from, and how many generations were seen
    /// on disk since then.
    #[must_use]
    pub fn descent(&self) -> Option<(Base, u64)> {
        let base = self.base.as_ref()?;
        Some((base.with_past(&self.past), self.generations_seen()))
    }

    /// Returns the number of the copy that is put into the store before the command, if one is.
    #[must_use]
    pub fn adopting(&self) -> Option<usize> {
        self.adopting
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
            copies: Vec::new(),
            against: Vec::new(),
            adopting: None,
            base: None,
            newest: None,
            past: Vec::new(),
            left: None,
            may_be_written: false,
            sent: Vec::new(),
            moved: false,
            read: None,
            kept: None,
            parked: None,
            written: false,
            buried: Vec::new(),
            attempt: 0,
            writes: 0,
        }
    }

    /// The store was read before the command: the copies are settled.
    fn begin(mut self, held: Option<Held>) -> Step {
        let rules = Rules {
            replace: self.terms.replace,
            refused: self.terms.refused.clone(),
        };
        let settlement = copies::settle(held.as_ref(), &self.copies, &rules);
        self.base = held.as_ref().and_then(|held| self.base_of(held));
        self.note_against(&settlement.verdicts);
        self.newest = None;
        self.adopting = None;
        self.read = held.map(|held| held.version);
        if settlement.set_aside.is_empty() {
            return self.act(&settlement.action);
        }
        let verdicts = settlement.verdicts;
        let set_aside = settlement.set_aside.into_iter().map(|copy| SetAside {
            copy,
            origins: copies::lineage(&self.copy(copy), verdicts[copy]).cloned(),
        });
        let set_aside = set_aside.collect();
        self.sync = Sync::SettingAside(settlement.action);
        (self, vec![Effect::Rescue(Keep::Copies(set_aside))])
    }

    /// A copy, with what a record says of this very login.
    fn copy(&self, index: usize) -> Copy {
        copies::with_record(&self.copies[index], &self.copies)
    }

    /// Notes what counts less than the head, and of that what is not of its family: the next
    /// receipt knows it.
    fn note_against(&mut self, verdicts: &[Verdict]) {
        let logins = self.copies.iter().filter_map(Copy::generation);
        self.against = logins.map(|login| login.fingerprint).collect();
        let Some(base) = &mut self.base else {
            return;
        };
        for (copy, verdict) in self.copies.iter().zip(verdicts) {
            let known = copy.origins.as_ref().map(|origins| &origins.base);
            let other = known.filter(|known| known.family != base.family);
            // A head that was kept when the copy was about to replace it.
            self.against
                .extend(other.map(|it| it.generation.fingerprint));
            if copy.place != Place::AuthFile {
                continue;
            }
            for it in other.into_iter().flat_map(|it| &it.ancestors) {
                base.note_unrelated(*it);
            }
            if let Some(other) = other {
                base.note_unrelated(other.generation.fingerprint);
            }
            if let Some(login) = copy.generation()
                && copies::is_of_another_family(copy, *verdict, base)
            {
                base.note_unrelated(login.fingerprint);
            }
        }
    }

    /// What the store holds, with what the receipt knows of it, or the first record that does.
    fn base_of(&self, held: &Held) -> Option<Base> {
        let theirs = held.generation.as_ref()?;
        let known = copies::bases_here(&self.copies, held, theirs)
            .find(|base| copies::is_family_of(held, theirs, base));
        let mut base = Base::of_head(held, theirs, known);
        // A receipt takes a head that it knows for an ancestor of one with a higher count.
        let kept: Vec<Fingerprint> = copies::kept_heads(&self.copies).collect();
        base.ancestors.retain(|ancestor| !kept.contains(ancestor));
        Some(base)
    }

    /// Does what was decided, once nothing is lost by it.
    fn act(mut self, action: &Action) -> Step {
        match action {
            Action::Keep => self.ready(),
            Action::Place => self.place(),
            Action::Refuse(why) => self.refuse(*why),
            Action::Adopt {
                copy,
                keep_head,
                in_rescue,
            } => {
                self.adopting = Some(*copy);
                self.newest = self.copies[*copy].generation().cloned();
                match (&self.base, self.newest.clone()) {
                    (Some(theirs), Some(_))
                        if *keep_head && (*in_rescue || !self.terms.history) =>
                    {
                        self.sync = Sync::Burying(theirs.clone());
                        let keep = if *in_rescue {
                            Keep::TheirsInRescue
                        } else {
                            Keep::Theirs
                        };
                        (self, vec![Effect::Rescue(keep)])
                    }
                    (_, Some(ours)) => self.swap(ours),
                    (_, None) => self.place(),
                }
            }
        }
    }

    /// Writes the base to the auth file.
    fn place(mut self) -> Step {
        self.newest = None;
        let Some(base) = self
            .base
            .as_ref()
            .filter(|_| self.terms.goal != Goal::Settle)
        else {
            return self.ready();
        };
        let login = base.generation.fingerprint;
        self.sync = Sync::Placing;
        (self, vec![Effect::Place(login)])
    }

    /// Whether the auth file does not carry what was adopted.
    fn is_to_be_placed(&self) -> bool {
        let adopted = self.adopting.map(|index| self.copies[index].place);
        adopted.is_some_and(|place| place != Place::AuthFile)
    }

    /// File and store agree, and nothing is under way.
    fn ready(mut self) -> Step {
        self.sent.clear();
        self.attempt = 0;
        match self.terms.goal {
            Goal::Settle | Goal::Restore => self.finish(Outcome::Restored),
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
        if generation.identity.contradicts(&latest.identity) {
            if !self.terms.allow_account_change {
                return Some(Cause::OtherAccount);
            }
        } else if self.is_earlier(&generation, latest) {
            return Some(Cause::Older);
        }
        self.past.push(known);
        self.newest = Some(generation);
        None
    }

    /// Whether a generation on disk is surely earlier than the latest one that is known, or than
    /// the base, or is a known ancestor of the base, or one that the provider or the begin decided
    /// against: a cache may bring it back. Clocks say nothing of what Codex's own refresh writes.
    fn is_earlier(&self, generation: &Generation, latest: &Generation) -> bool {
        let base = self.base.as_ref();
        let ours = &generation.fingerprint;
        let than =
            |it: &Generation| order::by_times(&generation.issued, &it.issued) == Order::Earlier;
        let by_times = base.is_some_and(|base| than(&base.generation)) || than(latest);
        base.is_some_and(|base| base.ancestors.contains(ours) || base.unrelated.contains(ours))
            || (by_times && !self.terms.is_rotation)
            || self.terms.refused.contains(ours)
            || self.against.contains(ours)
    }

    /// Whether the newest generation descends from this one.
    fn is_past(&self, fingerprint: Fingerprint) -> bool {
        self.past.contains(&fingerprint)
            || self.base.as_ref().is_some_and(|base| {
                base.generation.fingerprint == fingerprint || base.ancestors.contains(&fingerprint)
            })
    }

    /// Nothing is under way: does what is due, or rests, or ends.
    fn advance(mut self) -> Step {
        if self.child == Child::NotYet {
            return if self.is_to_be_placed() {
                self.place()
            } else {
                self.ready()
            };
        }
        match self.due().cloned() {
            Some(ours) if self.parked != Some(ours.fingerprint) => {
                let keep_base = self.must_keep_base(&ours);
                if self.moved || (keep_base && !self.has_read_base()) {
                    self.look()
                } else if keep_base {
                    self.sync = Sync::KeepingBase;
                    (self, vec![Effect::Rescue(Keep::Theirs)])
                } else {
                    self.swap(ours)
                }
            }
            _ if self.child == Child::Running => {
                self.sync = Sync::Idle;
                (self, vec![])
            }
            _ => match self.left {
                // A Codex that writes in place truncates the file first.
                Some(Cause::Unusable) | None if self.may_be_written => {
                    self.finish(Outcome::Unsettled)
                }
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

    /// Whether the base has to be kept elsewhere before this generation replaces it: the store
    /// has no history, and ours is not surely later, or its identity or its session hints say that it
    /// may be another login that was put into the home meanwhile.
    fn must_keep_base(&self, ours: &Generation) -> bool {
        let is_unsure = |base: &Base| {
            let afresh = !base.volatile_hints && ours.hints.contradict(&base.generation.hints);
            let other = ours.identity.contradicts(&base.generation.identity);
            let later = order::by_times(&ours.issued, &base.generation.issued) == Order::Later;
            self.kept.as_ref() != Some(&base.version) && (other || afresh || !later)
        };
        let is_safe = self.terms.history || self.terms.is_rotation;
        !is_safe && self.base.as_ref().is_some_and(is_unsure)
    }

    fn has_read_base(&self) -> bool {
        let base = self.base.as_ref().map(|base| &base.version);
        base.is_some() && self.read.as_ref() == base
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
            let (family, count) = self.family_of_next(base, &generation);
            // In any other home, a person may have logged in again.
            let changed = generation.hints.contradict(&base.generation.hints);
            let write = Write {
                id: WriteId {
                    trip: self.terms.trip,
                    number: self.writes,
                },
                expected: base.version.clone(),
                volatile_hints: base.volatile_hints || (changed && self.terms.is_rotation),
                generation,
                count,
                family,
            };
            self.sent.push(write.clone());
            write
        };
        self.sync = Sync::Swapping(write.clone());
        (self, vec![Effect::Swap(write)])
    }

    /// The family that the next write belongs to, and how many generations that has had then.
    /// A copy of another family, adopted since the provider refuses the head, brings its own.
    fn family_of_next(&self, base: &Base, generation: &Generation) -> (Family, u64) {
        let copy = self.adopting.map(|index| self.copy(index));
        let copy = copy.filter(|copy| copy.generation() == Some(generation));
        let own = copy.as_ref().and_then(|copy| copy.origins.as_ref());
        match own.filter(|own| own.base.family != base.family) {
            Some(Origins {
                base: own, seen, ..
            }) if self.terms.refused.contains(&base.generation.fingerprint) => (
                own.family,
                own.count
                    .max(base.count)
                    .saturating_add(*seen)
                    .saturating_add(1),
            ),
            // A person allowed it: nothing of another person descends from the base.
            _ if generation.identity.contradicts(&base.generation.identity) => {
                (Family(generation.fingerprint), 1)
            }
            _ => (base.family, base.count.saturating_add(1)),
        }
    }

    fn swapped(mut self, write: &Write, reply: Reply) -> Step {
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
    fn landed(&mut self, write: &Write, version: Version) {
        // A copy that was adopted at the begin and is not surely later may have been made from
        // something else: what it replaced may be live.
        let running = self.child != Child::NotYet;
        let later = |base: &Base| {
            order::by_times(&write.generation.issued, &base.generation.issued) == Order::Later
        };
        self.base = self.base.take().map(|base| {
            let descends = running || later(&base);
            base.followed_by(write, version, descends)
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
        self.read = Some(held.version.clone());
        if let Some(write) = self.ours(&held) {
            self.landed(&write, held.version);
            return self.advance();
        }
        if self
            .base
            .as_ref()
            .is_some_and(|base| base.version == held.version)
        {
            self.moved = false;
            // The look was for the bytes, so that they can be kept.
            let keeping = self.due().is_some_and(|ours| self.must_keep_base(ours));
            return if keeping && self.sent.is_empty() {
                self.advance()
            } else {
                self.pause(false)
            };
        }
        let stranger = Outcome::Stranded {
            cause: Cause::Stranger,
            rescued: false,
        };
        let (Some(ours), Some(base), Some(theirs)) = (
            self.due().cloned(),
            self.base.clone(),
            held.generation.clone(),
        ) else {
            return self.yield_to(stranger);
        };
        if theirs.identity.contradicts(&ours.identity) {
            return self.yield_to(stranger);
        }
        let seen = self.generations_seen();
        let known = base.with_past(&self.past);
        let superseded = Outcome::Superseded {
            by: theirs.fingerprint,
            rescued: false,
        };
        // Another family counts, whatever the times say: a person put it there.
        if !copies::is_family_of(&held, &theirs, &known) {
            return self.yield_to(superseded);
        }
        let theirs = Base::of_head(&held, &theirs, Some(&known));
        // What ours descends from was put back, or only touched: no news, and spent.
        if self.is_past(theirs.generation.fingerprint) {
            self.base = Some(theirs);
            self.moved = false;
            return self.pause(false);
        }
        let order = if held.family.is_some() && held.count > base.count.saturating_add(seen) {
            Order::Earlier
        } else {
            order::by_times(&ours.issued, &theirs.generation.issued)
        };
        match self.terms.policy.judge(order) {
            Winner::Theirs => self.yield_to(superseded),
            Winner::Ours if self.terms.history => self.bury(theirs, true),
            Winner::Ours => {
                self.sync = Sync::Burying(theirs);
                (self, vec![Effect::Rescue(Keep::Theirs)])
            }
        }
    }

    /// How many generations were seen on disk since the base.
    fn generations_seen(&self) -> u64 {
        let base = self.base.as_ref();
        let is_new = |it: &&Fingerprint| {
            base.is_none_or(|base| {
                base.generation.fingerprint != **it && !base.ancestors.contains(it)
            })
        };
        let seen = self.past.iter().filter(is_new).count() + usize::from(self.due().is_some());
        u64::try_from(seen).unwrap_or(u64::MAX)
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
            family: self
                .base
                .as_ref()
                .map_or(Family(due.fingerprint), |base| base.family),
            volatile_hints: held.volatile_hints,
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
        | Outcome::Persisted { .. }
        | Outcome::Unsettled => outcome,
    }
}
