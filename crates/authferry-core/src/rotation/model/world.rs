//! The world around two rotations: the store, its lease, the provider, and all possible events.

use alloc::{format, string::String, vec, vec::Vec};

use super::*;
use crate::copies::{Content, Copy, Origins, Place};
use crate::round_trip::{Base, Effect, Event, Goal, Outcome, Placing, Reply, Terms, Write};
use crate::{
    Cause, Family, Fingerprint, Generation, Held, Identity, Issued, Label, Policy, RoundTrip, Seen,
    SessionHints, Version, WriteId,
};

/// Only the first generation is due.
const DUE: u8 = 0;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct RotationWorld {
    /// All logins that the store held, with their writes; the last entry is current.
    history: Vec<(u8, Option<WriteId>)>,
    /// The holder of the lease, and whether it has expired.
    lease: Option<(usize, bool)>,
    /// The generation whose refresh token is live.
    live: u8,
    /// The runners that spent the due token, in order; only the first got a new one.
    spent: Vec<usize>,
    crashes_left: u8,
    /// How often a rotation may still orphan its Codex.
    orphans_left: u8,
    /// Whether a token was spent while the private home of a killed rotation held a later login.
    spent_too_soon: bool,
    /// The login in the private home of a rotation that was killed after Codex wrote.
    unfinished: Option<u8>,
    runners: Vec<Runner>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Runner {
    rotation: Rotation,
    pending: Option<RotationEffect>,
    /// The length of the history at the last read or proof.
    seen_len: usize,
    deadline_sent: bool,
    refresh: Option<RunningRefresh>,
    end: Option<Fate>,
}

/// How a runner ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Fate {
    Crashed,
    Ended(RotationOutcome),
    /// Killed while its Codex still runs.
    Killed,
}

/// A round trip, in progress or over.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct RunningRefresh {
    round_trip: RoundTrip,
    pending: Option<Effect>,
    /// Whether the store was read: the first read returns the proven login.
    read: bool,
    /// The file in the private home.
    disk: Option<u8>,
    codex: Codex,
    deadline_sent: bool,
    /// If the Codex is orphaned: whether a supervisor watches it.
    orphan: Option<bool>,
    end: Option<Outcome>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Codex {
    NotYet,
    Running,
    /// The provider has accepted the token, and the file is unchanged.
    Spent(Option<u8>),
    /// The new login is in the file, but the round trip has not seen it.
    Written,
    Gone,
}

impl RotationWorld {
    pub(super) fn new(plan: RotationPlan) -> Self {
        let runner = |number: usize| {
            let (rotation, effects) = Rotation::start(RotationTerms {
                leases: plan.leases,
                salt: number as u64,
            });
            Runner {
                rotation,
                pending: effects.first().copied(),
                seen_len: 0,
                deadline_sent: false,
                refresh: None,
                end: None,
            }
        };
        Self {
            history: vec![(DUE, None)],
            lease: None,
            live: if plan.unfinished { DUE + 1 } else { DUE },
            spent: vec![],
            crashes_left: u8::from(plan.crashes),
            orphans_left: u8::from(plan.orphan != Orphan::Never),
            spent_too_soon: false,
            unfinished: plan.unfinished.then_some(DUE + 1),
            runners: vec![runner(0), runner(1)],
        }
    }

    pub(super) fn is_over(&self) -> bool {
        let over = |runner: &Runner| runner.end.is_some() && !runner.has_orphan();
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
            if runner.end == Some(Fate::Ended(RotationOutcome::Fresh)) && self.current() == DUE {
                return Err(format!("reported fresh, but it is not: {self:#?}"));
            }
        }
        // The private home stays until what it holds is in the store.
        if self.current() == self.live || self.unfinished == Some(self.live) {
            return Ok(vec![]);
        }
        let named = self.spent.iter().find_map(|&spender| self.loss_by(spender));
        let loss = named.ok_or_else(|| format!("a login is lost without a known cause: {self:#?}"));
        loss.map(|loss| vec![loss])
    }

    /// Why this runner spent the token without storing the new login.
    fn loss_by(&self, spender: usize) -> Option<&'static str> {
        let runner = &self.runners[spender];
        let refresh = runner.refresh.as_ref()?;
        let stored = self.current() != DUE;
        match (&runner.end, &refresh.end) {
            (_, Some(Outcome::NotPersisted { cause, .. })) if *cause == Cause::Store && !stored => {
                Some("a store that refuses the swap")
            }
            (Some(Fate::Crashed), _) if !stored => {
                Some("a crash after the spend and before the swap")
            }
            _ => None,
        }
    }

    /// Every world that can follow this one by one event.
    pub(super) fn next(&self, plan: RotationPlan) -> Vec<RotationWorld> {
        let mut next = vec![];
        if let Some((holder, false)) = self.lease
            && (self.runners[holder].is_gone() || plan.slow)
        {
            let mut world = self.clone();
            world.lease = Some((holder, true));
            next.push(world);
        }
        for i in 0..self.runners.len() {
            let runner = &self.runners[i];
            let orphan = runner
                .refresh
                .as_ref()
                .filter(|refresh| refresh.orphan.is_some());
            match orphan {
                Some(refresh) if refresh.orphan == Some(true) => {
                    self.round_trip_moves(i, refresh, plan, &mut next);
                    if plan.orphan == Orphan::WatchIsKilled {
                        self.kill_watch(i, refresh, &mut next);
                    }
                }
                Some(refresh) => self.orphan_moves(i, refresh, &mut next),
                None => {}
            }
            if runner.end.is_some() {
                continue;
            }
            if orphan.is_none() {
                self.early_ends(i, plan, &mut next);
            }
            match &runner.refresh {
                Some(refresh) if refresh.end.is_none() && orphan.is_none() => {
                    self.round_trip_moves(i, refresh, plan, &mut next);
                }
                Some(_) | None => self.rotation_moves(i, plan, &mut next),
            }
        }
        next
    }

    /// The rotation crashes, or it ends and orphans its Codex.
    fn early_ends(&self, i: usize, plan: RotationPlan, next: &mut Vec<RotationWorld>) {
        let refresh = self.runners[i]
            .refresh
            .as_ref()
            .filter(|refresh| refresh.end.is_none());
        let runs = |refresh: &RunningRefresh| {
            matches!(
                refresh.codex,
                Codex::Running | Codex::Spent(_) | Codex::Written
            )
        };
        let runs = refresh.is_some_and(runs);
        if self.crashes_left > 0 {
            let mut world = self.clone();
            world.crashes_left -= 1;
            let written = refresh
                .and_then(|refresh| refresh.disk)
                .filter(|disk| *disk != DUE);
            match plan.orphan {
                Orphan::Never => {
                    world.runners[i].end = Some(Fate::Crashed);
                    next.push(world);
                }
                Orphan::Watched | Orphan::Unwatched | Orphan::WatchIsKilled if runs => {
                    world.runners[i].end = Some(Fate::Killed);
                    next.push(world.orphan_codex(i, plan));
                }
                // Codex has exited, and its login is in the private home.
                Orphan::Unwatched | Orphan::WatchIsKilled => {
                    world.runners[i].end = Some(Fate::Killed);
                    let kept = written.filter(|disk| self.current() < *disk);
                    world.unfinished = kept.or(self.unfinished);
                    next.push(world);
                }
                // Another machine does not see that home: a crash of a machine, as above.
                Orphan::Watched => {}
            }
        }
        if runs && self.orphans_left > 0 {
            let mut world = self.clone();
            world.orphans_left -= 1;
            let disk = world.refresh(i).disk.expect("Codex has a file");
            let codex = world.refresh(i).codex;
            world.refresh(i).codex = Codex::Gone;
            let mut world =
                world.send_event(i, Event::CodexRunning(Seen::Usable(generation(disk))));
            // The login on disk is persisted first.
            if world.refresh(i).end.is_some() {
                world.refresh(i).codex = codex;
                next.push(world.orphan_codex(i, plan));
            }
        }
    }

    /// The Codex of a rotation still runs. Its supervisor starts from the receipt.
    fn orphan_codex(mut self, i: usize, plan: RotationPlan) -> Self {
        let watched = plan.orphan != Orphan::Unwatched;
        let refresh = self.refresh(i);
        refresh.orphan = Some(watched);
        refresh.end = None;
        refresh.pending = None;
        if !watched {
            return self;
        }
        let base = refresh
            .round_trip
            .base()
            .cloned()
            .expect("Codex has a login");
        let disk = refresh.disk.expect("Codex has a file");
        let terms = round_trip_terms(i as u64 + 5);
        let (round_trip, effects) =
            RoundTrip::join(terms, base, &[], Seen::Usable(generation(disk)));
        refresh.round_trip = round_trip;
        self.apply_effects(i, effects)
    }

    /// The supervisor of a Codex is killed too, maybe just as its swap lands.
    fn kill_watch(&self, i: usize, refresh: &RunningRefresh, next: &mut Vec<RotationWorld>) {
        let mut worlds = vec![self.clone()];
        if let Some(Effect::Swap(write)) = &refresh.pending {
            let mut landed = self.clone();
            landed.write(write);
            worlds.push(landed);
        }
        for mut world in worlds {
            let current = world.current();
            let refresh = world.refresh(i);
            refresh.pending = None;
            let is_over = refresh.codex == Codex::Gone;
            refresh.orphan = (!is_over).then_some(false);
            let written = refresh.disk.filter(|disk| *disk != DUE && current < *disk);
            if is_over {
                world.unfinished = written.or(world.unfinished);
            }
            next.push(world);
        }
    }

    /// The events of a Codex that no process watches.
    fn orphan_moves(&self, i: usize, refresh: &RunningRefresh, next: &mut Vec<RotationWorld>) {
        let mut world = self.clone();
        let mut ended = self.clone();
        ended.refresh(i).codex = Codex::Gone;
        ended.refresh(i).orphan = None;
        let disk = refresh.disk.expect("Codex has a file");
        if disk != DUE && self.current() < disk {
            ended.unfinished = Some(disk);
        }
        match refresh.codex {
            Codex::NotYet | Codex::Gone => {}
            Codex::Running if disk != DUE => next.push(ended),
            Codex::Running => {
                world.spend(i, disk);
                next.push(world);
                next.push(ended);
            }
            Codex::Spent(Some(new)) => {
                world.refresh(i).disk = Some(new);
                world.refresh(i).codex = Codex::Written;
                next.push(world);
            }
            Codex::Spent(None) | Codex::Written => next.push(ended),
        }
    }

    /// Codex sends the token that is on its disk.
    fn spend(&mut self, i: usize, disk: u8) {
        self.spent_too_soon |= self.unfinished.is_some();
        self.spent.push(i);
        let new = (self.live == disk).then_some(disk + 1);
        self.live = new.unwrap_or(self.live);
        self.refresh(i).codex = Codex::Spent(new);
    }

    fn rotation_moves(&self, i: usize, plan: RotationPlan, next: &mut Vec<RotationWorld>) {
        let runner = &self.runners[i];
        if plan.deadlines && !runner.deadline_sent && runner.refresh.is_none() {
            let mut world = self.clone();
            world.runners[i].deadline_sent = true;
            next.push(world.event(i, RotationEvent::Deadline));
        }
        let mut failures = vec![Retryable::Yes];
        failures.extend(plan.refusals.then_some(Retryable::No));
        match runner.pending {
            None | Some(RotationEffect::Refresh | RotationEffect::Finish(_)) => {}
            // A private home in which a Codex runs is in use.
            Some(RotationEffect::Read)
                if plan.orphan.is_one_machine() && self.runners.iter().any(Runner::has_orphan) =>
            {
                next.push(self.clone().event(i, RotationEvent::Read(DueState::Busy)));
            }
            Some(RotationEffect::Read) => {
                let newest = self.history.len();
                for seen_len in if plan.stale { 1 } else { newest }..=newest {
                    let state = if self.history[seen_len - 1].0 == DUE {
                        DueState::Due
                    } else {
                        DueState::Fresh
                    };
                    let mut world = self.clone();
                    world.runners[i].seen_len = seen_len;
                    next.push(world.event(i, RotationEvent::Read(state)));
                }
                // Another rotation of this machine is running, as its lock says.
                next.push(self.clone().event(i, RotationEvent::Read(DueState::Busy)));
                for &retryable in &failures {
                    let state = RotationEvent::Read(DueState::Failed(retryable));
                    next.push(self.clone().event(i, state));
                }
            }
            Some(RotationEffect::Acquire) => {
                let free = match self.lease {
                    None | Some((_, true)) => true,
                    Some((holder, false)) => holder == i,
                };
                if free {
                    let mut world = self.clone();
                    world.lease = Some((i, false));
                    let lost = RotationEvent::Acquired(AcquireResult::Failed(Retryable::Yes));
                    next.push(
                        world
                            .clone()
                            .event(i, RotationEvent::Acquired(AcquireResult::Acquired)),
                    );
                    next.push(world.event(i, lost));
                } else {
                    next.push(
                        self.clone()
                            .event(i, RotationEvent::Acquired(AcquireResult::Held)),
                    );
                }
                for &retryable in &failures {
                    let result = RotationEvent::Acquired(AcquireResult::Failed(retryable));
                    next.push(self.clone().event(i, result));
                }
            }
            // The runner checks this before the proof too: the lease may have been acquired later.
            Some(RotationEffect::Prove)
                if plan.orphan.is_one_machine() && self.runners.iter().any(Runner::has_orphan) =>
            {
                next.push(
                    self.clone()
                        .event(i, RotationEvent::Proven(Proof::Conflict)),
                );
            }
            Some(RotationEffect::Prove) => {
                if !plan.closed {
                    let mut world = self.clone();
                    let proof = world.prove(i);
                    let lost = RotationEvent::Proven(Proof::Failed(Retryable::Yes));
                    next.push(world.clone().event(i, lost));
                    next.push(world.event(i, RotationEvent::Proven(proof)));
                }
                for &retryable in &failures {
                    let proof = RotationEvent::Proven(Proof::Failed(retryable));
                    next.push(self.clone().event(i, proof));
                }
            }
            Some(RotationEffect::Release) => {
                let mut world = self.clone();
                world.lease = world.lease.filter(|(holder, _)| *holder != i);
                next.push(world.event(i, RotationEvent::Released));
                next.push(self.clone().event(i, RotationEvent::Released));
            }
            Some(RotationEffect::Wait(_)) => {
                next.push(self.clone().event(i, RotationEvent::Waited));
            }
        }
    }

    fn round_trip_moves(
        &self,
        i: usize,
        refresh: &RunningRefresh,
        plan: RotationPlan,
        next: &mut Vec<RotationWorld>,
    ) {
        self.codex_moves(i, refresh, next);
        let waits = matches!(
            refresh.pending,
            Some(Effect::Read | Effect::Swap(_) | Effect::Wait(_))
        );
        let quiet = matches!(refresh.codex, Codex::NotYet | Codex::Gone);
        if plan.refusals && waits && quiet && !refresh.deadline_sent {
            let mut world = self.clone();
            world.refresh(i).deadline_sent = true;
            next.push(world.send_event(i, Event::Deadline));
        }
        let mut failures = vec![Retryable::Yes];
        failures.extend(plan.refusals.then_some(Retryable::No));
        match refresh.pending.clone() {
            None | Some(Effect::Run | Effect::Finish(_)) => {}
            // The round trip starts from the proven login.
            Some(Effect::Read) if !refresh.read => {
                let held = self.held(self.runners[i].seen_len);
                let mut world = self.clone();
                world.refresh(i).read = true;
                next.push(world.answer(i, Event::Read(Ok(Some(held)))));
            }
            Some(Effect::Read) => {
                let held = self.held(self.history.len());
                next.push(self.answer(i, Event::Read(Ok(Some(held)))));
                for &retryable in &failures {
                    next.push(self.answer(i, Event::Read(Err(retryable))));
                }
            }
            Some(Effect::Place(login)) => {
                let mut world = self.clone();
                let mut known = DUE..=world.live;
                let placed = known.find(|&it| generation(it).fingerprint == login);
                world.refresh(i).disk = placed;
                next.push(world.answer(i, Event::Placed(Placing::Done)));
            }
            Some(Effect::Swap(write)) => {
                let mut landed = self.clone();
                let reply = landed.write(&write);
                next.push(landed.answer(i, Event::Swapped(reply)));
                next.push(landed.answer(i, Event::Swapped(Reply::Ambiguous)));
                next.push(self.answer(i, Event::Swapped(Reply::Ambiguous)));
                for &retryable in &failures {
                    next.push(self.answer(i, Event::Swapped(Reply::Refused(retryable))));
                }
            }
            Some(Effect::Wait(_)) => next.push(self.answer(i, Event::Waited)),
            Some(Effect::Rescue(_)) => next.push(self.answer(i, Event::Rescued(true))),
        }
    }

    fn codex_moves(&self, i: usize, refresh: &RunningRefresh, next: &mut Vec<RotationWorld>) {
        let exit = |world: &RotationWorld, disk| {
            let mut world = world.clone();
            world.refresh(i).codex = Codex::Gone;
            world.send_event(i, Event::Exited(Seen::Usable(generation(disk))))
        };
        let (Some(disk), mut world) = (refresh.disk, self.clone()) else {
            return;
        };
        match refresh.codex {
            Codex::NotYet | Codex::Gone => {}
            // Codex does not refresh a login that is no longer due.
            Codex::Running if disk != DUE => next.push(exit(self, disk)),
            Codex::Running => {
                world.spend(i, disk);
                next.push(world);
                next.push(exit(self, disk));
            }
            Codex::Spent(None) => next.push(exit(self, disk)),
            Codex::Spent(Some(new)) => {
                let refresh = world.refresh(i);
                refresh.disk = Some(new);
                refresh.codex = Codex::Written;
                next.push(world);
            }
            Codex::Written => {
                next.push(self.clone().send_event(i, Event::Changed(generation(disk))));
                next.push(exit(self, disk));
            }
        }
    }

    fn event(mut self, i: usize, event: RotationEvent) -> Self {
        let runner = &mut self.runners[i];
        let (mut rotation, effects) = runner.rotation.clone().step(event);
        // Only the backoff depends on it.
        rotation.attempt = rotation.attempt.min(1);
        runner.rotation = rotation;
        for effect in effects {
            runner.pending = Some(match effect {
                RotationEffect::Wait(_) => RotationEffect::Wait(Duration::ZERO),
                RotationEffect::Read
                | RotationEffect::Acquire
                | RotationEffect::Prove
                | RotationEffect::Refresh
                | RotationEffect::Release
                | RotationEffect::Finish(_) => effect,
            });
            match effect {
                RotationEffect::Refresh => return self.begin_refresh(i),
                RotationEffect::Finish(outcome) => runner.end = Some(Fate::Ended(outcome)),
                RotationEffect::Read
                | RotationEffect::Acquire
                | RotationEffect::Prove
                | RotationEffect::Release
                | RotationEffect::Wait(_) => {}
            }
        }
        self
    }

    /// Starts the round trip of the rotation.
    fn begin_refresh(mut self, i: usize) -> Self {
        let terms = round_trip_terms(i as u64 + 1);
        let copies = self.unfinished.map(|it| self.copy(it));
        let (round_trip, effects) = RoundTrip::start(terms, copies.into_iter().collect());
        self.runners[i].refresh = Some(RunningRefresh {
            round_trip,
            pending: None,
            read: false,
            disk: None,
            codex: Codex::NotYet,
            deadline_sent: false,
            orphan: None,
            end: None,
        });
        self.apply_effects(i, effects)
    }

    fn answer(&self, i: usize, event: Event) -> Self {
        let mut world = self.clone();
        world.refresh(i).pending = None;
        world.send_event(i, event)
    }

    fn send_event(mut self, i: usize, event: Event) -> Self {
        let refresh = self.refresh(i);
        let (mut round_trip, effects) = refresh.round_trip.clone().step(event);
        round_trip.forget_attempts();
        refresh.round_trip = round_trip;
        self.apply_effects(i, effects)
    }

    fn apply_effects(mut self, i: usize, effects: Vec<Effect>) -> Self {
        for effect in effects {
            let refresh = self.refresh(i);
            match effect {
                Effect::Run => refresh.codex = Codex::Running,
                Effect::Finish(end) => {
                    refresh.pending = None;
                    refresh.end = Some(end.clone());
                    if refresh.orphan.take().is_some() {
                        // The supervisor releases the lease.
                        self.lease = self.lease.filter(|(holder, _)| *holder != i);
                        return self;
                    }
                    let left = end == Outcome::Unsettled;
                    return self.event(
                        i,
                        if left {
                            RotationEvent::CodexRunning
                        } else {
                            RotationEvent::Refreshed
                        },
                    );
                }
                Effect::Wait(_) => refresh.pending = Some(Effect::Wait(Duration::ZERO)),
                Effect::Read | Effect::Place(_) | Effect::Swap(_) | Effect::Rescue(_) => {
                    refresh.pending = Some(effect);
                }
            }
        }
        self
    }

    fn refresh(&mut self, i: usize) -> &mut RunningRefresh {
        self.runners[i]
            .refresh
            .as_mut()
            .expect("a round trip under way")
    }

    fn current(&self) -> u8 {
        self.history.last().expect("never empty").0
    }

    /// The login in the private home of the killed rotation, with its receipt.
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

    /// What the store held when its history had this length.
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

    /// Swaps the login that this runner read for itself. The nonce is none of a round trip's. A
    /// second such swap in a row would only make another version.
    fn prove(&mut self, i: usize) -> Proof {
        let newest = self.history.len();
        if self.runners[i].seen_len != newest {
            return Proof::Conflict;
        }
        let id = WriteId {
            nonce: i as u64 + 3,
            number: 0,
        };
        let (current, by) = self.history[newest - 1];
        if by != Some(id) {
            self.history.push((current, Some(id)));
        }
        self.runners[i].seen_len = self.history.len();
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
    /// Whether its orphaned Codex or the supervisor is not done yet.
    fn has_orphan(&self) -> bool {
        self.refresh
            .as_ref()
            .is_some_and(|refresh| refresh.orphan.is_some())
    }

    /// Whether no process renews its lease any more.
    fn is_gone(&self) -> bool {
        let watched = |refresh: &RunningRefresh| refresh.orphan == Some(true);
        self.end.is_some() && !self.refresh.as_ref().is_some_and(watched)
    }
}

fn round_trip_terms(nonce: u64) -> Terms {
    Terms {
        goal: Goal::Run,
        policy: Policy::Newest,
        nonce,
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
