//! What to say while it is not known whether the login is spent.

use authferry_core::Fingerprint;
use authferry_runner::{Job, Report};

use super::{login, pasted};
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
            "what it writes stays in {file}, and the next job on this machine puts it into the store"
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

/// An earlier rotation on this machine was killed, or had no answer.
pub(super) fn without_end(report: &Report) -> String {
    format!(
        "an earlier rotation on this machine had no answer: {} may be spent",
        login(report)
    )
}
