//! Who else uses a home, in words.

use std::path::Path;

use authferry_core::Outcome;
use authferry_runner::{InUse, Job, Report, User};

use super::{login, pasted, version};
use crate::ending::{Ending, Result};
use crate::exit;

/// What lets jobs share a machine.
pub(super) const ONE_JOB_EACH: &str = "let the jobs that share a home of Codex run one after the \
    other, or give each a home with `--codex-home DIR`";

/// What to do about a Codex that may be about to write.
pub(super) const TRY_AGAIN: &str = "try again: a job ends that process once its login has been due \
    for 15 minutes, and nothing was written in that time. Or wait longer with `--wait TIME`";

/// Tells that the login was left in the home, because a process uses it.
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
        "when it has ended: `authferry persist --store '{}' --codex-home {}`",
        job.store,
        pasted::path(job.home.dir())
    ))
}

/// Tells that a login stays in the home for the job around this one.
pub(super) fn kept(job: &Job<'_>, report: &Report) -> Ending {
    let file = job.home.auth_file().display();
    let message = format!(
        "{} stays in {file} for the job that restored it",
        login(report)
    );
    Ending::good("kept", message)
}

/// Tells that a `run` of the same job persists by itself.
pub(super) fn at_work(file: &Path, by: &User, may_be_spent: bool) -> Ending {
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
        .hint("wait until that command ends: it removes the login")
}

/// Tells that a process was ended that an earlier job left in the home.
pub(crate) fn ended(job: &Job<'_>, ended: &InUse) -> String {
    let home = job.home.dir().display();
    let spent = if ended.may_be_spent {
        ", and the login may be spent: nothing was written for 15 minutes"
    } else {
        ""
    };
    format!("{} of an earlier job was ended in {home}{spent}", ended.by)
}

impl Ending {
    /// Tells of the watch that was left behind, or why there is none.
    pub(crate) fn with_watch(mut self, watch: Option<Result<u32>>) -> Self {
        match watch {
            None => self,
            Some(Ok(process)) => self.fact("watch", process),
            Some(Err(ending)) => {
                let causes = ending.causes.iter().map(String::as_str);
                let why: Vec<_> = std::iter::once(ending.reason()).chain(causes).collect();
                self.warnings.push(format!(
                    "no watch is running, so only `authferry persist` puts what Codex writes into the \
                     store: {}",
                    why.join(": ")
                ));
                self
            }
        }
    }
}
