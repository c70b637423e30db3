//! The round trips of a world, each kept once: a world holds their numbers, and a step that was
//! made before is looked up.

use alloc::{format, vec::Vec};
use core::hash::{BuildHasherDefault, Hash, Hasher};
use std::collections::HashMap;

use super::logins::{self, Login};
use crate::copies::{Content, Copy as Found, Origins, Place};
use crate::trip::{
    Base, Cause, Effect, Event, Goal, Keep, Outcome, Placing, Reply, SetAside, Terms, Trip, Trouble,
};
use crate::{Family, Held, Policy, Refusal, Seen, Version, WriteId};

/// A hasher of 64 bits: each word is folded in by one multiplication.
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

/// The number of a kept trip, base or start.
pub(super) type TripNumber = u32;
pub(super) type BaseNumber = u16;
pub(super) type StartNumber = u16;

/// What a store shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Shown {
    pub(super) version: u8,
    pub(super) login: Login,
    pub(super) by: Option<(u8, u8)>,
    pub(super) count: u8,
    pub(super) family: Option<u8>,
}

/// What a look at a file finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Look {
    Missing,
    Torn,
    Login(Login),
}

/// An event of the machine, small enough to be copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Happens {
    Read(Option<Shown>),
    NotRead(Trouble),
    Placed(Placing),
    Changed(Login),
    Exited(Look),
    Left(Look),
    Landed(u8),
    Conflict,
    Ambiguous,
    NotSwapped(Trouble),
    Woke,
    Deadline,
    Rescued(bool),
    /// The file has changed since the last look, as the trip was about to end well.
    Reopens(Look),
}

/// An effect of the machine, small enough to be copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Ask {
    Read,
    Place(u8),
    Run,
    Swap(Put),
    Wait,
    /// Bits of the numbers of copies, and of those of which the decision knew something.
    KeepCopies(u8, u8),
    KeepOurs,
    KeepTheirs,
    Finish(End),
}

/// A write that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Put {
    pub(super) id: (u8, u8),
    pub(super) expected: u8,
    pub(super) login: u8,
    pub(super) count: u8,
    pub(super) family: u8,
}

/// An outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum End {
    Refused(Refusal),
    Restored,
    Unchanged,
    /// Bits of the numbers of generations.
    Persisted(u16),
    Unsettled,
    Superseded(u8, bool),
    Stranded(Cause, bool),
}

/// What is known of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Known {
    pub(super) base: BaseNumber,
    pub(super) seen: u8,
}

/// A copy that a job finds when it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct CopyKey {
    pub(super) place: Place,
    pub(super) look: Look,
    pub(super) known: Option<Known>,
}

/// All that a job begins with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct StartKey {
    pub(super) id: u8,
    pub(super) goal: Goal,
    pub(super) policy: Policy,
    pub(super) history: bool,
    /// Bits of the numbers of generations that the provider refused.
    pub(super) refused: u16,
    pub(super) copies: Vec<CopyKey>,
    /// Persists what another process restored, instead of beginning.
    pub(super) resumes: Option<(BaseNumber, Look)>,
    /// It does so while others use the home: a watch, or a persist that waits for a Codex.
    pub(super) joins: bool,
}

/// What a step leads to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stepped {
    pub(super) trip: TripNumber,
    pub(super) ask: Option<Ask>,
}

/// What the world needs to know of a trip.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    pub(super) base: Option<Known>,
    /// What its newest generation descends from.
    pub(super) descent: Option<Known>,
    /// Whether the trip waits for a pause to end.
    pub(super) pauses: bool,
    /// The newest generation on disk that it has taken note of.
    pub(super) newest: Option<u8>,
}

/// Everything of a kind, once.
#[derive(Debug)]
struct Kept<T> {
    all: Vec<T>,
    numbers: Map<T, usize>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self {
            all: Vec::new(),
            numbers: Map::default(),
        }
    }
}

impl<T: Clone + Eq + Hash> Kept<T> {
    fn number(&mut self, value: &T) -> usize {
        if let Some(&number) = self.numbers.get(value) {
            return number;
        }
        self.all.push(value.clone());
        self.numbers.insert(value.clone(), self.all.len() - 1);
        self.all.len() - 1
    }
}

/// The machines that a world refers to.
#[derive(Debug, Default)]
pub(super) struct Machines {
    trips: Kept<Trip>,
    facts: Vec<Facts>,
    bases: Kept<Base>,
    starts: Kept<StartKey>,
    started: Map<StartNumber, Stepped>,
    steps: Map<(TripNumber, Happens), Stepped>,
}

impl Machines {
    /// Begins a trip.
    pub(super) fn start(&mut self, key: &StartKey) -> (StartNumber, Stepped) {
        let number = StartNumber::try_from(self.starts.number(key)).expect("few starts");
        if let Some(&stepped) = self.started.get(&number) {
            return (number, stepped);
        }
        let bits = |bits: u16| (0..16_u8).filter(move |bit| bits & (1 << bit) != 0);
        let terms = Terms {
            goal: key.goal,
            policy: key.policy,
            trip: u64::from(key.id),
            history: key.history,
            replace: false,
            refused: bits(key.refused).map(logins::fingerprint).collect(),
            allow_account_change: false,
            is_rotation: false,
        };
        let copies: Vec<Found> = key.copies.iter().map(|copy| self.found(copy)).collect();
        let (trip, effects) = match key.resumes {
            Some((base, look)) => {
                let base = self.bases.all[usize::from(base)].clone();
                if key.joins {
                    Trip::join(terms, base, &copies, seen(look))
                } else {
                    Trip::resume(terms, base, &copies, seen(look))
                }
            }
            None => Trip::start(terms, copies),
        };
        let stepped = self.keep(&trip, effects);
        self.started.insert(number, stepped);
        (number, stepped)
    }

    /// What a job began with.
    pub(super) fn started(&self, number: StartNumber) -> &StartKey {
        &self.starts.all[usize::from(number)]
    }

    /// Makes a step.
    pub(super) fn step(&mut self, trip: TripNumber, event: Happens) -> Stepped {
        if let Some(&stepped) = self.steps.get(&(trip, event)) {
            return stepped;
        }
        let before = self.trips.all[trip as usize].clone();
        let (mut after, effects) = if let Happens::Reopens(look) = event {
            before.reopen(seen(look))
        } else {
            before.step(whole(event))
        };
        after.forget_attempts();
        let stepped = self.keep(&after, effects);
        self.steps.insert((trip, event), stepped);
        stepped
    }

    pub(super) fn facts(&self, trip: TripNumber) -> Facts {
        self.facts[trip as usize]
    }

    pub(super) fn base(&self, number: BaseNumber) -> &Base {
        &self.bases.all[usize::from(number)]
    }

    pub(super) fn keep_base(&mut self, base: &Base) -> BaseNumber {
        BaseNumber::try_from(self.bases.number(base)).expect("few bases")
    }

    /// How many trips, and how many steps of one.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.trips.all.len(), self.steps.len())
    }

    fn keep(&mut self, trip: &Trip, mut effects: Vec<Effect>) -> Stepped {
        let ask = effects.pop().map(ask);
        assert!(effects.is_empty(), "one effect at a time");
        let number = self.trips.number(trip);
        if number == self.facts.len() {
            let base = trip.base().map(|base| Known {
                base: self.keep_base(base),
                seen: u8::try_from(trip.generations_seen()).expect("small"),
            });
            let descent = trip.descent().map(|(base, seen)| Known {
                base: self.keep_base(&base),
                seen: u8::try_from(seen.max(1)).expect("small"),
            });
            self.facts.push(Facts {
                base,
                descent,
                pauses: matches!(trip.sync, crate::trip::Sync::Pausing(_)),
                newest: trip
                    .newest
                    .as_ref()
                    .map(|it| logins::number(it.fingerprint)),
            });
        }
        Stepped {
            trip: TripNumber::try_from(number).expect("few trips"),
            ask,
        }
    }

    fn found(&self, copy: &CopyKey) -> Found {
        Found {
            place: copy.place,
            content: match copy.look {
                Look::Missing => Content::Missing,
                Look::Torn => Content::Unusable { keepable: true },
                Look::Login(login) => Content::Usable(login.generation()),
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

pub(super) fn held(shown: Shown) -> Held {
    Held {
        version: version(shown.version),
        generation: Some(shown.login.generation()),
        id: shown.by.map(|(trip, number)| WriteId {
            trip: u64::from(trip),
            number: u64::from(number),
        }),
        count: u64::from(shown.count),
        family: shown.family.map(|it| Family(logins::fingerprint(it))),
        volatile_hints: false,
    }
}

fn seen(look: Look) -> Seen {
    match look {
        Look::Missing => Seen::Missing,
        Look::Torn => Seen::Unusable,
        Look::Login(login) => Seen::Usable(login.generation()),
    }
}

fn whole(event: Happens) -> Event {
    match event {
        Happens::Read(shown) => Event::Read(Ok(shown.map(held))),
        Happens::NotRead(trouble) => Event::Read(Err(trouble)),
        Happens::Placed(placing) => Event::Placed(placing),
        Happens::Changed(login) => Event::Changed(login.generation()),
        Happens::Exited(look) => Event::Exited(seen(look)),
        Happens::Left(look) => Event::Left(seen(look)),
        Happens::Landed(new) => Event::Swapped(Reply::Landed(version(new))),
        Happens::Conflict => Event::Swapped(Reply::Conflict),
        Happens::Ambiguous => Event::Swapped(Reply::Ambiguous),
        Happens::NotSwapped(trouble) => Event::Swapped(Reply::Refused(trouble)),
        Happens::Woke => Event::Woke,
        Happens::Deadline => Event::Deadline,
        Happens::Rescued(kept) => Event::Rescued(kept),
        Happens::Reopens(_) => unreachable!("no event of the machine"),
    }
}

fn ask(effect: Effect) -> Ask {
    let small = |number: u64| u8::try_from(number).expect("small");
    match effect {
        Effect::Read => Ask::Read,
        Effect::Place(login) => Ask::Place(logins::number(login)),
        Effect::Run => Ask::Run,
        Effect::Swap(write) => Ask::Swap(Put {
            id: (small(write.id.trip), small(write.id.number)),
            expected: write.expected.as_str().parse().expect("a version"),
            login: logins::number(write.generation.fingerprint),
            count: small(write.count),
            family: logins::number(write.family.0),
        }),
        Effect::Wait(_) => Ask::Wait,
        Effect::Rescue(Keep::Copies(copies)) => {
            let bits = |bits, it: &SetAside| bits | 1 << it.copy;
            let known = copies.iter().filter(|it| it.origins.is_some());
            Ask::KeepCopies(copies.iter().fold(0, bits), known.fold(0, bits))
        }
        Effect::Rescue(Keep::Ours) => Ask::KeepOurs,
        Effect::Rescue(Keep::Theirs | Keep::TheirsInRescue) => Ask::KeepTheirs,
        Effect::Finish(outcome) => Ask::Finish(match outcome {
            Outcome::Refused(why) => End::Refused(why),
            Outcome::Restored => End::Restored,
            Outcome::Unchanged => End::Unchanged,
            Outcome::Persisted { buried } => End::Persisted(
                buried
                    .iter()
                    .fold(0, |bits, it| bits | 1 << logins::number(*it)),
            ),
            Outcome::Unsettled => End::Unsettled,
            Outcome::Superseded { by, rescued } => End::Superseded(logins::number(by), rescued),
            Outcome::Stranded { cause, rescued } => End::Stranded(cause, rescued),
        }),
    }
}

fn version(number: u8) -> Version {
    Version::new(&format!("{number}"))
}
