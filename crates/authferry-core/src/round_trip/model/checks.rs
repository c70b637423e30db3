//! The properties of each write, of each placed file, of the command's start, and of each outcome.

use super::Plan;
use super::logins;
use super::machines::{CopyKey, Machines, SmallOutcome, SmallSeen, SmallWrite, StartNumber};
use super::world::{Entry, File, Job, World};
use crate::copies::Place;
use crate::order::Order;
use crate::{Cause, Policy, Refusal};

impl World {
    fn demand(&mut self, holds: bool, otherwise: &'static str) {
        if !holds && self.broken.is_none() {
            self.broken = Some(otherwise);
        }
    }

    /// Whether a generation is on some machine: in a file, a record or a private home.
    fn is_on_a_machine(&self, login: u8) -> bool {
        self.homes.iter().any(|home| {
            home.file == File::Login(login)
                || home.records.iter().any(|it| it.login == login)
                || home.rotation.is_some_and(|(it, _)| it == login)
        })
    }

    /// Whether a generation is on the machine of a job or in any rescue folder. Another machine may
    /// be gone together with its auth file.
    fn is_kept(&self, login: u8, job: u8) -> bool {
        self.homes.iter().any(|home| {
            let is_own = home.number == job / 10;
            is_own && home.file == File::Login(login)
                || home.records.iter().any(|it| it.login == login)
                || is_own && home.rotation.is_some_and(|(it, _)| it == login)
        })
    }

    fn was_stored(&self, login: u8) -> bool {
        self.entries.iter().any(|it| it.login == Some(login))
    }

    /// Whether this copy of a generation can be dropped: the generation exists elsewhere, or its
    /// refresh token is spent. Its replacement in the store was checked at that write.
    pub(super) fn can_be_had(&self, login: u8) -> bool {
        self.logins.is_spent(login) || self.was_stored(login) || self.is_on_a_machine(login)
    }

    /// Checks a swap that lands.
    pub(super) fn check_write(
        &mut self,
        put: SmallWrite,
        start: StartNumber,
        begins: bool,
        job: Option<&Job>,
        plan: &Plan,
        machines: &Machines,
    ) {
        let replaced: Entry = self.current();
        let new = put.login;
        let Some(old) = replaced.login else {
            self.demand(false, "an emptied store was filled again");
            return;
        };
        let began = machines.started(start);
        let refused = |login: u8| began.refused & (1 << login) != 0;
        let landed = self.entries.iter().any(|it| it.by == Some(put.id));
        self.demand(!landed, "one intent landed twice");
        if let Some(job) = job {
            let own = replaced.by.is_some_and(|(nonce, _)| nonce == put.id.0);
            let seen = own || began.resumes.is_some() || job.read >= Some(put.expected);
            self.demand(seen, "a swap over a version that was never seen");
            let line = machines
                .facts(job.round_trip)
                .base
                .map(|it| machines.base(it.base));
            let fingerprint = logins::fingerprint(new);
            let ancestor = line.is_some_and(|it| it.ancestors.contains(&fingerprint));
            self.demand(!ancestor, "a known ancestor was swapped in");
        }
        // Another family.
        let same_person = self.logins.person(new) == self.logins.person(old);
        self.demand(same_person, "another person's login was swapped in");
        let is_copy = |it: &CopyKey| matches!(it.look, SmallSeen::Login(it) if it.number == new);
        let next = begins && refused(old) && began.copies.iter().any(is_copy);
        let same_family = self.logins.family(new) == self.logins.family(old);
        self.demand(
            same_family || next,
            "the head was replaced by another family",
        );
        let same_stamp = replaced.family.is_none_or(|it| it == put.family);
        self.demand(same_stamp || next, "a family was stamped as another one");
        self.demand(
            !refused(new),
            "a generation that the provider refused was swapped in",
        );
        // The replaced login.
        let descends = self.logins.descends(new, old);
        // Beyond 300 s authferry trusts the provider's clock, and with it the receipt of a home.
        let order = self.logins.by_times(new, old);
        let is_older = same_family && new < old;
        let lie = plan.clocks_lie && is_older && order == Order::Later;
        let names = |it: &CopyKey| {
            let base = it.known.map(|it| machines.base(it.base));
            base.is_some_and(|base| base.generation.fingerprint == logins::fingerprint(old))
        };
        let receipt = begins && order == Order::Later && began.copies.iter().any(names);
        let kept = plan.history || descends || self.is_kept(old, put.id.0);
        self.demand(
            kept || lie || (receipt && same_family),
            "the head was replaced and exists nowhere else",
        );
        // Older over newer. If the order is unclear, the head was backed up first. For two
        // rotations of one generation the provider's clock decides.
        if is_older && !next {
            let fork = !self.logins.descends(old, new) && order == Order::Later;
            let unclear = order == Order::Unclear;
            self.demand(
                unclear || fork || lie,
                "an older generation replaced a newer one",
            );
        }
        if plan.policy == Policy::Theirs && !begins {
            let own = replaced.by.is_some_and(|(nonce, _)| nonce == put.id.0);
            self.demand(own || descends, "the policy keeps theirs");
        }
    }

    /// Checks a login that is placed.
    pub(super) fn check_place(&mut self, at: usize, login: u8) {
        let old = self.homes[at].file;
        self.homes[at].file = File::Login(login);
        if let File::Login(old) = old {
            let safe = self.can_be_had(old);
            self.demand(
                safe,
                "a login that is nowhere else was replaced in the home",
            );
        }
        self.homes[at].file = old;
    }

    /// Checks a login that is removed from the home.
    pub(super) fn check_removed(&mut self, login: u8) {
        let safe = self.can_be_had(login);
        self.demand(safe, "a login that is nowhere else was removed");
    }

    /// Checks the start of the command: no token is spent before the live copy on this machine is
    /// used.
    pub(super) fn check_run(&mut self, at: usize, machines: &Machines) {
        let Some(job) = self.homes[at].job.as_ref() else {
            return;
        };
        let facts = machines.facts(job.round_trip);
        let began = machines.started(job.start);
        let Some(base) = facts.base.map(|it| machines.base(it.base)) else {
            self.demand(false, "the command runs without a login");
            return;
        };
        let head = logins::number(base.generation.fingerprint);
        let placed = match self.homes[at].file {
            // A foreign Codex may have written since the last read.
            File::Login(file) => file == head || self.logins.descends(file, head),
            File::Missing | File::Torn => false,
        };
        self.demand(placed, "the command runs with another login than the head");
        for copy in &began.copies {
            let (SmallSeen::Login(ours), Some(known)) = (copy.look, copy.known) else {
                continue;
            };
            let ours = ours.number;
            let refused = began.refused & (1 << ours) != 0;
            let of = machines.base(known.base);
            let print = base.generation.fingerprint;
            let same = of.family == base.family
                || of.generation.fingerprint == print
                || of.ancestors.contains(&print);
            let later = same && self.logins.descends(ours, head);
            let counted = machines.base(known.base).count + u64::from(known.seen);
            // By the clock and by the count, where known.
            let clear = self.logins.by_times(ours, head) == Order::Later && base.count <= counted;
            let named =
                machines.base(known.base).generation.fingerprint == logins::fingerprint(head);
            let after = named
                && copy.place == Place::AuthFile
                && !base.ancestors.contains(&logins::fingerprint(ours))
                && self.logins.by_times(ours, head) == Order::Unclear;
            if later && !refused {
                self.demand(!clear, "a later copy of the family was not used first");
                self.demand(!after, "a file written after the head was not used first");
                let kept = self.can_be_had(ours);
                self.demand(kept, "a later copy was dropped");
            }
        }
    }

    /// Checks the outcome of a round trip.
    pub(super) fn check_end(
        &mut self,
        at: usize,
        end: SmallOutcome,
        plan: &Plan,
        machines: &Machines,
    ) {
        let home = &self.homes[at];
        let Some(job) = home.job.clone() else {
            return;
        };
        // An orphaned or foreign Codex may have written since the last read.
        let file = if job.phase == super::world::Phase::Exited {
            job.last_seen
        } else {
            home.file
        };
        let facts = machines.facts(job.round_trip);
        let shown = job.read.map(|it| self.entries[usize::from(it)]);
        let recorded = |world: &World, login: u8| {
            let records = &world.homes[at].records;
            records.iter().any(|it| it.login == login)
        };
        match end {
            SmallOutcome::Refused(why) => {
                self.demand(!job.rotated, "refused after a rotation");
                let head = shown.and_then(|it| it.login);
                let receipt = self.homes[at].receipt.map(|it| machines.base(it));
                let earned = match (why, file, head) {
                    (Refusal::OtherAccount, File::Login(file), Some(head)) => {
                        self.logins.person(file) != self.logins.person(head)
                    }
                    (Refusal::UnknownFamily, File::Login(file), Some(_)) => {
                        receipt.is_none_or(|base| {
                            let number = logins::number(base.generation.fingerprint);
                            self.logins.family(number) != self.logins.family(file)
                        })
                    }
                    (Refusal::UnusableFile, file, Some(_)) => {
                        file == File::Torn && receipt.is_none()
                    }
                    // No copy in the model names another address.
                    (
                        Refusal::OtherAccount
                        | Refusal::UnknownFamily
                        | Refusal::UnusableFile
                        | Refusal::CopyElsewhere,
                        _,
                        _,
                    ) => false,
                    (Refusal::OnlyCopies | Refusal::NothingStored, _, head) => head.is_none(),
                    (
                        Refusal::UnusableStored
                        | Refusal::Unreadable
                        | Refusal::Unwritable
                        | Refusal::OutOfTime
                        | Refusal::NotPlaced
                        | Refusal::ConcurrentWrite
                        | Refusal::NotKept,
                        _,
                        _,
                    ) => true,
                };
                self.demand(earned, "refused without a reason");
            }
            SmallOutcome::Restored => self.demand(plan.is_split, "restored is not the goal"),
            SmallOutcome::Unchanged => {
                self.demand(!job.rotated, "a rotation was overlooked");
                self.demand(!job.left, "reported unchanged while a Codex may write");
            }
            SmallOutcome::Unsettled => {
                self.demand(
                    job.left,
                    "reported unsettled, but all processes have exited",
                );
                let stored = facts.newest.is_none_or(|it| self.was_stored(it));
                self.demand(stored, "what was seen is not in the store");
            }
            SmallOutcome::Persisted(overwritten) => {
                self.demand(!job.left, "reported persisted while a Codex may write");
                let stored = facts.newest.is_none_or(|it| self.was_stored(it));
                self.demand(stored, "reported persisted, but it is not");
                if let File::Login(file) = file {
                    let safe = self.was_stored(file) || self.logins.is_spent(file);
                    self.demand(safe, "reported persisted, but the file is not");
                }
                let kept = |it: u8| plan.history || recorded(self, it);
                let all = self.logins.all().filter(|it| overwritten & (1 << it) != 0);
                let kept = all.into_iter().all(kept);
                self.demand(kept, "reported a backup, but there is none");
            }
            SmallOutcome::Superseded(by, rescued) => {
                let theirs = shown.filter(|it| it.login == Some(by));
                self.demand(theirs.is_some(), "superseded by what was never read");
                let line = facts.base.map(|it| machines.base(it.base).family);
                let same = theirs
                    .and_then(|it| it.family)
                    .is_none_or(|it| line.is_some_and(|line| line.0 == logins::fingerprint(it)));
                let known = job.seen_on_disk & (1 << by) != 0;
                self.demand(!(same && known), "a false alarm");
                self.check_rescue(at, file, rescued, &job);
            }
            SmallOutcome::NotPersisted(Cause::Missing, _) => {
                self.demand(file == File::Missing, "reported missing, but it is not");
            }
            SmallOutcome::NotPersisted(_, rescued) => self.check_rescue(at, file, rescued, &job),
        }
    }

    /// Checks that the outcome reports the rescue correctly.
    fn check_rescue(&mut self, at: usize, file: File, rescued: bool, job: &Job) {
        let records = &self.homes[at].records;
        let kept = match file {
            File::Login(file) => records.iter().any(|it| it.login == file),
            File::Torn | File::Missing => true,
        };
        self.demand(!rescued || kept, "reported rescued, but it is not");
        self.demand(
            rescued || job.keep_failed,
            "rescued, but reported as not rescued",
        );
    }

    /// Checks the final state: every live login still exists.
    pub(super) fn check_over(&mut self) {
        if self.excused {
            return;
        }
        let lost = self.logins.all().any(|it| !self.can_be_had(it));
        self.demand(!lost, "a login is lost");
    }
}
