//! One story: what happens is drawn, and each step is judged.

use std::{collections::BTreeMap, collections::BTreeSet, io::Write};

use crate::provider::{Mode, Provider};
use crate::world::{Called, Machine, World};

/// How many steps a story has.
const STEPS: usize = 24;

/// A job that was restored and is not persisted yet.
#[derive(Debug)]
struct Session {
    machine: usize,
    /// The clock of the machine is off by so many seconds.
    skew: i64,
    in_place: bool,
}

/// The world, the provider, and what is going on.
pub(crate) struct Story {
    seed: u64,
    random: Random,
    provider: Provider,
    world: World,
    /// The first two stay; the others go with their job.
    machines: Vec<Option<Machine>>,
    sessions: Vec<Session>,
    /// Auth files that a cache keeps.
    cached: Vec<usize>,
    /// Logins that a person replaced without authferry: those are not kept.
    given_up: BTreeSet<usize>,
    /// Machines into whose home a file came since authferry placed one there.
    disturbed: BTreeSet<usize>,
    /// Logins that may have the lineage of the job into whose home a cache brought them: they are
    /// kept, and not known to be later than what the store holds.
    mislabelled: BTreeSet<usize>,
    /// Families that count as one: a file of the first came into a home during a job of the
    /// second, and was stored as a rotation of it.
    joined: BTreeSet<(usize, usize)>,
    /// What happened, for the printed story and for the tally.
    steps: Vec<String>,
    met: BTreeMap<&'static str, u64>,
    opaque: bool,
}

/// What a step may do to the login in the store.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// Only what is later in its family may take its place.
    Authferry,
    /// Anything of any family, but no ancestor where a provider's time shows it.
    Anybody,
    /// Anything.
    Person,
}

impl Story {
    /// Tells the story of a seed; returns what happened in it. An error is the story itself.
    pub(crate) fn tell(seed: u64) -> Result<BTreeMap<&'static str, u64>, String> {
        let mut random = Random(seed);
        let mode = [Mode::Strict, Mode::Lenient, Mode::Revoking][random.below(3)];
        let mut provider = Provider::new(mode);
        let opaque = random.below(4) == 0;
        let first = provider.login('a', opaque);
        let world = World::new();
        let machines = vec![Some(Machine::new()), Some(Machine::new())];
        let text = provider.auth_file(first);
        let seeded = world.seed(&text, machines[0].as_ref().expect("it stays"));
        let mut story = Self {
            seed,
            random,
            provider,
            world,
            machines,
            sessions: Vec::new(),
            cached: vec![first],
            given_up: BTreeSet::new(),
            disturbed: BTreeSet::new(),
            mislabelled: BTreeSet::new(),
            joined: BTreeSet::new(),
            steps: vec![format!("{mode:?}, opaque: {opaque}")],
            met: BTreeMap::new(),
            opaque,
        };
        assert!(seeded, "an empty store takes a seed");
        for _ in 0..STEPS {
            story.step()?;
        }
        Ok(story.met)
    }

    fn step(&mut self) -> Result<(), String> {
        let wait = [1, 100, 299, 301, 3_600, 86_400][self.random.below(6)];
        self.provider.now += wait;
        match self.random.below(16) {
            0..=4 => return self.begin(),
            5..=8 => self.rotate(),
            9..=11 => return self.persist(),
            12 => self.old_file(),
            13 => return self.reseed(),
            14 => self.lose_a_job(),
            _ => self.odd_hands(),
        }
        Ok(())
    }

    /// `authferry restore` on a machine where no job is under way.
    fn begin(&mut self) -> Result<(), String> {
        let busy: BTreeSet<usize> = self.sessions.iter().map(|it| it.machine).collect();
        let machine = match self.random.below(3) {
            stays @ (0 | 1) if !busy.contains(&stays) => stays,
            _ => {
                self.machines.push(Some(Machine::new()));
                self.machines.len() - 1
            }
        };
        let kill = self.kill();
        let before = Locations {
            here: self.machine(machine).logins(),
            ..self.locations()
        };
        let called = self.world.restore(self.machine(machine), kill);
        self.note("begin", format!("restore on machine {machine}, {called:?}"));
        self.judge(&before, self.by(machine, false), Some(machine))?;
        if called == Called::Done {
            self.disturbed.remove(&machine);
            self.placed(machine, &before)?;
            let skew = [0, 0, 0, -86_400, 86_400][self.random.below(5)];
            let in_place = self.random.below(2) == 0;
            self.sessions.push(Session {
                machine,
                skew,
                in_place,
            });
        } else {
            self.met_one(if called == Called::Killed {
                "restore killed"
            } else {
                "refused"
            });
        }
        Ok(())
    }

    /// Codex refreshes the login of a job and writes it down.
    fn rotate(&mut self) {
        let Some(index) = self.session() else {
            return;
        };
        let Session {
            machine,
            skew,
            in_place,
            ..
        } = self.sessions[index];
        let Some(held) = self.machine(machine).auth_file() else {
            return;
        };
        let Some(next) = self.provider.refresh(held, skew) else {
            self.note(
                "refresh refused",
                format!("machine {machine}: {held} is refused"),
            );
            return;
        };
        let text = self.provider.auth_file(next);
        self.machine(machine).write(&text, in_place);
        self.cached.push(next);
        self.note(
            "rotation",
            format!("machine {machine}: {held} becomes {next}"),
        );
    }

    /// `authferry persist`, and the end of the job if that came to its end.
    fn persist(&mut self) -> Result<(), String> {
        let Some(index) = self.session() else {
            return Ok(());
        };
        let machine = self.sessions[index].machine;
        if self.disturbed.contains(&machine) {
            let here = self.machine(machine).logins();
            self.mislabelled.extend(here);
        }
        let kill = self.kill();
        let before = self.locations();
        let called = self.world.persist(self.machine(machine), kill);
        self.note(
            "persist",
            format!("persist on machine {machine}, {called:?}"),
        );
        self.judge(&before, self.by(machine, true), Some(machine))?;
        if called == Called::Killed {
            self.met_one("persist killed");
        }
        self.sessions.remove(index);
        Ok(())
    }

    /// A cache or an old step puts an earlier auth file into a home.
    fn old_file(&mut self) {
        let old = self.cached[self.random.below(self.cached.len())];
        let machine = self.random.below(2);
        let live = self.machine(machine).auth_file();
        // What a cache replaces cannot be kept: only files that are elsewhere as well.
        let elsewhere = live.is_none_or(|live| {
            !self.provider.is_live(live) || self.elsewhere(machine).contains(&live)
        });
        if elsewhere {
            let text = self.provider.auth_file(old);
            self.machine(machine).write(&text, true);
            self.disturbed.insert(machine);
            self.note(
                "old file",
                format!("machine {machine}: a cache brings {old}"),
            );
        }
    }

    /// A person logs in afresh and reseeds.
    fn reseed(&mut self) -> Result<(), String> {
        let new = self.provider.login('a', self.opaque);
        let text = self.provider.auth_file(new);
        let before = self.locations();
        if self.random.below(2) == 0 {
            let seeded = self.world.seed(&text, self.machine(0));
            self.note("reseed", format!("seed --replace with {new}: {seeded}"));
            return self.judge(&before, By::Person, None);
        }
        let held = self.world.stored();
        self.given_up.extend(held);
        self.world.put_by_hand(&text);
        self.note("put by hand", format!("{new} is put over {held:?} by hand"));
        Ok(())
    }

    /// A job ends without its persist. On a machine that goes, so does what only that had.
    fn lose_a_job(&mut self) {
        let Some(index) = self.session() else {
            return;
        };
        let machine = self.sessions.remove(index).machine;
        if machine > 1 {
            self.machines[machine] = None;
        }
        self.note("job lost", format!("the job on machine {machine} is lost"));
    }

    /// Somebody touches the store's file, or removes a receipt, or another person's login comes
    /// into a home.
    fn odd_hands(&mut self) {
        match self.random.below(3) {
            0 => {
                self.world.touch();
                self.note("touch", "the stamp of the store's login is lost".to_owned());
            }
            1 => {
                let machine = self.random.below(2);
                self.machine(machine).forget_receipt();
                self.note(
                    "receipt lost",
                    format!("machine {machine} loses its receipt"),
                );
            }
            _ => {
                let hers = self.provider.login('b', self.opaque);
                let mut busy = self.sessions.iter().map(|it| it.machine);
                let machine = busy.next_back().unwrap_or(0);
                let held = self.machine(machine).auth_file();
                let elsewhere = held.is_none_or(|held| {
                    !self.provider.is_live(held) || self.elsewhere(machine).contains(&held)
                });
                if elsewhere {
                    let text = self.provider.auth_file(hers);
                    self.machine(machine).write(&text, false);
                    self.disturbed.insert(machine);
                    self.note("other person", format!("machine {machine}: hers, {hers}"));
                }
            }
        }
    }

    /// What a call on this machine may do. What Codex makes of a file that came into the home
    /// since the login was placed cannot be told from a rotation of that login: while the job
    /// goes on at all, and later where the tokens carry no marks of their session.
    fn by(&self, machine: usize, during_the_job: bool) -> By {
        if self.disturbed.contains(&machine) && (during_the_job || self.opaque) {
            By::Anybody
        } else {
            By::Authferry
        }
    }

    /// Where each login is: in the store (and its folder), or on a machine.
    fn locations(&self) -> Locations {
        let machines = self.machines.iter().flatten().flat_map(Machine::logins);
        Locations {
            stored: self.world.stored(),
            all: self.world.logins().into_iter().chain(machines).collect(),
            here: BTreeSet::new(),
        }
    }

    /// The logins that are anywhere but in the auth file of a machine.
    fn elsewhere(&self, machine: usize) -> BTreeSet<usize> {
        let others = self.machines.iter().enumerate();
        let others = others.filter(|(number, _)| *number != machine);
        let others = others
            .filter_map(|(_, it)| it.as_ref())
            .flat_map(Machine::logins);
        self.world.logins().into_iter().chain(others).collect()
    }

    /// Whether a login of the same family that is no ancestor of it took its place.
    fn is_fork(&self, old: usize, new: Option<usize>) -> bool {
        new.is_some_and(|new| {
            new != old
                && self.provider.family(old) == self.provider.family(new)
                && !self.provider.is_ancestor(new, old)
        })
    }

    /// What must hold after a step of authferry, on this machine if it is one's.
    fn judge(&mut self, before: &Locations, by: By, machine: Option<usize>) -> Result<(), String> {
        let now = self.locations();
        // With a lenient provider two jobs can rotate one login. A file of the other one that
        // comes into a home is later in the family, and what it replaces may be live, too: also
        // at the next begin, for the marks of the session are the same. That other homes still
        // have what was replaced is chance.
        let is_disturbed = machine.is_some_and(|it| self.disturbed.contains(&it));
        if is_disturbed && self.provider.is_lenient() {
            let forked = before.stored.filter(|old| self.is_fork(*old, now.stored));
            self.given_up.extend(forked);
        }
        for login in &before.all {
            let given_up = self.given_up.contains(login);
            let wanted = self.provider.is_live(*login) && !given_up;
            if wanted && !now.all.contains(login) {
                return self.fail(&format!("login {login} is live, and lost"));
            }
        }
        let (Some(old), Some(new)) = (before.stored, now.stored) else {
            let emptied = before.stored.is_some() && now.stored.is_none();
            return if emptied {
                self.fail("the store is empty")
            } else {
                Ok(())
            };
        };
        if old == new || by == By::Person {
            return Ok(());
        }
        // Of an old file without a provider's time nothing shows that it is old: then the head is
        // kept, which was looked at above.
        let unclear = by == By::Anybody && self.opaque;
        if !unclear && self.provider.is_ancestor(new, old) {
            return self.fail(&format!("{new} is older than {old}, which it replaced"));
        }
        let families = (self.provider.family(new), self.provider.family(old));
        if families.0 == families.1 {
            return Ok(());
        }
        if by == By::Anybody {
            // The stamp says that it is of the family of what it replaced.
            self.joined.insert(families);
            self.joined.insert((families.1, families.0));
        }
        // The job of another machine goes by that stamp.
        if by == By::Authferry && !self.joined.contains(&families) {
            return self.fail(&format!("{new} is of another family than {old}"));
        }
        Ok(())
    }

    /// What must hold of the login that a job begins with: where the clocks are clear, no live
    /// one of its family was on this machine or in the store that descends from it.
    fn placed(&self, machine: usize, before: &Locations) -> Result<(), String> {
        let Some(placed) = self.machine(machine).auth_file() else {
            return self.fail("a restore that is done has placed nothing");
        };
        if self.world.stored() != Some(placed) {
            return self.fail(&format!("{placed} is placed, and not what the store holds"));
        }
        let is_known = |it: &&usize| !self.mislabelled.contains(it);
        // Nor is anything known to be later than a head with another job's lineage.
        let here = before.here.iter().filter(|_| is_known(&&placed));
        let found = here.filter(is_known).chain(&before.stored).copied();
        let mut found = found.filter(|it| self.provider.is_live(*it));
        let better = found.find(|it| self.provider.is_ancestor(placed, *it));
        match better {
            Some(better) if !self.opaque => {
                self.fail(&format!("{placed} is placed, and {better} was there"))
            }
            _ => Ok(()),
        }
    }

    fn fail(&self, why: &str) -> Result<(), String> {
        let steps = self.steps.join("\n  ");
        Err(format!("story {}: {why}\n  {steps}", self.seed))
    }

    fn note(&mut self, event: &'static str, text: String) {
        self.met_one(event);
        self.steps.push(text);
    }

    fn met_one(&mut self, event: &'static str) {
        *self.met.entry(event).or_default() += 1;
    }

    fn machine(&self, number: usize) -> &Machine {
        self.machines[number]
            .as_ref()
            .expect("a machine that is there")
    }

    fn session(&mut self) -> Option<usize> {
        let count = self.sessions.len();
        (count > 0).then(|| self.random.below(count))
    }

    /// Whether a call is killed, and after how many polls.
    fn kill(&mut self) -> Option<u32> {
        let polls = self.random.below(24);
        u32::try_from(polls)
            .ok()
            .filter(|polls| *polls < 6)
            .map(|polls| polls + 1)
    }
}

/// Where the logins are.
struct Locations {
    stored: Option<usize>,
    all: BTreeSet<usize>,
    /// Those on the machine where a job begins.
    here: BTreeSet<usize>,
}

/// What all stories have met.
#[derive(Debug, Default)]
pub(crate) struct Tally(BTreeMap<&'static str, u64>);

impl Tally {
    pub(crate) fn add(&mut self, met: &BTreeMap<&'static str, u64>) {
        for (event, count) in met {
            *self.0.entry(event).or_default() += count;
        }
    }

    /// Prints it even of a test that passes.
    pub(crate) fn print(&self, stories: u64) {
        let events: Vec<_> = self
            .0
            .iter()
            .map(|(event, count)| format!("{event} {count}"))
            .collect();
        let line = format!("{stories} stories: {}\n", events.join(", "));
        std::io::stderr()
            .write_all(line.as_bytes())
            .expect("stderr");
    }

    /// Whether each event was met: a test of what never happens proves nothing.
    pub(crate) fn has_met_everything(&self) -> bool {
        const EVENTS: [&str; 13] = [
            "begin",
            "restore killed",
            "refused",
            "rotation",
            "refresh refused",
            "persist",
            "persist killed",
            "old file",
            "reseed",
            "put by hand",
            "job lost",
            "touch",
            "other person",
        ];
        EVENTS.iter().all(|event| self.0.contains_key(event))
    }
}

/// Numbers that look drawn at random, the same for the same seed: `SplitMix64`.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        let limit = u64::try_from(limit).expect("a number");
        usize::try_from(bits % limit).expect("less than the limit")
    }
}
