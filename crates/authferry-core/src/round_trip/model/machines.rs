//! Interns the round trips of a world: a world holds their numbers, and a repeated step is looked
//! up.

use alloc::{format, vec::Vec};
use core::hash::{BuildHasherDefault, Hash, Hasher};
use std::collections::HashMap;

use super::logins::{self, Login};
use crate::copies::{Content, Copy as Found, Origins, Place};
use crate::round_trip::{
    Base, Cause, Effect, Event, Goal, Keep, Outcome, Placing, Reply, Retryable, RoundTrip,
    SetAside, Terms,
};
use crate::{Family, Held, Policy, Refusal, Seen, Version, WriteId};

/// A 64-bit hasher: folds in each word by one multiplication.
#[derive(Clone, Copy, Default)]
pub(super) struct Fold(u64);

impl Hasher for Fold {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(u64::from(value));
    }

    fn write_u16(&mut self, value: u16) {
        self.write_u64(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    fn write_u64(&mut self, value: u64) {
        let wide = u128::from(self.0 ^ value ^ 0x9e37_79b9_7f4a_7c15)
            * u128::from(0xd6e8_feb8_6659_fd93_u64 ^ self.0.rotate_left(32));
        let bytes = wide.to_le_bytes();
        let half = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        };
        self.0 = (half(0) ^ half(8)).wrapping_add(0xa076_1d64_78bd_642f);
    }
}

pub(super) type Map<K, V> = HashMap<K, V, BuildHasherDefault<Fold>>;

/// The number of an interned round trip, base or start.
pub(super) type RoundTripNumber = u32;
pub(super) type BaseNumber = u16;
pub(super) type StartNumber = u16;

/// What a store holds, small enough to be copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct SmallHeld {
    pub(super) version: u8,
    pub(super) login: Login,
    pub(super) by: Option<(u8, u8)>,
    pub(super) count: u8,
    pub(super) family: Option<u8>,
}

/// The result of reading a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum SmallSeen {
    Missing,
    Torn,
    Login(Login),
}

/// An event of the machine, small enough to be copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum SmallEvent {
    Read(Option<SmallHeld>),
    NotRead(Retryable),
    Placed(Placing),
    Changed(Login),
    Exited(SmallSeen),
    CodexRunning(SmallSeen),
    Landed(u8),
    Conflict,
    Ambiguous,
    NotSwapped(Retryable),
    Waited,
    Deadline,
    Rescued(bool),
    /// The file has changed since the last read, as the round trip was about to succeed.
    Reopens(SmallSeen),
}

/// An effect of the machine, small enough to be copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum SmallEffect {
    Read,
    Place(u8),
    Run,
    Swap(SmallWrite),
    Wait,
    /// Bit sets of the copies, and of those with known origins.
    KeepCopies(u8, u8),
    KeepOurs,
    KeepTheirs,
    Finish(SmallOutcome),
}

/// A requested write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct SmallWrite {
    pub(super) id: (u8, u8),
    pub(super) expected: u8,
    pub(super) login: u8,
    pub(super) count: u8,
    pub(super) family: u8,
}

/// An outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum SmallOutcome {
    Refused(Refusal),
    Restored,
    Unchanged,
    /// Bit set of generations.
    Persisted(u16),
    Unsettled,
    Superseded(u8, bool),
    NotPersisted(Cause, bool),
}

/// The origins of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Known {
    pub(super) base: BaseNumber,
    pub(super) seen: u8,
}

/// A copy that a job finds at its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct CopyKey {
    pub(super) place: Place,
    pub(super) look: SmallSeen,
    pub(super) known: Option<Known>,
}

/// The complete input of a job.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct StartKey {
    pub(super) id: u8,
    pub(super) goal: Goal,
    pub(super) policy: Policy,
    pub(super) history: bool,
    /// Bit set of generations that the provider refused.
    pub(super) refused: u16,
    pub(super) copies: Vec<CopyKey>,
    /// Resumes a round trip that another process restored.
    pub(super) resumes: Option<(BaseNumber, SmallSeen)>,
    /// Resumes while others use the home: a watch, or a persist that waits for a Codex.
    pub(super) joins: bool,
}

/// The result of a step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stepped {
    pub(super) round_trip: RoundTripNumber,
    pub(super) effect: Option<SmallEffect>,
}

/// The facts of a round trip that the world needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    pub(super) base: Option<Known>,
    /// The base of its newest generation.
    pub(super) descent: Option<Known>,
    /// Whether the round trip is in a backoff.
    pub(super) pauses: bool,
    /// The newest generation on disk that it has noted.
    pub(super) newest: Option<u8>,
}

/// Interned values of one type.
#[derive(Debug)]
struct Interned<T> {
    all: Vec<T>,
    numbers: Map<T, usize>,
}

impl<T> Default for Interned<T> {
    fn default() -> Self {
        Self {
            all: Vec::new(),
            numbers: Map::default(),
        }
    }
}

impl<T: Clone + Eq + Hash> Interned<T> {
    fn number(&mut self, value: &T) -> usize {
        if let Some(&number) = self.numbers.get(value) {
            return number;
        }
        self.all.push(value.clone());
        self.numbers.insert(value.clone(), self.all.len() - 1);
        self.all.len() - 1
    }
}

/// The interned machines of a world.
#[derive(Debug, Default)]
pub(super) struct Machines {
    round_trips: Interned<RoundTrip>,
    facts: Vec<Facts>,
    bases: Interned<Base>,
    starts: Interned<StartKey>,
    started: Map<StartNumber, Stepped>,
    steps: Map<(RoundTripNumber, SmallEvent), Stepped>,
}

impl Machines {
    /// Starts a round trip.
    pub(super) fn start(&mut self, key: &StartKey) -> (StartNumber, Stepped) {
        let number = StartNumber::try_from(self.starts.number(key)).expect("few starts");
        if let Some(&stepped) = self.started.get(&number) {
            return (number, stepped);
        }
        let bits = |bits: u16| (0..16_u8).filter(move |bit| bits & (1 << bit) != 0);
        let terms = Terms {
            goal: key.goal,
            policy: key.policy,
            nonce: u64::from(key.id),
            history: key.history,
            replace: false,
            refused: bits(key.refused).map(logins::fingerprint).collect(),
            allow_account_change: false,
            is_rotation: false,
        };
        let copies: Vec<Found> = key.copies.iter().map(|copy| self.found(copy)).collect();
        let (round_trip, effects) = match key.resumes {
            Some((base, look)) => {
                let base = self.bases.all[usize::from(base)].clone();
                if key.joins {
                    RoundTrip::join(terms, base, &copies, seen(look))
                } else {
                    RoundTrip::resume(terms, base, &copies, seen(look))
                }
            }
            None => RoundTrip::start(terms, copies),
        };
        let stepped = self.keep(&round_trip, effects);
        self.started.insert(number, stepped);
        (number, stepped)
    }

    /// The input of a job.
    pub(super) fn started(&self, number: StartNumber) -> &StartKey {
        &self.starts.all[usize::from(number)]
    }

    /// Computes a step, or looks it up.
    pub(super) fn step(&mut self, round_trip: RoundTripNumber, event: SmallEvent) -> Stepped {
        if let Some(&stepped) = self.steps.get(&(round_trip, event)) {
            return stepped;
        }
        let before = self.round_trips.all[round_trip as usize].clone();
        let (mut after, effects) = if let SmallEvent::Reopens(look) = event {
            before.reopen(seen(look))
        } else {
            before.step(full_event(event))
        };
        after.forget_attempts();
        let stepped = self.keep(&after, effects);
        self.steps.insert((round_trip, event), stepped);
        stepped
    }

    pub(super) fn facts(&self, round_trip: RoundTripNumber) -> Facts {
        self.facts[round_trip as usize]
    }

    pub(super) fn base(&self, number: BaseNumber) -> &Base {
        &self.bases.all[usize::from(number)]
    }

    pub(super) fn keep_base(&mut self, base: &Base) -> BaseNumber {
        BaseNumber::try_from(self.bases.number(base)).expect("few bases")
    }

    /// The number of round trips and of steps.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.round_trips.all.len(), self.steps.len())
    }

    fn keep(&mut self, round_trip: &RoundTrip, mut effects: Vec<Effect>) -> Stepped {
        let effect = effects.pop().map(small_effect);
        assert!(effects.is_empty(), "one effect at a time");
        let number = self.round_trips.number(round_trip);
        if number == self.facts.len() {
            let base = round_trip.base().map(|base| Known {
                base: self.keep_base(base),
                seen: u8::try_from(round_trip.generations_seen()).expect("small"),
            });
            let descent = round_trip.descent().map(|(base, seen)| Known {
                base: self.keep_base(&base),
                seen: u8::try_from(seen.max(1)).expect("small"),
            });
            self.facts.push(Facts {
                base,
                descent,
                pauses: matches!(round_trip.sync, crate::round_trip::Sync::Pausing(_)),
                newest: round_trip
                    .newest
                    .as_ref()
                    .map(|it| logins::number(it.fingerprint)),
            });
        }
        Stepped {
            round_trip: RoundTripNumber::try_from(number).expect("few round trips"),
            effect,
        }
    }

    fn found(&self, copy: &CopyKey) -> Found {
        Found {
            place: copy.place,
            content: match copy.look {
                SmallSeen::Missing => Content::Missing,
                SmallSeen::Torn => Content::AuthFileError { keepable: true },
                SmallSeen::Login(login) => Content::Usable(login.generation()),
            },
            origins: copy.known.map(|known| Origins {
                base: self.base(known.base).clone(),
                seen: u64::from(known.seen),
                by_name: copy.place == Place::Rescue,
                hints_count: copy.place == Place::AuthFile,
                elsewhere: false,
            }),
        }
    }
}

pub(super) fn held(shown: SmallHeld) -> Held {
    Held {
        version: version(shown.version),
        generation: Some(shown.login.generation()),
        id: shown.by.map(|(nonce, number)| WriteId {
            nonce: u64::from(nonce),
            number: u64::from(number),
        }),
        count: u64::from(shown.count),
        family: shown.family.map(|it| Family(logins::fingerprint(it))),
        volatile_hints: false,
    }
}

fn seen(look: SmallSeen) -> Seen {
    match look {
        SmallSeen::Missing => Seen::Missing,
        SmallSeen::Torn => Seen::AuthFileError,
        SmallSeen::Login(login) => Seen::Usable(login.generation()),
    }
}

fn full_event(event: SmallEvent) -> Event {
    match event {
        SmallEvent::Read(shown) => Event::Read(Ok(shown.map(held))),
        SmallEvent::NotRead(retryable) => Event::Read(Err(retryable)),
        SmallEvent::Placed(placing) => Event::Placed(placing),
        SmallEvent::Changed(login) => Event::Changed(login.generation()),
        SmallEvent::Exited(look) => Event::Exited(seen(look)),
        SmallEvent::CodexRunning(look) => Event::CodexRunning(seen(look)),
        SmallEvent::Landed(new) => Event::Swapped(Reply::Landed(version(new))),
        SmallEvent::Conflict => Event::Swapped(Reply::Conflict),
        SmallEvent::Ambiguous => Event::Swapped(Reply::Ambiguous),
        SmallEvent::NotSwapped(retryable) => Event::Swapped(Reply::Refused(retryable)),
        SmallEvent::Waited => Event::Waited,
        SmallEvent::Deadline => Event::Deadline,
        SmallEvent::Rescued(kept) => Event::Rescued(kept),
        SmallEvent::Reopens(_) => unreachable!("not an event of the machine"),
    }
}

fn small_effect(effect: Effect) -> SmallEffect {
    let small = |number: u64| u8::try_from(number).expect("small");
    match effect {
        Effect::Read => SmallEffect::Read,
        Effect::Place(login) => SmallEffect::Place(logins::number(login)),
        Effect::Run => SmallEffect::Run,
        Effect::Swap(write) => SmallEffect::Swap(SmallWrite {
            id: (small(write.id.nonce), small(write.id.number)),
            expected: write.expected.as_str().parse().expect("a version"),
            login: logins::number(write.generation.fingerprint),
            count: small(write.count),
            family: logins::number(write.family.0),
        }),
        Effect::Wait(_) => SmallEffect::Wait,
        Effect::Rescue(Keep::Copies(copies)) => {
            let bits = |bits, it: &SetAside| bits | 1 << it.copy;
            let known = copies.iter().filter(|it| it.origins.is_some());
            SmallEffect::KeepCopies(copies.iter().fold(0, bits), known.fold(0, bits))
        }
        Effect::Rescue(Keep::Ours) => SmallEffect::KeepOurs,
        Effect::Rescue(Keep::Theirs | Keep::TheirsInRescue) => SmallEffect::KeepTheirs,
        Effect::Finish(outcome) => SmallEffect::Finish(match outcome {
            Outcome::Refused(why) => SmallOutcome::Refused(why),
            Outcome::Restored => SmallOutcome::Restored,
            Outcome::Unchanged => SmallOutcome::Unchanged,
            Outcome::Persisted { overwritten } => SmallOutcome::Persisted(
                overwritten
                    .iter()
                    .fold(0, |bits, it| bits | 1 << logins::number(*it)),
            ),
            Outcome::Unsettled => SmallOutcome::Unsettled,
            Outcome::Superseded { by, rescued } => {
                SmallOutcome::Superseded(logins::number(by), rescued)
            }
            Outcome::NotPersisted { cause, rescued } => SmallOutcome::NotPersisted(cause, rescued),
        }),
    }
}

fn version(number: u8) -> Version {
    Version::new(&format!("{number}"))
}
