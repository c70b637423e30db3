//! One story: its steps are drawn, and each step is judged.

use std::collections::{BTreeMap, BTreeSet};

use crate::judge::Locations;
use crate::machine::Machine;
use crate::provider::{Mode, Provider};
use crate::random::Random;
use crate::world::{CallResult, ConcurrentEvent, World};

/// How many steps a story has.
const STEPS: usize = 28;

/// A job that was restored and is not persisted yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Session {
    pub(crate) machine: usize,
    /// The number of the job.
    pub(crate) job: u32,
    /// How many seconds the machine's clock is off.
    pub(crate) skew: i64,
    pub(crate) in_place: bool,
}

/// The world, the provider, and the running jobs.
pub(crate) struct Story {
    seed: u64,
    pub(crate) random: Random,
    pub(crate) provider: Provider,
    /// The first two persist; the others end with their job. Their watches end before the world
    /// does.
    pub(crate) machines: Vec<Option<Machine>>,
    pub(crate) world: World,
    pub(crate) sessions: Vec<Session>,
    jobs: u32,
    /// Auth files in a cache.
    pub(crate) cached: Vec<usize>,
    /// Logins that may be lost: a person replaced them without authferry, or their Codex discarded
    /// them because another process had changed its file.
    pub(crate) given_up: BTreeSet<usize>,
    /// Machines whose home received a file after authferry placed one there.
    pub(crate) disturbed: BTreeSet<usize>,
    /// Logins that a cache brought into the home of a job and that may have that job's lineage.
    /// They are kept, but not known to be later than the store's login.
    pub(crate) mislabelled: BTreeSet<usize>,
    /// The login of the store that has lost its stamp.
    pub(crate) unstamped: Option<usize>,
    /// Machines on which a killed process may have written to the store without noting it in the
    /// receipt.
    pub(crate) behind: BTreeSet<usize>,
    /// Families that count as one: a file of the first came into a home during a job of the second,
    /// and was stored as a rotation of it.
    pub(crate) joined: BTreeSet<(usize, usize)>,
    /// The events, for the printed story and the tally.
    steps: Vec<String>,
    met: BTreeMap<&'static str, u64>,
    pub(crate) opaque: bool,
}

impl Story {
    /// Plays the story of a seed and returns its events. The error is the printed story.
    pub(crate) fn play(seed: u64) -> Result<BTreeMap<&'static str, u64>, String> {
        let mut random = Random(seed);
        let mode = [Mode::Strict, Mode::Lenient, Mode::Revoking][random.below(3)];
        // By the clock of the machine every login is due, or those that were issued early, or none.
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
            15 => self.interfere(),
            16..=18 => self.start_a_codex(),
            19..=21 => return self.codex_goes_on(),
            22 => return self.second_owner(),
            23..=24 => return self.watch_goes_on(),
            25..=26 => return self.rotate_privately(),
            _ => self.restart_a_machine(),
        }
        Ok(())
    }

    /// `authferry restore` on a machine without a running job.
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
        if called == CallResult::Done {
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

    /// `authferry restore` of a job, and its background watch.
    pub(crate) fn restore(
        &mut self,
        machine: usize,
        job: u32,
        event: &'static str,
    ) -> Result<CallResult, String> {
        let kill = self.kill();
        let before = Locations {
            here: self.machine(machine).logins(),
            ..self.locations()
        };
        let allowed = self.allowed_change(machine, false);
        let had_a_watch = self.machine(machine).has_a_watch();
        let restored = self.call(machine, |world, it| world.restore(it, job, kill));
        let called = restored.called;
        if let Some(codex) = restored.ended {
            let ended = self.machine_mut(machine).end_codex(codex);
            // A Codex that has not refreshed for a quarter of an hour although its login was due
            // may still refresh at the moment when it is killed: SECURITY.md names this case.
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
        self.judge(&before, allowed, Some(machine))?;
        self.leaves_codexes_alone(machine, called)?;
        self.met(called, "restore killed");
        if called == CallResult::Done {
            self.disturbed.remove(&machine);
            self.placed(machine, &before)?;
            self.behind.remove(&machine);
        }
        if restored.nested || (called == CallResult::Done && self.random.one_in(3)) {
            self.leave_a_watch(machine, job)?;
        }
        Ok(called)
    }

    pub(crate) fn met(&mut self, called: CallResult, killed: &'static str) {
        match called {
            CallResult::Done => {}
            CallResult::InUse => self.met_one("login in use"),
            CallResult::Owned | CallResult::Refused => self.met_one("refused"),
            CallResult::LeftOver => self.met_one("left over waited for"),
            CallResult::Rotating => self.met_one("rotation under way"),
            CallResult::Killed => self.met_one(killed),
        }
    }

    /// Codex refreshes the login of a job and writes it.
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
    /// meanwhile, before or after the time limit.
    fn persist(&mut self) -> Result<(), String> {
        let Some(index) = self.session() else {
            return Ok(());
        };
        let Session { machine, job, .. } = self.sessions[index];
        let called = self.persist_as(machine, job, "persist")?;
        if called == CallResult::InUse {
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
    ) -> Result<CallResult, String> {
        let allowed = self.allowed_change(machine, true);
        let kill = self.kill();
        let before = self.locations();
        let had_a_watch = self.machine(machine).has_a_watch();
        let writing = self.writes_meanwhile(machine);
        let called = self.call(machine, |world, it| match &writing {
            Some(writing) => world.persist(
                it,
                job,
                kill,
                &ConcurrentEvent {
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
        self.judge(&before, allowed, Some(machine))?;
        self.leaves_codexes_alone(machine, called)?;
        if called == CallResult::Killed {
            self.behind.insert(machine);
        }
        self.met(called, "persist killed");
        Ok(called)
    }

    /// A job ends without its persist. On an ephemeral machine, logins that only it had are lost.
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
        call(&self.world, machine.expect("an existing machine"))
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
        machine.expect("an existing machine")
    }

    pub(crate) fn machine_mut(&mut self, number: usize) -> &mut Machine {
        let machine = self.machines[number].as_mut();
        machine.expect("an existing machine")
    }

    pub(crate) fn new_job(&mut self) -> u32 {
        self.jobs += 1;
        self.jobs
    }

    pub(crate) fn session(&mut self) -> Option<usize> {
        let count = self.sessions.len();
        (count > 0).then(|| self.random.below(count))
    }

    /// One of the existing machines.
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
