//! The round trip as a state machine: an event goes in, effects come out.
//!
//! Three activities run concurrently: the command (not started, running, exited), the auth file
//! that it rewrites, and the requests to the store. Write-through during the command and persist
//! after it share one code path. At most one request is in flight. The machine holds no secret, so
//! it can be printed, logged and explored: `round_trip/model.rs` explores every order of events.
//!
//! After a swap that did not clearly succeed, the machine reads the store. It then finds ours (the
//! swap landed), still the base (retry with the same write id), or theirs.

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
    Base, Cause, Effect, Event, Goal, Keep, Outcome, Placing, Reply, Retryable, SetAside, Terms,
    Write,
};

/// A round trip in progress: a pure state machine.
///
/// # Examples
///
/// ```
/// use authferry_core::{Effect, Event, Goal, Outcome, Policy, Refusal, RoundTrip, Terms};
///
/// let terms = Terms {
///     goal: Goal::Run,
///     policy: Policy::Newest,
///     nonce: 7,
///     history: true,
///     replace: false,
///     refused: vec![],
///     allow_account_change: false,
///     is_rotation: false,
/// };
/// let (round_trip, effects) = RoundTrip::start(terms, vec![]);
/// assert_eq!(effects, [Effect::Read]);
/// // The store is empty.
/// let (_, effects) = round_trip.step(Event::Read(Ok(None)));
/// let refused = Outcome::Refused(Refusal::NothingStored);
/// assert_eq!(effects, [Effect::Finish(refused)]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RoundTrip {
    terms: Terms,
    child: Child,
    sync: Sync,
    /// The copies found on this machine before the round trip: input of the restore.
    copies: Vec<Copy>,
    /// Generations of the copies at the start, which are stale once the file has another login: a
    /// cache may bring one back.
    outranked: Vec<Fingerprint>,
    /// The index of the copy that is being adopted.
    adopting: Option<usize>,
    /// `None` only until the first read.
    base: Option<Base>,
    /// The newest generation seen on disk that can be persisted.
    newest: Option<Generation>,
    /// Generations that were on disk before the newest. A file set back to one of them is not a
    /// change.
    past: Vec<Fingerprint>,
    /// Why the file cannot be persisted as the command left it, if so.
    unpersistable: Option<Cause>,
    /// A Codex still runs and may write the file.
    may_be_written: bool,
    /// Writes with an unknown result: each may have landed or may land later.
    unsettled: Vec<Write>,
    /// The store no longer holds the base: read before the next swap.
    base_is_stale: bool,
    /// The version read last: the caller has its bytes.
    read_version: Option<Version>,
    /// The version of the base that was backed up: it may be overwritten.
    kept_base: Option<Version>,
    /// A generation whose swap is deferred until it changes or the command ends.
    deferred: Option<Fingerprint>,
    /// A write of ours has landed.
    written: bool,
    overwritten: Vec<Fingerprint>,
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
    /// Backs up copies first, then performs the action.
    SettingAside(Action),
    Swapping(Write),
    /// Backs off, then reads (`true`) or continues (`false`).
    Pausing(bool),
    /// Backs up the store's login, then overwrites it with ours.
    KeepingTheirs(Base),
    /// Backs up the base, because ours may not be later, then overwrites it with ours.
    KeepingBase,
    Rescuing(Outcome),
    Done,
}

type Step = (RoundTrip, Vec<Effect>);

impl RoundTrip {
    /// Starts a round trip that restores. `copies` are the copies on this machine before any
    /// change: the auth file first, then records, newest first.
    #[must_use]
    pub fn start(terms: Terms, copies: Vec<Copy>) -> Step {
        let mut round_trip = Self::new(terms, Child::NotYet);
        round_trip.copies = copies;
        round_trip.read_store()
    }

    /// Starts the second half of a round trip whose first half another process ran. Persists the
    /// login in `seen`, which descends from `base` unless it is one of `copies` that lost against
    /// the base.
    #[must_use]
    pub fn resume(terms: Terms, base: Base, copies: &[Copy], seen: Seen) -> Step {
        let mut round_trip = Self::new(terms, Child::Running);
        round_trip.outranked = copies::outranked_by(&base, copies);
        round_trip.base = Some(base);
        round_trip.step(Event::Exited(seen))
    }

    /// Joins a round trip that another process has started and that is still running. `seen` is on
    /// disk now. It descends from `base` unless it is one of `copies` that lost against the base.
    /// Only writes through until an event reports the exit of the command.
    #[must_use]
    pub fn join(terms: Terms, base: Base, copies: &[Copy], seen: Seen) -> Step {
        let mut round_trip = Self::new(terms, Child::Running);
        round_trip.outranked = copies::outranked_by(&base, copies);
        round_trip.base = Some(base);
        match seen {
            Seen::Usable(generation) => round_trip.step(Event::Changed(generation)),
            // Codex may have truncated the file for an instant.
            Seen::Missing | Seen::AuthFileError => (round_trip, vec![]),
        }
    }

    /// Continues a round trip that was about to succeed, because the file changed after the last
    /// read.
    #[must_use]
    pub fn reopen(mut self, seen: Seen) -> Step {
        self.child = Child::Running;
        self.sync = Sync::Idle;
        self.unpersistable = None;
        self.step(Event::Exited(seen))
    }

    /// Processes one event. Ignores an event that does not answer a pending effect.
    #[must_use]
    pub fn step(mut self, event: Event) -> Step {
        match (self.sync.clone(), event) {
            (Sync::Reading, Event::Read(Ok(held))) if self.child == Child::NotYet => {
                self.begin(held)
            }
            (Sync::Reading, Event::Read(Ok(held))) => self.settle(held),
            (Sync::Reading, Event::Read(Err(retryable))) => self.store_failed(retryable, true),
            (Sync::Placing, Event::Placed(placing)) => match placing {
                Placing::Done => self.ready(),
                Placing::ConcurrentWrite => self.refuse(Refusal::ConcurrentWrite),
                Placing::Failed => self.refuse(Refusal::NotPlaced),
            },
            (Sync::SettingAside(action), Event::Rescued(true)) => self.perform(&action),
            (Sync::SettingAside(_), Event::Rescued(false)) => self.refuse(Refusal::NotKept),
            (Sync::KeepingBase, Event::Rescued(true)) => {
                self.kept_base = self.base.as_ref().map(|base| base.version.clone());
                self.advance()
            }
            (Sync::KeepingBase, Event::Rescued(false)) if self.child == Child::Running => {
                self.deferred = self.due().map(|ours| ours.fingerprint);
                self.advance()
            }
            (Sync::KeepingBase, Event::Rescued(false)) => self.end_not_persisted(Cause::NotKept),
            (Sync::Swapping(write), Event::Swapped(reply)) => self.swapped(&write, reply),
            (Sync::Pausing(true), Event::Waited) => self.read_store(),
            (Sync::Pausing(false), Event::Waited) => self.advance(),
            (Sync::KeepingTheirs(theirs), Event::Rescued(kept)) => self.overwrite(theirs, kept),
            (Sync::Rescuing(outcome), Event::Rescued(kept)) => self.finish(rescued(outcome, kept)),
            (sync, Event::Changed(generation)) if self.child == Child::Running => {
                self.observe(generation);
                if sync == Sync::Idle {
                    self.advance()
                } else {
                    (self, vec![])
                }
            }
            (_, Event::CodexRunning(seen)) if self.child == Child::Running => {
                self.may_be_written = true;
                self.step(Event::Exited(seen))
            }
            (sync, Event::Exited(seen)) if self.child == Child::Running => {
                self.child = Child::Exited;
                self.deferred = None;
                self.attempt = 0;
                match seen {
                    Seen::Usable(generation) => self.unpersistable = self.observe(generation),
                    Seen::AuthFileError => self.unpersistable = Some(Cause::AuthFileError),
                    Seen::Missing => self.unpersistable = Some(Cause::Missing),
                }
                match sync {
                    Sync::Idle | Sync::Pausing(false) => self.advance(),
                    Sync::Pausing(true) => self.read_store(),
                    Sync::Reading
                    | Sync::Placing
                    | Sync::SettingAside(_)
                    | Sync::Swapping(_)
                    | Sync::KeepingTheirs(_)
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

    /// Returns the generation in the store that the file descends from; `None` before the first
    /// read.
    #[must_use]
    pub fn base(&self) -> Option<&Base> {
        self.base.as_ref()
    }

    /// Returns the generation that is not in the store yet, as far as the machine knows.
    #[must_use]
    pub fn due(&self) -> Option<&Generation> {
        let base = self.base.as_ref()?;
        self.newest
            .as_ref()
            .filter(|g| g.fingerprint != base.generation.fingerprint)
    }

    /// Returns the base that the [due](Self::due) generation descends from, and the number of
    /// generations seen on disk since.
    #[must_use]
    pub fn descent(&self) -> Option<(Base, u64)> {
        let base = self.base.as_ref()?;
        Some((base.with_past(&self.past), self.generations_seen()))
    }

    /// Returns the index of the copy that the restore puts into the store, if any.
    #[must_use]
    pub fn adopting(&self) -> Option<usize> {
        self.adopting
    }

    /// Lets a model forget the number of attempts: only the backoff depends on it.
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
            outranked: Vec::new(),
            adopting: None,
            base: None,
            newest: None,
            past: Vec::new(),
            unpersistable: None,
            may_be_written: false,
            unsettled: Vec::new(),
            base_is_stale: false,
            read_version: None,
            kept_base: None,
            deferred: None,
            written: false,
            overwritten: Vec::new(),
            attempt: 0,
            writes: 0,
        }
    }

    /// Handles the read before the command: judges the copies.
    fn begin(mut self, held: Option<Held>) -> Step {
        let rules = Rules {
            replace: self.terms.replace,
            refused: self.terms.refused.clone(),
        };
        let settlement = copies::settle(held.as_ref(), &self.copies, &rules);
        self.base = held.as_ref().and_then(|held| self.base_of(held));
        self.note_outranked(&settlement.verdicts);
        self.newest = None;
        self.adopting = None;
        self.read_version = held.map(|held| held.version);
        if settlement.set_aside.is_empty() {
            return self.perform(&settlement.action);
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

    /// Returns a copy, with the origins from a record that names its login.
    fn copy(&self, index: usize) -> Copy {
        copies::with_record(&self.copies[index], &self.copies)
    }

    /// Notes the generations of the copies. The next receipt lists those of other families.
    fn note_outranked(&mut self, verdicts: &[Verdict]) {
        let logins = self.copies.iter().filter_map(Copy::generation);
        self.outranked = logins.map(|login| login.fingerprint).collect();
        let Some(base) = &mut self.base else {
            return;
        };
        for (copy, verdict) in self.copies.iter().zip(verdicts) {
            let known = copy.origins.as_ref().map(|origins| &origins.base);
            let other = known.filter(|known| known.family != base.family);
            // The head of the other family was backed up when the copy was about to replace that
            // head.
            self.outranked
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

    /// Builds the base from the head, with the history from the receipt or the first record that
    /// knows the head.
    fn base_of(&self, held: &Held) -> Option<Base> {
        let theirs = held.generation.as_ref()?;
        let known = copies::bases_here(&self.copies, held, theirs)
            .find(|base| copies::is_family_of(held, theirs, base));
        let mut base = Base::of_head(held, theirs, known);
        // A receipt counts its head as an ancestor of every head with a higher count. A head that a
        // copy of unclear order replaced is none: its refresh token may be live.
        let kept: Vec<Fingerprint> = copies::kept_heads(&self.copies).collect();
        base.ancestors.retain(|ancestor| !kept.contains(ancestor));
        Some(base)
    }

    /// Performs the action, after the backups it needs.
    fn perform(mut self, action: &Action) -> Step {
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
                        self.sync = Sync::KeepingTheirs(theirs.clone());
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

    /// Whether the adopted copy is not yet in the auth file.
    fn is_to_be_placed(&self) -> bool {
        let adopted = self.adopting.map(|index| self.copies[index].place);
        adopted.is_some_and(|place| place != Place::AuthFile)
    }

    /// Ends the restore: the file and the store agree, and no request is in flight.
    fn ready(mut self) -> Step {
        self.unsettled.clear();
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

    /// Notes a generation on disk. Returns why it must not be persisted, if so.
    fn observe(&mut self, generation: Generation) -> Option<Cause> {
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

    /// Whether a generation on disk is surely stale. A cache may bring back a generation that was
    /// issued before the latest or the base, an ancestor of the base, one that the provider
    /// refused, or one that lost at the start. In a rotation's private home the times do not
    /// count: only Codex's own refresh writes there.
    fn is_earlier(&self, generation: &Generation, latest: &Generation) -> bool {
        let base = self.base.as_ref();
        let ours = &generation.fingerprint;
        let than =
            |it: &Generation| order::by_times(&generation.issued, &it.issued) == Order::Earlier;
        let by_times = base.is_some_and(|base| than(&base.generation)) || than(latest);
        base.is_some_and(|base| base.ancestors.contains(ours) || base.unrelated.contains(ours))
            || (by_times && !self.terms.is_rotation)
            || self.terms.refused.contains(ours)
            || self.outranked.contains(ours)
    }

    /// Whether this generation is an ancestor of the newest one, as far as the machine knows.
    fn is_past(&self, fingerprint: Fingerprint) -> bool {
        self.past.contains(&fingerprint)
            || self.base.as_ref().is_some_and(|base| {
                base.generation.fingerprint == fingerprint || base.ancestors.contains(&fingerprint)
            })
    }

    /// No request is in flight: sends the next one, stays idle, or ends.
    fn advance(mut self) -> Step {
        if self.child == Child::NotYet {
            return if self.is_to_be_placed() {
                self.place()
            } else {
                self.ready()
            };
        }
        match self.due().cloned() {
            Some(ours) if self.deferred != Some(ours.fingerprint) => {
                let keep_base = self.must_keep_base(&ours);
                if self.base_is_stale || (keep_base && !self.has_read_base()) {
                    self.read_store()
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
            _ => match self.unpersistable {
                // A Codex that writes in place truncates the file first.
                Some(Cause::AuthFileError) | None if self.may_be_written => {
                    self.finish(Outcome::Unsettled)
                }
                // There is no file to rescue.
                Some(cause @ Cause::Missing) => self.finish(Outcome::NotPersisted {
                    cause,
                    rescued: false,
                }),
                Some(cause) => self.end_not_persisted(cause),
                None if self.written => {
                    let overwritten = core::mem::take(&mut self.overwritten);
                    self.finish(Outcome::Persisted { overwritten })
                }
                None => self.finish(Outcome::Unchanged),
            },
        }
    }

    /// Whether the base must be backed up before this generation overwrites it. That is so if the
    /// store has no history and ours is not surely later. It is also so if identity or session
    /// hints differ: another login may have been put into the home.
    fn must_keep_base(&self, ours: &Generation) -> bool {
        let is_unsure = |base: &Base| {
            let new_session = !base.volatile_hints && ours.hints.contradict(&base.generation.hints);
            let other = ours.identity.contradicts(&base.generation.identity);
            let later = order::by_times(&ours.issued, &base.generation.issued) == Order::Later;
            self.kept_base.as_ref() != Some(&base.version) && (other || new_session || !later)
        };
        let is_safe = self.terms.history || self.terms.is_rotation;
        !is_safe && self.base.as_ref().is_some_and(is_unsure)
    }

    fn has_read_base(&self) -> bool {
        let base = self.base.as_ref().map(|base| &base.version);
        base.is_some() && self.read_version.as_ref() == base
    }

    /// Swaps a generation over the base. A retry of the same write keeps its write id.
    fn swap(mut self, generation: Generation) -> Step {
        let Some(base) = &self.base else {
            return (self, vec![]);
        };
        let earlier = self.unsettled.iter().find(|w| {
            w.generation.fingerprint == generation.fingerprint && w.expected == base.version
        });
        let write = if let Some(write) = earlier {
            write.clone()
        } else {
            self.writes += 1;
            let (family, count) = self.family_of_next(base, &generation);
            // Changed hints count as volatile only in a private home: elsewhere a person may have
            // logged in again.
            let changed = generation.hints.contradict(&base.generation.hints);
            let write = Write {
                id: WriteId {
                    nonce: self.terms.nonce,
                    number: self.writes,
                },
                expected: base.version.clone(),
                volatile_hints: base.volatile_hints || (changed && self.terms.is_rotation),
                generation,
                count,
                family,
            };
            self.unsettled.push(write.clone());
            write
        };
        self.sync = Sync::Swapping(write.clone());
        (self, vec![Effect::Swap(write)])
    }

    /// The family of the next write, and its number of generations after the write. A copy of
    /// another family, adopted because the provider refuses the head, keeps its own family.
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
            // A person allowed the account change: another person's login does not descend from the
            // base.
            _ if generation.identity.contradicts(&base.generation.identity) => {
                (Family(generation.fingerprint), 1)
            }
            _ => (base.family, base.count.saturating_add(1)),
        }
    }

    fn swapped(mut self, write: &Write, reply: Reply) -> Step {
        match reply {
            Reply::Landed(version) => {
                self.note_landed(write, version);
                self.advance()
            }
            // Before the command the read leads directly to the next swap, so back off first.
            Reply::Conflict | Reply::Ambiguous if self.child == Child::NotYet => self.pause(true),
            Reply::Conflict | Reply::Ambiguous => self.read_store(),
            Reply::Refused(retryable) => self.store_failed(retryable, false),
        }
    }

    /// The store holds our write. No earlier write can land any more: each expects a version that
    /// never comes back.
    fn note_landed(&mut self, write: &Write, version: Version) {
        // A copy that was adopted at the start and is not surely later may not descend from the
        // base: the login that it replaced may be live.
        let running = self.child != Child::NotYet;
        let later = |base: &Base| {
            order::by_times(&write.generation.issued, &base.generation.issued) == Order::Later
        };
        self.base = self.base.take().map(|base| {
            let descends = running || later(&base);
            base.followed_by(write, version, descends)
        });
        self.unsettled.clear();
        self.base_is_stale = false;
        self.written = true;
        self.attempt = 0;
    }

    fn read_store(mut self) -> Step {
        self.sync = Sync::Reading;
        (self, vec![Effect::Read])
    }

    /// Handles a read after the command has started: did our write land, and whose login stays
    /// current?
    fn settle(mut self, held: Option<Held>) -> Step {
        let Some(held) = held else {
            return self.keep_remote(Outcome::NotPersisted {
                cause: Cause::Emptied,
                rescued: false,
            });
        };
        self.read_version = Some(held.version.clone());
        if let Some(write) = self.find_landed(&held) {
            self.note_landed(&write, held.version);
            return self.advance();
        }
        if self
            .base
            .as_ref()
            .is_some_and(|base| base.version == held.version)
        {
            self.base_is_stale = false;
            // This read may have served only to get the base's bytes for the backup.
            let keeping = self.due().is_some_and(|ours| self.must_keep_base(ours));
            return if keeping && self.unsettled.is_empty() {
                self.advance()
            } else {
                self.pause(false)
            };
        }
        let foreign = Outcome::NotPersisted {
            cause: Cause::ForeignLogin,
            rescued: false,
        };
        let (Some(ours), Some(base), Some(theirs)) = (
            self.due().cloned(),
            self.base.clone(),
            held.generation.clone(),
        ) else {
            return self.keep_remote(foreign);
        };
        if theirs.identity.contradicts(&ours.identity) {
            return self.keep_remote(foreign);
        }
        let seen = self.generations_seen();
        let known = base.with_past(&self.past);
        let superseded = Outcome::Superseded {
            by: theirs.fingerprint,
            rescued: false,
        };
        // Another family wins, regardless of the times: a person seeded the store with it.
        if !copies::is_family_of(&held, &theirs, &known) {
            return self.keep_remote(superseded);
        }
        let theirs = Base::of_head(&held, &theirs, Some(&known));
        // An ancestor of ours was written again, or only touched. Its refresh token is spent.
        if self.is_past(theirs.generation.fingerprint) {
            self.base = Some(theirs);
            self.base_is_stale = false;
            return self.pause(false);
        }
        let order = if held.family.is_some() && held.count > base.count.saturating_add(seen) {
            Order::Earlier
        } else {
            order::by_times(&ours.issued, &theirs.generation.issued)
        };
        match self.terms.policy.judge(order) {
            Winner::Theirs => self.keep_remote(superseded),
            Winner::Ours if self.terms.history => self.overwrite(theirs, true),
            Winner::Ours => {
                self.sync = Sync::KeepingTheirs(theirs);
                (self, vec![Effect::Rescue(Keep::Theirs)])
            }
        }
    }

    /// Returns the number of generations seen on disk since the base.
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

    /// Finds our write in what the store holds, by its id or by its tokens.
    fn find_landed(&self, held: &Held) -> Option<Write> {
        let shown = held.generation.as_ref().map(|g| g.fingerprint);
        let by_id = self.unsettled.iter().find(|w| held.id == Some(w.id));
        let by_tokens = self
            .unsettled
            .iter()
            .find(|w| shown == Some(w.generation.fingerprint));
        if let Some(write) = by_id.or(by_tokens) {
            return Some(write.clone());
        }
        // Another writer stored exactly our tokens. That counts as our own write.
        let due = self.due().filter(|ours| shown == Some(ours.fingerprint))?;
        Some(Write {
            id: WriteId {
                nonce: self.terms.nonce,
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

    /// Overwrites theirs, but only if a backup exists (`kept`).
    fn overwrite(mut self, theirs: Base, kept: bool) -> Step {
        let fingerprint = theirs.generation.fingerprint;
        if !kept && self.child == Child::NotYet {
            return self.refuse(Refusal::NotKept);
        }
        if !kept {
            return self.keep_remote(Outcome::Superseded {
                by: fingerprint,
                rescued: false,
            });
        }
        if !self.overwritten.contains(&fingerprint) {
            self.overwritten.push(fingerprint);
        }
        self.base = Some(theirs);
        self.base_is_stale = false;
        match self.due().cloned() {
            Some(ours) if self.child == Child::NotYet => self.swap(ours),
            _ => self.advance(),
        }
    }

    /// Keeps the store's login. While the command runs, the machine judges the next generation on
    /// disk again. After the command, the round trip ends.
    fn keep_remote(mut self, outcome: Outcome) -> Step {
        self.base_is_stale = true;
        if self.child == Child::Running {
            self.deferred = self.due().map(|ours| ours.fingerprint);
            return self.advance();
        }
        self.rescue(outcome)
    }

    /// A read (`reading`) or a swap failed.
    fn store_failed(mut self, retryable: Retryable, reading: bool) -> Step {
        match (retryable, self.child) {
            (Retryable::Yes, _) => self.pause(reading),
            (Retryable::No, Child::NotYet) if reading => self.refuse(Refusal::Unreadable),
            (Retryable::No, Child::NotYet) => self.refuse(Refusal::Unwritable),
            (Retryable::No, Child::Running) => {
                self.base_is_stale |= reading;
                self.deferred = self.due().map(|ours| ours.fingerprint);
                self.advance()
            }
            (Retryable::No, Child::Exited) => self.end_not_persisted(Cause::Store),
        }
    }

    fn pause(mut self, then_read: bool) -> Step {
        self.attempt = self.attempt.saturating_add(1);
        // Before the command, every retry starts with a new read.
        self.sync = Sync::Pausing(then_read || self.child == Child::NotYet);
        let delay = backoff::pause(self.attempt, self.terms.nonce);
        (self, vec![Effect::Wait(delay)])
    }

    fn out_of_time(self) -> Step {
        match self.child {
            Child::NotYet => self.refuse(Refusal::OutOfTime),
            Child::Running | Child::Exited => self.end_not_persisted(Cause::Store),
        }
    }

    fn end_not_persisted(self, cause: Cause) -> Step {
        self.rescue(Outcome::NotPersisted {
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

/// Records in the outcome whether the rescue succeeded.
fn rescued(outcome: Outcome, kept: bool) -> Outcome {
    match outcome {
        Outcome::Superseded { by, .. } => Outcome::Superseded { by, rescued: kept },
        Outcome::NotPersisted { cause, .. } => Outcome::NotPersisted {
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
