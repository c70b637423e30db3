//! The world around the round trips: the store, the homes, the commands, the people, and all
//! possible events. The properties are in `checks.rs`.

use alloc::{vec, vec::Vec};

use super::logins::{Clock, Logins, number};
use super::machines::{
    BaseNumber, CopyKey, Known, Machines, RoundTripNumber, SmallEffect, SmallEvent, SmallHeld,
    SmallOutcome, SmallSeen, SmallWrite, StartKey, StartNumber, held,
};
use super::{Choice, Plan, Setup, Slot};
use crate::copies::Place;
use crate::round_trip::{Base, Goal, Placing, Retryable};

/// The nonces of writers that are not jobs of this model.
const KEEP_ALIVE: u8 = 200;
const PERSON: u8 = 250;
/// The first nonce of a watch.
const WATCH: u8 = 100;

/// What the store held at one version; the version is its index in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Entry {
    /// `None`: a person emptied the store.
    pub(super) login: Option<u8>,
    /// The write in the stamp. `None` without a stamp.
    pub(super) by: Option<(u8, u8)>,
    pub(super) count: u8,
    pub(super) family: Option<u8>,
}

/// A write that may still land although its sender no longer waits for the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Late {
    put: SmallWrite,
    start: StartNumber,
    begins: bool,
}

/// How often each event may still happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Budget {
    /// A Codex rotates the login of a home: in a job, or run by hand between two jobs.
    pub(super) rotations: u8,
    /// A person seeds another login, with a stamp.
    pub(super) reseeds: u8,
    /// A third party rotates the head.
    pub(super) keep_alives: u8,
    /// A person writes another login into the store without a stamp.
    pub(super) manual_writes: u8,
    /// The store is rolled back: from a backup (with the stamp) or by hand.
    pub(super) rollbacks: u8,
    /// The value gets another version and loses its stamp.
    pub(super) touches: u8,
    /// A person empties the store.
    pub(super) deletions: u8,
    /// A cache, an image or an old step replaces the auth file with another generation.
    pub(super) old_files: u8,
    /// Our own timeout passes while a Codex may still write the file.
    pub(super) orphans: u8,
    /// A Codex that authferry did not start starts in a home.
    pub(super) foreigners: u8,
    /// A command leaves a watch.
    pub(super) watches: u8,
    /// The receipt is deleted.
    pub(super) lost_receipts: u8,
    /// The process of a job is killed.
    pub(super) kills: u8,
    /// A read is stale.
    pub(super) stale_reads: u8,
    /// The store, the disk or the rescue folder fails.
    pub(super) faults: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum File {
    Missing,
    Torn,
    Login(u8),
}

/// A login kept in the rescue folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Record {
    pub(super) login: u8,
    pub(super) known: Option<Known>,
}

/// A machine with a home, used by one job after another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Home {
    pub(super) number: u8,
    pub(super) file: File,
    pub(super) receipt: Option<BaseNumber>,
    /// The file and receipt that a cache can bring back.
    cache: (File, Option<BaseNumber>),
    /// Newest first.
    pub(super) records: Vec<Record>,
    /// The private home of a rotation that was killed after Codex wrote.
    pub(super) rotation: Option<(u8, BaseNumber)>,
    jobs_left: u8,
    /// The login whose refresh token an orphaned Codex may have spent.
    orphan_login: Option<u8>,
    pub(super) foreigner: Option<Foreigner>,
    /// A restore is done, and its persist has not started.
    restored: bool,
    pub(super) job: Option<Job>,
}

/// A Codex that authferry did not start, but detects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Foreigner {
    Idle,
    /// It has spent the first login and got the second, but has not written it.
    InFlight(u8, u8),
    /// It still runs, but spends no more logins.
    HasWritten,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    Begin,
    Running,
    Exited,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "each is one observed fact")]
pub(super) struct Job {
    pub(super) id: u8,
    pub(super) round_trip: RoundTripNumber,
    pub(super) start: StartNumber,
    pub(super) phase: Phase,
    /// It runs no command and does not end by itself. It leaves when another process asks it to,
    /// when its job is over, or when it is killed.
    is_watch: bool,
    pending: Option<SmallEffect>,
    /// The store's entry that the round trip read last.
    pub(super) read: Option<u8>,
    /// Bit set of the generations that the file held since the job started.
    pub(super) seen_on_disk: u16,
    has_unseen_change: bool,
    /// What the last read of the file found.
    pub(super) last_seen: File,
    /// The job orphaned a Codex.
    pub(super) left: bool,
    pub(super) rotated: bool,
    pub(super) keep_failed: bool,
    deadline_sent: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) logins: Logins,
    pub(super) entries: Vec<Entry>,
    late: Vec<Late>,
    left: Budget,
    pub(super) homes: Vec<Home>,
    /// Bit set of the generations that the provider refused, as noted in the store.
    pub(super) refused: u16,
    /// A backup failed, so a lost login is not a bug.
    pub(super) excused: bool,
    /// The violated property.
    pub(super) broken: Option<&'static str>,
}

/// Events, and the worlds that they lead to.
pub(super) type Next = Vec<(&'static str, World)>;

impl World {
    /// The store held the generations 0, 1 and 2 of one family; 2 is the head.
    pub(super) fn new(setup: &Setup, plan: &Plan, machines: &mut Machines) -> Self {
        let mut logins = Logins::default();
        let first = logins.log_in(0, Clock::Later);
        let second = logins.rotate(first, setup.clocks[0]);
        logins.rotate(second, setup.clocks[1]);
        let entry = |number: u8| Entry {
            login: Some(number),
            by: Some((PERSON, number)),
            count: number + 1,
            family: Some(first),
        };
        let mut world = Self {
            logins,
            entries: vec![entry(0), entry(1), entry(2)],
            late: vec![],
            left: plan.budget,
            homes: vec![],
            refused: 0,
            excused: false,
            broken: None,
        };
        let mut bases: Vec<Base> = vec![];
        for index in 0..3 {
            let held = held(world.shown(index).expect("a login"));
            let generation = held.generation.clone().expect("a login");
            let known = bases.last().filter(|_| setup.knows_ancestors);
            bases.push(Base::of_head(&held, &generation, known));
        }
        if !setup.stamped {
            world.entries.push(Entry {
                login: Some(2),
                by: None,
                count: 1,
                family: None,
            });
        }
        if setup.refused {
            world.refused |= 1 << 2;
        }
        for (number, slot) in (0..plan.homes).zip(&setup.slots) {
            let home = world.home(number, slot, &bases, setup, plan, machines);
            world.homes.push(home);
        }
        world
    }

    fn home(
        &mut self,
        number: u8,
        slot: &Slot,
        bases: &[Base],
        setup: &Setup,
        plan: &Plan,
        machines: &mut Machines,
    ) -> Home {
        let mut known = |base: Option<u8>| {
            let base = &bases[usize::from(base?)];
            Some(machines.keep_base(base))
        };
        let receipt = known(slot.receipt);
        let mut choose = |choice: Choice| match choice {
            Choice::Missing => File::Missing,
            Choice::Torn => File::Torn,
            Choice::Line(number) => File::Login(number),
            Choice::After(number) => File::Login(self.logins.rotate(number, setup.clocks[1])),
            Choice::Own => File::Login(self.logins.log_in(0, Clock::Later)),
            Choice::OtherPerson => File::Login(self.logins.log_in(1, Clock::Later)),
        };
        let file = choose(slot.file);
        let mut record = |(choice, base): (Choice, Option<u8>)| match choose(choice) {
            File::Login(login) => Some(Record {
                login,
                known: known(base).map(|base| Known { base, seen: 1 }),
            }),
            File::Missing | File::Torn => None,
        };
        let records = slot.records.iter().copied().filter_map(&mut record);
        let records = records.collect();
        let rotation = slot.rotation.and_then(|(choice, base)| {
            record((choice, Some(base))).and_then(|it| Some((it.login, it.known?.base)))
        });
        Home {
            number,
            file,
            receipt,
            cache: (file, receipt),
            records,
            rotation,
            jobs_left: plan.jobs,
            orphan_login: None,
            foreigner: None,
            restored: false,
            job: None,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.late.is_empty() && self.homes.iter().all(Home::is_over)
    }

    pub(super) fn current(&self) -> Entry {
        *self.entries.last().expect("never empty")
    }

    pub(super) fn newest_entry(&self) -> u8 {
        u8::try_from(self.entries.len() - 1).expect("few")
    }

    fn shown(&self, index: u8) -> Option<SmallHeld> {
        let entry = self.entries[usize::from(index)];
        Some(SmallHeld {
            version: index,
            login: self.logins.get(entry.login?),
            by: entry.by,
            count: entry.count,
            family: entry.family,
        })
    }

    fn look(&self, file: File) -> SmallSeen {
        match file {
            File::Missing => SmallSeen::Missing,
            File::Torn => SmallSeen::Torn,
            File::Login(login) => SmallSeen::Login(self.logins.get(login)),
        }
    }

    /// Every world that this one can turn into by one event.
    pub(super) fn next(&self, plan: &Plan, machines: &mut Machines, next: &mut Next) {
        for index in 0..self.late.len() {
            let mut lost = self.clone();
            let late = lost.late.remove(index);
            let mut landed = lost.clone();
            landed.put(late.put, late.start, late.begins, None, plan, machines);
            next.push(("a late write is lost", lost));
            next.push(("a late write lands", landed));
        }
        if self.homes.iter().all(Home::is_over) {
            return;
        }
        self.store_events(plan, next);
        for home in 0..self.homes.len() {
            self.orphan_events(home, plan, next);
            self.foreigner(home, plan, next);
            self.file_events(home, plan, machines, next);
            match &self.homes[home].job {
                Some(job) => {
                    self.command(home, job, plan, machines, next);
                    self.answers(home, job, plan, machines, next);
                    self.kill(home, job, machines, next);
                }
                None => self.begin(home, plan, machines, next),
            }
        }
    }

    /// Changes of the store from outside of all jobs.
    fn store_events(&self, plan: &Plan, next: &mut Next) {
        let current = self.current();
        let push = |next: &mut Next, label, take: fn(&mut Budget), entry: Entry| {
            let mut world = self.clone();
            take(&mut world.left);
            world.entries.push(entry);
            next.push((label, world));
        };
        for &person in plan.persons {
            for &clock in plan.clocks {
                let mut world = self.clone();
                let login = world.logins.log_in(person, clock);
                let seeded = Entry {
                    login: Some(login),
                    by: Some((PERSON, login)),
                    count: current.count + 1,
                    family: Some(login),
                };
                if self.left.reseeds > 0 {
                    let mut world = world.clone();
                    world.left.reseeds -= 1;
                    world.entries.push(seeded);
                    next.push(("a person seeds another login", world));
                }
                if self.left.manual_writes > 0 {
                    world.left.manual_writes -= 1;
                    world.entries.push(Entry {
                        by: None,
                        family: None,
                        count: 1,
                        ..seeded
                    });
                    next.push(("a person writes a login by hand", world));
                }
            }
        }
        if self.left.rollbacks > 0 {
            for index in 0..self.newest_entry() {
                let old = self.entries[usize::from(index)];
                if old.login.is_some() {
                    let unstamped = Entry {
                        by: None,
                        family: None,
                        count: 1,
                        ..old
                    };
                    push(next, "a backup is restored", |it| it.rollbacks -= 1, old);
                    push(
                        next,
                        "a rollback by hand",
                        |it| it.rollbacks -= 1,
                        unstamped,
                    );
                }
            }
        }
        let Some(login) = current.login else {
            return;
        };
        if self.left.keep_alives > 0 && (plan.allows_reuse || !self.logins.is_spent(login)) {
            for &clock in plan.clocks {
                let mut world = self.clone();
                world.left.keep_alives -= 1;
                let rotated = world.logins.rotate(login, clock);
                world.entries.push(Entry {
                    login: Some(rotated),
                    by: Some((KEEP_ALIVE, rotated)),
                    count: current.count + 1,
                    family: current.family.or(Some(login)),
                });
                next.push(("a third party rotates the head", world));
            }
        }
        if self.left.touches > 0 {
            let unstamped = Entry {
                by: None,
                family: None,
                count: 1,
                ..current
            };
            push(next, "the stamp is lost", |it| it.touches -= 1, unstamped);
        }
        if self.left.deletions > 0 {
            let empty = Entry {
                login: None,
                by: None,
                family: None,
                count: 0,
            };
            push(next, "the store is emptied", |it| it.deletions -= 1, empty);
        }
    }

    /// An orphaned Codex writes its new login, or ends. Until then no other job starts in its home.
    fn orphan_events(&self, at: usize, plan: &Plan, next: &mut Next) {
        let home = &self.homes[at];
        let Some(login) = home.orphan_login else {
            return;
        };
        let mut ended = self.clone();
        ended.homes[at].orphan_login = None;
        // It discards its new login if another login is in the file.
        if home.file == File::Login(login) && (plan.allows_reuse || !self.logins.is_spent(login)) {
            for &clock in plan.clocks {
                let mut world = ended.clone();
                let rotated = world.logins.rotate(login, clock);
                world.homes[at].file = File::Login(rotated);
                next.push(("the orphaned Codex writes", world));
            }
        }
        next.push(("the orphaned Codex ends", ended));
    }

    /// A Codex of another process starts, spends the login, writes its new login, or ends: while a
    /// job starts, waits for the store, persists or has ended.
    fn foreigner(&self, at: usize, plan: &Plan, next: &mut Next) {
        let home = &self.homes[at];
        let with = |foreigner| {
            let mut world = self.clone();
            world.homes[at].foreigner = foreigner;
            world
        };
        match home.foreigner {
            None if self.left.foreigners > 0 && !home.is_over() => {
                let mut world = with(Some(Foreigner::Idle));
                world.left.foreigners -= 1;
                next.push(("a foreign Codex starts", world));
            }
            None => {}
            Some(Foreigner::HasWritten) => next.push(("the foreign Codex ends", with(None))),
            Some(Foreigner::Idle) => {
                next.push(("the foreign Codex ends", with(None)));
                let File::Login(login) = home.file else {
                    return;
                };
                if self.logins.is_spent(login) && !plan.allows_reuse {
                    return;
                }
                for &clock in plan.clocks {
                    let mut world = self.clone();
                    let got = world.logins.rotate(login, clock);
                    world.homes[at].foreigner = Some(Foreigner::InFlight(login, got));
                    next.push(("the foreign Codex spends", world));
                }
            }
            Some(Foreigner::InFlight(spent, got)) => {
                let mut world = with(Some(Foreigner::HasWritten));
                // It discards its new login if its file has changed or is missing.
                if home.file == File::Login(spent) {
                    let home = &mut world.homes[at];
                    let job = home.job.as_ref();
                    let rotated = job.is_some_and(|job| job.phase != Phase::Begin);
                    home.write(got, rotated);
                }
                next.push(("the foreign Codex writes", world));
            }
        }
    }

    /// Changes of a home's files from outside of the machine: by the command, or between two jobs.
    fn file_events(&self, at: usize, plan: &Plan, machines: &Machines, next: &mut Next) {
        let home = &self.homes[at];
        let running = home
            .job
            .as_ref()
            .is_some_and(|it| it.phase == Phase::Running);
        if home.is_over() || (home.job.is_some() && !running) || home.orphan_login.is_some() {
            return;
        }
        // Codex locks its home while it refreshes, and discards its new login if a process other
        // than authferry changes the file: SECURITY.md names that.
        if let Some(Foreigner::InFlight(..)) = home.foreigner {
            return;
        }
        // An unseen login of another family cannot be recognised.
        let is_of_base = |login: u8| {
            home.receipt.is_none_or(|base| {
                let base = machines.base(base).generation.fingerprint;
                self.logins.family(number(base)) == self.logins.family(login)
            })
        };
        let placed = running || home.restored;
        if let File::Login(login) = home.file
            && self.left.rotations > 0
            && (is_of_base(login) || !placed)
            && (plan.allows_reuse || !self.logins.is_spent(login))
        {
            for &clock in plan.clocks {
                let mut world = self.clone();
                world.left.rotations -= 1;
                let rotated = world.logins.rotate(login, clock);
                world.homes[at].write(rotated, true);
                next.push(("Codex rotates", world));
            }
        }
        if self.left.old_files > 0 {
            for login in self.logins.all() {
                let found = home.job.as_ref().is_some_and(|job| {
                    let copies = &machines.started(job.start).copies;
                    let mut logins = copies.iter().map(|it| it.look);
                    logins.any(|it| it == self.look(File::Login(login)))
                });
                let known = home.records.iter().any(|it| it.login == login)
                    || home.receipt.is_some_and(|base| {
                        let unrelated = &machines.base(base).unrelated;
                        unrelated.iter().any(|it| number(*it) == login)
                    });
                let same = is_of_base(login) || found || known || !placed;
                if home.file != File::Login(login) && same {
                    let mut world = self.clone();
                    world.left.old_files -= 1;
                    world.replace_from_outside(at);
                    world.homes[at].write(login, false);
                    next.push(("an old file is put into the home", world));
                }
            }
            if home.job.is_none() && !home.restored && (home.file, home.receipt) != home.cache {
                let mut world = self.clone();
                world.left.old_files -= 1;
                world.replace_from_outside(at);
                (world.homes[at].file, world.homes[at].receipt) = home.cache;
                next.push(("a cache brings back file and receipt", world));
            }
            if !running && home.file != File::Torn && home.file != File::Missing {
                for (label, file) in [
                    ("the file is torn", File::Torn),
                    ("the file is missing", File::Missing),
                ] {
                    let mut world = self.clone();
                    world.left.old_files -= 1;
                    world.replace_from_outside(at);
                    world.homes[at].file = file;
                    next.push((label, world));
                }
            }
        }
        if !running && self.left.lost_receipts > 0 && home.receipt.is_some() {
            let mut world = self.clone();
            world.left.lost_receipts -= 1;
            world.homes[at].receipt = None;
            next.push(("the receipt is deleted", world));
        }
    }

    /// A process from outside replaces the file, maybe the only copy: authferry cannot prevent
    /// that.
    fn replace_from_outside(&mut self, at: usize) {
        let file = core::mem::replace(&mut self.homes[at].file, File::Missing);
        if let File::Login(login) = file
            && !self.can_be_had(login)
        {
            self.excused = true;
        }
        if let Some(job) = &mut self.homes[at].job {
            job.rotated = false;
        }
    }

    fn command(&self, at: usize, job: &Job, plan: &Plan, machines: &mut Machines, next: &mut Next) {
        let home = &self.homes[at];
        if job.phase != Phase::Running {
            let waits = matches!(
                job.pending,
                Some(SmallEffect::Read | SmallEffect::Swap(_) | SmallEffect::Wait)
            );
            if waits && !job.deadline_sent && self.left.faults > 0 {
                let mut world = self.clone();
                world.left.faults -= 1;
                world.job(at).deadline_sent = true;
                let world = world.event(at, SmallEvent::Deadline, plan, machines);
                next.push(("the deadline passes", world));
            }
            return;
        }
        if job.is_watch {
            let mut world = self.clone();
            if let Some(SmallEffect::Swap(put)) = job.pending {
                world.send(put, job.start, false);
            }
            world.end_job(at);
            next.push(("the watch leaves or is killed", world));
        }
        if let (true, File::Login(login)) = (job.has_unseen_change, home.file) {
            let mut world = self.clone();
            world.job(at).has_unseen_change = false;
            let event = SmallEvent::Changed(self.logins.get(login));
            next.push(("the change is seen", world.event(at, event, plan, machines)));
        }
        if job.is_watch {
            return;
        }
        if let (true, File::Login(login)) = (self.left.orphans > 0, home.file) {
            let mut world = self.clone();
            world.left.orphans -= 1;
            world.homes[at].orphan_login = Some(login);
            world.job(at).phase = Phase::Exited;
            world.job(at).left = true;
            world.job(at).last_seen = home.file;
            let event = SmallEvent::CodexRunning(self.look(home.file));
            next.push((
                "a Codex is orphaned",
                world.event(at, event, plan, machines),
            ));
        }
        let mut ends = vec![home.file];
        if plan.spoils_file && !job.has_unseen_change {
            ends.extend([File::Missing, File::Torn]);
        }
        for file in ends {
            let mut world = self.clone();
            if file != home.file {
                let newest = machines.facts(job.round_trip).newest.map(File::Login);
                if newest != Some(home.file) {
                    // The machine does not keep a login that is surely earlier by the clocks.
                    world.replace_from_outside(at);
                }
            }
            world.homes[at].file = file;
            world.job(at).phase = Phase::Exited;
            world.job(at).last_seen = file;
            let event = SmallEvent::Exited(self.look(file));
            next.push(("the command exits", world.event(at, event, plan, machines)));
        }
    }

    fn answers(&self, at: usize, job: &Job, plan: &Plan, machines: &mut Machines, next: &mut Next) {
        let failing = self.left.faults > 0;
        let mut answered = self.clone();
        answered.job(at).pending = None;
        let mut failed = answered.clone();
        failed.left.faults = failed.left.faults.saturating_sub(1);
        let failures = [Retryable::Yes, Retryable::No];
        match job.pending {
            None | Some(SmallEffect::Run | SmallEffect::Finish(_)) => {}
            Some(SmallEffect::Read) => {
                let newest = self.newest_entry();
                for index in [newest, newest - 1] {
                    let mut world = answered.clone();
                    if index != newest {
                        if self.left.stale_reads == 0 {
                            continue;
                        }
                        world.left.stale_reads -= 1;
                    }
                    world.job(at).read = Some(index);
                    let event = SmallEvent::Read(self.shown(index));
                    next.push(("read", world.event(at, event, plan, machines)));
                }
                for retryable in failures.into_iter().filter(|_| failing) {
                    let event = SmallEvent::NotRead(retryable);
                    let world = failed.clone().event(at, event, plan, machines);
                    next.push(("the read fails", world));
                }
            }
            // The runner does not replace a file that changed since the start, or that a Codex may
            // have spent.
            Some(SmallEffect::Place(_))
                if self.homes[at].file != job.last_seen || self.homes[at].is_in_flight() =>
            {
                let event = SmallEvent::Placed(Placing::ConcurrentWrite);
                let world = answered.event(at, event, plan, machines);
                next.push(("not placed", world));
            }
            Some(SmallEffect::Place(login)) => {
                let mut placed = answered.clone();
                placed.check_place(at, login);
                placed.homes[at].file = File::Login(login);
                placed.job(at).seen_on_disk |= 1 << login;
                if self.left.kills > 0 {
                    let mut killed = placed.clone();
                    killed.left.kills -= 1;
                    killed.kill_job(at, machines);
                    next.push(("killed between the file and the receipt", killed));
                }
                placed.homes[at].receipt = machines.facts(job.round_trip).base.map(|it| it.base);
                let event = SmallEvent::Placed(Placing::Done);
                next.push(("placed", placed.event(at, event, plan, machines)));
                for placing in [Placing::ConcurrentWrite, Placing::Failed] {
                    if failing {
                        let event = SmallEvent::Placed(placing);
                        let world = failed.clone().event(at, event, plan, machines);
                        next.push(("not placed", world));
                    }
                }
            }
            Some(SmallEffect::Swap(put)) => self.swap_answers(at, put, job, plan, machines, next),
            Some(SmallEffect::Wait) => {
                next.push((
                    "the wait ends",
                    answered.event(at, SmallEvent::Waited, plan, machines),
                ));
            }
            Some(
                effect @ (SmallEffect::KeepCopies(..)
                | SmallEffect::KeepOurs
                | SmallEffect::KeepTheirs),
            ) => {
                answered.keep(at, effect, job, machines);
                let event = SmallEvent::Rescued(true);
                next.push(("kept", answered.event(at, event, plan, machines)));
                if failing {
                    failed.job(at).keep_failed = true;
                    failed.excused = true;
                    let event = SmallEvent::Rescued(false);
                    next.push(("not kept", failed.event(at, event, plan, machines)));
                }
            }
        }
    }

    fn swap_answers(
        &self,
        at: usize,
        put: SmallWrite,
        job: &Job,
        plan: &Plan,
        machines: &mut Machines,
        next: &mut Next,
    ) {
        let begins = job.phase == Phase::Begin;
        let mut answered = self.clone();
        answered.job(at).pending = None;
        let mut landed = answered.clone();
        let event = match landed.put(put, job.start, begins, Some(job), plan, machines) {
            Some(version) => SmallEvent::Landed(version),
            None => SmallEvent::Conflict,
        };
        if let SmallEvent::Landed(_) = event
            && self.left.kills > 0
        {
            let mut killed = landed.clone();
            killed.left.kills -= 1;
            killed.kill_job(at, machines);
            next.push(("killed between the landed swap and the receipt", killed));
        }
        if self.left.faults > 0 {
            let mut failed = answered;
            failed.left.faults -= 1;
            for retryable in [Retryable::Yes, Retryable::No] {
                let event = SmallEvent::NotSwapped(retryable);
                let world = failed.clone().event(at, event, plan, machines);
                next.push(("the swap is refused", world));
            }
            let lost = SmallEvent::Ambiguous;
            let mut late = failed.clone();
            late.send(put, job.start, begins);
            next.push(("the swap is late", late.event(at, lost, plan, machines)));
            next.push(("the swap is lost", failed.event(at, lost, plan, machines)));
            let mut unanswered = landed.clone();
            unanswered.left.faults -= 1;
            next.push((
                "the answer to the swap is lost",
                unanswered.event(at, lost, plan, machines),
            ));
        }
        let mut world = landed.event(at, event, plan, machines);
        // The receipt names the base of the file, so it is written after the file holds the login.
        let carries = !begins || world.homes[at].file == File::Login(put.login);
        if let (SmallEvent::Landed(_), true, Some(job)) = (event, carries, &world.homes[at].job) {
            world.homes[at].receipt = machines.facts(job.round_trip).base.map(|it| it.base);
        }
        next.push(("the swap is answered", world));
    }

    fn kill(&self, at: usize, job: &Job, machines: &Machines, next: &mut Next) {
        if self.left.kills > 0 {
            let mut world = self.clone();
            world.left.kills -= 1;
            if let Some(SmallEffect::Swap(put)) = job.pending {
                world.send(put, job.start, job.phase == Phase::Begin);
            }
            world.kill_job(at, machines);
            next.push(("the job is killed", world));
        }
    }

    /// The next job of a home starts, or the persist of a job whose restore is done.
    fn begin(&self, at: usize, plan: &Plan, machines: &mut Machines, next: &mut Next) {
        let home = &self.homes[at];
        if home.orphan_login.is_some() {
            return;
        }
        if let (true, Some(base)) = (home.restored, home.receipt) {
            let mut world = self.clone();
            world.homes[at].restored = false;
            let begins = self.key(home, plan, Goal::Run);
            let records = begins.copies.into_iter();
            let others = home.foreigner.is_some();
            let key = StartKey {
                resumes: Some((base, self.look(home.file))),
                joins: others,
                copies: records.filter(|it| it.place == Place::Rescue).collect(),
                ..begins
            };
            // It waits until a Codex that uses the home ends, or until the timeout.
            let phase = if others {
                Phase::Running
            } else {
                Phase::Exited
            };
            let world = world.start(at, &key, phase, plan, machines);
            next.push(("persist starts", world));
        }
        if let (true, Some(base)) = (self.left.watches > 0, home.receipt) {
            let begins = self.key(home, plan, Goal::Run);
            let records = begins.copies.into_iter();
            let key = StartKey {
                id: WATCH + home.number * 10 + self.left.watches,
                resumes: Some((base, self.look(home.file))),
                joins: true,
                copies: records.filter(|it| it.place == Place::Rescue).collect(),
                ..begins
            };
            let mut world = self.clone();
            world.left.watches -= 1;
            let mut world = world.start(at, &key, Phase::Running, plan, machines);
            if let Some(job) = &mut world.homes[at].job {
                job.is_watch = true;
            }
            next.push(("a watch starts", world));
        }
        if home.restored && home.jobs_left == 0 {
            let mut world = self.clone();
            world.homes[at].restored = false;
            next.push(("the job is lost before its persist", world));
        }
        if home.jobs_left > 0 {
            let goal = if plan.is_split {
                Goal::Restore
            } else {
                Goal::Run
            };
            let mut world = self.clone();
            world.homes[at].restored = false;
            world.homes[at].jobs_left -= 1;
            let key = self.key(home, plan, goal);
            let world = world.start(at, &key, Phase::Begin, plan, machines);
            next.push(("a job starts", world));
        }
    }

    fn key(&self, home: &Home, plan: &Plan, goal: Goal) -> StartKey {
        let named = home.receipt.map(|base| Known { base, seen: 0 });
        let mut copies = vec![CopyKey {
            place: Place::AuthFile,
            look: self.look(home.file),
            known: named,
        }];
        copies.extend(home.rotation.map(|(login, base)| CopyKey {
            place: Place::Rotation,
            look: SmallSeen::Login(self.logins.get(login)),
            known: Some(Known { base, seen: 0 }),
        }));
        copies.extend(home.records.iter().map(|record| CopyKey {
            place: Place::Rescue,
            look: SmallSeen::Login(self.logins.get(record.login)),
            known: record.known,
        }));
        StartKey {
            id: home.number * 10 + plan.jobs * 2 - home.jobs_left * 2 + u8::from(home.restored) + 1,
            goal,
            policy: plan.policy,
            history: plan.history,
            refused: self.refused,
            copies,
            resumes: None,
            joins: false,
        }
    }

    fn start(
        mut self,
        at: usize,
        key: &StartKey,
        phase: Phase,
        plan: &Plan,
        machines: &mut Machines,
    ) -> World {
        let (start, stepped) = machines.start(key);
        let home = &mut self.homes[at];
        if self.left.old_files > 0 {
            home.cache = (home.file, home.receipt);
        }
        let seen_on_disk = match home.file {
            File::Login(login) => 1 << login,
            File::Missing | File::Torn => 0,
        };
        home.job = Some(Job {
            id: key.id,
            round_trip: stepped.round_trip,
            start,
            phase,
            is_watch: false,
            pending: None,
            read: None,
            seen_on_disk,
            has_unseen_change: false,
            last_seen: home.file,
            left: false,
            rotated: false,
            keep_failed: false,
            deadline_sent: false,
        });
        self.take(at, stepped.effect, plan, machines);
        self
    }

    fn event(
        mut self,
        at: usize,
        event: SmallEvent,
        plan: &Plan,
        machines: &mut Machines,
    ) -> World {
        let job = self.job(at);
        let stepped = machines.step(job.round_trip, event);
        job.round_trip = stepped.round_trip;
        if job.pending == Some(SmallEffect::Wait) && !machines.facts(stepped.round_trip).pauses {
            job.pending = None;
        }
        self.take(at, stepped.effect, plan, machines);
        self
    }

    fn take(
        &mut self,
        at: usize,
        effect: Option<SmallEffect>,
        plan: &Plan,
        machines: &mut Machines,
    ) {
        let Some(effect) = effect else {
            return;
        };
        let job = self.job(at);
        let (start, begins, round_trip) = (job.start, job.phase == Phase::Begin, job.round_trip);
        match effect {
            SmallEffect::Run => {
                self.job(at).phase = Phase::Running;
                self.homes[at].receipt = machines.facts(round_trip).base.map(|it| it.base);
                self.check_run(at, machines);
            }
            SmallEffect::Finish(end) if self.reopens(at, end) => {
                let file = self.homes[at].file;
                self.job(at).last_seen = file;
                let event = SmallEvent::Reopens(self.look(file));
                let stepped = machines.step(round_trip, event);
                self.job(at).round_trip = stepped.round_trip;
                self.take(at, stepped.effect, plan, machines);
            }
            SmallEffect::Finish(end) => {
                self.check_end(at, end, plan, machines);
                self.remove_login(at, end, plan);
                let home = &mut self.homes[at];
                home.restored = end == SmallOutcome::Restored;
                if end == SmallOutcome::Restored {
                    home.receipt = machines.facts(round_trip).base.map(|it| it.base);
                    self.check_run(at, machines);
                }
                self.end_job(at);
            }
            SmallEffect::KeepCopies(..) | SmallEffect::KeepOurs | SmallEffect::KeepTheirs => {
                // The deadline cancelled a request; a swap in flight may still land.
                if let Some(SmallEffect::Swap(put)) = self.job(at).pending.replace(effect) {
                    self.send(put, start, begins);
                }
            }
            SmallEffect::Read
            | SmallEffect::Place(_)
            | SmallEffect::Swap(_)
            | SmallEffect::Wait => {
                if self.job(at).pending.is_some() {
                    self.broken = Some("two requests at once");
                }
                self.job(at).pending = Some(effect);
            }
        }
    }

    /// Whether the file has changed since the last read of a round trip that is about to succeed.
    fn reopens(&self, at: usize, end: SmallOutcome) -> bool {
        let home = &self.homes[at];
        let well = matches!(
            end,
            SmallOutcome::Unchanged | SmallOutcome::Persisted(_) | SmallOutcome::Unsettled
        );
        let job = home.job.as_ref();
        let changed =
            job.is_some_and(|job| job.phase == Phase::Exited && job.last_seen != home.file);
        well && changed && matches!(home.file, File::Login(_))
    }

    /// Removes the login, unless its file has changed or a Codex uses the home.
    fn remove_login(&mut self, at: usize, end: SmallOutcome, plan: &Plan) {
        let home = &mut self.homes[at];
        let safe = matches!(
            end,
            SmallOutcome::Unchanged
                | SmallOutcome::Persisted(_)
                | SmallOutcome::Superseded(_, true)
        );
        let is_still = home
            .job
            .as_ref()
            .is_some_and(|it| it.last_seen == home.file);
        if plan.removes_login && safe && is_still && home.foreigner.is_none() {
            let file = core::mem::replace(&mut home.file, File::Missing);
            home.receipt = None;
            if let File::Login(login) = file {
                self.check_removed(login);
            }
        }
    }

    /// The store's own swap.
    fn put(
        &mut self,
        put: SmallWrite,
        start: StartNumber,
        begins: bool,
        job: Option<&Job>,
        plan: &Plan,
        machines: &Machines,
    ) -> Option<u8> {
        if put.expected != self.newest_entry() {
            return None;
        }
        self.check_write(put, start, begins, job, plan, machines);
        self.entries.push(Entry {
            login: Some(put.login),
            by: Some(put.id),
            count: put.count,
            family: Some(put.family),
        });
        Some(self.newest_entry())
    }

    fn send(&mut self, put: SmallWrite, start: StartNumber, begins: bool) {
        self.late.push(Late { put, start, begins });
        self.late.sort_unstable();
        self.late.dedup();
    }

    /// Executes a job's rescue, with records.
    fn keep(&mut self, at: usize, effect: SmallEffect, job: &Job, machines: &mut Machines) {
        let facts = machines.facts(job.round_trip);
        let mut records = vec![];
        match effect {
            SmallEffect::KeepCopies(bits, with_record) => {
                let copies = &machines.started(job.start).copies;
                let kept = (0..copies.len()).filter(|index| bits & (1 << index) != 0);
                for index in kept {
                    let copy = copies[index];
                    if let SmallSeen::Login(login) = copy.look {
                        let known = copy.known.filter(|_| with_record & (1 << index) != 0);
                        records.push((login.number, known));
                    }
                }
            }
            SmallEffect::KeepTheirs => {
                let read = job.read.expect("theirs was read");
                if let Some(shown) = self.shown(read) {
                    let held = held(shown);
                    let known = facts.base.map(|it| machines.base(it.base).clone());
                    let generation = shown.login.generation();
                    let base = Base::of_head(&held, &generation, known.as_ref());
                    let base = machines.keep_base(&base);
                    // The store's metadata overrides an older record.
                    let known = Some(Known { base, seen: 0 });
                    let kept = &mut self.homes[at].records;
                    kept.retain(|it| it.login != shown.login.number);
                    records.push((shown.login.number, known));
                }
            }
            SmallEffect::KeepOurs => {
                records.extend(facts.newest.map(|it| (it, facts.descent)));
                // A login that the round trip did not note has no known base.
                if let File::Login(login) = job.last_seen {
                    records.push((login, None));
                }
            }
            SmallEffect::Read
            | SmallEffect::Place(_)
            | SmallEffect::Run
            | SmallEffect::Swap(_)
            | SmallEffect::Wait
            | SmallEffect::Finish(_) => {}
        }
        let kept = &mut self.homes[at].records;
        for (login, known) in records {
            if kept.iter().all(|it| it.login != login) {
                kept.insert(0, Record { login, known });
            }
        }
    }

    /// Kills a job. If the command has spoiled the file, the login was only in memory.
    fn kill_job(&mut self, at: usize, machines: &Machines) {
        let newest = machines.facts(self.job(at).round_trip).newest;
        self.end_job(at);
        self.excused |= newest.is_some_and(|newest| !self.can_be_had(newest));
    }

    fn end_job(&mut self, at: usize) {
        self.homes[at].job = None;
    }

    pub(super) fn job(&mut self, at: usize) -> &mut Job {
        self.homes[at].job.as_mut().expect("a job under way")
    }
}

impl Home {
    fn is_over(&self) -> bool {
        let idle = self.orphan_login.is_none() && self.foreigner.is_none();
        self.job.is_none() && self.jobs_left == 0 && !self.restored && idle
    }

    fn is_in_flight(&self) -> bool {
        matches!(self.foreigner, Some(Foreigner::InFlight(..)))
    }

    /// The command, or a person at the machine, writes the auth file.
    fn write(&mut self, login: u8, rotated: bool) {
        self.file = File::Login(login);
        if let Some(job) = &mut self.job {
            job.seen_on_disk |= 1 << login;
            job.has_unseen_change = true;
            job.rotated |= rotated;
        }
    }
}
