//! Codex processes that authferry did not start, or that outlive the call that started them.

use std::{cell::Cell, fs::File, path::PathBuf, time::Duration};

use authferry_codex::Home;

use crate::machine::{Codex, InFlight, login_in, write};
use crate::story::Story;
use crate::world::CallResult;

/// A write by a Codex while authferry waits.
pub(crate) struct Writing {
    pub(crate) codex: i32,
    pub(crate) after: Duration,
    home: Home,
    spent: usize,
    text: String,
    pub(crate) has_written: Cell<bool>,
}

impl Writing {
    pub(crate) fn write(&self) {
        // Codex discards its new login if its file has changed.
        if login_in(&self.home) == Some(self.spent) {
            write(&self.home, &self.text, false);
            self.has_written.set(true);
        }
    }
}

impl Story {
    /// A Codex starts in a home, in a step of the job that was restored there or in another step.
    pub(crate) fn start_a_codex(&mut self) {
        let machine = self.any_machine();
        if self.machine(machine).auth_file().is_none() {
            return;
        }
        let session = self.sessions.iter().find(|it| it.machine == machine);
        let session = session.map(|it| it.job);
        let of_the_job = !self.random.one_in(4);
        let job = match session.filter(|_| of_the_job) {
            Some(job) => job,
            None => self.new_job(),
        };
        let home = self.machine_mut(machine).home();
        let id = self.start_codex(machine, job, home, None);
        self.note(
            "codex starts",
            format!("machine {machine}: codex {id} of job {job}"),
        );
        if self.random.one_in(2) {
            self.spend(machine, id);
        }
    }

    /// One of these Codexes takes a step: it spends its login, writes its new login, or ends.
    pub(crate) fn codex_goes_on(&mut self) -> Result<(), String> {
        let all: Vec<(usize, i32)> = (0..self.machines.len())
            .filter(|machine| self.machines[*machine].is_some())
            .flat_map(|machine| {
                let codexes = &self.machine(machine).codexes;
                codexes.iter().map(move |codex| (machine, codex.id))
            })
            .collect();
        if all.is_empty() {
            return Ok(());
        }
        let (machine, id) = all[self.random.below(all.len())];
        let codex = self.codex(machine, id);
        let is_rotation = codex.rotation.is_some();
        if codex.in_flight.is_some() {
            if self.random.one_in(4) {
                self.pass_an_hour(machine);
                return Ok(());
            }
            let event = if is_rotation {
                "private rotation writes"
            } else {
                "codex writes late"
            };
            self.write_of(machine, id, event);
            return Ok(());
        }
        if is_rotation {
            return self.end_a_rotation(machine, id);
        }
        match self.random.below(4) {
            0 => {
                self.machine_mut(machine).end_codex(id);
                self.note("codex ends", format!("machine {machine}: codex {id} ends"));
            }
            1 => self.pass_an_hour(machine),
            _ => self.spend(machine, id),
        }
        Ok(())
    }

    /// A Codex whose login is due spends it. Until it writes, the new login exists only in that
    /// Codex.
    fn spend(&mut self, machine: usize, id: i32) {
        let codex = self.codex(machine, id);
        let (is_asked, was_idle) = (codex.rotation.is_some(), codex.is_idle);
        let Some(held) = login_in(&codex.home) else {
            return;
        };
        let is_locked = !is_asked && self.has_one_in_flight(machine);
        if is_locked || !(is_asked || self.provider.is_due(held)) {
            return;
        }
        let Some(got) = self.provider.refresh(held, 0) else {
            self.note("refresh refused", format!("codex {id}: {held} is refused"));
            return;
        };
        let flight = InFlight {
            spent: held,
            got,
            was_idle,
        };
        self.codex_mut(machine, id).in_flight = Some(flight);
        self.note(
            "codex spends",
            format!("codex {id} has spent {held}, and got {got}"),
        );
    }

    /// A Codex writes its new login.
    fn write_of(&mut self, machine: usize, id: i32, event: &'static str) {
        let codex = self.codex(machine, id);
        let Some(flight) = codex.in_flight else {
            return;
        };
        let home = codex.home.clone();
        // It also writes where the file is missing: a killed authferry may have renamed the file
        // aside.
        let found = login_in(&home);
        if found.is_none_or(|found| found == flight.spent) {
            let text = self.provider.auth_file(flight.got);
            let in_place = found.is_some() && self.random.one_in(2);
            write(&home, &text, in_place);
        } else {
            self.given_up.insert(flight.got);
        }
        self.has_written(machine, id, event);
    }

    /// Records that a Codex has written its new login.
    pub(crate) fn has_written(&mut self, machine: usize, id: i32, event: &'static str) {
        let codex = self.codex_mut(machine, id);
        codex.is_idle = false;
        let Some(flight) = codex.in_flight.take() else {
            return;
        };
        self.cached.push(flight.got);
        self.note(event, format!("codex {id} writes {}", flight.got));
    }

    /// A Codex of the home that writes while authferry waits for it, or soon after.
    pub(crate) fn writes_meanwhile(&mut self, machine: usize) -> Option<Writing> {
        let after = [1, 60, 1000][self.random.below(3)];
        let mut codexes = self.machine(machine).codexes.iter();
        let codex = codexes.find(|it| it.rotation.is_none() && it.in_flight.is_some())?;
        let flight = codex.in_flight?;
        Some(Writing {
            codex: codex.id,
            after: Duration::from_secs(after),
            home: codex.home.clone(),
            spent: flight.spent,
            text: self.provider.auth_file(flight.got),
            has_written: Cell::new(false),
        })
    }

    /// Another process than authferry changes the file of the home: a Codex discards its new login.
    pub(crate) fn make_codexes_drop(&mut self, machine: usize) {
        let codexes = self.machine_mut(machine).codexes_in_home();
        let dropped: Vec<usize> = codexes
            .filter_map(|codex| Some(codex.in_flight.take()?.got))
            .collect();
        self.given_up.extend(dropped);
    }

    pub(crate) fn has_one_in_flight(&self, machine: usize) -> bool {
        let mut codexes = self.machine(machine).codexes.iter();
        codexes.any(|it| it.rotation.is_none() && it.in_flight.is_some())
    }

    /// Long enough that no refresh is in flight at its end: every new login is written.
    fn pass_an_hour(&mut self, machine: usize) {
        let codexes = self.machine(machine).codexes.iter();
        let ids: Vec<i32> = codexes.map(|codex| codex.id).collect();
        for id in ids {
            self.write_of(machine, id, "codex writes late");
        }
        self.machine_mut(machine).pass_an_hour();
        self.note(
            "an hour passes",
            format!("an hour passes on machine {machine}"),
        );
    }

    /// `authferry refresh`, or the rotation before a job: it places the login in a private home,
    /// and ends before its Codex has written.
    pub(crate) fn rotate_privately(&mut self) -> Result<(), String> {
        let machine = self.any_machine();
        let job = self.new_job();
        let kill = self.kill();
        let before = self.locations();
        let allowed = self.allowed_change(machine, false);
        self.machine(machine).processes.begin_job(job);
        let (called, folder) = self.call(machine, |world, it| world.begin_rotation(it, job, kill));
        self.machine(machine).processes.end_job(job);
        self.note(
            "private rotation",
            format!("job {job}: a rotation on machine {machine}, {called:?}"),
        );
        self.judge(&before, allowed, Some(machine))?;
        self.leaves_codexes_alone(machine, called)?;
        self.met(called, "private rotation killed");
        let Some((folder, lock)) = folder else {
            return Ok(());
        };
        let home = Home::new(&folder.join("home")).expect("a home");
        let id = self.start_codex(machine, job, home, Some((folder, lock)));
        self.spend(machine, id);
        Ok(())
    }

    /// The Codex of a rotation ends. Its supervisor persists the result. If the supervisor was
    /// killed, the next job of the machine finds it.
    fn end_a_rotation(&mut self, machine: usize, id: i32) -> Result<(), String> {
        let codex = self.machine_mut(machine).end_codex(id).expect("found");
        let (folder, lock) = codex.rotation.expect("a rotation");
        if self.random.one_in(2) {
            self.note(
                "private rotation left",
                format!("machine {machine}: codex {id} and its supervisor end"),
            );
            return Ok(());
        }
        let kill = self.kill();
        let before = self.locations();
        let allowed = self.allowed_change(machine, false);
        let job = codex.job;
        let called = self.call(machine, |world, it| {
            world.finish_rotation(it, job, &folder, kill)
        });
        drop(lock);
        self.note(
            "private rotation persists",
            format!("machine {machine}: the rotation of codex {id} persists, {called:?}"),
        );
        self.judge(&before, allowed, Some(machine))?;
        self.leaves_codexes_alone(machine, called)?;
        if called == CallResult::InUse {
            return self.fail("the private home is in use");
        }
        Ok(())
    }

    fn start_codex(
        &mut self,
        machine: usize,
        job: u32,
        home: Home,
        rotation: Option<(PathBuf, File)>,
    ) -> i32 {
        let it = self.machine_mut(machine);
        let id = it.processes.start_codex(home.dir(), job);
        it.codexes.push(Codex {
            id,
            job,
            home,
            in_flight: None,
            is_idle: false,
            rotation,
        });
        id
    }

    fn codex(&self, machine: usize, id: i32) -> &Codex {
        let mut codexes = self.machine(machine).codexes.iter();
        codexes.find(|it| it.id == id).expect("it lives")
    }

    fn codex_mut(&mut self, machine: usize, id: i32) -> &mut Codex {
        let mut codexes = self.machine_mut(machine).codexes.iter_mut();
        codexes.find(|it| it.id == id).expect("it lives")
    }
}
