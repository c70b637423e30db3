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
    /// How often a rotation may still end while its Codex runs on.
    alone_left: u8,
    /// Whether a token was spent while the private home of a killed rotation held a later login.
    spent_too_soon: bool,
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
    /// Killed, while its Codex runs on.
    Killed,
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
    /// If the rotation ended before its Codex: whether a supervisor watches that Codex.
    alone: Option<bool>,
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
            alone_left: u8::from(plan.alone != Alone::Never),
            spent_too_soon: false,
            unfinished: plan.unfinished.then_some(DUE + 1),
            runners: vec![runner(0), runner(1)],
        }
    }

    pub(super) fn is_over(&self) -> bool {
        let over = |runner: &Runner| runner.end.is_some() && !runner.is_alone();
        self.runners.iter().all(over)
    }

    /// What must hold in every state.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.spent_too_soon {
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
            && (self.runners[holder].is_gone() || plan.slow)
        {
            let mut world = self.clone();
            world.claim = Some((holder, true));
            next.push(world);
        }
        for i in 0..self.runners.len() {
            let runner = &self.runners[i];
            let alone = runner.turn.as_ref().filter(|turn| turn.alone.is_some());
            match alone {
                Some(turn) if turn.alone == Some(true) => {
                    self.trip_moves(i, turn, plan, &mut next);
                    if plan.alone == Alone::WatchIsKilled {
                        self.kill_the_watch(i, turn, &mut next);
                    }
                }
                Some(turn) => self.moves_alone(i, turn, &mut next),
                None => {}
            }
            if runner.end.is_some() {
                continue;
            }
            if alone.is_none() {
                self.ends_early(i, plan, &mut next);
            }
            match &runner.turn {
                Some(turn) if turn.end.is_none() && alone.is_none() => {
                    self.trip_moves(i, turn, plan, &mut next);
                }
                Some(_) | None => self.rotation_moves(i, plan, &mut next),
            }
        }
        next
    }

    /// The rotation crashes; or it ends, and its Codex runs on.
    fn ends_early(&self, i: usize, plan: Plan, next: &mut Vec<World>) {
        let turn = self.runners[i]
            .turn
            .as_ref()
            .filter(|turn| turn.end.is_none());
        let runs = |turn: &Turn| {
            matches!(
                turn.codex,
                Codex::Running | Codex::Spent(_) | Codex::Written
            )
        };
        let runs = turn.is_some_and(runs);
        if self.crashes_left > 0 {
            let mut world = self.clone();
            world.crashes_left -= 1;
            let written = turn.and_then(|turn| turn.disk).filter(|disk| *disk != DUE);
            match plan.alone {
                Alone::Never => {
                    world.runners[i].end = Some(Fate::Crashed);
                    next.push(world);
                }
                Alone::Watched | Alone::Unwatched | Alone::WatchIsKilled if runs => {
                    world.runners[i].end = Some(Fate::Killed);
                    next.push(world.leave(i, plan));
                }
                // Codex has ended, and what it wrote is in the private home.
                Alone::Unwatched | Alone::WatchIsKilled => {
                    world.runners[i].end = Some(Fate::Killed);
                    let kept = written.filter(|disk| self.current() < *disk);
                    world.unfinished = kept.or(self.unfinished);
                    next.push(world);
                }
                // Another machine does not see that home: a crash of a machine, as above.
                Alone::Watched => {}
            }
        }
        if runs && self.alone_left > 0 {
            let mut world = self.clone();
            world.alone_left -= 1;
            let disk = world.turn(i).disk.expect("Codex has a file");
            let codex = world.turn(i).codex;
            world.turn(i).codex = Codex::Gone;
            let mut world = world.tell(i, Tell::Left(Seen::Usable(generation(disk))));
            // What was seen is persisted first.
            if world.turn(i).end.is_some() {
                world.turn(i).codex = codex;
                next.push(world.leave(i, plan));
            }
        }
    }

    /// The Codex of a rotation runs on. What watches it begins where the receipt says.
    fn leave(mut self, i: usize, plan: Plan) -> Self {
        let watched = plan.alone != Alone::Unwatched;
        let turn = self.turn(i);
        turn.alone = Some(watched);
        turn.end = None;
        turn.asked = None;
        if !watched {
            return self;
        }
        let base = turn.trip.base().cloned().expect("Codex has a login");
        let disk = turn.disk.expect("Codex has a file");
        let terms = trip_terms(i as u64 + 5);
        let (trip, effects) = Trip::join(terms, base, &[], Seen::Usable(generation(disk)));
        turn.trip = trip;
        self.take(i, effects)
    }

    /// What watches a Codex is killed too, perhaps just as its swap lands.
    fn kill_the_watch(&self, i: usize, turn: &Turn, next: &mut Vec<World>) {
        let mut worlds = vec![self.clone()];
        if let Some(Ask::Swap(write)) = &turn.asked {
            let mut landed = self.clone();
            landed.write(write);
            worlds.push(landed);
        }
        for mut world in worlds {
            let current = world.current();
            let turn = world.turn(i);
            turn.asked = None;
            let is_over = turn.codex == Codex::Gone;
            turn.alone = (!is_over).then_some(false);
            let written = turn.disk.filter(|disk| *disk != DUE && current < *disk);
            if is_over {
                world.unfinished = written.or(world.unfinished);
            }
            next.push(world);
        }
    }

    /// What a Codex does that no process watches.
    fn moves_alone(&self, i: usize, turn: &Turn, next: &mut Vec<World>) {
        let mut world = self.clone();
        let mut ended = self.clone();
        ended.turn(i).codex = Codex::Gone;
        ended.turn(i).alone = None;
        let disk = turn.disk.expect("Codex has a file");
        if disk != DUE && self.current() < disk {
            ended.unfinished = Some(disk);
        }
        match turn.codex {
            Codex::NotYet | Codex::Gone => {}
            Codex::Running if disk != DUE => next.push(ended),
            Codex::Running => {
                world.spend(i, disk);
                next.push(world);
                next.push(ended);
            }
            Codex::Spent(Some(got)) => {
                world.turn(i).disk = Some(got);
                world.turn(i).codex = Codex::Written;
                next.push(world);
            }
            Codex::Spent(None) | Codex::Written => next.push(ended),
        }
    }

    /// Codex sends the token that is on its disk.
    fn spend(&mut self, i: usize, disk: u8) {
        self.spent_too_soon |= self.unfinished.is_some();
        self.spent.push(i);
        let got = (self.live == disk).then_some(disk + 1);
        self.live = got.unwrap_or(self.live);
        self.turn(i).codex = Codex::Spent(got);
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
            // The folder of a rotation in which a Codex runs is in use.
            Some(Effect::Look)
                if plan.alone.is_one_machine() && self.runners.iter().any(Runner::is_alone) =>
            {
                next.push(self.clone().event(i, Event::Looked(Sight::Held)));
            }
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
            // The same is looked at before the proof: the claim may have been won later.
            Some(Effect::Prove)
                if plan.alone.is_one_machine() && self.runners.iter().any(Runner::is_alone) =>
            {
                next.push(self.clone().event(i, Event::Proven(Proof::Moved)));
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
                world.spend(i, disk);
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
        let terms = trip_terms(i as u64 + 1);
        let copies = self.unfinished.map(|it| self.copy(it));
        let (trip, effects) = Trip::start(terms, copies.into_iter().collect());
        self.runners[i].turn = Some(Turn {
            trip,
            asked: None,
            read: false,
            disk: None,
            codex: Codex::NotYet,
            deadline_sent: false,
            alone: None,
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
                    turn.end = Some(end.clone());
                    if turn.alone.take().is_some() {
                        // What watches it gives the claim back.
                        self.claim = self.claim.filter(|(holder, _)| *holder != i);
                        return self;
                    }
                    let left = end == End::Unsettled;
                    return self.event(i, if left { Event::Left } else { Event::Turned });
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

impl Runner {
    /// Whether its Codex, or what watches that, is not done yet.
    fn is_alone(&self) -> bool {
        self.turn.as_ref().is_some_and(|turn| turn.alone.is_some())
    }

    /// Whether nothing renews its claim any more.
    fn is_gone(&self) -> bool {
        let watched = |turn: &Turn| turn.alone == Some(true);
        self.end.is_some() && !self.turn.as_ref().is_some_and(watched)
    }
}

fn trip_terms(trip: u64) -> TripTerms {
    TripTerms {
        goal: Goal::Run,
        policy: Policy::Newest,
        trip,
        history: false,
        replace: false,
        refused: vec![],
        allow_account_change: false,
        is_rotation: true,
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
