//! What must hold after each step.

use std::collections::BTreeSet;

use crate::machine::Machine;
use crate::story::Story;
use crate::world::Called;

/// What a step may do to the login in the store.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// Only what is later in its family may take its place.
    Authferry,
    /// Anything of any family, but no ancestor where a provider's time shows it.
    Anybody,
    /// Anything.
    Person,
}

/// Where the logins are.
pub(crate) struct Locations {
    pub(crate) stored: Option<usize>,
    /// Everywhere: in the store's folder, on a disk, and in flight.
    pub(crate) all: BTreeSet<usize>,
    /// Those on the machine where a job begins.
    pub(crate) here: BTreeSet<usize>,
}

impl Story {
    /// What a call on this machine may do; to be asked before it. What Codex makes of a file that came
    /// into the home since the login was placed cannot be distinguished from a rotation of that login: while the
    /// job goes on at all, by the watch that goes on during any call, and later where the tokens carry
    /// no marks of their session.
    pub(crate) fn may(&mut self, machine: usize, during_the_job: bool) -> By {
        if !self.disturbed.contains(&machine) {
            return By::Authferry;
        }
        let during_the_job = during_the_job || self.machine(machine).has_a_watch();
        if during_the_job {
            let here = self.machine(machine).logins();
            self.mislabelled.extend(here);
        }
        if during_the_job || self.opaque {
            By::Anybody
        } else {
            By::Authferry
        }
    }

    /// Where each login is: in the store (and its folder), or on a machine.
    pub(crate) fn locations(&self) -> Locations {
        let machines = self.machines.iter().flatten();
        let in_flight = machines.clone().flat_map(Machine::in_flight);
        let on_disks = machines.flat_map(Machine::logins).chain(in_flight);
        Locations {
            stored: self.world.stored(),
            all: self.world.logins().into_iter().chain(on_disks).collect(),
            here: BTreeSet::new(),
        }
    }

    /// The logins that are anywhere but in the auth file of a machine.
    pub(crate) fn elsewhere(&self, machine: usize) -> BTreeSet<usize> {
        let others = self.machines.iter().enumerate();
        let others = others.filter(|(number, _)| *number != machine);
        let others = others
            .filter_map(|(_, it)| it.as_ref())
            .flat_map(Machine::logins);
        self.world.logins().into_iter().chain(others).collect()
    }

    /// Whether a login of the same family that is no ancestor of it took its place.
    pub(crate) fn is_fork(&self, old: usize, new: Option<usize>) -> bool {
        new.is_some_and(|new| {
            new != old
                && self.provider.family(old) == self.provider.family(new)
                && !self.provider.is_ancestor(new, old)
        })
    }

    /// What must hold after a step of authferry, on this machine if it is one's.
    pub(crate) fn judge(
        &mut self,
        before: &Locations,
        by: By,
        machine: Option<usize>,
    ) -> Result<(), String> {
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
        // A record says the same of a login that was kept with the lineage of that job, when a later
        // job of the machine adopts it.
        if by == By::Anybody || self.mislabelled.contains(&new) {
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

    /// A call did not change the file of a Codex that has spent its login: such a Codex would drop
    /// what it got. A call that was killed may have renamed the file aside.
    pub(crate) fn leaves_codexes_alone(
        &self,
        machine: usize,
        called: Called,
    ) -> Result<(), String> {
        for codex in &self.machine(machine).codexes {
            let Some(flight) = codex.in_flight else {
                continue;
            };
            let found = crate::machine::login_in(&codex.home);
            let is_aside = called == Called::Killed && found.is_none();
            if found != Some(flight.spent) && !is_aside {
                let why = format!(
                    "a Codex has spent {}, and {found:?} is in its file",
                    flight.spent
                );
                return self.fail(&why);
            }
        }
        Ok(())
    }

    /// What must hold of the login that a job begins with: where the clocks are clear, no live
    /// one of its family was on this machine or in the store that descends from it.
    pub(crate) fn placed(&self, machine: usize, before: &Locations) -> Result<(), String> {
        let Some(placed) = self.machine(machine).auth_file() else {
            return self.fail("a restore that is done has placed nothing");
        };
        if self.world.stored() != Some(placed) {
            return self.fail(&format!("{placed} is placed, and not what the store holds"));
        }
        // Neither stamp nor receipt shows that this head is of the family of the file: that was set
        // aside, and is tried next. SECURITY.md names it.
        if self.behind.contains(&machine) && self.unstamped == Some(placed) {
            return Ok(());
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
}
