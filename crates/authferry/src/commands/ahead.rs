//! *Rotate first*: what `run` and `restore` do before they begin.

use std::time::Duration;

use authferry_core::Stored;
use authferry_core::rotation::Outcome;
use authferry_runner::{CommandEnd, Job, Report, Rotated, Rotating, Signals, rotate_first};
use tokio::time::timeout;

use crate::args::Lease;
use crate::commands::{from_now, trips::begun};
use crate::ending::{Ending, Result};
use crate::plan::Plan;
use crate::{exit, telling};

/// How long a job may take where nobody says: the limit of GitHub's own machines.
const JOB: Duration = Duration::from_hours(6);

/// What the job begins with.
#[derive(Debug, Default)]
pub(crate) struct Begin {
    /// What the store holds, if it was just read and is to be placed as it is.
    pub(crate) known: Option<Stored>,
    pub(crate) notes: Vec<String>,
    pub(crate) warnings: Vec<String>,
    /// Whether the login was rotated before the job began.
    pub(crate) rotated: bool,
    pub(crate) hints: Vec<String>,
    /// Whether the job failed on a login that somebody else had spent.
    pub(crate) spent: bool,
}

/// Within which time a rotation is to be made ahead of the job.
pub(crate) fn horizon(given: Option<Duration>, plan: &Plan) -> Duration {
    given.or(plan.env.job_timeout).unwrap_or(JOB)
}

/// Rotates the login if it is due. What speaks against the job's beginning is an error; what
/// only leaves the rotation to the job itself is a warning.
pub(crate) async fn rotate(
    rotating: &Rotating<'_>,
    job: &Job<'_>,
    lease: Lease,
    signals: &mut Signals,
) -> Result<Begin> {
    let mut rotated = match begun(rotate_first(rotating, job, signals).await)? {
        Ok(rotated) => rotated,
        Err(report) => return Err(telling::trip(job, &report, None).into()),
    };
    let told = telling::rotation(rotating, &rotated);
    match rotated.outcome {
        Outcome::Fresh | Outcome::Nothing => Ok(Begin {
            known: rotated.known.take(),
            ..Begin::default()
        }),
        // The rotation was shielded from the signal, the job is not.
        Outcome::Turned if told.outcome == "rotated" && signal(&rotated).is_some() => {
            let code = signal(&rotated).and_then(|signal| u8::try_from(128 + signal).ok());
            let message = format!("{}: the job was cancelled before it began", told.message);
            Err(Ending {
                code: code.unwrap_or(exit::FAILED),
                failed: true,
                message,
                ..told
            }
            .into())
        }
        // Without the claim such a job has not got what it needs.
        Outcome::Hindered(_) if lease == Lease::Job => Err(told.into()),
        Outcome::Turned | Outcome::Hindered(_) if telling::may_begin(&rotated, job.access_only) => {
            Ok(go_on(&rotated, told))
        }
        Outcome::Turned | Outcome::Left | Outcome::Hindered(_) => Err(told.into()),
    }
}

fn signal(rotated: &Rotated) -> Option<i32> {
    rotated.trip.as_ref().and_then(|report| report.signal)
}

/// The job begins all the same, with whatever the store holds now.
fn go_on(rotated: &Rotated, told: Ending) -> Begin {
    let mut begin = Begin {
        known: None,
        warnings: told.warnings.clone(),
        rotated: told.outcome == "rotated",
        ..Begin::default()
    };
    if told.failed {
        begin.warnings.push(telling::all_the_same(rotated, &told));
    } else if told.outcome == "rotated" {
        begin.notes.push(told.message);
    }
    begin.notes.extend(told.notes);
    // What Codex did not do it may do in the job.
    if told.outcome != "not-rotated" {
        begin.hints = told.hints;
    }
    begin
}

/// Takes the claim for the whole job. What was read before is not worth anything then.
pub(crate) async fn claim<'a>(
    rotating: &'a Rotating<'a>,
    begin: &mut Begin,
    signals: &mut Signals,
) -> Result<authferry_runner::Lease<'a>> {
    begin.known = None;
    begun(authferry_runner::claim(rotating, signals).await)?
        .map_err(|rotated| telling::unclaimed(rotating, &rotated).into())
}

/// What to say of a claim that was not held to the end.
pub(crate) fn lost(lease: &authferry_runner::Lease<'_>) -> Option<String> {
    lease.is_lost().then(|| {
        "somebody else took the claim over during the job, and may have spent the same token"
            .to_owned()
    })
}

/// Says so if what was lent is worth nothing.
pub(crate) fn look_at_what_was_lent(job: &Job<'_>, report: &Report, begin: &mut Begin) {
    let lent = report.base.as_ref().filter(|_| job.access_only);
    let ended = |exp| exp <= from_now(Duration::ZERO);
    let ended = lent.filter(|base| base.generation.issued.exp.is_some_and(ended));
    begin.warnings.extend(ended.map(|base| {
        let login = base.generation.fingerprint;
        format!("the access token of login {login} has ended, and what is lent cannot be rotated")
    }));
}

/// Checks whether a job failed because another job has spent its login: the login is due, and Codex
/// wrote no new one.
pub(crate) async fn look_after(job: &Job<'_>, report: &Report, begin: &mut Begin) {
    let failed = matches!(report.command, Some(CommandEnd::Exited(code)) if code != 0);
    let base = report.base.as_ref().filter(|_| failed);
    let Some(base) = base.filter(|_| telling::may_be_spent(job, report)) else {
        return;
    };
    let Ok(Ok(Some(stored))) = timeout(job.patience, job.store.read()).await else {
        return;
    };
    let (before, store) = (base.generation.fingerprint, job.store);
    match authferry_codex::parse(&stored.secret) {
        Ok(now) if now.fingerprint != before => {
            begin.spent = true;
            let now = now.fingerprint;
            begin.notes.push(format!(
                "login {before} of the job was spent by somebody else, who put login {now} into {store}"
            ));
        }
        Ok(_) => begin.notes.push(format!(
            "the store still holds login {before}: `authferry refresh` tells whether it is spent"
        )),
        // What is there now is the next job's affair.
        Err(_) => {}
    }
}

impl Ending {
    /// Adds what was said before the job began.
    pub(crate) fn after(mut self, begin: Begin) -> Self {
        self.notes.splice(0..0, begin.notes);
        self.warnings.splice(0..0, begin.warnings);
        self.hints.extend(begin.hints);
        if begin.rotated {
            return self.fact("rotated", true);
        }
        self
    }
}
