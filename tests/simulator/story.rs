//! One story: what happens is drawn, and each step is judged.

use std::collections::{BTreeMap, BTreeSet};

use crate::judge::Locations;
use crate::machine::Machine;
use crate::provider::{Mode, Provider};
use crate::random::Random;
use crate::world::{Called, Meanwhile, World};

/// How many steps a story has.
const STEPS: usize = 28;

/// A job that was restored and is not persisted yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Session {
    pub(crate) machine: usize,
    /// Its name.
    pub(crate) job: u32,
    /// The clock of the machine is off by so many seconds.
    pub(crate) skew: i64,
    pub(crate) in_place: bool,
}

/// The world, the provider, and what is going on.
pub(crate) struct Story {
    seed: u64,
    pub(crate) random: Random,
    pub(crate) provider: Provider,
    /// The first two stay; the others go with their job. Their watches end before the world does.
    pub(crate) machines: Vec<Option<Machine>>,
    pub(crate) world: World,
    pub(crate) sessions: Vec<Session>,
    jobs: u32,
    /// Auth files that a cache keeps.
    pub(crate) cached: Vec<usize>,
    /// Logins that cannot be kept: a person replaced them without authferry, or the Codex that got
    /// them dropped them, for something else than authferry had changed its file.
    pub(crate) given_up: BTreeSet<usize>,
    /// Machines into whose home a file came since authferry placed one there.
    pub(crate) disturbed: BTreeSet<usize>,
    /// Logins that may have the lineage of the job into whose home a cache brought them: they are
    /// kept, and not known to be later than what the store holds.
    pub(crate) mislabelled: BTreeSet<usize>,
    /// The login of the store that has lost its stamp.
    pub(crate) unstamped: Option<usize>,
    /// Machines on which a process was killed that may have written to the store, and not yet noted
    /// that in the receipt.
    pub(crate) behind: BTreeSet<usize>,
    /// Families that count as one: a file of the first came into a home during a job of the
    /// second, and was stored as a rotation of it.
    pub(crate) joined: BTreeSet<(usize, usize)>,
    /// What happened, for the printed story and for the tally.
    steps: Vec<String>,
    met: BTreeMap<&'static str, u64>,
    pub(crate) opaque: bool,
}

impl Story {
    /// Tells the story of a seed; returns what happened in it. An error is the story itself.
    pub(crate) fn tell(seed: u64) -> Result<BTreeMap<&'static str, u64>, String> {
        let mut random = Random(seed);
        let mode = [Mode::Strict, Mode::Lenient, Mode::Revoking][random.below(3)];
        // By the clock of the machine every login is due, those are that were issued early, or none.
        let ago = [60, 10, 0][random.below(3)];
        let mut provider = Provider::new(mode, ago * 86_400);
        let opaque = random.one_in(4);
        let first = provider.login('a', opaque);
        let world = World::new();
        let mut machines = vec![Some(Machine::new()), Some(Machine::new())];
        let text = provider.auth_file(first);
        let seeded = world.seed(&text, machines[0].as_mut().expect("it stays"));
        let mut story = Self {
            seed,
            random,
            provider,
            world,
            machines,
            sessions: Vec::new(),
            jobs: 0,
            cached: vec![first],
            given_up: BTreeSet::new(),
            disturbed: BTreeSet::new(),
            mislabelled: BTreeSet::new(),
            unstamped: None,
            behind: BTreeSet::new(),
            joined: BTreeSet::new(),
            steps: vec![format!("{mode:?}, opaque: {opaque}, {ago} days ago")],
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
        match self.random.below(28) {
            0..=4 => return self.begin(),
            5..=8 => self.rotate(),
            9..=11 => return self.persist(),
            12 => self.old_file(),
            13 => return self.reseed(),
            14 => self.lose_a_job(),
            15 => self.odd_hands(),
            16..=18 => self.start_a_codex(),
            19..=21 => return self.codex_goes_on(),
            22 => return self.second_owner(),
            23..=24 => return self.watch_goes_on(),
            25..=26 => return self.rotate_apart(),
            _ => self.reset_a_machine(),
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
        let job = self.new_job();
        self.machine(machine).processes.begin_job(job);
        let called = self.restore(machine, job, "begin")?;
        if called == Called::Done {
            let skew = [0, 0, 0, -86_400, 86_400][self.random.below(5)];
            let in_place = self.random.one_in(2);
            self.sessions.push(Session {
                machine,
                job,
                skew,
                in_place,
            });
        } else {
            self.machine(machine).processes.end_job(job);
        }
        Ok(())
    }

    /// `authferry restore` of a job, and the watch that it leaves.
    pub(crate) fn restore(
        &mut self,
        machine: usize,
        job: u32,
        event: &'static str,
    ) -> Result<Called, String> {
        let kill = self.kill();
        let before = Locations {
            here: self.machine(machine).logins(),
            ..self.locations()
        };
        let by = self.may(machine, false);
        let had_a_watch = self.machine(machine).has_a_watch();
        let restored = self.call(machine, |world, it| world.restore(it, job, kill));
        let called = restored.called;
        if let Some(codex) = restored.ended {
            let ended = self.machine_mut(machine).end_codex(codex);
            // One that has not refreshed for a quarter of an hour in which its login was due may do
            // so in the very moment in which it is ended: SECURITY.md names that.
            let flight = ended.and_then(|codex| codex.in_flight);
            let late = flight.filter(|flight| flight.was_idle);
            self.given_up.extend(late.map(|flight| flight.got));
            self.note("codex ended by a job", format!("codex {codex} is ended"));
        }
        if had_a_watch && !self.machine(machine).has_a_watch() {
            self.met_one("watch makes way");
        }
        self.note(
            event,
            format!("job {job}: restore on machine {machine}, {called:?}"),
        );
        self.judge(&before, by, Some(machine))?;
        self.leaves_codexes_alone(machine, called)?;
        self.met(called, "restore killed");
        if called == Called::Done {
            self.disturbed.remove(&machine);
            self.placed(machine, &before)?;
            self.behind.remove(&machine);
        }
        if restored.nested || (called == Called::Done && self.random.one_in(3)) {
            self.leave_a_watch(machine, job)?;
        }
        Ok(called)
    }

    pub(crate) fn met(&mut self, called: Called, killed: &'static str) {
        match called {
            Called::Done => {}
            Called::InUse => self.met_one("login in use"),
            Called::Owned | Called::Refused => self.met_one("refused"),
            Called::LeftOver => self.met_one("left over waited for"),
            Called::Rotating => self.met_one("rotation under way"),
            Called::Killed => self.met_one(killed),
        }
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
        // A Codex locks its home while it refreshes.
        if self.has_one_in_flight(machine) {
            return;
        }
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

    /// `authferry persist`, and the end of the job. A Codex that has spent the login may write
    /// meanwhile, before the time limit or after it.
    fn persist(&mut self) -> Result<(), String> {
        let Some(index) = self.session() else {
            return Ok(());
        };
        let Session { machine, job, .. } = self.sessions[index];
        let called = self.persist_as(machine, job, "persist")?;
        if called == Called::InUse {
            self.leave_a_watch(machine, job)?;
        }
        self.machine(machine).processes.end_job(job);
        self.sessions.remove(index);
        Ok(())
    }

    /// `authferry persist` of a job.
    pub(crate) fn persist_as(
        &mut self,
        machine: usize,
        job: u32,
        event: &'static str,
    ) -> Result<Called, String> {
        let by = self.may(machine, true);
        let kill = self.kill();
        let before = self.locations();
        let had_a_watch = self.machine(machine).has_a_watch();
        let writing = self.writes_meanwhile(machine);
        let called = self.call(machine, |world, it| match &writing {
            Some(writing) => world.persist(
                it,
                job,
                kill,
                &Meanwhile {
                    after: writing.after,
                    happens: &|| writing.write(),
                },
            ),
            None => world.persist(it, job, kill, &crate::world::NOTHING),
        });
        if had_a_watch && !self.machine(machine).has_a_watch() {
            self.met_one("watch makes way");
        }
        self.note(
            event,
            format!("job {job}: persist on machine {machine}, {called:?}"),
        );
        if let Some(writing) = writing.filter(|it| it.has_written.get()) {
            self.has_written(machine, writing.codex, "codex writes in time");
        }
        self.judge(&before, by, Some(machine))?;
        self.leaves_codexes_alone(machine, called)?;
        if called == Called::Killed {
            self.behind.insert(machine);
        }
        self.met(called, "persist killed");
        Ok(called)
    }

    /// A job ends without its persist. On a machine that goes, so does what only that had.
    fn lose_a_job(&mut self) {
        let Some(index) = self.session() else {
            return;
        };
        let Session { machine, job, .. } = self.sessions.remove(index);
        self.machine(machine).processes.end_job(job);
        if machine > 1 {
            self.machines[machine] = None;
        }
        self.note(
            "job lost",
            format!("job {job} on machine {machine} is lost"),
        );
    }

    /// Calls authferry on a machine.
    pub(crate) fn call<T>(
        &mut self,
        machine: usize,
        call: impl FnOnce(&World, &mut Machine) -> T,
    ) -> T {
        let machine = self.machines[machine].as_mut();
        call(&self.world, machine.expect("a machine that is there"))
    }

    pub(crate) fn fail(&self, why: &str) -> Result<(), String> {
        let steps = self.steps.join("\n  ");
        Err(format!("story {}: {why}\n  {steps}", self.seed))
    }

    pub(crate) fn note(&mut self, event: &'static str, text: String) {
        self.met_one(event);
        self.steps.push(text);
    }

    pub(crate) fn met_one(&mut self, event: &'static str) {
        *self.met.entry(event).or_default() += 1;
    }

    pub(crate) fn machine(&self, number: usize) -> &Machine {
        let machine = self.machines[number].as_ref();
        machine.expect("a machine that is there")
    }

    pub(crate) fn machine_mut(&mut self, number: usize) -> &mut Machine {
        let machine = self.machines[number].as_mut();
        machine.expect("a machine that is there")
    }

    pub(crate) fn new_job(&mut self) -> u32 {
        self.jobs += 1;
        self.jobs
    }

    pub(crate) fn session(&mut self) -> Option<usize> {
        let count = self.sessions.len();
        (count > 0).then(|| self.random.below(count))
    }

    /// One of the machines that are there.
    pub(crate) fn any_machine(&mut self) -> usize {
        match self.session() {
            Some(index) if self.random.one_in(2) => self.sessions[index].machine,
            Some(_) | None => self.random.below(2),
        }
    }

    /// Whether a call is killed, and after how many polls.
    pub(crate) fn kill(&mut self) -> Option<u32> {
        let polls = self.random.below(24);
        u32::try_from(polls)
            .ok()
            .filter(|polls| *polls < 6)
            .map(|polls| polls + 1)
    }
}
