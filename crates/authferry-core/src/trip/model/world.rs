//! The world around the trips: the store, the files, the commands, and everything that can
//! happen next.

use alloc::{collections::BTreeSet, format, vec, vec::Vec};

use super::*;
use crate::copies::Content;
use crate::{Identity, Issued, Label, SessionHints};

/// What the store ever held; the last entry is current.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Entry {
    generation: u8,
    /// `None`: a person put it there.
    by: Option<WriteId>,
}

/// A write whose sender has given up on the answer, and which may land yet: the entry it
/// expects, its generation, and the two halves of its id.
type Late = (usize, u8, u64, u64);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one fact of the world, seen from outside"
)]
pub(super) struct Runner {
    trip: Trip,
    asked: Option<Effect>,
    running: bool,
    runs: u8,
    /// The file; generations are numbered in the order of their issue.
    disk: Option<u8>,
    /// Every generation that the file ever held.
    had: BTreeSet<u8>,
    /// The store's current entry when this runner's trip last read it.
    read: Option<usize>,
    /// The store's entry that the command was started on.
    given: Option<usize>,
    rotations_left: u8,
    unnoticed: bool,
    rotated: bool,
    kept: BTreeSet<u8>,
    rescue_failed: bool,
    deadline_sent: bool,
    pub(super) outcome: Option<Outcome>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    history: Vec<Entry>,
    late: BTreeSet<Late>,
    issued: u8,
    reseeds_left: u8,
    touches_left: u8,
    pub(super) runners: Vec<Runner>,
}

impl World {
    pub(super) fn new(plan: &Plan) -> Self {
        let mut world = Self {
            history: vec![Entry {
                generation: 0,
                by: None,
            }],
            late: BTreeSet::new(),
            issued: u8::from(plan.leftover),
            reseeds_left: plan.reseeds,
            touches_left: plan.touches,
            runners: vec![],
        };
        for number in 0..plan.runners {
            let terms = Terms {
                goal: Goal::Run,
                policy: plan.policy,
                trip: u64::from(number) + 1,
                history: plan.history,
                replace: false,
                refused: vec![],
                allow_account_change: false,
            };
            let disk = plan.leftover.then_some(1);
            let copy = disk.map(|disk| Copy {
                place: Place::AuthFile,
                content: Content::Usable(generation(disk)),
                origins: Some(Origins {
                    base: world.first(),
                    seen: 0,
                    by_name: false,
                    hints_count: true,
                }),
            });
            let (trip, effects) = Trip::start(terms, copy.into_iter().collect());
            world.runners.push(Runner {
                trip,
                asked: None,
                running: false,
                runs: 0,
                disk,
                had: disk.into_iter().collect(),
                read: None,
                given: None,
                rotations_left: plan.rotations,
                unnoticed: false,
                rotated: false,
                kept: BTreeSet::new(),
                rescue_failed: false,
                deadline_sent: false,
                outcome: None,
            });
            world.take(usize::from(number), effects, plan);
        }
        world
    }

    /// Every world that this one can turn into by one happening.
    pub(super) fn next(&self, plan: &Plan) -> Vec<World> {
        let mut next = vec![];
        for (expected, generation, trip, number) in self.late.clone() {
            let mut lost = self.clone();
            lost.late.remove(&(expected, generation, trip, number));
            let mut landed = lost.clone();
            landed.write(expected, generation, WriteId { trip, number });
            next.extend([lost, landed]);
        }
        if self.reseeds_left > 0 {
            let mut world = self.clone();
            world.reseeds_left -= 1;
            world.issued += 1;
            world.history.push(Entry {
                generation: world.issued,
                by: None,
            });
            next.push(world);
        }
        if self.touches_left > 0 {
            for generation in 0..=self.current().generation {
                if self
                    .history
                    .iter()
                    .any(|entry| entry.generation == generation)
                {
                    let mut world = self.clone();
                    world.touches_left -= 1;
                    world.history.push(Entry {
                        generation,
                        by: None,
                    });
                    next.push(world);
                }
            }
        }
        for i in 0..self.runners.len() {
            if self.runners[i].outcome.is_none() {
                self.child_moves(i, plan, &mut next);
                self.store_answers(i, plan, &mut next);
            }
        }
        next
    }

    fn child_moves(&self, i: usize, plan: &Plan, next: &mut Vec<World>) {
        let runner = &self.runners[i];
        if !runner.running {
            let waits = matches!(
                runner.asked,
                Some(Effect::Read | Effect::Swap(_) | Effect::Wait(_))
            );
            if !runner.deadline_sent && waits {
                let mut world = self.clone();
                world.runners[i].deadline_sent = true;
                next.push(world.event(i, Event::Deadline, plan));
            }
            return;
        }
        if runner.rotations_left > 0 {
            let mut world = self.clone();
            world.issued += 1;
            let issued = world.issued;
            let runner = &mut world.runners[i];
            runner.rotations_left -= 1;
            runner.disk = Some(issued);
            runner.had.insert(issued);
            runner.unnoticed = true;
            runner.rotated = true;
            next.push(world);
        }
        if let (true, Some(disk)) = (runner.unnoticed, runner.disk) {
            let mut world = self.clone();
            world.runners[i].unnoticed = false;
            next.push(world.event(i, Event::Changed(generation(disk)), plan));
        }
        let mut exits = vec![
            runner
                .disk
                .map_or(Seen::Missing, |disk| Seen::Usable(generation(disk))),
        ];
        if plan.spoils {
            exits.extend([Seen::Missing, Seen::Unusable]);
        }
        for seen in exits {
            let mut world = self.clone();
            world.runners[i].running = false;
            if !matches!(seen, Seen::Usable(_)) && world.runners[i].unnoticed {
                // The only copy went before anyone could see it: no tool can keep it.
                continue;
            }
            next.push(world.event(i, Event::Exited(seen), plan));
        }
    }

    fn store_answers(&self, i: usize, plan: &Plan, next: &mut Vec<World>) {
        let answer = |world: &World, event| {
            let mut world = world.clone();
            world.runners[i].asked = None;
            world.event(i, event, plan)
        };
        match self.runners[i].asked.clone() {
            None => {}
            Some(Effect::Read) => {
                let mut world = self.clone();
                let current = self.history.len() - 1;
                world.runners[i].read = Some(current);
                next.push(answer(&world, Event::Read(Ok(Some(self.held(current))))));
                for trouble in [Trouble::Transient, Trouble::Permanent] {
                    next.push(answer(self, Event::Read(Err(trouble))));
                }
            }
            Some(Effect::Place(_)) => {
                let mut world = self.clone();
                let read = world.runners[i].read.expect("a place comes after a read");
                let placed = Some(world.history[read].generation);
                assert!(
                    placed > world.runners[i].disk,
                    "a newer file was replaced: {self:#?}"
                );
                world.runners[i].disk = placed;
                world.runners[i].had.extend(placed);
                next.push(answer(&world, Event::Placed(Placing::Done)));
                for placing in [Placing::Overtaken, Placing::Failed] {
                    next.push(answer(self, Event::Placed(placing)));
                }
            }
            Some(Effect::Swap(write)) => {
                let mut landed = self.clone();
                let reply = match landed.write(number(&write.expected), disk(&write), write.id) {
                    Some(version) => Reply::Landed(version),
                    None => Reply::Conflict,
                };
                next.push(answer(&landed, Event::Swapped(reply)));
                next.push(answer(&landed, Event::Swapped(Reply::Ambiguous)));
                let mut late = self.clone();
                let WriteId { trip, number: n } = write.id;
                late.late
                    .insert((number(&write.expected), disk(&write), trip, n));
                next.push(answer(&late, Event::Swapped(Reply::Ambiguous)));
                next.push(answer(self, Event::Swapped(Reply::Ambiguous)));
                for trouble in [Trouble::Transient, Trouble::Permanent] {
                    next.push(answer(self, Event::Swapped(Reply::Refused(trouble))));
                }
            }
            Some(Effect::Wait(_)) => next.push(answer(self, Event::Woke)),
            Some(Effect::Rescue(keep)) => {
                let mut kept = self.clone();
                let runner = &mut kept.runners[i];
                match keep {
                    Keep::Ours | Keep::Copies(_) => runner.kept.extend(runner.disk),
                    Keep::Theirs => {
                        let read = runner.read.expect("theirs was read");
                        runner.kept.insert(self.history[read].generation);
                    }
                }
                next.push(answer(&kept, Event::Rescued(true)));
                let mut failed = self.clone();
                failed.runners[i].rescue_failed = true;
                next.push(answer(&failed, Event::Rescued(false)));
            }
            Some(Effect::Run | Effect::Finish(_)) => unreachable!("not asked of the store"),
        }
    }

    /// What the store held at first.
    fn first(&self) -> Base {
        let held = self.held(0);
        Base::of_head(&held, &generation(self.history[0].generation), None)
    }

    fn current(&self) -> &Entry {
        self.history.last().expect("never empty")
    }

    fn held(&self, index: usize) -> Held {
        let entry = &self.history[index];
        Held {
            version: version(index),
            generation: Some(generation(entry.generation)),
            id: entry.by,
            count: 1,
            family: entry.by.map(|_| Family(generation(0).fingerprint)),
            volatile_hints: false,
        }
    }

    /// The store's own swap, and what must hold of each write that lands.
    fn write(&mut self, expected: usize, new: u8, id: WriteId) -> Option<Version> {
        if expected + 1 != self.history.len() {
            return None;
        }
        let replaced = &self.history[expected];
        assert!(
            new > replaced.generation,
            "an older login over a newer one: {self:#?}"
        );
        assert!(
            self.history.iter().all(|e| e.by != Some(id)),
            "one intent landed twice: {self:#?}"
        );
        let writer = self
            .runners
            .iter()
            .find(|r| r.trip.terms.trip == id.trip)
            .expect("known");
        let own = replaced.by.is_some_and(|by| by.trip == id.trip);
        let given = writer.given == Some(expected);
        assert!(
            own || writer.read >= Some(expected),
            "over something never seen: {self:#?}"
        );
        // A file that was there before the command is judged by its time of issue alone.
        let adopting = writer.runs == 0;
        // What a file descends from by its receipt was spent for it.
        let parent = given || writer.had.contains(&replaced.generation) || adopting;
        assert!(
            adopting || parent || replaced.by.is_some(),
            "a reseed was buried: {self:#?}"
        );
        let kept = writer.trip.terms.history || writer.kept.contains(&replaced.generation);
        assert!(own || parent || kept, "theirs was kept nowhere: {self:#?}");
        if writer.trip.terms.policy == Policy::Theirs {
            assert!(own || parent, "theirs was to stay: {self:#?}");
        }
        self.history.push(Entry {
            generation: new,
            by: Some(id),
        });
        Some(version(self.history.len() - 1))
    }

    fn event(mut self, i: usize, event: Event, plan: &Plan) -> World {
        let runner = &mut self.runners[i];
        let (mut trip, effects) = runner.trip.clone().step(event);
        trip.forget_attempts();
        if !matches!(trip.sync, Sync::Pausing(_)) && matches!(runner.asked, Some(Effect::Wait(_))) {
            runner.asked = None;
        }
        runner.trip = trip;
        self.take(i, effects, plan);
        self
    }

    fn take(&mut self, i: usize, effects: Vec<Effect>, plan: &Plan) {
        for effect in effects {
            let runner = &mut self.runners[i];
            match effect {
                Effect::Run => {
                    runner.running = true;
                    runner.runs += 1;
                    runner.given = runner.read;
                    assert_eq!(runner.runs, 1, "the command ran twice");
                }
                Effect::Finish(outcome) => {
                    assert!(!runner.running, "over before the command is");
                    runner.asked = None;
                    runner.outcome = Some(outcome);
                    self.check(i, plan);
                }
                Effect::Wait(_) => runner.asked = Some(Effect::Wait(core::time::Duration::ZERO)),
                Effect::Rescue(_)
                    if matches!(runner.asked, Some(Effect::Swap(_) | Effect::Read)) =>
                {
                    // The deadline cut a request short; a swap that was under way may land yet.
                    if let Some(Effect::Swap(write)) = runner.asked.replace(effect) {
                        let WriteId { trip, number: n } = write.id;
                        self.late
                            .insert((number(&write.expected), disk(&write), trip, n));
                    }
                }
                effect
                @ (Effect::Read | Effect::Place(_) | Effect::Swap(_) | Effect::Rescue(_)) => {
                    assert_eq!(runner.asked, None, "two requests at once");
                    runner.asked = Some(effect);
                }
            }
        }
    }

    /// What must hold when a trip says that it ended so.
    fn check(&self, i: usize, plan: &Plan) {
        let runner = &self.runners[i];
        let current = self.current();
        let stored = |g: u8| self.history.iter().any(|e| e.generation == g);
        let stored_by_us = |g: u8| {
            self.history.iter().any(|e| {
                e.generation == g && e.by.is_some_and(|id| id.trip == runner.trip.terms.trip)
            })
        };
        let outcome = runner.outcome.as_ref().expect("called at an end");
        let disk = runner.disk;
        match outcome {
            Outcome::Restored => panic!("not the goal"),
            Outcome::Refused(_) => assert!(!runner.rotated && runner.runs == 0, "{self:#?}"),
            Outcome::Unchanged => assert!(!runner.rotated, "a rotation was overlooked: {self:#?}"),
            Outcome::Persisted { buried } => {
                assert!(
                    disk.is_some_and(stored_by_us),
                    "said persisted, is not: {self:#?}"
                );
                for fingerprint in buried {
                    let kept = runner
                        .kept
                        .iter()
                        .any(|&g| generation(g).fingerprint == *fingerprint);
                    assert!(plan.history || kept, "buried and not kept: {self:#?}");
                }
            }
            Outcome::Superseded { by, rescued } => {
                assert!(
                    !runner.had.contains(&current.generation),
                    "a false alarm: {self:#?}"
                );
                assert!(
                    self.history
                        .iter()
                        .any(|e| generation(e.generation).fingerprint == *by),
                    "superseded by nobody: {self:#?}"
                );
                assert_eq!(
                    disk.is_some_and(|g| runner.kept.contains(&g)),
                    *rescued,
                    "{self:#?}"
                );
            }
            Outcome::Stranded { cause, rescued } => {
                if *cause == Cause::Missing {
                    assert!(
                        disk.is_none_or(stored),
                        "missing, and not stored before: {self:#?}"
                    );
                } else {
                    assert_eq!(
                        disk.is_some_and(|g| runner.kept.contains(&g)),
                        *rescued,
                        "{self:#?}"
                    );
                }
            }
        }
        if matches!(outcome, Outcome::Refused(_)) {
            return; // Whatever is on disk is still there.
        }
        let safe = disk.is_none_or(|g| stored(g) || runner.kept.contains(&g));
        assert!(
            safe || runner.rescue_failed,
            "a rotated login is lost: {self:#?}"
        );
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

fn disk(write: &Write) -> u8 {
    u8::try_from(write.generation.issued.iat.expect("always there") / 1000).expect("small")
}

fn version(index: usize) -> Version {
    Version::new(&format!("{index}"))
}

fn number(version: &Version) -> usize {
    version.as_str().parse().expect("a number")
}
