//! Messages about other processes that use the home.

use std::path::Path;

use authferry_core::Outcome;
use authferry_runner::{InUse, Job, Report, User};

use super::{login, pasted, version};
use crate::exit;
use crate::outcome::{Ending, Result};

/// The hint if another job uses the home.
pub(super) const ONE_JOB_EACH: &str = "run jobs that share a home of Codex one after the other, \
    or give each job a home with `--codex-home DIR`";

/// What to do about a Codex that may write the next login.
pub(super) const TRY_AGAIN: &str = "try again: a job terminates that process once its login has been \
    due for 15 minutes without a write; or increase the timeout with `--lease-timeout TIME`";

/// Reports that the login stays in the home because a process uses it.
pub(super) fn unsettled(job: &Job<'_>, report: &Report) -> Ending {
    let (file, login) = (job.home.auth_file().display(), login(report));
    let Some(in_use) = &report.in_use else {
        return kept(job, report);
    };
    let by = &in_use.by;
    let message = match (&report.outcome, in_use.may_be_spent) {
        (Outcome::Persisted { .. }, _) => format!(
            "{login} is now in {}, version {}, and stays in {file}: {by} still uses the home",
            job.store,
            version(report)
        ),
        (_, true) => {
            format!("{login} stays in {file}, and may be spent: {by} still uses the home")
        }
        (_, false) => format!("{login} stays in {file}: {by} still uses the home"),
    };
    Ending::bad(exit::UNSETTLED, "unsettled", message).hint(format!(
        "when that process has ended: `authferry persist --store '{}' --codex-home {}`",
        job.store,
        pasted::path(job.home.dir())
    ))
}

/// Reports that a login stays in the home for the enclosing job.
pub(super) fn kept(job: &Job<'_>, report: &Report) -> Ending {
    let file = job.home.auth_file().display();
    let message = format!(
        "{} stays in {file} for the job that restored it",
        login(report)
    );
    Ending::good("kept", message)
}

/// Reports that a `run` of the same job still uses the home, and will persist.
pub(super) fn still_running(file: &Path, by: &User, may_be_spent: bool) -> Ending {
    let spent = if may_be_spent {
        ", and may be spent"
    } else {
        ""
    };
    let message = format!(
        "the login is in {}{spent}: {by} of the same job still uses it, and persists what Codex \
         writes",
        file.display()
    );
    Ending::bad(exit::UNSETTLED, "unsettled", message)
        .hint("wait until that command ends: it removes the auth file")
}

/// Reports that authferry terminated a process that an earlier job left in the home.
pub(crate) fn terminated(job: &Job<'_>, terminated: &InUse) -> String {
    let home = job.home.dir().display();
    let spent = if terminated.may_be_spent {
        ", and the login may be spent: there was no write for 15 minutes"
    } else {
        ""
    };
    format!(
        "authferry terminated {} of an earlier job in {home}{spent}",
        terminated.by
    )
}

impl Ending {
    /// Adds the watch that was started, or why none was.
    pub(crate) fn with_watch(mut self, watch: Option<Result<u32>>) -> Self {
        match watch {
            None => self,
            Some(Ok(process)) => self.fact("watch", process),
            Some(Err(ending)) => {
                let causes = ending.causes.iter().map(String::as_str);
                let why: Vec<_> = std::iter::once(ending.reason()).chain(causes).collect();
                self.warnings.push(format!(
                    "no watch is running, so only `authferry persist` puts a new login into the \
                     store: {}",
                    why.join(": ")
                ));
                self
            }
        }
    }
}
