//! The modelled world: the secret, the pointer, the actors, and all possible next events.

use super::*;

/// How often an intent is read before it is replaced.
const MAX_ATTEMPTS: u8 = 1;

/// More steps than a single actor needs.
const MAX_STEPS: usize = 60;

/// A version of the secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ModelVersion {
    number: u8,
    /// Whether a list shows it on the second page.
    page: bool,
    /// The writer; `None` for a person.
    by: Option<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Actor {
    goal: ProtocolGoal,
    /// `None` for an actor that crashed or ended.
    alive: Option<(Operation, ProtocolAction)>,
    /// The first page of a list.
    page: Option<Vec<VersionItem>>,
    /// Whether the writer may restart with the same write.
    returns: bool,
    end: Option<ProtocolOutcome>,
    /// Whether its intent was ever in the pointer.
    granted: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    kept: Vec<ModelVersion>,
    /// The number of versions ever created.
    versions: u8,
    /// The versions that a person put and that still exist.
    by_hand: Vec<u8>,
    /// How many versions a list shows.
    listed: usize,
    pointer: Option<(u8, Pointer)>,
    writes: u8,
    /// Every version that was ever current, in order.
    currents: Vec<u8>,
    /// Puts whose sender has timed out.
    late: Vec<u8>,
    actors: Vec<Actor>,
    reseeds: u8,
    wipes: u8,
    deaths: u8,
    returns: u8,
    lag: bool,
    /// Whether a person has purged all versions.
    wiped: bool,
}

impl World {
    /// A secret with one version, which every writer wants to replace.
    pub(super) fn new(plan: Plan) -> Self {
        let mut world = Self {
            kept: vec![ModelVersion {
                number: 0,
                page: false,
                by: None,
            }],
            versions: 1,
            by_hand: vec![],
            listed: 1,
            pointer: None,
            writes: 0,
            currents: vec![0],
            late: vec![],
            actors: vec![],
            reseeds: plan.reseeds,
            wipes: plan.wipes,
            deaths: plan.deaths,
            returns: plan.returns,
            lag: plan.lag,
            wiped: false,
        };
        if plan.pointer {
            let pointer = Pointer {
                current: Some(PointerEntry {
                    version: "0".into(),
                    mark: None,
                }),
                known: BTreeSet::from(["0".into()]),
                ..Pointer::default()
            };
            world.pointer = Some((0, pointer));
        }
        for number in 0..plan.writers {
            let goal = ProtocolGoal::Swap {
                expected: Some("0".into()),
                mark: mark(number),
            };
            world.actors.push(Actor::new(goal));
        }
        for _ in 0..plan.readers {
            world.actors.push(Actor::new(ProtocolGoal::Read));
        }
        world
    }

    pub(super) fn is_over(&self) -> bool {
        self.actors.iter().all(|actor| actor.alive.is_none())
    }

    /// Returns every world that one event can lead to.
    pub(super) fn next(&self) -> Vec<World> {
        let mut next = vec![];
        if self.listed < self.kept.len() {
            let mut world = self.clone();
            world.listed = world.kept.len();
            next.push(world);
        }
        for at in 0..self.late.len() {
            let mut lost = self.clone();
            let writer = lost.late.remove(at);
            next.extend(lost.put(Some(writer)).map(|(world, _)| world));
            next.push(lost);
        }
        if self.reseeds > 0 {
            let mut world = self.clone();
            world.reseeds -= 1;
            next.extend(world.put(None).map(|(world, _)| world));
        }
        if self.wipes > 0 {
            let mut world = self.clone();
            world.wipes -= 1;
            world.kept.clear();
            world.by_hand.clear();
            world.listed = 0;
            world.wiped = true;
            next.push(world);
        }
        for i in 0..self.actors.len() {
            self.act(i, &mut next);
        }
        next
    }

    fn act(&self, i: usize, next: &mut Vec<World>) {
        let actor = &self.actors[i];
        let Some((_, ask)) = &actor.alive else {
            if actor.returns && self.returns > 0 {
                let mut world = self.clone();
                world.returns -= 1;
                let granted = world.actors[i].granted;
                world.actors[i] = Actor::new(actor.goal.clone());
                world.actors[i].granted = granted;
                next.push(world);
            }
            return;
        };
        let outcomes = self.execute(i, ask.clone());
        if self.deaths > 0 {
            let mut dead = vec![self.clone()];
            dead.extend(outcomes.iter().map(|(world, _)| world.clone()));
            if *ask == ProtocolAction::Put {
                let mut world = self.clone();
                world.late.push(u8::try_from(i).expect("few"));
                dead.push(world);
            }
            for mut world in dead {
                world.deaths -= 1;
                world.actors[i].alive = None;
                world.actors[i].page = None;
                world.actors[i].returns = true;
                next.push(world);
            }
        }
        for (world, reply) in outcomes {
            next.push(match reply {
                Some(reply) => world.reply(i, reply),
                None => world,
            });
        }
    }

    /// Returns the possible results of an actor's action.
    fn execute(&self, i: usize, ask: ProtocolAction) -> Vec<(World, Option<ProtocolReply>)> {
        let mut world = self.clone();
        let reply = match ask {
            ProtocolAction::Pointer => ProtocolReply::Pointer(
                self.pointer
                    .clone()
                    .map(|(etag, pointer)| (etag.to_string(), pointer)),
            ),
            ProtocolAction::Newest => ProtocolReply::Newest(
                self.kept
                    .last()
                    .map_or(Newest::Nothing, |kept| Newest::This(item(kept))),
            ),
            ProtocolAction::List => {
                let shown = &self.kept[..self.listed];
                let page = |page| shown.iter().filter(move |kept| kept.page == page).map(item);
                match &mut world.actors[i].page {
                    None if shown.iter().all(|kept| !kept.page) => {
                        ProtocolReply::List(page(false).collect(), true)
                    }
                    None => {
                        world.actors[i].page = Some(page(false).collect());
                        return vec![(world, None)];
                    }
                    Some(first) => {
                        let mut list = std::mem::take(first);
                        world.actors[i].page = None;
                        list.extend(page(true));
                        ProtocolReply::List(list, false)
                    }
                }
            }
            ProtocolAction::Find(version) => ProtocolReply::Found(
                self.kept
                    .iter()
                    .any(|kept| kept.number.to_string() == version),
            ),
            ProtocolAction::Replace(etag, pointer) => {
                let current_etag = self.pointer.as_ref().map(|(etag, _)| etag.to_string());
                if etag == current_etag {
                    world.replace(i, pointer);
                    ProtocolReply::Replaced(world.writes.to_string())
                } else {
                    ProtocolReply::Changed
                }
            }
            ProtocolAction::Put => {
                assert!(self.actors[i].granted, "a put without an intent: {self:#?}");
                let writer = u8::try_from(i).expect("few");
                let mut outcomes: Vec<_> = self
                    .put(Some(writer))
                    .map(|(world, version)| (world, Some(ProtocolReply::Put(version.to_string()))))
                    .collect();
                outcomes.push((world, Some(ProtocolReply::Refused)));
                return outcomes;
            }
            ProtocolAction::Pause => ProtocolReply::Paused,
            ProtocolAction::End(_) => unreachable!("the operation has ended"),
        };
        vec![(world, Some(reply))]
    }

    /// Appends a version, on either page.
    fn put(&self, by: Option<u8>) -> impl Iterator<Item = (World, u8)> {
        [false, true].into_iter().map(move |page| {
            let mut world = self.clone();
            let number = world.versions;
            world.versions += 1;
            world.kept.push(ModelVersion { number, page, by });
            if by.is_none() {
                world.by_hand.push(number);
            }
            if !world.lag {
                world.listed = world.kept.len();
            }
            (world, number)
        })
    }

    /// Replaces the pointer and checks the invariants.
    fn replace(&mut self, i: usize, pointer: Pointer) {
        if pointer.intent.is_some() {
            let ProtocolGoal::Swap { mark, .. } = &self.actors[i].goal else {
                panic!("a reader has an intent: {self:#?}");
            };
            assert_eq!(
                pointer.intent.as_ref(),
                Some(mark),
                "the intent of another actor"
            );
            self.actors[i].granted = true;
        }
        let before = self.current();
        let after = pointer.current.as_ref().map(|entry| number(&entry.version));
        if let Some(version) = after.filter(|_| after != before) {
            assert!(
                !self.currents.contains(&version),
                "a version becomes current a second time: {self:#?}"
            );
            let kept = self.kept.iter().find(|kept| kept.number == version);
            let by = kept.map(|kept| kept.by);
            if let Some(Some(writer)) = by {
                let ProtocolGoal::Swap { expected, .. } = &self.actors[usize::from(writer)].goal
                else {
                    panic!("a reader wrote: {self:#?}");
                };
                let replaced = before.map(|version| version.to_string());
                assert_eq!(
                    *expected, replaced,
                    "the write replaces another version: {self:#?}"
                );
            }
            if kept.is_some_and(|kept| kept.by.is_none()) {
                assert!(self.by_hand.contains(&version), "not a reseed: {self:#?}");
            }
            self.currents.push(version);
        }
        self.writes += 1;
        self.pointer = Some((self.writes, pointer));
    }

    /// Returns the current version.
    fn current(&self) -> Option<u8> {
        match &self.pointer {
            Some((_, pointer)) => Some(number(&pointer.current.as_ref()?.version)),
            None => self.currents.last().copied(),
        }
    }

    fn reply(mut self, i: usize, reply: ProtocolReply) -> World {
        let actor = &mut self.actors[i];
        let (operation, action) = actor.alive.as_mut().expect("a live actor");
        *action = operation.step(reply);
        if let ProtocolAction::End(end) = action.clone() {
            actor.alive = None;
            actor.end = Some(end.clone());
            self.check_outcome(i, &end);
        }
        self
    }

    /// Checks the outcome of an operation.
    fn check_outcome(&self, i: usize, end: &ProtocolOutcome) {
        let is_ours = |version: &u8| {
            let kept = self.kept.iter().find(|kept| kept.number == *version);
            kept.and_then(|kept| kept.by) == u8::try_from(i).ok()
        };
        match end {
            ProtocolOutcome::Written(version) => assert!(
                self.wiped || is_ours(&number(version)) && self.currents.contains(&number(version)),
                "reported as written, but it never was current: {self:#?}"
            ),
            ProtocolOutcome::Conflict | ProtocolOutcome::Refused => assert!(
                !self.currents.iter().any(is_ours),
                "reported as not written, but it was current: {self:#?}"
            ),
            ProtocolOutcome::Unseen => {
                assert!(self.lag || self.wiped, "no list was stale: {self:#?}");
            }
            ProtocolOutcome::Read(_) => {}
            ProtocolOutcome::Disabled => panic!("nothing is disabled: {self:#?}"),
        }
        let expected = |actor: &Actor| match &actor.goal {
            ProtocolGoal::Swap { expected, .. } => expected.clone(),
            ProtocolGoal::Read => None,
        };
        let winners = self.actors.iter().filter(|actor| {
            matches!(actor.end, Some(ProtocolOutcome::Written(_)))
                && expected(actor) == expected(&self.actors[i])
        });
        assert!(
            winners.count() <= 1,
            "two swaps of one version succeeded: {self:#?}"
        );
    }

    /// Returns the world after all actors have stopped for good.
    pub(super) fn without_actors(&self) -> Self {
        let mut world = Self {
            listed: self.kept.len(),
            late: vec![],
            reseeds: 0,
            wipes: 0,
            deaths: 0,
            returns: 0,
            ..self.clone()
        };
        for actor in &mut world.actors {
            *actor = Actor::new(actor.goal.clone());
            actor.alive = None;
        }
        world
    }

    /// Checks the results of a new reader and a new writer.
    pub(super) fn check_newcomers(&self) {
        let mut world = self.clone();
        let reader = world.add_actor(ProtocolGoal::Read);
        world.run_alone(reader);
        let Some(ProtocolOutcome::Read(found)) = world.actors[reader].end.clone() else {
            panic!("the read failed: {world:#?}");
        };
        let found = found.map(|version| number(&version));
        if let Some((_, pointer)) = &world.pointer {
            // A read completes an interrupted write whose value exists, unless a reseed came first.
            let intent = pointer.intent.as_ref();
            let landed = |kept: &ModelVersion| kept.by.is_some_and(|by| Some(&mark(by)) == intent);
            assert!(
                !world.kept.iter().any(landed),
                "an interrupted write is not completed: {world:#?}"
            );
        }
        // A person's value is current, or was before a later write replaced it.
        if let Some(last) = world.by_hand.last() {
            assert!(
                found == Some(*last) || world.currents.contains(last),
                "a reseed was overwritten: {world:#?}"
            );
        }
        if let Some(kept) = world.kept.iter().find(|kept| Some(kept.number) == found)
            && kept.by.is_some()
        {
            assert!(
                world.currents.contains(&kept.number),
                "a read returned a version that never was current: {world:#?}"
            );
        }

        // A new writer that expects this version succeeds.
        let writer = world.add_actor(ProtocolGoal::Swap {
            expected: found.map(|version| version.to_string()),
            mark: mark(u8::try_from(reader + 1).expect("few")),
        });
        world.run_alone(writer);
        let end = &world.actors[writer].end;
        assert!(
            matches!(end, Some(ProtocolOutcome::Written(_))),
            "a swap without a competitor ended with {end:?}: {world:#?}"
        );
    }

    fn add_actor(&mut self, goal: ProtocolGoal) -> usize {
        self.actors.push(Actor::new(goal));
        self.actors.len() - 1
    }

    /// Runs one actor to its end, without the others.
    fn run_alone(&mut self, i: usize) {
        for _ in 0..MAX_STEPS {
            let Some((_, ask)) = &self.actors[i].alive else {
                return;
            };
            let (mut world, reply) = self.execute(i, ask.clone()).swap_remove(0);
            world.listed = world.kept.len();
            *self = match reply {
                Some(reply) => world.reply(i, reply),
                None => world,
            };
        }
        panic!("a single actor never ends: {self:#?}");
    }
}

impl Actor {
    fn new(goal: ProtocolGoal) -> Self {
        Self {
            goal: goal.clone(),
            alive: Some(Operation::new(goal, MAX_ATTEMPTS)),
            page: None,
            returns: false,
            end: None,
            granted: false,
        }
    }
}

fn mark(writer: u8) -> WriteMark {
    WriteMark {
        id: writer.to_string(),
        sha256: "made-up".into(),
    }
}

fn item(kept: &ModelVersion) -> VersionItem {
    VersionItem {
        version: kept.number.to_string(),
        created: 0,
        enabled: true,
        mark: kept.by.map(mark),
    }
}

fn number(version: &str) -> u8 {
    version.parse().expect("a number")
}
