//! Tries the kept copies when the provider refuses the current login.
//!
//! - A refusal with a reason (the token was reused, expired, or revoked) comes from the provider.
//!   The note in the lease records it, and the copy that replaces the login stays.
//! - A refusal without a reason may come from a gateway that refuses every request. It counts
//!   only until this rotation ends: the rotation tries each copy once. If Codex does not rotate the
//!   copy, the runner puts the replaced login back. So a gateway changes nothing permanently.
//!
//! If no copy is left after a refusal without a reason, the runner asks for the reason
//! ([`reason`](super::reason)).

use authferry_codex::{Death, RefreshFailure};
use authferry_core::{
    Base, CasError, Fingerprint, Outcome, Stamp, Stored, Version, WriteId, pause,
};
use tokio::time::{sleep_until, timeout_at};

use super::{RotationDriver, proof::stamp_of, reason::Explanation, refresh::Purpose, settle};
use crate::drive::store_io;
use crate::refusal_note::Notes;
use crate::rescue::{self, Location, Reason, Record, SECOND_STORE_TIMEOUT};
use crate::{LeaseKeeper, Report, Signals, StartError, deadline, random};

/// A login that the provider refused, with the provider's reason if it gave one.
pub(super) struct Refused {
    pub(super) login: Fingerprint,
    pub(super) death: Option<Death>,
}

/// A trial of a copy: the store holds it in place of a login refused without a reason.
struct CopyTrial {
    /// The store's content before the trial.
    before: Stored,
    /// The report of the round trip in which the provider refused that login.
    report: Report,
    /// The copy that is tried.
    copy: Fingerprint,
    /// Where the rescue keeps the login that the copy replaced.
    kept: Option<Location>,
}

/// The result of putting a login back into the store.
enum PutBackResult {
    Done,
    /// Another writer changed the store first: its login stays.
    Superseded,
    Failed,
}

impl RotationDriver<'_> {
    /// Rotates the login, or a kept copy if the provider refuses it. Stores the result in the
    /// note of the lease.
    pub(super) async fn refresh(&mut self, signals: &mut Signals) -> Result<(), StartError> {
        let mut notes = Notes::parse(self.lease.as_ref().and_then(LeaseKeeper::note));
        let refreshed = Box::pin(self.refresh_until_accepted(&mut notes, signals)).await;
        if let Some(lease) = &mut self.lease {
            lease.set_note(notes.to_text());
        }
        refreshed
    }

    async fn refresh_until_accepted(
        &mut self,
        notes: &mut Notes,
        signals: &mut Signals,
    ) -> Result<(), StartError> {
        let mut refused = notes.all_refused();
        let mut trial: Option<CopyTrial> = None;
        loop {
            let purpose = if trial.is_some() {
                Purpose::Trial
            } else {
                Purpose::Rotation
            };
            let result = self.refresh_once(purpose, signals).await;
            // A Codex that is still running may write the next generation: touch nothing.
            if self.is_codex_running() {
                return result;
            }
            if result.is_ok() && self.has_written() {
                notes.current = None;
                return Ok(());
            }
            let mut refusal = result.is_ok().then(|| self.refused()).flatten();
            let mut held = None;
            if let Some(Refused { login, death }) = &refusal {
                held = self.read_again(signals).await;
                if held.as_ref().is_some_and(|held| !holds(held, *login)) {
                    self.rotated.superseded = true;
                    return Ok(());
                }
                refused.push(*login);
                if death.is_some() {
                    notes.refuse(*login);
                }
            }
            if let Some(trial) = trial.take() {
                self.rotated.tried_copies.push(trial.copy);
                match self.put_back(&trial).await {
                    PutBackResult::Done => {}
                    PutBackResult::Superseded => {
                        self.rotated.superseded = true;
                        return result;
                    }
                    PutBackResult::Failed => {
                        self.record_not_put_back(&trial);
                        return result;
                    }
                }
                let login = fingerprint(&trial.before);
                self.rotated.round_trip = Some(trial.report);
                // If the provider refused the copy too, continue with the login that was put back,
                // which was refused without a reason. An outage does not lead to the next copy.
                refusal = refusal
                    .zip(login)
                    .map(|(_, login)| Refused { login, death: None });
                held = Some(trial.before);
            }
            let (Some(Refused { login, death }), false) = (refusal, self.is_cancelled()) else {
                return result;
            };
            // Without the store's content in `held`, the login could not be put back later.
            let before = held.filter(|_| death.is_none());
            let may_try_copies = death.is_some() || before.is_some();
            if may_try_copies {
                let report = self.adopt_next(&refused, signals).await?;
                if let Some(copy) = adopted_copy(&report) {
                    let refused_report = self.rotated.round_trip.take();
                    trial = before
                        .zip(refused_report)
                        .map(|(before, refused_report)| CopyTrial {
                            kept: kept_location(&before, &report),
                            before,
                            report: refused_report,
                            copy,
                        });
                    continue;
                }
            }
            // A copy may be live: a note would keep the next job from trying it and from asking why.
            if !may_try_copies {
                return Ok(());
            }
            let mut refusal = Refused { login, death };
            if self.should_ask_why(&refusal, notes) {
                match self.ask_why(login, signals).await {
                    Explanation::Named(death) => {
                        notes.refuse(login);
                        refusal.death = Some(death);
                    }
                    Explanation::Unnamed => {}
                    Explanation::NoRefusal => {
                        if self.has_written() {
                            notes.current = None;
                        }
                        return Ok(());
                    }
                    Explanation::NotAsked => return Ok(()),
                }
            }
            self.note_refusal(&refusal, notes);
            return Ok(());
        }
    }

    /// Returns the login that the provider refused in the last round trip, if any.
    fn refused(&self) -> Option<Refused> {
        let report = self.rotated.round_trip.as_ref()?;
        let login = report.base.as_ref()?.generation.fingerprint;
        match report.refreshed.as_ref()?.failure? {
            RefreshFailure::Dead(death) => Some(Refused {
                login,
                death: Some(death),
            }),
            RefreshFailure::Refused => Some(Refused { login, death: None }),
            RefreshFailure::Transient => None,
        }
    }

    /// Whether the Codex of the last round trip is still running.
    pub(super) fn is_codex_running(&self) -> bool {
        let report = self.rotated.round_trip.as_ref();
        report.is_some_and(|report| report.outcome == Outcome::Unsettled)
    }

    pub(super) fn has_written(&self) -> bool {
        let report = self.rotated.round_trip.as_ref();
        report.is_some_and(|report| !report.writes.is_empty())
    }

    /// Whether a signal was received: then there is no time for another copy.
    pub(super) fn is_cancelled(&self) -> bool {
        let report = self.rotated.round_trip.as_ref();
        self.rotated.signal.is_some() || report.is_some_and(|report| report.signal.is_some())
    }

    /// Puts the next copy that may be live into the store, if one exists.
    async fn adopt_next(
        &mut self,
        refused: &[Fingerprint],
        signals: &mut Signals,
    ) -> Result<Report, StartError> {
        self.rotated.last_read = None;
        settle::settle(self.rotating, self.job, None, refused, signals).await
    }

    /// Swaps the copy for the login that it replaced. Backs up the copy first: the copy may come
    /// from an unfinished rotation, whose folder was removed when the copy was adopted.
    async fn put_back(&mut self, trial: &CopyTrial) -> PutBackResult {
        let Ok(nonce) = random() else {
            return PutBackResult::Failed;
        };
        let store = self.rotating.store;
        let wanted = fingerprint(&trial.before);
        let until = deadline::after(self.rotating.store_timeout);
        // One write id for each version to replace: retries are idempotent.
        let mut expected: Option<Version> = None;
        let mut number = 0;
        for attempt in 1.. {
            if let Ok(Ok(held)) = timeout_at(until, store.read()).await {
                let Some(held) = held else {
                    return PutBackResult::Superseded;
                };
                let theirs = fingerprint(&held);
                if theirs == wanted {
                    return PutBackResult::Done;
                }
                if theirs != Some(trial.copy) {
                    return PutBackResult::Superseded;
                }
                if !self.back_up(&held, trial.copy).await {
                    return PutBackResult::Failed;
                }
                if expected.as_ref() != Some(&held.version) {
                    number += 1;
                    expected = Some(held.version.clone());
                }
                let stamp = self.stamp(WriteId { nonce, number }, &trial.before);
                let secret = &trial.before.secret;
                // No timeout: a cancelled swap may or may not have landed.
                let swapped = store.compare_and_swap(Some(&held.version), secret, &stamp);
                match swapped.await {
                    Ok(_) => return PutBackResult::Done,
                    Err(CasError::Refused(error)) if !error.kind.is_transient() => {
                        self.rotated.store_error = Some(error);
                        return PutBackResult::Failed;
                    }
                    Err(CasError::Conflict | CasError::Ambiguous(_) | CasError::Refused(_)) => {}
                }
            }
            let next = deadline::after(pause(attempt, nonce));
            if next >= until {
                return PutBackResult::Failed;
            }
            sleep_until(next).await;
        }
        PutBackResult::Failed
    }

    /// Returns the login's earlier stamp with a new id: the login is the same generation of the
    /// same family.
    fn stamp(&self, id: WriteId, before: &Stored) -> Stamp {
        let new_stamp = || {
            let base = settle::base_of(self.rotating, self.job, before);
            stamp_of(id, base.as_ref(), self.rotating.writer)
        };
        Stamp {
            id,
            ..before.stamp.clone().unwrap_or_else(new_stamp)
        }
    }

    /// Backs up the copy; returns whether the rescue has it. An earlier record stays: only that
    /// record names the copy's base.
    async fn back_up(&self, held: &Stored, copy: Fingerprint) -> bool {
        let rotating = self.rotating;
        let store = rotating.store.to_string();
        let kept = crate::find_read_only(&store, rotating.rescue, None).unwrap_or_default();
        if kept.iter().any(|kept| kept.fingerprint() == Some(copy)) {
            return true;
        }
        let (known, _) = store_io::held(held);
        let base = known.generation.as_ref();
        let base = base.map(|theirs| Base::of_head(&known, theirs, None));
        let record = Record::new(store, Reason::Replaced, base, rotating.writer);
        let limit = SECOND_STORE_TIMEOUT.min(rotating.store_timeout);
        let kept = rotating.rescue.keep(&held.secret, &record, limit).await;
        kept.location.is_ok()
    }

    /// Records that the copy stays in the store, and where the rescue keeps the login.
    fn record_not_put_back(&mut self, trial: &CopyTrial) {
        self.rotated.not_put_back.clone_from(&trial.kept);
        let base = self
            .rotated
            .round_trip
            .as_ref()
            .and_then(|it| it.base.as_ref());
        self.rotated.generation = base.map(|base| base.generation.clone());
    }
}

/// Returns where the rescue keeps the login that a copy replaced.
fn kept_location(before: &Stored, report: &Report) -> Option<Location> {
    let name = rescue::copy_name(&before.secret);
    let mut kept = report.rescued.iter();
    kept.find(|location| location.name().starts_with(&name))
        .cloned()
}

/// Returns the copy that was put into the store.
fn adopted_copy(report: &Report) -> Option<Fingerprint> {
    let written = report.outcome == Outcome::Restored && !report.writes.is_empty();
    let base = report.base.as_ref().filter(|_| written);
    base.map(|base| base.generation.fingerprint)
}

fn fingerprint(stored: &Stored) -> Option<Fingerprint> {
    let login = authferry_codex::parse(&stored.secret).ok();
    login.map(|login| login.fingerprint)
}

fn holds(stored: &Stored, login: Fingerprint) -> bool {
    fingerprint(stored) == Some(login)
}
