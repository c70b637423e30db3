//! Messages about a rotation.

use std::{iter, time::Duration};

use authferry_codex::{Home, RefreshFailure};
use authferry_core::rotation::{Blocker, RotationOutcome};
use authferry_core::{Fingerprint, Outcome as End, Refusal};
use authferry_runner::{
    CommandEnd, Job, Refreshed, RefusalNote, Report, Rotated, Rotating, StartError,
};
use time::OffsetDateTime;

use super::refusal::refused_by_provider;
use super::rescue::put;
use super::time::text;
use crate::outcome::Ending;
use crate::{commands, exit};

/// Describes the end of a rotation.
pub(crate) fn rotation(rotating: &Rotating<'_>, rotated: &Rotated) -> Ending {
    let ending = match &rotated.outcome {
        RotationOutcome::Fresh => fresh(rotating, rotated),
        RotationOutcome::NoLogin => no_login(rotating, rotated),
        RotationOutcome::Refreshed | RotationOutcome::CodexRunning => {
            match (&rotated.refusal, &rotated.start_error) {
                (Some(note), _) => {
                    refused_by_provider(rotating.store, note, rotated.generation.as_ref())
                }
                (None, _) if rotated.superseded => changed_meanwhile(rotating),
                (None, Some(error)) => super::start_error(error),
                (None, None) => match (&rotated.round_trip, &rotated.home) {
                    (Some(report), Some(home)) => attempted(rotating, rotated, home, report),
                    (None, _) | (_, None) => unreachable!("a round trip has a report and a home"),
                },
            }
        }
        RotationOutcome::Blocked(why) => blocked(rotating, rotated, *why),
    };
    let ending = match (rotated.round_trip.as_ref(), rotated.generation.as_ref()) {
        (None, Some(generation)) => ending
            .fact("store", rotating.store.to_string())
            .fact("account", generation.identity.to_string())
            .fact("fingerprint", generation.fingerprint.to_string())
            .fact("expires_at", super::expiry(generation))
            .fact("rotated", false),
        (None, None) => ending.fact("store", rotating.store.to_string()),
        (Some(_), _) => ending,
    };
    let has_no_lease = rotating.store.leases().is_none() && rotated.round_trip.is_some();
    let ending = ending.note(has_no_lease.then(|| {
        format!(
            "{} has no leases: make sure that no other job rotates the login at the same time",
            rotating.store
        )
    }));
    let lost = rotated.lease_lost.then(|| {
        "the refresh token may be spent twice: another job took over the lease during the rotation".to_owned()
    });
    let unfinished = rotated.generation.as_ref();
    let unfinished = unfinished
        .filter(|_| rotated.unfinished_rotation)
        .map(|generation| {
            super::unsettled::unfinished_rotation(&format!("login {}", generation.fingerprint))
        });
    let warnings = ending.warnings.into_iter().chain(lost);
    let ending = Ending {
        warnings: warnings.chain(unfinished).collect(),
        ..ending
    };
    with_tried(ending, rotating, rotated)
}

/// Adds the copies that were tried instead of a login that the provider refused.
fn with_tried(mut ending: Ending, rotating: &Rotating<'_>, rotated: &Rotated) -> Ending {
    for copy in &rotated.tried_copies {
        ending.notes.push(format!(
            "login {copy}, a copy on this machine, was tried instead, and was not rotated either"
        ));
    }
    let Some(kept) = &rotated.not_put_back else {
        return ending;
    };
    ending.warnings.push(format!(
        "the store's login could not be put back: it is saved in {kept}"
    ));
    let options = " --replace --allow-older";
    let put = put(rotating.store, rotating.rescue.folder(), options, kept);
    ending.hint(format!("put it back: {put}"))
}

/// Whether a job may start after an attempt to rotate its login first: the login was rotated, or is
/// as good as before, and Codex may rotate it in the job.
///
/// The access token stays valid until it expires, even if the rotation failed.
pub(crate) fn may_start(rotated: &Rotated, access_only: bool) -> bool {
    let is_valid = valid_until(rotated).is_some();
    match rotated.outcome {
        RotationOutcome::Fresh | RotationOutcome::NoLogin => return true,
        RotationOutcome::CodexRunning | RotationOutcome::Blocked(Blocker::Unreadable) => {
            return false;
        }
        RotationOutcome::Blocked(Blocker::Held | Blocker::Unwritable | Blocker::OutOfTime) => {
            return is_valid && rotated.signal.is_none();
        }
        RotationOutcome::Refreshed if rotated.superseded => return true,
        RotationOutcome::Refreshed => {}
    }
    let signal = rotated.round_trip.as_ref().and_then(|report| report.signal);
    let is_dead = rotated.refusal.as_ref().is_some_and(RefusalNote::is_dead);
    if is_dead || rotated.start_error.is_some() {
        return is_valid && signal.is_none();
    }
    // A refusal without a reason blocks no job that could rotate the login itself.
    if rotated.refusal.is_some() {
        return signal.is_none() && (is_valid || !access_only);
    }
    let Some(report) = &rotated.round_trip else {
        return true;
    };
    match &report.outcome {
        End::Persisted { .. } => !is_spinning(report),
        End::Superseded { .. } => true,
        End::Unchanged => {
            let failure = report.refreshed.as_ref().and_then(|it| it.failure);
            let has_failed = report.command.is_some();
            let is_dead = matches!(failure, Some(RefreshFailure::Dead(_)));
            signal.is_none() && (is_valid || !(is_dead || has_failed && access_only))
        }
        End::Refused(Refusal::NotPlaced) => is_valid && signal.is_none(),
        End::Restored | End::Refused(_) | End::NotPersisted { .. } | End::Unsettled => false,
    }
}

/// The expiry of the access token that was not replaced; `None` if it has expired, expires within
/// [`MIN_VALIDITY`], or is unknown.
fn valid_until(rotated: &Rotated) -> Option<i64> {
    let exp = rotated.generation.as_ref()?.issued.exp;
    exp.filter(|&exp| exp > commands::from_now(MIN_VALIDITY))
}

/// A job does not start with less validity than this: Codex rotates such an access token.
const MIN_VALIDITY: Duration = Duration::from_mins(5);

/// The warning of a job that starts although its login was not rotated first.
pub(crate) fn not_rotated_first(rotated: &Rotated, ending: &Ending) -> String {
    let why = if ending.reason() == ending.message {
        ending.message.clone()
    } else {
        format!("the login was not rotated first: {}", ending.reason())
    };
    let causes = ending.causes.iter().map(|cause| format!(": {cause}"));
    // The message on a refused login names the expiry itself.
    let expiry = valid_until(rotated).filter(|_| rotated.refusal.is_none());
    let expiry = expiry.and_then(|it| OffsetDateTime::from_unix_timestamp(it).ok());
    let expiry = expiry.map(|at| format!("; its access token is valid until {}", text(at)));
    iter::once(why).chain(causes).chain(expiry).collect()
}

fn fresh(rotating: &Rotating<'_>, rotated: &Rotated) -> Ending {
    let Some(generation) = &rotated.generation else {
        return no_login(rotating, rotated);
    };
    let due = generation.issued.due();
    let due = due.and_then(|due| OffsetDateTime::from_unix_timestamp(due).ok());
    let due = due.map_or_else(
        || "never due for rotation".to_owned(),
        |due| format!("not due for rotation before {}", text(due)),
    );
    let message = format!(
        "login {} in {} is {due}",
        generation.fingerprint, rotating.store
    );
    let holder = rotated.lease_holder.as_ref();
    Ending::good("fresh", message)
        .note(holder.map(|(owner, _)| format!("{owner} has just rotated it")))
}

/// Another writer changed the login first, without a lease.
fn changed_meanwhile(rotating: &Rotating<'_>) -> Ending {
    let message = format!(
        "another writer changed the login in {} at the same moment",
        rotating.store
    );
    Ending::good("fresh", message)
}

fn no_login(rotating: &Rotating<'_>, rotated: &Rotated) -> Ending {
    let Some(stored) = &rotated.last_read else {
        return super::nothing_stored(rotating.store);
    };
    super::unusable_stored(rotating.store, authferry_codex::parse(&stored.secret).err())
}

/// Reports that a copy on this machine could not be settled before a rotation.
pub(crate) fn unsettled(rotating: &Rotating<'_>, report: &Report) -> Ending {
    match Home::new(rotating.rotations) {
        Ok(home) => super::round_trip(&job(rotating, &home), report, None),
        Err(error) => Ending::refused(exit::FAILED, error),
    }
}

/// A rotation as a job, in a private home.
fn job<'a>(rotating: &Rotating<'a>, home: &'a Home) -> Job<'a> {
    let (store, rescue) = (rotating.store, rotating.rescue);
    Job {
        rotations: Some(rotating.rotations),
        policy: rotating.policy,
        exit_grace: Duration::ZERO,
        cancel_grace: Duration::ZERO,
        ..Job::new(store, home, rescue, rotating.writer, rotating.store_timeout)
    }
}

/// Describes a rotation for which authferry started Codex.
fn attempted(rotating: &Rotating<'_>, rotated: &Rotated, home: &Home, report: &Report) -> Ending {
    let job = job(rotating, home);
    let mut ending = super::round_trip(&job, report, None);
    // Codex's exit code does not show whether the rotation succeeded.
    ending.facts.remove("command_exit_code");
    let login = super::login(report);
    match &report.outcome {
        End::Persisted { .. } if is_spinning(report) => {
            let now = format!("{login} is now in {}", rotating.store);
            let looping = report.refreshed.as_ref().is_some_and(|it| it.looping);
            // Codex may have sent one more request before it ended: seen with 0.130.0.
            let why = if looping {
                "Codex rotated it again and again, and was terminated"
            } else {
                "it was just rotated, but its access token expires at once"
            };
            let message =
                format!("{now} and may be spent: {why}: is the clock of this machine ahead?");
            Ending {
                code: exit::FAILED,
                outcome: "rotated",
                message,
                failed: true,
                ..ending
            }
            .hint(super::CLOCK)
        }
        End::Persisted { .. } => Ending {
            code: exit::OK,
            outcome: "rotated",
            message: format!(
                "login {} was rotated: {}",
                previous_fingerprint(rotated),
                ending.message
            ),
            ..ending
        }
        .fact("rotated", true),
        End::Refused(Refusal::NotPlaced) => Ending {
            hints: vec![super::other_rotations_folder(rotating.rotations)],
            ..ending
        },
        End::Unchanged => unchanged(rotating, report, ending),
        End::Unsettled => still_running(rotating, home, report, ending),
        End::Refused(_) | End::Restored | End::Superseded { .. } | End::NotPersisted { .. } => {
            ending
        }
    }
}

/// The rotation timed out while Codex may have spent the token.
fn still_running(
    rotating: &Rotating<'_>,
    home: &Home,
    report: &Report,
    round_trip: Ending,
) -> Ending {
    let login = super::login(report);
    let store = rotating.store;
    let message =
        format!("{login} in {store} may be spent: the provider has not answered Codex yet");
    let home = home.dir().display();
    let in_background = format!(
        "authferry continues in the background: it puts what Codex writes to {home} into the store"
    );
    Ending {
        hints: vec![],
        ..Ending::bad(exit::UNSETTLED, "unsettled", message)
    }
    .note(Some(in_background))
    .hint(format!(
        "if that fails, the next job on this machine puts it into the store; or run {}",
        super::pasted::refresh(store)
    ))
    .with_facts_of(round_trip)
}

/// Codex wrote no new login.
fn unchanged(rotating: &Rotating<'_>, report: &Report, round_trip: Ending) -> Ending {
    let login = super::login(report);
    let store = rotating.store;
    let failed = |code, outcome, message: String| Ending {
        code,
        outcome,
        message,
        failed: true,
        ..Ending::default()
    };
    let ending = match (&report.command, &report.refreshed) {
        (None, _) if is_due(rotating, report) => {
            let message = format!(
                "{login} in {store} was not rotated: the lease was lost before Codex started"
            );
            // The new holder of the lease may be rotating the login.
            failed(exit::FAILED, "not-rotated", message).hint("try again later")
        }
        // Another job rotated the login between our read and our lease.
        (None, _) => {
            return Ending {
                outcome: "fresh",
                ..round_trip
            };
        }
        (Some(CommandEnd::Cancelled), _) => failed(
            super::cancelled(report),
            "cancelled",
            format!("{login} is unchanged in {store}: the job was cancelled before the rotation"),
        ),
        (Some(CommandEnd::NotStarted(error)), _) => {
            let (code, hint) = super::not_started(error);
            let mut ending = failed(code, "not-rotated", cannot_start(report, rotating));
            ending.causes.push(error.to_string());
            ending.hint(hint).hint(OTHER_CODEX)
        }
        // `supervise` exits with these codes if it cannot start Codex.
        (Some(CommandEnd::Exited(code @ (exit::NOT_FOUND | exit::NOT_EXECUTABLE))), refreshed) => {
            let mut ending = failed(*code, "not-rotated", cannot_start(report, rotating));
            ending.causes.extend(error_line(refreshed.as_ref()));
            ending.hint(OTHER_CODEX)
        }
        (Some(CommandEnd::Exited(codex_code)), refreshed) => {
            let refreshed = refreshed.clone().unwrap_or_default();
            let why = not_rotated(&refreshed);
            let causes: Vec<_> = error_line(Some(&refreshed)).into_iter().collect();
            if refreshed.may_be_spent {
                let message = format!("{login} in {store} may be spent: {why}");
                return Ending {
                    causes,
                    warnings: round_trip.warnings.clone(),
                    ..failed(exit::UNSETTLED, "unsettled", message)
                }
                .hint(format!(
                    "when the provider answers again, find out whether it is spent: {}",
                    super::pasted::refresh(store)
                ))
                .with_facts_of(round_trip);
            }
            let message = format!("{login} in {store} was not rotated: {why}");
            let failure = failed(exit::FAILED, "not-rotated", message);
            // A Codex that fails in another way may be another program, or lack what it needs.
            let is_unsuitable = refreshed.failure.is_none()
                && (refreshed.not_understood || *codex_code != exit::OK);
            let hints = is_unsuitable.then(|| OTHER_CODEX.to_owned());
            let ending = Ending {
                causes,
                hints: hints.into_iter().collect(),
                ..failure
            };
            // Codex may have sent the token without receiving the answer.
            ending.hint("try again later; the login may be spent")
        }
        (Some(CommandEnd::Running), _) => {
            unreachable!("a running Codex leaves the login unsettled")
        }
    };
    Ending {
        facts: round_trip.facts,
        warnings: round_trip.warnings,
        ..ending
    }
}

/// What Codex reports first on its error stream.
fn error_line(refreshed: Option<&Refreshed>) -> Option<String> {
    refreshed?.error_line.clone()
}

fn cannot_start(report: &Report, rotating: &Rotating<'_>) -> String {
    format!(
        "{} in {} was not rotated: `{}` cannot be started",
        super::login(report),
        rotating.store,
        rotating.codex.program.display()
    )
}

pub(crate) const OTHER_CODEX: &str = "choose the Codex that rotates with `--codex PROGRAM`";

fn not_rotated(refreshed: &Refreshed) -> String {
    match refreshed {
        Refreshed {
            timed_out: true, ..
        } => "Codex did not finish in time, and was terminated".to_owned(),
        Refreshed {
            answer_timeout: Some(timeout),
            ..
        } => format!(
            "the provider did not answer Codex within {}, and Codex drops a later answer",
            humantime::format_duration(*timeout)
        ),
        Refreshed {
            failure: Some(RefreshFailure::Refused),
            ..
        } => "the provider refused the refresh token, and Codex does not report why".to_owned(),
        Refreshed {
            failure: Some(RefreshFailure::Dead(_) | RefreshFailure::Transient),
            ..
        } => "Codex reports that the provider is unreachable or failing".to_owned(),
        Refreshed {
            not_understood: true,
            ..
        } => "this Codex cannot rotate on request".to_owned(),
        Refreshed {
            error_line: Some(_),
            ..
        } => "Codex wrote no new login".to_owned(),
        Refreshed { .. } => "Codex wrote no new login, and does not report why".to_owned(),
    }
}

/// Explains why `--lease job` did not acquire the lease.
pub(crate) fn no_lease(rotating: &Rotating<'_>, rotated: &Rotated) -> Ending {
    match rotated.outcome {
        RotationOutcome::Blocked(why) => blocked(rotating, rotated, why),
        RotationOutcome::Fresh
        | RotationOutcome::NoLogin
        | RotationOutcome::Refreshed
        | RotationOutcome::CodexRunning => {
            let problem = format!("{} has no leases", rotating.store);
            Ending::refused(exit::FAILED, problem).hint("omit `--lease job`")
        }
    }
}

/// Explains what blocked the rotation.
fn blocked(rotating: &Rotating<'_>, rotated: &Rotated, why: Blocker) -> Ending {
    let store = rotating.store;
    let error = rotated.store_error.as_ref();
    match (why, rotated.signal) {
        (_, Some(signal)) => {
            let code = u8::try_from(128 + signal).unwrap_or(exit::FAILED);
            Ending::refused(code, "the job was cancelled before it started")
        }
        (Blocker::Held, None) if rotated.running_rotation.is_some() => {
            let home = rotated.running_rotation.clone().unwrap_or_default();
            super::start_error(&StartError::Rotating(home))
        }
        (Blocker::Held, None) => {
            let (owner, until) = rotated.lease_holder.clone().unwrap_or_default();
            let until = i64::try_from(until).unwrap_or(i64::MAX);
            let until = OffsetDateTime::from_unix_timestamp(until)
                .map_or_else(|_| "an unknown time".to_owned(), text);
            let problem =
                format!("{owner} holds the lease to rotate the login in {store} until {until}");
            Ending {
                outcome: "held",
                ..Ending::refused(exit::HELD, problem)
            }
            .hint("increase the timeout with `--lease-timeout TIME`; a lease that is not renewed is taken over half a minute after its expiry")
        }
        (Blocker::Unreadable | Blocker::Unwritable, None) => match error {
            Some(error) if why == Blocker::Unwritable => super::lease(error),
            Some(error) => super::store(error),
            None => Ending::refused(exit::FAILED, format!("{store} cannot be used")),
        },
        (Blocker::OutOfTime, None) => {
            let ending = super::out_of_time(store);
            match error {
                Some(error) => ending.caused_by(error),
                None => ending,
            }
        }
    }
}

/// Whether Codex would rotate the new login again at once.
fn is_spinning(report: &Report) -> bool {
    let now = commands::from_now(Duration::ZERO);
    let looping = report.refreshed.as_ref().is_some_and(|it| it.looping);
    let base = report.base.as_ref();
    looping || base.is_some_and(|base| base.generation.issued.is_due(now))
}

/// Whether the login is due for this rotation.
fn is_due(rotating: &Rotating<'_>, report: &Report) -> bool {
    let base = report.base.as_ref();
    base.is_some_and(|base| base.generation.issued.is_due(rotating.due_by))
}

fn previous_fingerprint(rotated: &Rotated) -> String {
    let fingerprint: Option<Fingerprint> = rotated.generation.as_ref().map(|it| it.fingerprint);
    fingerprint.map(|it| it.to_string()).unwrap_or_default()
}
