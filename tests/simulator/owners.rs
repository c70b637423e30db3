//! Watches, second owners of a home, and restarts of machines.

use std::time::Duration;

use crate::machine::Machine;
use crate::story::{Session, Story};
use crate::world::CallResult;

impl Story {
    /// A command starts a background watch.
    pub(crate) fn leave_a_watch(&mut self, machine: usize, job: u32) -> Result<(), String> {
        let allowed = self.allowed_change(machine, true);
        let before = self.locations();
        self.call(machine, |world, it| world.leave_a_watch(it, job));
        if self.machine(machine).has_a_watch() {
            self.note(
                "watch stays",
                format!("job {job}: a watch on machine {machine}"),
            );
        }
        self.judge(&before, allowed, Some(machine))?;
        self.leaves_codexes_alone(machine, CallResult::Done)
    }

    /// A background watch persists the changes that it sees, or is killed. It ends a minute after
    /// its job.
    pub(crate) fn watch_goes_on(&mut self) -> Result<(), String> {
        let watched: Vec<usize> = (0..self.machines.len())
            .filter(|it| {
                self.machines[*it]
                    .as_ref()
                    .is_some_and(Machine::has_a_watch)
            })
            .collect();
        if watched.is_empty() {
            return Ok(());
        }
        let machine = watched[self.random.below(watched.len())];
        if self.random.one_in(5) {
            self.machine_mut(machine).kill_the_watch();
            self.behind.insert(machine);
            self.note(
                "watch killed",
                format!("the watch on machine {machine} is killed"),
            );
            return Ok(());
        }
        let allowed = self.allowed_change(machine, true);
        let seconds = [1, 1, 120][self.random.below(3)];
        let job = self.new_job();
        let before = self.locations();
        let time = Duration::from_secs(seconds);
        self.call(machine, |world, it| world.let_the_watch_work(it, job, time));
        self.note(
            "watch runs",
            format!("the watch on machine {machine} runs for {seconds} s"),
        );
        if self.world.stored() != before.stored {
            self.met_one("watch persists");
        }
        if !self.machine(machine).has_a_watch() {
            self.met_one("watch ends after its job");
        }
        self.judge(&before, allowed, Some(machine))?;
        self.leaves_codexes_alone(machine, CallResult::Done)
    }

    /// A second job begins in a home whose job still runs, or the same job begins again.
    pub(crate) fn second_owner(&mut self) -> Result<(), String> {
        let Some(index) = self.session() else {
            return Ok(());
        };
        let Session { machine, job, .. } = self.sessions[index];
        if self.random.one_in(3) {
            self.restore(machine, job, "nested restore")?;
            return Ok(());
        }
        // Without a receipt, the owner of the home is unknown.
        let is_owned = self.machine(machine).has_receipt();
        let other = self.new_job();
        self.machine(machine).processes.begin_job(other);
        let called = if self.random.one_in(2) {
            self.restore(machine, other, "second owner")?
        } else {
            self.persist_as(machine, other, "second owner persists")?
        };
        self.machine(machine).processes.end_job(other);
        let is_refused = matches!(called, CallResult::Owned | CallResult::Killed);
        if is_owned && !is_refused {
            return self.fail("a second job took the home of a running job");
        }
        Ok(())
    }

    /// A persistent machine restarts in the middle of its work.
    pub(crate) fn restart_a_machine(&mut self) {
        let machine = self.random.below(2);
        self.sessions.retain(|it| it.machine != machine);
        self.machine_mut(machine).reset();
        self.behind.insert(machine);
        self.note("machine restart", format!("machine {machine} restarts"));
    }
}
