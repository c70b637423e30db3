//! The world around two rotations: the store, its claim, the provider, and all that can
//! happen next.

use alloc::{format, string::String, vec, vec::Vec};

use super::*;
use crate::copies::{Content, Copy, Origins, Place};
use crate::trip::{
    Base, Effect as Ask, Event as Tell, Goal, Outcome as End, Placing, Reply, Terms as TripTerms,
    Write,
};
use crate::{
    Cause, Family, Fingerprint, Generation, Held, Identity, Issued, Label, Policy, Seen,
    SessionHints, Trip, Version, WriteId,
};

/// Only the first generation is due.
const DUE: u8 = 0;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    /// What the store ever held, and who wrote it; the last entry is current.
    history: Vec<(u8, Option<WriteId>)>,
    /// Who holds the claim, and whether its time is over.
    claim: Option<(usize, bool)>,
    /// The generation whose refresh token is live.
    live: u8,
    /// Who has spent the token that was due, in order; none but the first got a new one.
    spent: Vec<usize>,
    crashes_left: u8,
    /// What the private home of a rotation holds that was killed after Codex wrote.
    unfinished: Option<u8>,
    runners: Vec<Runner>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Runner {
    rotation: Rotation,
    asked: Option<Effect>,
    /// How long the history was that the last look showed, or the proof left.
    saw: usize,
    deadline_sent: bool,
    turn: Option<Turn>,
    end: Option<Fate>,
}

/// How a runner ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Fate {
    Crashed,
    Ended(Outcome),
}

/// A trip under way, or over.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Turn {
    trip: Trip,
    asked: Option<Ask>,
    /// Whether the store was read: the first read shows what was proven.
    read: bool,
    /// The file in the private home.
    disk: Option<u8>,
    codex: Codex,
    deadline_sent: bool,
    end: Option<End>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Codex {
    NotYet,
    Running,
    /// The provider has taken the token, and the file is as before.
    Spent(Option<u8>),
    /// What it got is in the file, and nobody has noticed.
    Written,
    Gone,
}

impl World {
    pub(super) fn new(plan: Plan) -> Self {
        let runner = |number: usize| {
            let (rotation, effects) = Rotation::start(Terms {
                claims: plan.claims,
                salt: number as u64,
            });
            Runner {
                rotation,
                asked: effects.first().copied(),
                saw: 0,
                deadline_sent: false,
                turn: None,
                end: None,
            }
        };
        Self {
            history: vec![(DUE, None)],
            claim: None,
            live: if plan.unfinished { DUE + 1 } else { DUE },
            spent: vec![],
            crashes_left: u8::from(plan.crashes),
            unfinished: plan.unfinished.then_some(DUE + 1),
            runners: vec![runner(0), runner(1)],
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.runners.iter().all(|runner| runner.end.is_some())
    }

    /// What must hold in every state.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.unfinished.is_some() && !self.spent.is_empty() {
            return Err(format!("spent before the copy was found: {self:#?}"));
        }
        let excused = |&spender: &usize| self.loss_by(spender).is_some();
        let Some((_last, before)) = self.spent.split_last() else {
            return Ok(());
        };
        if before.iter().all(excused) {
            Ok(())
        } else {
            Err(format!("a token was spent twice: {self:#?}"))
        }
    }

    /// The ways in which a login was lost, by name; what must hold at every end.
    pub(super) fn losses(&self) -> Result<Vec<&'static str>, String> {
        for runner in &self.runners {
            if runner.end == Some(Fate::Ended(Outcome::Fresh)) && self.current() == DUE {
                return Err(format!("said fresh, is not: {self:#?}"));
            }
        }
        // The private home stays until what it holds is in the store.
        if self.current() == self.live || self.unfinished == Some(self.live) {
            return Ok(vec![]);
        }
        let named = self.spent.iter().find_map(|&spender| self.loss_by(spender));
        let loss = named.ok_or_else(|| format!("a login is lost, and nobody knows how: {self:#?}"));
        loss.map(|loss| vec![loss])
    }

    /// How this one, who has spent the token, came not to bring the new login into the store.
    fn loss_by(&self, spender: usize) -> Option<&'static str> {
        let runner = &self.runners[spender];
        let turn = runner.turn.as_ref()?;
        let stored = self.current() != DUE;
        match (&runner.end, &turn.end) {
            (_, Some(End::Stranded { cause, .. })) if *cause == Cause::Store && !stored => {
                Some("a store that refuses the swap")
            }
            (Some(Fate::Crashed), _) if !stored => {
                Some("a crash after the spend and before the swap")
            }
            _ => None,
        }
    }

    /// Every world that this one can turn into by one happening.
    pub(super) fn next(&self, plan: Plan) -> Vec<World> {
        let mut next = vec![];
        if let Some((holder, false)) = self.claim
            && (self.runners[holder].end.is_some() || plan.slow)
        {
            let mut world = self.clone();
            world.claim = Some((holder, true));
            next.push(world);
        }
        for i in 0..self.runners.len() {
            if self.runners[i].end.is_some() {
                continue;
            }
            if self.crashes_left > 0 {
                let mut world = self.clone();
                world.crashes_left -= 1;
                world.runners[i].end = Some(Fate::Crashed);
                next.push(world);
            }
            match &self.runners[i].turn {
                Some(turn) if turn.end.is_none() => self.trip_moves(i, turn, plan, &mut next),
                Some(_) | None => self.rotation_moves(i, plan, &mut next),
            }
        }
        next
    }

    fn rotation_moves(&self, i: usize, plan: Plan, next: &mut Vec<World>) {
        let runner = &self.runners[i];
        if plan.deadlines && !runner.deadline_sent && runner.turn.is_none() {
            let mut world = self.clone();
            world.runners[i].deadline_sent = true;
            next.push(world.event(i, Event::Deadline));
        }
        let mut troubles = vec![Trouble::Transient];
        troubles.extend(plan.refusals.then_some(Trouble::Permanent));
        match runner.asked {
            None | Some(Effect::Turn | Effect::Finish(_)) => {}
            Some(Effect::Look) => {
                let newest = self.history.len();
                for saw in if plan.stale { 1 } else { newest }..=newest {
                    let sight = if self.history[saw - 1].0 == DUE {
                        Sight::Due
                    } else {
                        Sight::Fresh
                    };
                    let mut world = self.clone();
                    world.runners[i].saw = saw;
                    next.push(world.event(i, Event::Looked(sight)));
                }
                // Another rotation of this machine is running, as its lock says.
                next.push(self.clone().event(i, Event::Looked(Sight::Held)));
                for &trouble in &troubles {
                    let sight = Event::Looked(Sight::Trouble(trouble));
                    next.push(self.clone().event(i, sight));
                }
            }
            Some(Effect::Claim) => {
                let free = match self.claim {
                    None | Some((_, true)) => true,
                    Some((holder, false)) => holder == i,
                };
                if free {
                    let mut world = self.clone();
                    world.claim = Some((i, false));
                    let lost = Event::Claimed(Grant::Trouble(Trouble::Transient));
                    next.push(world.clone().event(i, Event::Claimed(Grant::Won)));
                    next.push(world.event(i, lost));
                } else {
                    next.push(self.clone().event(i, Event::Claimed(Grant::Held)));
                }
                for &trouble in &troubles {
                    let grant = Event::Claimed(Grant::Trouble(trouble));
                    next.push(self.clone().event(i, grant));
                }
            }
            Some(Effect::Prove) => {
                if !plan.closed {
                    let mut world = self.clone();
                    let proof = world.prove(i);
                    let lost = Event::Proven(Proof::Trouble(Trouble::Transient));
                    next.push(world.clone().event(i, lost));
                    next.push(world.event(i, Event::Proven(proof)));
                }
                for &trouble in &troubles {
                    let proof = Event::Proven(Proof::Trouble(trouble));
                    next.push(self.clone().event(i, proof));
                }
            }
            Some(Effect::Release) => {
                let mut world = self.clone();
                world.claim = world.claim.filter(|(holder, _)| *holder != i);
                next.push(world.event(i, Event::Released));
                next.push(self.clone().event(i, Event::Released));
            }
            Some(Effect::Wait(_)) => next.push(self.clone().event(i, Event::Woke)),
        }
    }

    fn trip_moves(&self, i: usize, turn: &Turn, plan: Plan, next: &mut Vec<World>) {
        self.codex_moves(i, turn, next);
        let waits = matches!(turn.asked, Some(Ask::Read | Ask::Swap(_) | Ask::Wait(_)));
        let quiet = matches!(turn.codex, Codex::NotYet | Codex::Gone);
        if plan.refusals && waits && quiet && !turn.deadline_sent {
            let mut world = self.clone();
            world.turn(i).deadline_sent = true;
            next.push(world.tell(i, Tell::Deadline));
        }
        let mut troubles = vec![Trouble::Transient];
        troubles.extend(plan.refusals.then_some(Trouble::Permanent));
        match turn.asked.clone() {
            None | Some(Ask::Run | Ask::Finish(_)) => {}
            // It begins with what was proven.
            Some(Ask::Read) if !turn.read => {
                let held = self.held(self.runners[i].saw);
                let mut world = self.clone();
                world.turn(i).read = true;
                next.push(world.answer(i, Tell::Read(Ok(Some(held)))));
            }
            Some(Ask::Read) => {
                let held = self.held(self.history.len());
                next.push(self.answer(i, Tell::Read(Ok(Some(held)))));
                for &trouble in &troubles {
                    next.push(self.answer(i, Tell::Read(Err(trouble))));
                }
            }
            Some(Ask::Place(login)) => {
                let mut world = self.clone();
                let mut known = DUE..=world.live;
                let placed = known.find(|&it| generation(it).fingerprint == login);
                world.turn(i).disk = placed;
                next.push(world.answer(i, Tell::Placed(Placing::Done)));
            }
            Some(Ask::Swap(write)) => {
                let mut landed = self.clone();
                let reply = landed.write(&write);
                next.push(landed.answer(i, Tell::Swapped(reply)));
                next.push(landed.answer(i, Tell::Swapped(Reply::Ambiguous)));
                next.push(self.answer(i, Tell::Swapped(Reply::Ambiguous)));
                for &trouble in &troubles {
                    next.push(self.answer(i, Tell::Swapped(Reply::Refused(trouble))));
                }
            }
            Some(Ask::Wait(_)) => next.push(self.answer(i, Tell::Woke)),
            Some(Ask::Rescue(_)) => next.push(self.answer(i, Tell::Rescued(true))),
        }
    }

    fn codex_moves(&self, i: usize, turn: &Turn, next: &mut Vec<World>) {
        let exit = |world: &World, disk| {
            let mut world = world.clone();
            world.turn(i).codex = Codex::Gone;
            world.tell(i, Tell::Exited(Seen::Usable(generation(disk))))
        };
        let (Some(disk), mut world) = (turn.disk, self.clone()) else {
            return;
        };
        match turn.codex {
            Codex::NotYet | Codex::Gone => {}
            // What is not due any more is not even asked of Codex.
            Codex::Running if disk != DUE => next.push(exit(self, disk)),
            Codex::Running => {
                world.spent.push(i);
                let got = (world.live == disk).then_some(disk + 1);
                world.live = got.unwrap_or(world.live);
                world.turn(i).codex = Codex::Spent(got);
                next.push(world);
                next.push(exit(self, disk));
            }
            Codex::Spent(None) => next.push(exit(self, disk)),
            Codex::Spent(Some(got)) => {
                let turn = world.turn(i);
                turn.disk = Some(got);
                turn.codex = Codex::Written;
                next.push(world);
            }
            Codex::Written => {
                next.push(self.clone().tell(i, Tell::Changed(generation(disk))));
                next.push(exit(self, disk));
            }
        }
    }

    fn event(mut self, i: usize, event: Event) -> Self {
        let runner = &mut self.runners[i];
        let (mut rotation, effects) = runner.rotation.clone().step(event);
        // Only the length of a pause depends on it.
        rotation.attempt = rotation.attempt.min(1);
        runner.rotation = rotation;
        for effect in effects {
            runner.asked = Some(match effect {
                Effect::Wait(_) => Effect::Wait(Duration::ZERO),
                Effect::Look
                | Effect::Claim
                | Effect::Prove
                | Effect::Turn
                | Effect::Release
                | Effect::Finish(_) => effect,
            });
            match effect {
                Effect::Turn => return self.begin(i),
                Effect::Finish(outcome) => runner.end = Some(Fate::Ended(outcome)),
                Effect::Look
                | Effect::Claim
                | Effect::Prove
                | Effect::Release
                | Effect::Wait(_) => {}
            }
        }
        self
    }

    /// The trip of the rotation begins.
    fn begin(mut self, i: usize) -> Self {
        let terms = TripTerms {
            goal: Goal::Run,
            policy: Policy::Newest,
            trip: i as u64 + 1,
            history: false,
            replace: false,
            refused: vec![],
            allow_account_change: false,
            is_rotation: true,
        };
        let copies = self.unfinished.map(|it| self.copy(it));
        let (trip, effects) = Trip::start(terms, copies.into_iter().collect());
        self.runners[i].turn = Some(Turn {
            trip,
            asked: None,
            read: false,
            disk: None,
            codex: Codex::NotYet,
            deadline_sent: false,
            end: None,
        });
        self.take(i, effects)
    }

    fn answer(&self, i: usize, event: Tell) -> Self {
        let mut world = self.clone();
        world.turn(i).asked = None;
        world.tell(i, event)
    }

    fn tell(mut self, i: usize, event: Tell) -> Self {
        let turn = self.turn(i);
        let (mut trip, effects) = turn.trip.clone().step(event);
        trip.forget_attempts();
        turn.trip = trip;
        self.take(i, effects)
    }

    fn take(mut self, i: usize, effects: Vec<Ask>) -> Self {
        for effect in effects {
            let turn = self.turn(i);
            match effect {
                Ask::Run => turn.codex = Codex::Running,
                Ask::Finish(end) => {
                    turn.asked = None;
                    turn.end = Some(end);
                    return self.event(i, Event::Turned);
                }
                Ask::Wait(_) => turn.asked = Some(Ask::Wait(Duration::ZERO)),
                Ask::Read | Ask::Place(_) | Ask::Swap(_) | Ask::Rescue(_) => {
                    turn.asked = Some(effect);
                }
            }
        }
        self
    }

    fn turn(&mut self, i: usize) -> &mut Turn {
        self.runners[i].turn.as_mut().expect("a trip under way")
    }

    fn current(&self) -> u8 {
        self.history.last().expect("never empty").0
    }

    /// What the private home of the killed rotation holds, with its receipt.
    fn copy(&self, login: u8) -> Copy {
        let held = self.held(1);
        Copy {
            place: Place::Rotation,
            content: Content::Usable(generation(login)),
            origins: Some(Origins {
                base: Base::of_head(&held, &generation(DUE), None),
                seen: 0,
                by_name: false,
                hints_count: false,
                elsewhere: false,
            }),
        }
    }

    /// What the store held when its history was so long.
    fn held(&self, len: usize) -> Held {
        let (current, by) = self.history[len - 1];
        Held {
            version: version(len),
            generation: Some(generation(current)),
            id: by,
            count: 1,
            family: Some(Family(generation(DUE).fingerprint)),
            volatile_hints: false,
        }
    }

    /// The swap of the login that this one saw for itself. The first half of its id is no
    /// trip's. One more of them in a row would be another version and nothing else.
    fn prove(&mut self, i: usize) -> Proof {
        let newest = self.history.len();
        if self.runners[i].saw != newest {
            return Proof::Moved;
        }
        let id = WriteId {
            trip: i as u64 + 3,
            number: 0,
        };
        let (current, by) = self.history[newest - 1];
        if by != Some(id) {
            self.history.push((current, Some(id)));
        }
        self.runners[i].saw = self.history.len();
        Proof::Landed
    }

    /// The store's own swap.
    fn write(&mut self, write: &Write) -> Reply {
        if write.expected != version(self.history.len()) {
            return Reply::Conflict;
        }
        let iat = write.generation.issued.iat.expect("always there");
        let new = u8::try_from(iat / 1000).expect("small");
        self.history.push((new, Some(write.id)));
        Reply::Landed(version(self.history.len()))
    }
}

fn generation(number: u8) -> Generation {
    Generation {
        fingerprint: Fingerprint::new([number; 8]),
        identity: Identity {
            account: Some(Label::new("a")),
            ..Identity::default()
        },
        hints: SessionHints::default(),
        issued: Issued {
            iat: Some(1000 * i64::from(number)),
            ..Issued::default()
        },
    }
}

fn version(index: usize) -> Version {
    Version::new(&format!("{index}"))
}
