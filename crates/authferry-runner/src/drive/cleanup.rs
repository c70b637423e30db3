//! What a round trip leaves behind: receipts, rescues, and a home without the login.

use std::{
    cell::RefCell,
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt,
    time::{Duration, SystemTime},
};

use authferry_codex::{AuthFileError, Look};
use authferry_core::copies::{Content, Place};
use authferry_core::{
    Base, Fingerprint, Keep, Outcome, Refusal, RoundTrip, Secret, SecretStore, Seen, SetAside,
};
use tokio::time::{Instant, timeout_at};

use super::{PendingRequest, RoundTripDriver, other_users::Usage, store_io};
use crate::copies;
use crate::deadline;
use crate::rescue::{Reason, Record, SECOND_STORE_TIMEOUT};
use crate::users::Owner;
use crate::watch_marker::{self, WatchMarker};
use crate::{FoundCopy, Placement, Receipt, Report, Written, seen};

/// The timeout for asking the store whether it keeps a history.
pub(crate) const HISTORY_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether the store is known to keep the history of an overwritten login. Answers `false` at the
/// deadline.
pub(crate) async fn keeps_history(store: &dyn SecretStore, deadline: Option<Instant>) -> bool {
    let end = deadline::after(HISTORY_TIMEOUT);
    let end = deadline.map_or(end, |deadline| deadline.min(end));
    let kept = timeout_at(end, store.keeps_history()).await;
    kept.unwrap_or(false)
}

impl RoundTripDriver<'_, '_> {
    /// Whether the store's history already keeps the login that is to be kept first.
    pub(super) async fn is_in_store_history(&mut self, keep: &Keep) -> bool {
        match keep {
            Keep::Theirs => {
                // Cancel a pending request: its result is no longer needed.
                self.request = None;
                keeps_history(self.job.store, self.deadline).await
            }
            Keep::TheirsInRescue | Keep::Ours | Keep::Copies(_) => false,
        }
    }

    pub(super) async fn rescue(&mut self, round_trip: &RoundTrip, keep: &Keep) -> bool {
        // Cancel a pending request: its result is no longer needed.
        self.request = None;
        let wanted = match keep {
            Keep::Ours => self.unsaved_logins(round_trip),
            Keep::Theirs | Keep::TheirsInRescue => self.stored_login(round_trip),
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

    /// The timeout of the second store. After an end signal the copy must be in the folder before
    /// the job is killed: on GitHub 10 s after the first signal and 2.5 s after the second one. The
    /// store has used part of that time.
    pub(super) fn second_store_timeout(&self) -> Duration {
        let limit = match self.signals_received {
            0 => SECOND_STORE_TIMEOUT,
            1 => Duration::from_secs(2),
            _ => Duration::from_millis(400),
        };
        limit.min(self.job.store_timeout)
    }

    /// The logins that the store does not hold: the generation that is due, and the content of the
    /// last read, if that differs.
    fn unsaved_logins(&self, round_trip: &RoundTrip) -> Vec<(Secret, Record)> {
        let due = round_trip.due().map(|generation| generation.fingerprint);
        let base = round_trip.base().map(|base| base.generation.fingerprint);
        let newest = due.and_then(|due| self.generations.get(&due));
        let newest = newest.map(|secret| {
            let (base, seen) = round_trip.descent().unzip();
            let record = Record {
                seen: seen.unwrap_or(1),
                ..self.record(Reason::NotPersisted, base)
            };
            (secret.duplicate(), record)
        });
        let last = match &self.look {
            // The read was empty or incomplete: nothing is worth keeping.
            Look::Missing
            | Look::Unusable {
                why: AuthFileError::Empty | AuthFileError::TooLarge,
                ..
            } => None,
            Look::Unusable { secret, .. } => Some(secret),
            Look::Usable { secret, generation } => {
                let known = [due, base].contains(&Some(generation.fingerprint));
                (!known).then_some(secret)
            }
        };
        // The state machine has ignored this login: it is older, or belongs to another account, and
        // its base is unknown.
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

    /// The head of the last read, with its record. The login that overwrites this head may not
    /// descend from it. So a later rotation tries the head again if the provider rejects that login
    /// and the issue times allow it.
    fn stored_login(&self, round_trip: &RoundTrip) -> Vec<(Secret, Record)> {
        let stored = self.stored.iter();
        stored
            .map(|stored| {
                let (held, _) = store_io::held(stored);
                let theirs = held.generation.as_ref();
                let base = theirs.map(|theirs| Base::of_head(&held, theirs, round_trip.base()));
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

    /// Marks file and store as in sync: notes the placement, sweeps the copies, writes the receipt.
    pub(super) fn mark_ready(&mut self, round_trip: &RoundTrip) {
        let found = if self.report.writes.is_empty() {
            Placement::Kept
        } else {
            Placement::Adopted
        };
        self.report.placement.get_or_insert(found);
        self.is_ready = true;
        self.note_adopted(round_trip);
        self.note_missing();
        self.sweep(round_trip);
        if self.home_lock.is_none() {
            // The home is new: lock it, so that other round trips find it in use.
            self.home_lock = crate::try_lock(self.job.home).ok().flatten();
        }
        self.write_receipt(round_trip);
    }

    /// Notes which copy was adopted into the store before the command.
    fn note_adopted(&mut self, round_trip: &RoundTrip) {
        let held = round_trip.base().map(|base| base.generation.fingerprint);
        let adopted = self.copies.iter().find(|copy| {
            copy.fingerprint().is_some()
                && copy.fingerprint() == held
                && copy.copy.place != Place::AuthFile
        });
        if !self.report.writes.is_empty() && seen(&self.look) == Seen::Missing {
            self.report.adopted_from = adopted.map(|copy| copy.location.clone());
        }
    }

    /// Notes whether a receipt describes an auth file that no longer holds a login.
    fn note_missing(&mut self) {
        let placed = self.report.placement == Some(Placement::Placed);
        let is_gone = |copy: &FoundCopy| {
            let copy = &copy.copy;
            let no_login = match copy.content {
                Content::Missing | Content::AuthFileError { .. } | Content::AccessOnly => true,
                Content::Usable(_) => false,
            };
            copy.place == Place::AuthFile && no_login && copy.origins.is_some()
        };
        self.report.may_be_spent |=
            placed && self.report.writes.is_empty() && self.copies.iter().any(is_gone);
    }

    /// Removes the unfinished rotations whose login is in the store or kept. A login that cannot be
    /// kept stays in its rotation's folder and does not stop the job.
    fn sweep(&mut self, round_trip: &RoundTrip) {
        for number in 0..self.copies.len() {
            let copy = &self.copies[number];
            if copy.can_sweep() && (is_superseded(round_trip, copy) || self.keep_copy(number)) {
                self.report.unfinished_rotation |= is_unfinished(round_trip, copy);
                let copy = &self.copies[number];
                copy.sweep();
            }
        }
        self.copies.clear();
    }

    /// Keeps a copy, unless it was set aside before; returns whether it is kept.
    fn keep_copy(&self, number: usize) -> bool {
        let origins = self.copies[number].copy.origins.clone();
        let copy = SetAside {
            copy: number,
            origins,
        };
        let mut copies = self.set_aside(&[copy]).into_iter();
        // `keep_locally` is idempotent: a copy that was set aside before stays as it is.
        copies.all(|(secret, record)| self.job.rescue.keep_locally(&secret, &record).is_ok())
    }

    /// Updates report and receipt after a step of the state machine. `due`: the generation that was
    /// due before the step.
    pub(super) fn note(&mut self, round_trip: &RoundTrip, due: Option<Fingerprint>) {
        let Some(base) = round_trip
            .base()
            .filter(|base| self.version.as_ref() != Some(&base.version))
        else {
            return;
        };
        self.version = Some(base.version.clone());
        self.report.base = Some(base.clone());
        let fingerprint = base.generation.fingerprint;
        if due == Some(fingerprint) && self.last_sent == Some(fingerprint) {
            let version = base.version.clone();
            self.report.writes.push(Written {
                version,
                fingerprint,
                at: SystemTime::now(),
            });
        }
        let still_due = round_trip.due().map(|generation| generation.fingerprint);
        self.generations
            .retain(|fingerprint, _| Some(*fingerprint) == still_due);
        // Write no receipt into a home that another authferry has cleaned up meanwhile.
        let was_bypassed = self.marker.as_ref().is_some_and(WatchMarker::was_bypassed);
        if self.is_ready && !was_bypassed {
            self.write_receipt(round_trip);
        }
    }

    /// Creates a private home and writes its receipt.
    pub(super) fn receipt_before_login(&mut self, round_trip: &RoundTrip) {
        let mut make = DirBuilder::new();
        // The folder may exist after a first attempt at this rotation.
        make.mode(0o700).create(self.job.home.dir()).ok();
        self.write_receipt(round_trip);
    }

    fn write_receipt(&mut self, round_trip: &RoundTrip) {
        let Some(base) = round_trip.base() else {
            return;
        };
        let (store, base) = (self.job.store.to_string(), base.clone());
        let began = *self.report.began.get_or_insert(base.generation.fingerprint);
        let owner = self.owner.get_or_insert_with(Owner::ours).clone();
        let receipt = Receipt::new(store, base, began, self.placed, self.access_only, owner);
        self.report.receipt_error = receipt.write(self.job.home).err();
    }

    pub(super) fn finish(mut self, round_trip: &RoundTrip, outcome: Outcome) -> Report {
        if outcome == Outcome::Refused(Refusal::OnlyCopies) {
            self.report.copies = copies::locations_of_logins(&self.copies);
        }
        if let (Outcome::Refused(_), Some(copy)) = (&outcome, round_trip.adopting()) {
            let copy = self.copies.get(copy);
            let copy = copy.filter(|copy| copy.copy.place != Place::AuthFile);
            self.report.adopted_from = copy.map(|copy| copy.location.clone());
        }
        if outcome == Outcome::Refused(Refusal::CopyElsewhere) {
            let head = self.stored.as_ref().map(|stored| store_io::held(stored).0);
            self.report.copies = copies::locations_elsewhere(&self.copies, head.as_ref());
        }
        match &outcome {
            Outcome::Restored if self.without_placing => {
                self.note_adopted(round_trip);
                self.sweep(round_trip);
            }
            Outcome::Restored => self.mark_ready(round_trip),
            // A Codex is still running and may write the auth file.
            _ if self.report.left_running > 0 => self.write_receipt(round_trip),
            // This report is not shown: the home stays, and the next job reports that the rotation
            // wrote nothing.
            Outcome::Unchanged if self.is_private && self.refresher.is_none() => {}
            Outcome::Unchanged
            | Outcome::Persisted { .. }
            // Our login is rescued.
            | Outcome::Superseded { rescued: true, .. } => {
                self.clean_up(self.placed && !self.job.nested);
            }
            // This file is the only copy, or the next restore can settle it.
            Outcome::Superseded { rescued: false, .. }
            | Outcome::NotPersisted { .. }
            | Outcome::Unsettled
            | Outcome::Refused(_) => {}
        }
        self.report.doubtful |=
            matches!(self.request, Some(PendingRequest::Store { swap: true, .. }));
        self.report.base = round_trip.base().cloned();
        self.report.outcome = outcome;
        self.report
    }

    /// Returns the content of the file if it has changed since the final read of a successful round
    /// trip.
    pub(super) fn changed_since_final_read(&mut self, outcome: &Outcome) -> Option<Seen> {
        let is_success = matches!(
            outcome,
            Outcome::Unchanged | Outcome::Persisted { .. } | Outcome::Unsettled
        );
        if self.access_only || !is_success {
            return None;
        }
        let look = match self.read_file() {
            Ok(look @ Look::Usable { .. }) => look,
            Ok(Look::Missing | Look::Unusable { .. }) | Err(_) => self.transient.take()?,
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
        let is_unchanged = |look: &Look| {
            let same = seen(look) == seen(&self.look);
            // A login that replaced an access-only file is not ours to remove.
            same && (!self.access_only || !matches!(look, Look::Usable { .. }))
        };
        if !self.job.home.look().is_ok_and(|look| is_unchanged(&look)) {
            // Another process is writing the file: the next restore judges the result, and needs
            // the receipt for that.
            self.report.busy = auth_file;
            return;
        }
        // While the file stays, its receipt names the base. A login that is reported as in use
        // stays even if its process has just ended: the watch persists it.
        if !auth_file || self.report.in_use.is_some() {
            return;
        }
        let usage = self.usage();
        if usage != Usage::Unused {
            self.note_usage(usage);
            return;
        }
        // A Codex that read the file before the rename is visible now.
        let usage = RefCell::new(Usage::Unused);
        let may_remove = |look: &Look| {
            is_unchanged(look) && {
                let now = self.usage();
                usage.replace(now);
                *usage.borrow() == Usage::Unused
            }
        };
        match self.job.home.remove(may_remove) {
            Ok(false) => match usage.into_inner() {
                Usage::Unused => self.report.busy = true,
                usage @ (Usage::By(_) | Usage::Unknown) => self.note_usage(usage),
            },
            Ok(true) => {
                Receipt::remove(self.job.home).ok();
                watch_marker::remove_log(self.job.home);
            }
            Err(home_error) => self.report.home_error = Some(home_error),
        }
    }
}

/// Whether the rotation of the store's current login ended without a new generation.
fn is_unfinished(round_trip: &RoundTrip, copy: &FoundCopy) -> bool {
    let base = round_trip.base();
    base.is_some_and(|base| copy.is_unfinished_rotation_of(&base.generation))
}

/// Whether the store holds or has held the login of an unfinished rotation: the rotation wrote
/// nothing new, or the store holds what the rotation wrote.
fn is_superseded(round_trip: &RoundTrip, copy: &FoundCopy) -> bool {
    let origins = copy.copy.origins.as_ref();
    let wrote_nothing = origins.is_some_and(|origins| {
        let identity = copy.copy.generation().map(|login| &login.identity);
        let theirs = round_trip.base().map(|base| &base.generation.identity);
        let is_same = identity
            .zip(theirs)
            .is_some_and(|(ours, theirs)| !ours.contradicts(theirs));
        copy.fingerprint() == Some(origins.base.generation.fingerprint) && is_same
    });
    wrote_nothing
        || round_trip
            .base()
            .is_some_and(|base| copy.is_base_or_ancestor(base))
}
