//! What is tried when the provider refuses the login that counts: the copies that were kept.
//!
//! - A refusal by name (the token was spent, has expired, was revoked) is the provider's own word.
//!   It is noted with the lease, and the copy that takes the login's place stays.
//! - A refusal without a name may come from a gateway that refuses everybody. It is remembered
//!   until this rotation ends and no longer: each copy is tried once, and a copy that is not
//!   rotated makes way for the login that it replaced. So a gateway changes nothing for good.

use authferry_codex::{Death, Failure};
use authferry_core::{
    Base, CasError, Fingerprint, Outcome, Stamp, Stored, Version, WriteId, pause,
};
use tokio::time::{sleep_until, timeout_at};

use super::{Driver, proof::stamp_of, settle};
use crate::drive::ask;
use crate::mark::Notes;
use crate::rescue::{self, Location, Reason, Record, SECOND_STORE_TIMEOUT};
use crate::{Lease, Mark, NotBegun, Report, Signals, deadline, lease, random};

/// A login that the provider refused, and its own word for why, if it gave one.
struct Refused {
    login: Fingerprint,
    death: Option<Death>,
}

/// A copy is in the store in place of a login that was refused without a name.
struct Trial {
    /// What the store held before.
    before: Stored,
    /// How the trip ended that found it refused.
    report: Report,
    /// The copy.
    copy: Fingerprint,
    /// Where the login that it replaced was kept first.
    kept: Option<Location>,
}

/// What became of a login that was to be put back.
enum PutBack {
    Done,
    /// Another writer changed the store meanwhile: its login counts.
    Moved,
    Failed,
}

impl Driver<'_> {
    /// Rotates the login; if the provider refuses it, the copies that were kept. Leaves a note
    /// with the lease.
    pub(super) async fn turn(&mut self, signals: &mut Signals) -> Result<(), NotBegun> {
        let mut notes = Notes::read(self.lease.as_ref().and_then(Lease::note));
        let turned = Box::pin(self.try_each(&mut notes, signals)).await;
        if let Some(lease) = &mut self.lease {
            lease.leave(notes.text());
        }
        turned
    }

    async fn try_each(&mut self, notes: &mut Notes, signals: &mut Signals) -> Result<(), NotBegun> {
        let mut refused = notes.all_refused();
        let mut trial: Option<Trial> = None;
        loop {
            let made = self.trips(trial.is_some(), signals).await;
            // What a Codex that runs on will write comes first.
            if self.is_left() {
                return made;
            }
            if made.is_ok() && self.has_written() {
                notes.dead = None;
                return Ok(());
            }
            let mut found = made.is_ok().then(|| self.refused()).flatten();
            let mut held = None;
            if let Some(Refused { login, death }) = &found {
                held = self.read_again(signals).await;
                if held.as_ref().is_some_and(|held| !holds(held, *login)) {
                    self.rotated.moved = true;
                    return Ok(());
                }
                refused.push(*login);
                if death.is_some() {
                    notes.refuse(*login);
                }
            }
            if let Some(trial) = trial.take() {
                self.rotated.tried.push(trial.copy);
                match self.put_back(&trial).await {
                    PutBack::Done => {}
                    PutBack::Moved => {
                        self.rotated.moved = true;
                        return made;
                    }
                    PutBack::Failed => {
                        self.note_not_put_back(&trial);
                        return made;
                    }
                }
                let login = fingerprint(&trial.before);
                self.rotated.trip = Some(trial.report);
                // An outage is no refusal: it is none of the next copy either.
                found = found
                    .zip(login)
                    .map(|(_, login)| Refused { login, death: None });
                held = Some(trial.before);
            }
            let (Some(Refused { login, death }), false) = (found, self.is_cancelled()) else {
                return made;
            };
            // What cannot be read cannot be put back.
            let before = held.filter(|_| death.is_none());
            if death.is_some() || before.is_some() {
                let report = self.adopt_next(&refused, signals).await?;
                if let Some(copy) = adopted(&report) {
                    let trip = self.rotated.trip.take();
                    trial = before.zip(trip).map(|(before, trip)| Trial {
                        kept: kept(&before, &report),
                        before,
                        report: trip,
                        copy,
                    });
                    continue;
                }
            }
            if let Some(death) = death {
                let mark = Mark {
                    fingerprint: login,
                    since: lease::now(),
                    death,
                    by: self.rotating.writer.to_owned(),
                };
                notes.dead = Some(mark.clone());
                self.rotated.dead = Some(mark);
            }
            return Ok(());
        }
    }

    /// The login that the last trip found refused, if it did.
    fn refused(&self) -> Option<Refused> {
        let report = self.rotated.trip.as_ref()?;
        let login = report.base.as_ref()?.generation.fingerprint;
        match report.refreshed.as_ref()?.failure? {
            Failure::Dead(death) => Some(Refused {
                login,
                death: Some(death),
            }),
            Failure::Refused => Some(Refused { login, death: None }),
            Failure::Passing => None,
        }
    }

    /// Whether the Codex of the last trip runs on.
    pub(super) fn is_left(&self) -> bool {
        let report = self.rotated.trip.as_ref();
        report.is_some_and(|report| report.outcome == Outcome::Unsettled)
    }

    fn has_written(&self) -> bool {
        let report = self.rotated.trip.as_ref();
        report.is_some_and(|report| !report.writes.is_empty())
    }

    /// Whether a signal has come: then there is no time for another copy.
    fn is_cancelled(&self) -> bool {
        let report = self.rotated.trip.as_ref();
        self.rotated.signal.is_some() || report.is_some_and(|report| report.signal.is_some())
    }

    /// Puts the next copy into the store that may be live, if there is one.
    async fn adopt_next(
        &mut self,
        refused: &[Fingerprint],
        signals: &mut Signals,
    ) -> Result<Report, NotBegun> {
        self.rotated.known = None;
        settle::settle(self.rotating, self.job, None, refused, signals).await
    }

    /// Swaps the login back in that a copy was tried for. The copy is kept first: it may have been
    /// in an unfinished rotation, which was removed when it was adopted.
    async fn put_back(&mut self, trial: &Trial) -> PutBack {
        let Ok(trip) = random() else {
            return PutBack::Failed;
        };
        let store = self.rotating.store;
        let wanted = fingerprint(&trial.before);
        let until = deadline::after(self.rotating.patience);
        // One intent for each version that it is to replace.
        let mut expected: Option<Version> = None;
        let mut number = 0;
        for attempt in 1.. {
            if let Ok(Ok(held)) = timeout_at(until, store.read()).await {
                let Some(held) = held else {
                    return PutBack::Moved;
                };
                let theirs = fingerprint(&held);
                if theirs == wanted {
                    return PutBack::Done;
                }
                if theirs != Some(trial.copy) {
                    return PutBack::Moved;
                }
                if !self.keep(&held, trial.copy).await {
                    return PutBack::Failed;
                }
                if expected.as_ref() != Some(&held.version) {
                    number += 1;
                    expected = Some(held.version.clone());
                }
                let stamp = self.stamp(WriteId { trip, number }, &trial.before);
                let secret = &trial.before.secret;
                // Never cut short: whether it landed would then be unknown.
                let swapped = store.compare_and_swap(Some(&held.version), secret, &stamp);
                match swapped.await {
                    Ok(_) => return PutBack::Done,
                    Err(CasError::Refused(error)) if !error.kind.is_transient() => {
                        self.rotated.store_error = Some(error);
                        return PutBack::Failed;
                    }
                    Err(CasError::Conflict | CasError::Ambiguous(_) | CasError::Refused(_)) => {}
                }
            }
            let next = deadline::after(pause(attempt, trip));
            if next >= until {
                return PutBack::Failed;
            }
            sleep_until(next).await;
        }
        PutBack::Failed
    }

    /// The stamp that the login had: it is the same generation of the same family as before.
    fn stamp(&self, id: WriteId, before: &Stored) -> Stamp {
        let lost = || {
            let base = settle::base_of(self.rotating, self.job, before);
            stamp_of(id, base.as_ref(), self.rotating.writer)
        };
        Stamp {
            id,
            ..before.stamp.clone().unwrap_or_else(lost)
        }
    }

    /// Whether the copy is kept. What its record says stays: only that knows what it descends from.
    async fn keep(&self, held: &Stored, copy: Fingerprint) -> bool {
        let rotating = self.rotating;
        let store = rotating.store.to_string();
        let kept = crate::look(&store, rotating.rescue, None).unwrap_or_default();
        if kept.iter().any(|kept| kept.fingerprint() == Some(copy)) {
            return true;
        }
        let (known, _) = ask::held(held);
        let base = known.generation.as_ref();
        let base = base.map(|theirs| Base::of_head(&known, theirs, None));
        let record = Record::new(store, Reason::Replaced, base, rotating.writer);
        let limit = SECOND_STORE_TIMEOUT.min(rotating.patience);
        let kept = rotating.rescue.keep(&held.secret, &record, limit).await;
        kept.location.is_ok()
    }

    /// The copy stays in the store, and what it replaced where it was kept first.
    fn note_not_put_back(&mut self, trial: &Trial) {
        self.rotated.not_put_back.clone_from(&trial.kept);
        let base = self.rotated.trip.as_ref().and_then(|it| it.base.as_ref());
        self.rotated.generation = base.map(|base| base.generation.clone());
    }
}

/// Where the login was kept that a copy replaced.
fn kept(before: &Stored, report: &Report) -> Option<Location> {
    let name = rescue::name(&before.secret);
    let mut kept = report.rescued.iter();
    kept.find(|location| location.name().starts_with(&name))
        .cloned()
}

/// The copy that was put into the store.
fn adopted(report: &Report) -> Option<Fingerprint> {
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
