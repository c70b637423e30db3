//! The invariants that hold after each step.

use std::collections::BTreeSet;

use crate::machine::Machine;
use crate::story::Story;
use crate::world::CallResult;

/// The change that a step may make to the login in the store.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum AllowedChange {
    /// Only a later login of the same family may replace it.
    Descendant,
    /// Any login of any family may replace it, but no ancestor whose age the provider's time shows.
    NotOlder,
    /// Any change.
    Any,
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
    /// What a call on this machine may do; ask before the call. Suppose a file came into the home
    /// after the login was placed. Then Codex's refresh of that file looks like a rotation of the
    /// placed login: during the job, because the watch runs during any call, and afterwards if the
    /// tokens have no session claims.
    pub(crate) fn allowed_change(&mut self, machine: usize, during_the_job: bool) -> AllowedChange {
        if !self.disturbed.contains(&machine) {
            return AllowedChange::Descendant;
        }
        let during_the_job = during_the_job || self.machine(machine).has_a_watch();
        if during_the_job {
            let here = self.machine(machine).logins();
            self.mislabelled.extend(here);
        }
        if during_the_job || self.opaque {
            AllowedChange::NotOlder
        } else {
            AllowedChange::Descendant
        }
    }

    /// Where each login is: in the store and its folder, or on a machine.
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

    /// The logins that are elsewhere than in the auth file of a machine.
    pub(crate) fn elsewhere(&self, machine: usize) -> BTreeSet<usize> {
        let others = self.machines.iter().enumerate();
        let others = others.filter(|(number, _)| *number != machine);
        let others = others
            .filter_map(|(_, it)| it.as_ref())
            .flat_map(Machine::logins);
        self.world.logins().into_iter().chain(others).collect()
    }

    /// Whether a login of the same family that is no ancestor replaced `old`.
    pub(crate) fn is_fork(&self, old: usize, new: Option<usize>) -> bool {
        new.is_some_and(|new| {
            new != old
                && self.provider.family(old) == self.provider.family(new)
                && !self.provider.is_ancestor(new, old)
        })
    }

    /// Checks the invariants after a step of authferry, on this machine if the step has one.
    pub(crate) fn judge(
        &mut self,
        before: &Locations,
        allowed: AllowedChange,
        machine: Option<usize>,
    ) -> Result<(), String> {
        let now = self.locations();
        // With a lenient provider two jobs can rotate one login. If the file of one job comes into
        // the home of the other, it is later in the family, and the login that it replaces may be
        // live too. The next begin has the same problem, because the session claims are equal.
        // Whether another home still has the replaced login is chance.
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
        if old == new || allowed == AllowedChange::Any {
            return Ok(());
        }
        // Without a provider's time, authferry cannot see that a file is old. The head is kept
        // then, which the loop above has checked.
        let unclear = allowed == AllowedChange::NotOlder && self.opaque;
        if !unclear && self.provider.is_ancestor(new, old) {
            return self.fail(&format!("{new} is older than {old}, which it replaced"));
        }
        let families = (self.provider.family(new), self.provider.family(old));
        if families.0 == families.1 {
            return Ok(());
        }
        // A record says the same of a login that was kept with the lineage of that job, when a
        // later job of the machine adopts it.
        if allowed == AllowedChange::NotOlder || self.mislabelled.contains(&new) {
            // The stamp puts it into the family of the login that it replaced.
            self.joined.insert(families);
            self.joined.insert((families.1, families.0));
        }
        // The job of another machine relies on that stamp.
        if allowed == AllowedChange::Descendant && !self.joined.contains(&families) {
            return self.fail(&format!("{new} is of another family than {old}"));
        }
        Ok(())
    }

    /// Checks that a call did not change the file of a Codex that has spent its login: such a Codex
    /// would discard its new login. A killed call may have renamed the file aside.
    pub(crate) fn leaves_codexes_alone(
        &self,
        machine: usize,
        called: CallResult,
    ) -> Result<(), String> {
        for codex in &self.machine(machine).codexes {
            let Some(flight) = codex.in_flight else {
                continue;
            };
            let found = crate::machine::login_in(&codex.home);
            let is_aside = called == CallResult::Killed && found.is_none();
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

    /// Checks the login that a job begins with: if the clocks are right, no live descendant of it
    /// was on this machine or in the store.
    pub(crate) fn placed(&self, machine: usize, before: &Locations) -> Result<(), String> {
        let Some(placed) = self.machine(machine).auth_file() else {
            return self.fail("a restore that is done has placed nothing");
        };
        if self.world.stored() != Some(placed) {
            return self.fail(&format!(
                "{placed} is placed, and the store holds another login"
            ));
        }
        // Neither stamp nor receipt shows that this head and the file are of one family. The file
        // was set aside and is tried next. SECURITY.md names this case.
        if self.behind.contains(&machine) && self.unstamped == Some(placed) {
            return Ok(());
        }
        let is_known = |it: &&usize| !self.mislabelled.contains(it);
        // No login is known to be later than a head with another job's lineage.
        let here = before.here.iter().filter(|_| is_known(&&placed));
        let found = here.filter(is_known).chain(&before.stored).copied();
        let mut found = found.filter(|it| self.provider.is_live(*it));
        let better = found.find(|it| self.provider.is_ancestor(placed, *it));
        match better {
            Some(better) if !self.opaque => self.fail(&format!(
                "{placed} is placed, although the later {better} existed"
            )),
            _ => Ok(()),
        }
    }
}
