//! Messages about a login that may be spent.

use std::time::Duration;

use authferry_core::{Fingerprint, Outcome};
use authferry_runner::{Job, Report};

use super::{login, pasted};
use crate::commands::from_now;
use crate::exit;
use crate::outcome::Ending;

/// A Codex that may have spent the refresh token is still running.
pub(super) fn left_running(job: &Job<'_>, report: &Report) -> Ending {
    let (login, store) = (login(report), job.store);
    let may_be_spent = if report.writes.is_empty() {
        format!("{login} in {store} may be spent")
    } else {
        format!("{login} is now in {store}, and may be spent")
    };
    let message = format!("{may_be_spent}: a Codex that may be rotating it is still running");
    let file = job.home.auth_file().display();
    Ending::bad(exit::UNSETTLED, "unsettled", message)
        .note(Some(format!(
            "what it writes stays in {file}: a watch, or else the next job on this machine, puts it \
             into the store"
        )))
        .hint(format!(
            "when that Codex has ended: {}",
            pasted::persist(store, job.home.dir())
        ))
}

/// Whether a signal ended a Codex that may have spent the refresh token, before it wrote a new
/// login.
pub(super) fn is_interrupted(report: &Report) -> bool {
    let base = report.base.as_ref();
    let now: Option<Fingerprint> = base.map(|base| base.generation.fingerprint);
    report.interrupted.is_some() && report.interrupted == now
}

/// A signal ended a Codex that may have spent the refresh token.
pub(super) fn interrupted(job: &Job<'_>, report: &Report) -> Ending {
    let message = format!(
        "{} in {} may be spent: a signal ended the Codex that may have been rotating it",
        login(report),
        job.store
    );
    Ending::bad(exit::UNSETTLED, "unsettled", message).hint(format!(
        "find out whether it is spent: {}",
        pasted::refresh(job.store)
    ))
}

/// Whether a Codex of the job may have spent the refresh token: the login is due, and Codex wrote
/// no new one. A Codex that timed out on a slow provider leaves this state, and its exit code does
/// not show it.
pub(crate) fn may_be_spent(job: &Job<'_>, report: &Report) -> bool {
    let now = from_now(Duration::ZERO);
    let base = report.base.as_ref();
    let is_due = base.is_some_and(|base| base.generation.issued.is_due(now));
    report.outcome == Outcome::Unchanged && is_due && !job.access_only
}

/// The message for a login that may be spent, because Codex wrote no new one.
pub(super) fn not_replaced(job: &Job<'_>, report: &Report) -> Ending {
    let message = format!(
        "{} in {} may be spent: it is due for rotation, and Codex wrote no new login",
        login(report),
        job.store
    );
    Ending::good("unsettled", message)
}

/// The message for an unchanged login after an earlier rotation without an answer.
pub(super) fn unanswered(job: &Job<'_>, report: &Report) -> Ending {
    let login = format!("{} in {}", login(report), job.store);
    Ending::good("unsettled", unfinished_rotation(&login))
}

/// An earlier rotation of this login on this machine was killed, or got no answer from the provider.
pub(super) fn unfinished_rotation(login: &str) -> String {
    format!("{login} may be spent: an earlier rotation on this machine got no answer")
}
