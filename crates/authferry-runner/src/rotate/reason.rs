//! Asks for the reason of a refusal, and notes the refusal in the lease.

use authferry_codex::{Death, RefreshFailure};
use authferry_core::Fingerprint;

use super::next::Refused;
use super::refresh::Purpose;
use super::{RotationDriver, unix_now};
use crate::refresher::RefreshMethod;
use crate::refusal_note::Notes;
use crate::{RefusalNote, Report, Signals, lease};

/// The answer to the question why the provider refuses a login.
pub(super) enum Explanation {
    /// The login is dead.
    Named(Death),
    /// The provider, or a gateway, refuses the login without a reason.
    Unnamed,
    /// This attempt was no refusal: Codex rotated the login, may have spent it, or met an outage.
    NoRefusal,
    /// Codex was not asked: the next job asks.
    NotAsked,
}

impl RotationDriver<'_> {
    /// Whether to ask for the reason: Codex hides it because the access token is valid, and no job
    /// has asked about this login before.
    pub(super) fn should_ask_why(&self, refusal: &Refused, notes: &Notes) -> bool {
        let is_asked = |note: &RefusalNote| note.fingerprint == refusal.login;
        if refusal.death.is_some() || notes.current.as_ref().is_some_and(is_asked) {
            return false;
        }
        let Some(report) = &self.rotated.round_trip else {
            return false;
        };
        let hides_reason = report.refreshed.as_ref().is_some_and(|it| it.hides_reason);
        let expiry = report.base.as_ref().and_then(|it| it.generation.issued.exp);
        hides_reason && expiry.is_some_and(|exp| exp > unix_now())
    }

    /// Asks Codex once more, on an ended copy of the refused login. The provider may accept the
    /// token this time, so this is a rotation like any other.
    pub(super) async fn ask_why(
        &mut self,
        refused: Fingerprint,
        signals: &mut Signals,
    ) -> Explanation {
        let (method, purpose) = (RefreshMethod::AppServer, Purpose::Reason(refused));
        let Ok(report) = self.make_round_trip(method, purpose, signals).await else {
            return Explanation::NotAsked;
        };
        let explanation = explanation_in(&report, refused);
        self.rotated.round_trip = Some(report);
        if self.is_codex_running() || self.has_written() {
            return Explanation::NoRefusal;
        }
        let Some(explanation) = explanation else {
            self.rotated.superseded = true;
            return Explanation::NoRefusal;
        };
        explanation
    }

    /// Notes in the lease that the provider refuses this login.
    pub(super) fn note_refusal(&mut self, refusal: &Refused, notes: &mut Notes) {
        let now = lease::now();
        let is_same = |note: &RefusalNote| note.fingerprint == refusal.login && !note.is_dead();
        let earlier = notes.current.take().filter(is_same);
        let note = match earlier.filter(|_| refusal.death.is_none()) {
            Some(earlier) => RefusalNote {
                tried: now,
                ..earlier
            },
            None => RefusalNote {
                fingerprint: refusal.login,
                since: now,
                tried: now,
                death: refusal.death,
                by: self.rotating.writer.to_owned(),
            },
        };
        notes.current = Some(note.clone());
        self.rotated.refusal = Some(note);
    }
}

/// Returns the reason in the report of a round trip; `None` if the store holds another login by
/// now.
fn explanation_in(report: &Report, refused: Fingerprint) -> Option<Explanation> {
    let base = report.base.as_ref();
    if base.is_some_and(|base| base.generation.fingerprint != refused) {
        return None;
    }
    if report.command.is_none() || report.signal.is_some() {
        return Some(Explanation::NotAsked);
    }
    let refreshed = report.refreshed.as_ref();
    Some(match refreshed.and_then(|it| it.failure) {
        Some(RefreshFailure::Dead(death)) => Explanation::Named(death),
        Some(RefreshFailure::Transient) => Explanation::NoRefusal,
        None if refreshed.is_some_and(|it| it.may_be_spent) => Explanation::NoRefusal,
        Some(RefreshFailure::Refused) | None => Explanation::Unnamed,
    })
}
