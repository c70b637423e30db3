//! The world around the writers: the secret, the pointer, and everything that can happen next.

use super::*;

/// How often an intent is looked at before it is replaced.
const PATIENCE: u8 = 1;

/// More steps than anybody needs who is left alone.
const ENOUGH: usize = 60;

/// A version of the secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Kept {
    number: u8,
    /// Which page of a list it is on.
    page: bool,
    /// The writer; `None` for a person.
    by: Option<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Actor {
    goal: Goal,
    /// `None` for one that is dead or done.
    alive: Option<(Turn, Ask)>,
    /// The first page of a list.
    page: Option<Vec<Item>>,
    /// Whether it may come back.
    returns: bool,
    end: Option<End>,
    /// Whether its intent was ever written.
    granted: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    kept: Vec<Kept>,
    /// How many versions there ever were.
    versions: u8,
    /// Those that a person put, and that were not deleted.
    by_hand: Vec<u8>,
    /// How many of the versions a list shows.
    listed: usize,
    pointer: Option<(u8, Pointer)>,
    writes: u8,
    /// Every version that ever counted, one after the other.
    currents: Vec<u8>,
    /// Puts whose sender has given up.
    late: Vec<u8>,
    actors: Vec<Actor>,
    reseeds: u8,
    wipes: u8,
    deaths: u8,
    returns: u8,
    lag: bool,
    /// Whether everything was deleted once.
    wiped: bool,
}

impl World {
    /// A secret with one version, which every writer wants to replace.
    pub(super) fn new(plan: Plan) -> Self {
        let mut world = Self {
            kept: vec![Kept {
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
                current: Some(Entry {
                    version: "0".into(),
                    mark: None,
                }),
                known: BTreeSet::from(["0".into()]),
                ..Pointer::default()
            };
            world.pointer = Some((0, pointer));
        }
        for number in 0..plan.writers {
            let goal = Goal::Swap {
                expected: Some("0".into()),
                mark: mark(number),
            };
            world.actors.push(Actor::new(goal));
        }
        for _ in 0..plan.readers {
            world.actors.push(Actor::new(Goal::Read));
        }
        world
    }

    pub(super) fn is_over(&self) -> bool {
        self.actors.iter().all(|actor| actor.alive.is_none())
    }

    /// Every world that this one can turn into by one happening.
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
            next.extend(lost.puts(Some(writer)).map(|(world, _)| world));
            next.push(lost);
        }
        if self.reseeds > 0 {
            let mut world = self.clone();
            world.reseeds -= 1;
            next.extend(world.puts(None).map(|(world, _)| world));
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
            self.acts(i, &mut next);
        }
        next
    }

    fn acts(&self, i: usize, next: &mut Vec<World>) {
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
        let outcomes = self.does(i, ask.clone());
        if self.deaths > 0 {
            let mut dead = vec![self.clone()];
            dead.extend(outcomes.iter().map(|(world, _)| world.clone()));
            if *ask == Ask::Put {
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
                Some(reply) => world.answer(i, reply),
                None => world,
            });
        }
    }

    /// Returns what can come of what an actor asks for.
    fn does(&self, i: usize, ask: Ask) -> Vec<(World, Option<Reply>)> {
        let mut world = self.clone();
        let reply = match ask {
            Ask::Pointer => Reply::Pointer(
                self.pointer
                    .clone()
                    .map(|(etag, pointer)| (etag.to_string(), pointer)),
            ),
            Ask::Newest => Reply::Newest(
                self.kept
                    .last()
                    .map_or(Newest::Nothing, |kept| Newest::This(item(kept))),
            ),
            Ask::List => {
                let shown = &self.kept[..self.listed];
                let page = |page| shown.iter().filter(move |kept| kept.page == page).map(item);
                match &mut world.actors[i].page {
                    None if shown.iter().all(|kept| !kept.page) => {
                        Reply::List(page(false).collect(), true)
                    }
                    None => {
                        world.actors[i].page = Some(page(false).collect());
                        return vec![(world, None)];
                    }
                    Some(first) => {
                        let mut list = std::mem::take(first);
                        world.actors[i].page = None;
                        list.extend(page(true));
                        Reply::List(list, false)
                    }
                }
            }
            Ask::Find(version) => Reply::Found(
                self.kept
                    .iter()
                    .any(|kept| kept.number.to_string() == version),
            ),
            Ask::Replace(etag, pointer) => {
                let of_now = self.pointer.as_ref().map(|(etag, _)| etag.to_string());
                if etag == of_now {
                    world.replace(i, pointer);
                    Reply::Replaced(world.writes.to_string())
                } else {
                    Reply::Moved
                }
            }
            Ask::Put => {
                assert!(
                    self.actors[i].granted,
                    "a value nobody was promised: {self:#?}"
                );
                let writer = u8::try_from(i).expect("few");
                let mut outcomes: Vec<_> = self
                    .puts(Some(writer))
                    .map(|(world, version)| (world, Some(Reply::Put(version.to_string()))))
                    .collect();
                outcomes.push((world, Some(Reply::Refused)));
                return outcomes;
            }
            Ask::Pause => Reply::Paused,
            Ask::End(_) => unreachable!("nobody acts after the end"),
        };
        vec![(world, Some(reply))]
    }

    /// Appends a version, on either page.
    fn puts(&self, by: Option<u8>) -> impl Iterator<Item = (World, u8)> {
        [false, true].into_iter().map(move |page| {
            let mut world = self.clone();
            let number = world.versions;
            world.versions += 1;
            world.kept.push(Kept { number, page, by });
            if by.is_none() {
                world.by_hand.push(number);
            }
            if !world.lag {
                world.listed = world.kept.len();
            }
            (world, number)
        })
    }

    /// Replaces the pointer, and checks what that means.
    fn replace(&mut self, i: usize, pointer: Pointer) {
        if pointer.intent.is_some() {
            let Goal::Swap { mark, .. } = &self.actors[i].goal else {
                panic!("a reader wants to write: {self:#?}");
            };
            assert_eq!(pointer.intent.as_ref(), Some(mark), "for somebody else");
            self.actors[i].granted = true;
        }
        let of_now = self.current();
        let after = pointer.current.as_ref().map(|entry| number(&entry.version));
        if let Some(version) = after.filter(|_| after != of_now) {
            assert!(
                !self.currents.contains(&version),
                "a version counts a second time: {self:#?}"
            );
            let kept = self.kept.iter().find(|kept| kept.number == version);
            let by = kept.map(|kept| kept.by);
            if let Some(Some(writer)) = by {
                let Goal::Swap { expected, .. } = &self.actors[usize::from(writer)].goal else {
                    panic!("a reader wrote: {self:#?}");
                };
                let replaced = of_now.map(|version| version.to_string());
                assert_eq!(*expected, replaced, "on another version: {self:#?}");
            }
            if kept.is_some_and(|kept| kept.by.is_none()) {
                assert!(self.by_hand.contains(&version), "no reseed: {self:#?}");
            }
            self.currents.push(version);
        }
        self.writes += 1;
        self.pointer = Some((self.writes, pointer));
    }

    /// What counts as far as the pointer says.
    fn current(&self) -> Option<u8> {
        match &self.pointer {
            Some((_, pointer)) => Some(number(&pointer.current.as_ref()?.version)),
            None => self.currents.last().copied(),
        }
    }

    fn answer(mut self, i: usize, reply: Reply) -> World {
        let actor = &mut self.actors[i];
        let (turn, ask) = actor.alive.as_mut().expect("somebody asked");
        *ask = turn.step(reply);
        if let Ask::End(end) = ask.clone() {
            actor.alive = None;
            actor.end = Some(end.clone());
            self.check_end(i, &end);
        }
        self
    }

    /// What must hold when somebody was told this.
    fn check_end(&self, i: usize, end: &End) {
        let is_ours = |version: &u8| {
            let kept = self.kept.iter().find(|kept| kept.number == *version);
            kept.and_then(|kept| kept.by) == u8::try_from(i).ok()
        };
        match end {
            End::Written(version) => assert!(
                self.wiped || is_ours(&number(version)) && self.currents.contains(&number(version)),
                "said written, is not: {self:#?}"
            ),
            End::Conflict | End::Refused => assert!(
                !self.currents.iter().any(is_ours),
                "said not written, and it counted: {self:#?}"
            ),
            End::Unseen => assert!(self.lag || self.wiped, "no list was late: {self:#?}"),
            End::Read(_) => {}
            End::Disabled => panic!("nothing is disabled: {self:#?}"),
        }
        let expected = |actor: &Actor| match &actor.goal {
            Goal::Swap { expected, .. } => expected.clone(),
            Goal::Read => None,
        };
        let winners = self.actors.iter().filter(|actor| {
            matches!(actor.end, Some(End::Written(_)))
                && expected(actor) == expected(&self.actors[i])
        });
        assert!(winners.count() <= 1, "two won one version: {self:#?}");
    }

    /// Returns what is left when all have stopped for good.
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

    /// What must hold for whoever comes then.
    pub(super) fn check_who_comes_now(&self) {
        let mut world = self.clone();
        let reader = world.arrives(Goal::Read);
        world.finishes(reader);
        let Some(End::Read(found)) = world.actors[reader].end.clone() else {
            panic!("no answer: {world:#?}");
        };
        let found = found.map(|version| number(&version));
        if let Some((_, pointer)) = &world.pointer {
            // An interrupted write whose value is there is finished, if nothing came between.
            let intent = pointer.intent.as_ref();
            let landed = |kept: &Kept| kept.by.is_some_and(|by| Some(&mark(by)) == intent);
            assert!(
                !world.kept.iter().any(landed),
                "left unfinished: {world:#?}"
            );
        }
        // What a person put counts, or counted before what was written over it.
        if let Some(last) = world.by_hand.last() {
            assert!(
                found == Some(*last) || world.currents.contains(last),
                "a reseed was buried: {world:#?}"
            );
        }
        if let Some(kept) = world.kept.iter().find(|kept| Some(kept.number) == found)
            && kept.by.is_some()
        {
            assert!(
                world.currents.contains(&kept.number),
                "shown, and it never counted: {world:#?}"
            );
        }

        // Whoever wants to write on that does not wait for ever, and wins.
        let writer = world.arrives(Goal::Swap {
            expected: found.map(|version| version.to_string()),
            mark: mark(u8::try_from(reader + 1).expect("few")),
        });
        world.finishes(writer);
        let end = &world.actors[writer].end;
        assert!(
            matches!(end, Some(End::Written(_))),
            "nobody else is there, and the answer was {end:?}: {world:#?}"
        );
    }

    fn arrives(&mut self, goal: Goal) -> usize {
        self.actors.push(Actor::new(goal));
        self.actors.len() - 1
    }

    /// Lets one of them act alone.
    fn finishes(&mut self, i: usize) {
        for _ in 0..ENOUGH {
            let Some((_, ask)) = &self.actors[i].alive else {
                return;
            };
            let (mut world, reply) = self.does(i, ask.clone()).swap_remove(0);
            world.listed = world.kept.len();
            *self = match reply {
                Some(reply) => world.answer(i, reply),
                None => world,
            };
        }
        panic!("somebody who is alone waits for ever: {self:#?}");
    }
}

impl Actor {
    fn new(goal: Goal) -> Self {
        Self {
            goal: goal.clone(),
            alive: Some(Turn::new(goal, PATIENCE)),
            page: None,
            returns: false,
            end: None,
            granted: false,
        }
    }
}

fn mark(writer: u8) -> Mark {
    Mark {
        id: writer.to_string(),
        sha256: "made-up".into(),
    }
}

fn item(kept: &Kept) -> Item {
    Item {
        version: kept.number.to_string(),
        created: 0,
        enabled: true,
        mark: kept.by.map(mark),
    }
}

fn number(version: &str) -> u8 {
    version.parse().expect("a number")
}
