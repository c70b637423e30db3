//! What to say while it is not known whether the login is spent.

use std::time::Duration;

use authferry_core::{Fingerprint, Outcome};
use authferry_runner::{Job, Report};

use super::{login, pasted};
use crate::commands::from_now;
use crate::ending::Ending;
use crate::exit;

/// A Codex runs on that may have spent the refresh token.
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
            "what it writes stays in {file}: a watch puts it into the store, or else the next job on \
             this machine"
        )))
        .hint(format!(
            "put it there when that Codex has ended: {}",
            pasted::persist(store, job.home.dir())
        ))
}

/// Whether a signal reached a Codex that may have spent the refresh token, and nothing new was
/// written.
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
    Ending::bad(exit::UNSETTLED, "unsettled", message)
        .hint(format!("see whether it is: {}", pasted::refresh(job.store)))
}

/// Whether a Codex of the job may have spent the refresh token: the login is due, and no new one was
/// written. A Codex that gives up on a slow provider leaves that behind, whatever its exit code.
pub(crate) fn may_be_spent(job: &Job<'_>, report: &Report) -> bool {
    let now = from_now(Duration::ZERO);
    let base = report.base.as_ref();
    let is_due = base.is_some_and(|base| base.generation.issued.is_due(now));
    report.outcome == Outcome::Unchanged && is_due && !job.access_only
}

/// What to say of the login then.
pub(super) fn not_replaced(job: &Job<'_>, report: &Report) -> Ending {
    let message = format!(
        "{} in {} may be spent: it is due, and Codex wrote no new login",
        login(report),
        job.store
    );
    Ending::good("unsettled", message)
}

/// An earlier rotation on this machine was killed, or had no answer.
pub(super) fn without_end(report: &Report) -> String {
    format!(
        "an earlier rotation on this machine had no answer: {} may be spent",
        login(report)
    )
}
