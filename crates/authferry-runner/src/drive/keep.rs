//! What a trip leaves behind: receipts, rescues, a home that is clean again.

use std::{
    cell::RefCell,
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt,
    time::{Duration, SystemTime},
};

use authferry_codex::{Look, Unusable};
use authferry_core::copies::{Content, Place};
use authferry_core::{
    Base, Fingerprint, Keep, Outcome, Refusal, Secret, SecretStore, Seen, SetAside, Trip,
};
use tokio::time::{Instant, timeout_at};

use super::{Driver, Request, ask, others::Usage};
use crate::copies;
use crate::deadline;
use crate::rescue::{Reason, Record, SECOND_STORE_TIMEOUT};
use crate::sign::{self, Sign};
use crate::users::Owner;
use crate::{FoundCopy, Placement, Receipt, Report, Written, seen};

/// How long the store may take to say whether it has a history.
pub(crate) const HISTORY_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether the store was seen to keep a login that is replaced, at most until a deadline.
pub(crate) async fn keeps_history(store: &dyn SecretStore, deadline: Option<Instant>) -> bool {
    let end = deadline::after(HISTORY_TIMEOUT);
    let end = deadline.map_or(end, |deadline| deadline.min(end));
    let kept = timeout_at(end, store.keeps_history()).await;
    kept.unwrap_or(false)
}

impl Driver<'_, '_> {
    /// Whether what is to be kept first is in the history of the store.
    pub(super) async fn is_kept_by_the_store(&mut self, keep: &Keep) -> bool {
        match keep {
            Keep::Theirs => {
                // A request whose answer nobody awaits any more ends here.
                self.request = None;
                keeps_history(self.job.store, self.deadline).await
            }
            Keep::TheirsInRescue | Keep::Ours | Keep::Copies(_) => false,
        }
    }

    pub(super) async fn rescue(&mut self, trip: &Trip, keep: &Keep) -> bool {
        // A request whose answer nobody awaits any more ends here.
        self.request = None;
        let wanted = match keep {
            Keep::Ours => self.ours(trip),
            Keep::Theirs | Keep::TheirsInRescue => self.theirs(trip),
            Keep::Copies(copies) => self.set_aside(copies),
        };
        let mut kept = !wanted.is_empty();
        for (secret, record) in wanted {
            let limit = self.second_store_timeout();
            let done = self.job.rescue.keep(&secret, &record, limit).await;
            if done.not_in_second_store.is_some() {
                self.report.not_in_second_store = done.not_in_second_store;
            }
            match done.location {
                Ok(location) => self.report.rescued.push(location),
                Err(error) => {
                    self.report.rescue_error = Some(error);
                    kept = false;
                }
            }
        }
        kept
    }

    /// How long the second store may take. A job that was asked to end has to have its copy in
    /// the folder before it is killed: on GitHub 10 s after the first signal and 2.5 s after the
    /// second one, of which the store has had its part.
    pub(super) fn second_store_timeout(&self) -> Duration {
        let limit = match self.told {
            0 => SECOND_STORE_TIMEOUT,
            1 => Duration::from_secs(2),
            _ => Duration::from_millis(400),
        };
        limit.min(self.job.patience)
    }

    /// What of ours the store lacks: the generation that is due, and whatever was found in
    /// the file last, if that is something else.
    fn ours(&self, trip: &Trip) -> Vec<(Secret, Record)> {
        let due = trip.due().map(|generation| generation.fingerprint);
        let base = trip.base().map(|base| base.generation.fingerprint);
        let newest = due.and_then(|due| self.generations.get(&due));
        let newest = newest.map(|secret| {
            let (base, seen) = trip.descent().unzip();
            let record = Record {
                seen: seen.unwrap_or(1),
                ..self.record(Reason::NotPersisted, base)
            };
            (secret.duplicate(), record)
        });
        let last = match &self.look {
            // Nothing was read that could be worth keeping, or not all of it.
            Look::Missing
            | Look::Unusable {
                why: Unusable::Empty | Unusable::TooLarge,
                ..
            } => None,
            Look::Unusable { secret, .. } => Some(secret),
            Look::Usable { secret, generation } => {
                let known = [due, base].contains(&Some(generation.fingerprint));
                (!known).then_some(secret)
            }
        };
        // The trip took no note of it: it is older, or of another account, and what it descends
        // from nobody knows.
        let last = last.map(|secret| {
            let record = self.record(Reason::NotPersisted, None);
            (secret.duplicate(), record)
        });
        newest.into_iter().chain(last).collect()
    }

    pub(super) fn record(&self, reason: Reason, base: Option<Base>) -> Record {
        let store = self.job.store.to_string();
        Record::new(store, reason, base, self.job.writer)
    }

    /// The head that was read last, with what is known of it: what replaces it may not descend
    /// from it, so it is tried if the provider rejects that and the clocks do not speak against it.
    fn theirs(&self, trip: &Trip) -> Vec<(Secret, Record)> {
        let stored = self.stored.iter();
        stored
            .map(|stored| {
                let (held, _) = ask::held(stored);
                let theirs = held.generation.as_ref();
                let base = theirs.map(|theirs| Base::of_head(&held, theirs, trip.base()));
                let record = Record {
                    seen: 1,
                    ..self.record(Reason::Replaced, base)
                };
                (stored.secret.duplicate(), record)
            })
            .collect()
    }

    fn set_aside(&self, copies: &[SetAside]) -> Vec<(Secret, Record)> {
        copies
            .iter()
            .filter_map(|it| {
                let origins = it.origins.as_ref();
                let mut record = self.record(Reason::SetAside, origins.map(|it| it.base.clone()));
                record.seen = origins.map_or(record.seen, |it| it.seen.max(1));
                let secret = self.copies[it.copy].secret.as_ref()?;
                Some((secret.duplicate(), record))
            })
            .collect()
    }

    /// File and store belong together from here on.
    pub(super) fn get_ready(&mut self, trip: &Trip) {
        let found = if self.report.writes.is_empty() {
            Placement::Kept
        } else {
            Placement::Adopted
        };
        self.report.placement.get_or_insert(found);
        self.ready = true;
        self.note_adopted(trip);
        self.note_missing();
        self.sweep(trip);
        if self.alone.is_none() {
            // The home was just made: whoever else comes finds it in use.
            self.alone = crate::lock(self.job.home).ok().flatten();
        }
        self.write_receipt(trip);
    }

    /// Notes which copy was put into the store before the command.
    fn note_adopted(&mut self, trip: &Trip) {
        let held = trip.base().map(|base| base.generation.fingerprint);
        let adopted = self.copies.iter().find(|copy| {
            copy.fingerprint().is_some()
                && copy.fingerprint() == held
                && copy.copy.place != Place::AuthFile
        });
        if !self.report.writes.is_empty() && seen(&self.look) == Seen::Missing {
            self.report.adopted_from = adopted.map(|copy| copy.location.clone());
        }
    }

    /// Notes whether a receipt speaks of an auth file that holds no login any more.
    fn note_missing(&mut self) {
        let placed = self.report.placement == Some(Placement::Placed);
        let is_gone = |copy: &FoundCopy| {
            let copy = &copy.copy;
            let no_login = match copy.content {
                Content::Missing | Content::Unusable { .. } | Content::AccessOnly => true,
                Content::Usable(_) => false,
            };
            copy.place == Place::AuthFile && no_login && copy.origins.is_some()
        };
        self.report.may_be_spent |=
            placed && self.report.writes.is_empty() && self.copies.iter().any(is_gone);
    }

    /// Removes the unfinished rotations that were found, if what they hold is in the store or
    /// kept. What cannot be kept stays where it is, and keeps no job from beginning.
    fn sweep(&mut self, trip: &Trip) {
        for number in 0..self.copies.len() {
            let copy = &self.copies[number];
            if copy.is_to_be_swept() && (is_spent(trip, copy) || self.is_kept(number)) {
                self.report.rotation_without_end |= is_without_end(trip, copy);
                let copy = &self.copies[number];
                copy.sweep();
            }
        }
        self.copies.clear();
    }

    /// Whether a copy is kept: it was set aside, or is now.
    fn is_kept(&self, number: usize) -> bool {
        let origins = self.copies[number].copy.origins.clone();
        let copy = SetAside {
            copy: number,
            origins,
        };
        let mut copies = self.set_aside(&[copy]).into_iter();
        // What was set aside a moment ago is there already, and stays as it is.
        copies.all(|(secret, record)| self.job.rescue.keep_now(&secret, &record).is_ok())
    }

    /// Keeps up with a step of the machine, before which `due` was due.
    pub(super) fn note(&mut self, trip: &Trip, due: Option<Fingerprint>) {
        let Some(base) = trip
            .base()
            .filter(|base| self.version.as_ref() != Some(&base.version))
        else {
            return;
        };
        self.version = Some(base.version.clone());
        self.report.base = Some(base.clone());
        let fingerprint = base.generation.fingerprint;
        if due == Some(fingerprint) && self.sent == Some(fingerprint) {
            let version = base.version.clone();
            self.report.writes.push(Written {
                version,
                fingerprint,
                at: SystemTime::now(),
            });
        }
        let still_due = trip.due().map(|generation| generation.fingerprint);
        self.generations
            .retain(|fingerprint, _| Some(*fingerprint) == still_due);
        // A home that somebody has cleaned up meanwhile stays clean.
        let given_up = self.sign.as_ref().is_some_and(Sign::is_given_up);
        if self.ready && !given_up {
            self.write_receipt(trip);
        }
    }

    /// Writes the receipt of a private home, which is made for it.
    pub(super) fn receipt_before_login(&mut self, trip: &Trip) {
        let mut make = DirBuilder::new();
        // It may be there: of a first attempt at this rotation.
        make.mode(0o700).create(self.job.home.dir()).ok();
        self.write_receipt(trip);
    }

    fn write_receipt(&mut self, trip: &Trip) {
        let Some(base) = trip.base() else {
            return;
        };
        let (store, base) = (self.job.store.to_string(), base.clone());
        let began = *self.report.began.get_or_insert(base.generation.fingerprint);
        let owner = self.owner.get_or_insert_with(Owner::ours).clone();
        let receipt = Receipt::new(store, base, began, self.placed, self.lent, owner);
        self.report.receipt_error = receipt.write(self.job.home).err();
    }

    pub(super) fn finish(mut self, trip: &Trip, outcome: Outcome) -> Report {
        if outcome == Outcome::Refused(Refusal::OnlyCopies) {
            self.report.copies = copies::locations_of_logins(&self.copies);
        }
        if let (Outcome::Refused(_), Some(copy)) = (&outcome, trip.adopting()) {
            let copy = self.copies.get(copy);
            let copy = copy.filter(|copy| copy.copy.place != Place::AuthFile);
            self.report.adopted_from = copy.map(|copy| copy.location.clone());
        }
        if outcome == Outcome::Refused(Refusal::CopyElsewhere) {
            let head = self.stored.as_ref().map(|stored| ask::held(stored).0);
            self.report.copies = copies::locations_elsewhere(&self.copies, head.as_ref());
        }
        match &outcome {
            Outcome::Restored if self.settling => {
                self.note_adopted(trip);
                self.sweep(trip);
            }
            Outcome::Restored => self.get_ready(trip),
            // A Codex runs on, and may still write here.
            _ if self.report.left_running > 0 => self.write_receipt(trip),
            // No word of it reaches a person: the next job finds that nothing came.
            Outcome::Unchanged if self.is_private && self.refresher.is_none() => {}
            Outcome::Unchanged
            | Outcome::Persisted { .. }
            // Ours is safe elsewhere.
            | Outcome::Superseded { rescued: true, .. } => {
                self.clean_up(self.placed && !self.job.nested);
            }
            // What is left here is the only copy, or the next restore can settle it.
            Outcome::Superseded { rescued: false, .. }
            | Outcome::Stranded { .. }
            | Outcome::Unsettled
            | Outcome::Refused(_) => {}
        }
        self.report.doubtful |= matches!(self.request, Some(Request::Store { swap: true, .. }));
        self.report.base = trip.base().cloned();
        self.report.outcome = outcome;
        self.report
    }

    /// What is in the file after all, if that changed since the last look and the trip was
    /// about to end well.
    pub(super) fn changed_after_all(&mut self, outcome: &Outcome) -> Option<Seen> {
        let well = matches!(
            outcome,
            Outcome::Unchanged | Outcome::Persisted { .. } | Outcome::Unsettled
        );
        if self.lent || !well {
            return None;
        }
        let look = match self.take_look() {
            Ok(look @ Look::Usable { .. }) => look,
            Ok(Look::Missing | Look::Unusable { .. }) | Err(_) => self.glimpse.take()?,
        };
        let now = seen(&look);
        let changed = now != seen(&self.look);
        changed.then(|| {
            self.remember(look);
            now
        })
    }

    /// Removes the auth file if it has not changed since the last read and no process uses it, then
    /// its receipt.
    fn clean_up(&mut self, auth_file: bool) {
        let is_still = |look: &Look| {
            let same = seen(look) == seen(&self.look);
            // A login that came in the place of a file that was lent is none of ours.
            same && (!self.lent || !matches!(look, Look::Usable { .. }))
        };
        if !self.job.home.look().is_ok_and(|look| is_still(&look)) {
            // Somebody is at work here: what they leave behind is judged by the next restore,
            // which needs the receipt for that.
            self.report.busy = auth_file;
            return;
        }
        // As long as the file stays, its receipt says what it descends from. A login that
        // is reported as in use stays even if its process has just ended: the watch persists it.
        if !auth_file || self.report.in_use.is_some() {
            return;
        }
        let usage = self.usage();
        if usage != Usage::Nobody {
            self.note_usage(usage);
            return;
        }
        // A Codex that read the file before the rename is visible by now.
        let usage = RefCell::new(Usage::Nobody);
        let may_go = |look: &Look| {
            is_still(look) && {
                let now = self.usage();
                usage.replace(now);
                *usage.borrow() == Usage::Nobody
            }
        };
        match self.job.home.remove(may_go) {
            Ok(false) => match usage.into_inner() {
                Usage::Nobody => self.report.busy = true,
                usage @ (Usage::By(_) | Usage::Unseen) => self.note_usage(usage),
            },
            Ok(true) => {
                Receipt::remove(self.job.home).ok();
                sign::remove_log(self.job.home);
            }
            Err(unfit) => self.report.unfit = Some(unfit),
        }
    }
}

/// Whether nothing came of the rotation of the login that the store holds.
fn is_without_end(trip: &Trip, copy: &FoundCopy) -> bool {
    let before = copy.copy.origins.as_ref();
    let before = before.map(|origins| origins.base.generation.fingerprint);
    let base = trip.base().map(|base| base.generation.fingerprint);
    base.is_some() && copy.fingerprint() == base && before == base
}

/// Whether a login is in the store, or was: nothing came of its rotation, or what did is there.
fn is_spent(trip: &Trip, copy: &FoundCopy) -> bool {
    let origins = copy.copy.origins.as_ref();
    let nothing_came = origins.is_some_and(|origins| {
        let identity = copy.copy.generation().map(|login| &login.identity);
        let theirs = trip.base().map(|base| &base.generation.identity);
        let is_same = identity
            .zip(theirs)
            .is_some_and(|(ours, theirs)| !ours.contradicts(theirs));
        copy.fingerprint() == Some(origins.base.generation.fingerprint) && is_same
    });
    nothing_came || trip.base().is_some_and(|base| copy.is_in_line(base))
}
