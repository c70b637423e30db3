//! *Rotate first*: `run` and `restore` rotate a login that is due before they start.

use std::time::Duration;

use authferry_core::rotation::RotationOutcome;
use authferry_core::{Generation, SecretStore, Stored};
use authferry_runner::{
    CommandEnd, Job, RefusalNote, Report, Rotated, Rotating, Signals, rotate_first,
};
use serde_json::{Map, Value};
use tokio::time::timeout;

use crate::args::LeaseScope;
use crate::commands::{from_now, round_trips::check_start};
use crate::outcome::{Ending, Result};
use crate::plan::Plan;
use crate::{exit, messages};

/// The default timeout of a job: the limit of GitHub-hosted runners.
const DEFAULT_JOB_TIMEOUT: Duration = Duration::from_hours(6);

/// The state in which a job starts.
#[derive(Debug, Default)]
pub(crate) struct JobStart {
    /// The store's login, if it was just read and can be placed without another read.
    pub(crate) known: Option<Stored>,
    pub(crate) notes: Vec<String>,
    pub(crate) warnings: Vec<String>,
    /// Whether the login was rotated before the job started.
    pub(crate) rotated: bool,
    /// Whether an earlier rotation of the login on this machine ended without an answer.
    pub(crate) unfinished_rotation: bool,
    pub(crate) hints: Vec<String>,
    /// Since when the provider refuses the login, for programs.
    pub(crate) refusal: Map<String, Value>,
    /// Whether the job failed because another job had spent its login.
    pub(crate) spent: bool,
}

impl JobStart {
    fn add_refusal(&mut self, store: &dyn SecretStore, note: &RefusalNote, login: &Generation) {
        let ending = messages::refused_by_provider(store, note, Some(login));
        self.warnings.insert(0, ending.message);
        self.hints.extend(ending.hints);
        self.refusal = refusal_facts(ending.facts);
    }
}

/// A login that is due within this time is rotated before the job.
pub(crate) fn rotate_within(given: Option<Duration>, plan: &Plan) -> Duration {
    given
        .or(plan.env.job_timeout)
        .unwrap_or(DEFAULT_JOB_TIMEOUT)
}

/// Rotates the login if it is due. Returns an error if the job must not start, and a warning if
/// only the rotation is left to the job.
pub(crate) async fn rotate(
    rotating: &Rotating<'_>,
    job: &Job<'_>,
    lease: LeaseScope,
    signals: &mut Signals,
) -> Result<JobStart> {
    let mut rotated = match check_start(rotate_first(rotating, job, signals).await)? {
        Ok(rotated) => rotated,
        Err(report) => return Err(messages::round_trip(job, &report, None).into()),
    };
    let ending = messages::rotation(rotating, &rotated);
    match rotated.outcome {
        RotationOutcome::Fresh | RotationOutcome::NoLogin => {
            let mut start = JobStart {
                known: rotated.last_read.take(),
                unfinished_rotation: rotated.unfinished_rotation,
                ..JobStart::default()
            };
            if let Some(login) = &rotated.generation {
                tell_refusal(rotating, login, &mut start).await;
            }
            Ok(start)
        }
        // A signal is held back during the rotation, and then cancels the job.
        RotationOutcome::Refreshed if ending.outcome == "rotated" && signal(&rotated).is_some() => {
            let code = signal(&rotated).and_then(|signal| u8::try_from(128 + signal).ok());
            let message = format!(
                "{}: the job was cancelled before it started",
                ending.message
            );
            Err(Ending {
                code: code.unwrap_or(exit::FAILED),
                failed: true,
                message,
                ..ending
            }
            .into())
        }
        // A job with `--lease job` does not start without the lease.
        RotationOutcome::Blocked(_) if lease == LeaseScope::Job => Err(ending.into()),
        RotationOutcome::Refreshed | RotationOutcome::Blocked(_)
            if messages::may_start(&rotated, job.access_only) =>
        {
            Ok(start_after(&rotated, ending))
        }
        RotationOutcome::Refreshed
        | RotationOutcome::CodexRunning
        | RotationOutcome::Blocked(_) => Err(ending.into()),
    }
}

fn signal(rotated: &Rotated) -> Option<i32> {
    rotated.round_trip.as_ref().and_then(|report| report.signal)
}

/// Starts the job with the store's current login, after a rotation or with a warning.
fn start_after(rotated: &Rotated, ending: Ending) -> JobStart {
    let mut start = JobStart {
        known: None,
        warnings: ending.warnings.clone(),
        rotated: ending.outcome == "rotated",
        ..JobStart::default()
    };
    if ending.failed {
        let warning = messages::not_rotated_first(rotated, &ending);
        start.warnings.insert(0, warning);
    } else if ending.outcome == "rotated" {
        start.notes.push(ending.message);
    }
    start.notes.extend(ending.notes);
    // Codex may rotate the login in the job: only a hint how to choose a Codex that runs is needed.
    start.hints = ending.hints;
    if ending.outcome == "not-rotated" {
        start.hints.retain(|hint| hint == messages::OTHER_CODEX);
    }
    start.refusal = refusal_facts(ending.facts);
    start
}

fn refusal_facts(facts: Map<String, Value>) -> Map<String, Value> {
    let is_of_refusal = |name: &str| ["dead_since", "refused_since"].contains(&name);
    let facts = facts.into_iter();
    facts.filter(|(name, _)| is_of_refusal(name)).collect()
}

/// A login that is due within this time may be noted as refused: the keep-alive rotates it three
/// days before it is due. The lease is read only then, because that costs a request.
const MAY_BE_NOTED_WITHIN: Duration = Duration::from_hours(3 * 24);

/// Warns of a refusal that an earlier job noted in the lease, although this job rotates nothing.
async fn tell_refusal(rotating: &Rotating<'_>, login: &Generation, start: &mut JobStart) {
    if !login.issued.is_due(from_now(MAY_BE_NOTED_WITHIN)) {
        return;
    }
    let read = RefusalNote::read(login.fingerprint, rotating.store);
    // Without an answer the job starts: its login is not due.
    if let Ok(Some(note)) = timeout(rotating.store_timeout, read).await {
        start.add_refusal(rotating.store, &note, login);
    }
}

/// Warns of a refusal that an earlier job noted in the lease, if this job holds the lease and its
/// login is still the refused one.
pub(crate) fn warn_of_refusal(
    job: &Job<'_>,
    report: &Report,
    note: Option<&RefusalNote>,
    start: &mut JobStart,
) {
    let base = report.base.as_ref().map(|base| &base.generation);
    let refused = note.zip(base);
    let refused = refused.filter(|(note, base)| note.fingerprint == base.fingerprint);
    if let Some((note, base)) = refused.filter(|_| start.refusal.is_empty()) {
        start.add_refusal(job.store, note, base);
    }
}

/// Acquires the lease for the whole job. A login that was read before is stale.
pub(crate) async fn acquire_lease<'a>(
    rotating: &'a Rotating<'a>,
    start: &mut JobStart,
    signals: &mut Signals,
) -> Result<authferry_runner::LeaseKeeper<'a>> {
    start.known = None;
    check_start(authferry_runner::lease(rotating, signals).await)?
        .map_err(|rotated| messages::no_lease(rotating, &rotated).into())
}

/// The warning of a lease that was lost during the job.
pub(crate) fn lost_lease(lease: &authferry_runner::LeaseKeeper<'_>) -> Option<String> {
    lease.is_lost().then(|| {
        "the refresh token may be spent twice: another job took over the lease during the job"
            .to_owned()
    })
}

/// Warns if an access-only job got an expired access token.
pub(crate) fn warn_of_expired_access_token(job: &Job<'_>, report: &Report, start: &mut JobStart) {
    let placed = report.base.as_ref().filter(|_| job.access_only);
    let is_over = |exp| exp <= from_now(Duration::ZERO);
    let expired = placed.filter(|base| base.generation.issued.exp.is_some_and(is_over));
    start.warnings.extend(expired.map(|base| {
        let login = base.generation.fingerprint;
        format!(
            "the access token of login {login} has expired, and an access-only job cannot rotate it"
        )
    }));
}

/// Checks whether the job failed because another job has spent its login: the login is due, and
/// Codex wrote no new one.
pub(crate) async fn check_if_spent(job: &Job<'_>, report: &Report, start: &mut JobStart) {
    let failed = matches!(report.command, Some(CommandEnd::Exited(code)) if code != 0);
    let base = report.base.as_ref().filter(|_| failed);
    let Some(base) = base.filter(|_| messages::may_be_spent(job, report)) else {
        return;
    };
    let Ok(Ok(Some(stored))) = timeout(job.store_timeout, job.store.read()).await else {
        return;
    };
    let (before, store) = (base.generation.fingerprint, job.store);
    match authferry_codex::parse(&stored.secret) {
        Ok(now) if now.fingerprint != before => {
            start.spent = true;
            let now = now.fingerprint;
            start.notes.push(format!(
                "login {before} of the job was spent by another job, which put login {now} into {store}"
            ));
        }
        Ok(_) => start.notes.push(format!(
            "the store still holds login {before}: run `authferry refresh` to find out whether it is spent"
        )),
        // The next job handles an unusable login.
        Err(_) => {}
    }
}

impl Ending {
    /// Adds the messages from before the job started.
    pub(crate) fn with_start(mut self, start: JobStart) -> Self {
        self.notes.splice(0..0, start.notes);
        self.warnings.splice(0..0, start.warnings);
        self.hints.extend(start.hints);
        self.facts.extend(start.refusal);
        if start.rotated {
            return self.fact("rotated", true);
        }
        self
    }
}
