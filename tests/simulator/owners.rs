//! Watches, second owners of a home, and machines that are started anew.

use std::time::Duration;

use crate::machine::Machine;
use crate::story::{Session, Story};
use crate::world::Called;

impl Story {
    /// A command leaves a watch.
    pub(crate) fn leave_a_watch(&mut self, machine: usize, job: u32) -> Result<(), String> {
        let by = self.may(machine, true);
        let before = self.locations();
        self.call(machine, |world, it| world.leave_a_watch(it, job));
        if self.machine(machine).has_a_watch() {
            self.note(
                "watch stays",
                format!("job {job}: a watch on machine {machine}"),
            );
        }
        self.judge(&before, by, Some(machine))?;
        self.leaves_codexes_alone(machine, Called::Done)
    }

    /// A watch that stays persists what it sees, or is killed. It ends a minute after its job.
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
        let by = self.may(machine, true);
        let seconds = [1, 1, 120][self.random.below(3)];
        let job = self.new_job();
        let before = self.locations();
        let time = Duration::from_secs(seconds);
        self.call(machine, |world, it| world.let_the_watch_work(it, job, time));
        self.note(
            "watch goes on",
            format!("the watch on machine {machine} goes on for {seconds} s"),
        );
        if self.world.stored() != before.stored {
            self.met_one("watch persists");
        }
        if !self.machine(machine).has_a_watch() {
            self.met_one("watch ends after its job");
        }
        self.judge(&before, by, Some(machine))?;
        self.leaves_codexes_alone(machine, Called::Done)
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
        let is_refused = matches!(called, Called::Owned | Called::Killed);
        if is_owned && !is_refused {
            return self.fail("a second job has the home of one that goes on");
        }
        Ok(())
    }

    /// A machine that stays is started anew, in the middle of whatever was under way there.
    pub(crate) fn reset_a_machine(&mut self) {
        let machine = self.random.below(2);
        self.sessions.retain(|it| it.machine != machine);
        self.machine_mut(machine).reset();
        self.behind.insert(machine);
        self.note(
            "machine reset",
            format!("machine {machine} is started anew"),
        );
    }
}
