//! *Rotate first*: what `run` and `restore` do before they begin.

use std::time::Duration;

use authferry_core::Stored;
use authferry_core::rotation::Outcome;
use authferry_runner::{Job, Rotating, Signals, rotate_first};

use crate::args::Ahead;
use crate::commands::trips::begun;
use crate::ending::{Ending, Result};
use crate::plan::Plan;
use crate::telling;

/// How long a job may take where nobody says: the limit of GitHub's own machines.
const JOB: Duration = Duration::from_hours(6);

/// What the job begins with.
#[derive(Debug, Default)]
pub(crate) struct Begin {
    /// What the store holds, if it was just read and is to be placed as it is.
    pub(crate) known: Option<Stored>,
    pub(crate) notes: Vec<String>,
    pub(crate) warnings: Vec<String>,
}

/// Within which time a rotation is to be made ahead of the job.
pub(crate) fn horizon(args: &Ahead, plan: &Plan) -> Duration {
    args.horizon.or(plan.env.job_timeout).unwrap_or(JOB)
}

/// Rotates the login if it is due. What speaks against the job's beginning is an error; what
/// only leaves the rotation to the job itself is a warning.
pub(crate) async fn rotate(
    rotating: &Rotating<'_>,
    job: &Job<'_>,
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
        Outcome::Turned if telling::may_begin(&rotated, job.access_only) => Ok(go_on(told)),
        Outcome::Turned | Outcome::Hindered(_) => Err(told.into()),
    }
}

/// The job begins all the same, with whatever the store holds now.
fn go_on(told: Ending) -> Begin {
    let mut begin = Begin {
        known: None,
        notes: told.notes,
        warnings: told.warnings,
    };
    if told.failed {
        begin.warnings.push(told.message);
    } else if told.outcome == "rotated" {
        begin.notes.insert(0, told.message);
    }
    begin
}

impl Ending {
    /// Adds what was said before the job began.
    pub(crate) fn after(mut self, begin: Begin) -> Self {
        self.notes.splice(0..0, begin.notes);
        self.warnings.splice(0..0, begin.warnings);
        self
    }
}
