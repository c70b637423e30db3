//! What became of a login that was to be rotated, in words.

use std::{iter, time::Duration};

use authferry_codex::{Failure, Home};
use authferry_core::rotation::{Hindrance, Outcome};
use authferry_core::{Fingerprint, Outcome as End, Refusal, SecretStore};
use authferry_runner::{CommandEnd, Job, Mark, NotBegun, Refreshed, Report, Rotated, Rotating};
use time::OffsetDateTime;

use super::rescue::put;
use super::time::{at, text};
use crate::ending::Ending;
use crate::{commands, exit};

/// Tells how a rotation ended.
pub(crate) fn rotation(rotating: &Rotating<'_>, rotated: &Rotated) -> Ending {
    let ending = match &rotated.outcome {
        Outcome::Fresh => fresh(rotating, rotated),
        Outcome::Nothing => nothing(rotating, rotated),
        Outcome::Turned | Outcome::Left => match (&rotated.dead, &rotated.not_begun) {
            (Some(mark), _) => dead(rotating.store, mark),
            (None, _) if rotated.moved => fresh_after_all(rotating),
            (None, Some(error)) => super::not_begun(error),
            (None, None) => match (&rotated.trip, &rotated.home) {
                (Some(report), Some(home)) => turned(rotating, rotated, home, report),
                (None, _) | (_, None) => unreachable!("a trip that was made has a report"),
            },
        },
        Outcome::Hindered(why) => hindered(rotating, rotated, *why),
    };
    let ending = match (rotated.trip.as_ref(), rotated.generation.as_ref()) {
        (None, Some(generation)) => ending
            .fact("store", rotating.store.to_string())
            .fact("account", generation.identity.to_string())
            .fact("fingerprint", generation.fingerprint.to_string())
            .fact("expires_at", super::expiry(generation))
            .fact("rotated", false),
        (None, None) => ending.fact("store", rotating.store.to_string()),
        (Some(_), _) => ending,
    };
    let unclaimed = rotating.store.claims().is_none() && rotated.trip.is_some();
    let ending = ending.note(unclaimed.then(|| {
        format!(
            "{} has no claims: see that no other job rotates the login at the same moment",
            rotating.store
        )
    }));
    let lost = rotated.lost.then(|| {
        "somebody else took the claim over meanwhile, and may have spent the same token".to_owned()
    });
    let ending = Ending {
        warnings: ending.warnings.into_iter().chain(lost).collect(),
        ..ending
    };
    with_tried(ending, rotating, rotated)
}

/// Adds which copies were tried in place of a login that the provider refused.
fn with_tried(mut ending: Ending, rotating: &Rotating<'_>, rotated: &Rotated) -> Ending {
    for copy in &rotated.tried {
        ending.notes.push(format!(
            "login {copy}, a copy on this machine, was tried in its place and was not rotated either"
        ));
    }
    let Some(kept) = &rotated.not_put_back else {
        return ending;
    };
    ending.warnings.push(format!(
        "the store's login could not be put back: it is kept in {kept}"
    ));
    let options = " --replace --allow-older";
    let put = put(rotating.store, rotating.rescue.folder(), options, kept);
    ending.hint(format!("put it back: {put}"))
}

/// Whether a job may begin after a trip that was to rotate its login first: either it did,
/// or the login is as good as before, and Codex may come to rotate it in the job.
///
/// Whatever kept the login from being rotated, its access token is good until it ends.
pub(crate) fn may_begin(rotated: &Rotated, access_only: bool) -> bool {
    let good = good_until(rotated).is_some();
    match rotated.outcome {
        Outcome::Fresh | Outcome::Nothing => return true,
        Outcome::Left | Outcome::Hindered(Hindrance::Unreadable) => return false,
        Outcome::Hindered(Hindrance::Held | Hindrance::Unwritable | Hindrance::OutOfTime) => {
            return good && rotated.signal.is_none();
        }
        Outcome::Turned if rotated.moved => return true,
        Outcome::Turned => {}
    }
    let signal = rotated.trip.as_ref().and_then(|report| report.signal);
    if rotated.dead.is_some() || rotated.not_begun.is_some() {
        return good && signal.is_none();
    }
    let Some(report) = &rotated.trip else {
        return true;
    };
    match &report.outcome {
        End::Persisted { .. } => !is_spinning(report),
        End::Superseded { .. } => true,
        End::Unchanged => {
            let dead = report.refreshed.as_ref().and_then(|it| it.failure);
            let failed = report.command.is_some();
            let dead = matches!(dead, Some(Failure::Dead(_)));
            signal.is_none() && (good || !(dead || failed && access_only))
        }
        End::Refused(Refusal::NotPlaced) => good && signal.is_none(),
        End::Restored | End::Refused(_) | End::Stranded { .. } | End::Unsettled => false,
    }
}

/// Until when the access token is good that was not replaced; `None` if that is over or
/// before long, or nobody knows.
fn good_until(rotated: &Rotated) -> Option<i64> {
    let exp = rotated.generation.as_ref()?.issued.exp;
    exp.filter(|&exp| exp > commands::from_now(TOO_SHORT))
}

/// What is left of an access token that is not worth beginning with: Codex rotates it then.
const TOO_SHORT: Duration = Duration::from_mins(5);

/// Tells, of a job that begins although its login was not rotated first, why it was not.
pub(crate) fn all_the_same(rotated: &Rotated, told: &Ending) -> String {
    let why = if told.reason() == told.message {
        told.message.clone()
    } else {
        format!("the login was not rotated first: {}", told.reason())
    };
    let causes = told.causes.iter().map(|cause| format!(": {cause}"));
    let good = good_until(rotated).and_then(|it| OffsetDateTime::from_unix_timestamp(it).ok());
    let good = good.map(|until| format!("; its access token is good until {}", text(until)));
    iter::once(why).chain(causes).chain(good).collect()
}

fn fresh(rotating: &Rotating<'_>, rotated: &Rotated) -> Ending {
    let Some(generation) = &rotated.generation else {
        return nothing(rotating, rotated);
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
    let meanwhile = rotated.held.as_ref();
    Ending::good("fresh", message)
        .note(meanwhile.map(|(owner, _)| format!("{owner} has just rotated it")))
}

/// Somebody else was faster, without a claim.
fn fresh_after_all(rotating: &Rotating<'_>) -> Ending {
    let message = format!(
        "somebody else changed the login in {} at the same moment",
        rotating.store
    );
    Ending::good("fresh", message)
}

/// Tells that a rotation has found a login dead, this one or an earlier one.
pub(crate) fn dead(store: &dyn SecretStore, mark: &Mark) -> Ending {
    let message = format!(
        "login {} in {} is {}",
        mark.fingerprint,
        store,
        of_mark(mark)
    );
    Ending::bad(exit::FAILED, "dead", message)
        .hint(format!("{}: a reseed is needed", super::RESEED))
        .fact("store", store.to_string())
        .fact("fingerprint", mark.fingerprint.to_string())
        .fact("dead_since", dead_since(mark))
}

/// Tells what was noted of a dead login.
pub(crate) fn of_mark(mark: &Mark) -> String {
    let since = dead_since(mark);
    format!("dead since {since}, as {} found: {}", mark.by, mark.death)
}

pub(crate) fn dead_since(mark: &Mark) -> String {
    at(mark.since)
}

fn nothing(rotating: &Rotating<'_>, rotated: &Rotated) -> Ending {
    let Some(stored) = &rotated.known else {
        return super::nothing_stored(rotating.store);
    };
    super::unusable_stored(rotating.store, authferry_codex::parse(&stored.secret).err())
}

/// Tells that a copy on this machine could not be settled before a rotation.
pub(crate) fn unsettled(rotating: &Rotating<'_>, report: &Report) -> Ending {
    match Home::new(rotating.rotations) {
        Ok(home) => super::trip(&job(rotating, &home), report, None),
        Err(error) => Ending::refused(exit::FAILED, error),
    }
}

/// A rotation as a job, in a home of its own.
fn job<'a>(rotating: &Rotating<'a>, home: &'a Home) -> Job<'a> {
    let (store, rescue) = (rotating.store, rotating.rescue);
    Job {
        rotations: Some(rotating.rotations),
        policy: rotating.policy,
        linger: Duration::ZERO,
        cancel_grace: Duration::ZERO,
        ..Job::new(store, home, rescue, rotating.writer, rotating.patience)
    }
}

fn turned(rotating: &Rotating<'_>, rotated: &Rotated, home: &Home, report: &Report) -> Ending {
    let job = job(rotating, home);
    let mut told = super::trip(&job, report, None);
    // How Codex ended says nothing of how the rotation did.
    told.facts.remove("command_exit_code");
    let login = super::login(report);
    match &report.outcome {
        End::Persisted { .. } if is_spinning(report) => {
            let now = format!("{login} is now in {}", rotating.store);
            let looping = report.refreshed.as_ref().is_some_and(|it| it.looping);
            let why = if looping {
                // As it ends it may have sent one more request.
                " and may be spent: Codex rotated it again and again, and was cut off"
            } else {
                ", just rotated, but its access token ends at once"
            };
            let message = format!("{now}{why}: is the clock of this machine ahead?");
            Ending {
                code: exit::FAILED,
                outcome: "rotated",
                message,
                failed: true,
                ..told
            }
            .hint(super::CLOCK)
        }
        End::Persisted { .. } => Ending {
            code: exit::OK,
            outcome: "rotated",
            message: format!("login {} was rotated: {}", before(rotated), told.message),
            ..told
        }
        .fact("rotated", true),
        End::Refused(Refusal::NotPlaced) => Ending {
            hints: vec![super::elsewhere(rotating.rotations)],
            ..told
        },
        End::Unchanged => unchanged(rotating, report, told),
        End::Unsettled => goes_on(rotating, home, report, told),
        End::Refused(_) | End::Restored | End::Superseded { .. } | End::Stranded { .. } => told,
    }
}

/// Our time limit is over, and Codex may have spent the token.
fn goes_on(rotating: &Rotating<'_>, home: &Home, report: &Report, told: Ending) -> Ending {
    let login = super::login(report);
    let store = rotating.store;
    let message =
        format!("{login} in {store} may be spent: the Codex that rotates it has no answer yet");
    let home = home.dir().display();
    let in_background = format!(
        "authferry goes on in the background: what Codex writes to {home} is put into the store"
    );
    Ending {
        hints: vec![],
        ..Ending::bad(exit::UNSETTLED, "unsettled", message)
    }
    .note(Some(in_background))
    .hint(format!(
        "if this machine stays, the next job here puts it there otherwise, or now: {}",
        super::pasted::refresh(store)
    ))
    .with_facts_of(told)
}

/// Codex left the login as it was.
fn unchanged(rotating: &Rotating<'_>, report: &Report, told: Ending) -> Ending {
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
                "{login} in {store} was not rotated: the claim was lost before Codex was asked"
            );
            // Who has the claim now may be rotating the login.
            failed(exit::FAILED, "not-rotated", message).hint("try again later")
        }
        // Between our look and the claim somebody else has rotated it.
        (None, _) => {
            return Ending {
                outcome: "fresh",
                ..told
            };
        }
        (Some(CommandEnd::Cancelled), _) => failed(
            super::cancelled(report),
            "cancelled",
            format!("{login} unchanged in {store}: the job was cancelled before it was rotated"),
        ),
        (Some(CommandEnd::NotStarted(error)), _) => {
            let (code, hint) = super::not_started(error);
            let mut ending = failed(code, "not-rotated", cannot_start(report, rotating));
            ending.causes.push(error.to_string());
            ending.hint(hint).hint(OTHER_CODEX)
        }
        // So says `apart`, which was to run it.
        (Some(CommandEnd::Exited(code @ (exit::NOT_FOUND | exit::NOT_EXECUTABLE))), _) => {
            failed(*code, "not-rotated", cannot_start(report, rotating)).hint(OTHER_CODEX)
        }
        (Some(CommandEnd::Exited(_)), refreshed) => {
            let refreshed = refreshed.clone().unwrap_or_default();
            let why = not_rotated(&refreshed);
            if refreshed.may_be_spent {
                let message = format!("{login} in {store} may be spent: {why}");
                return Ending {
                    warnings: told.warnings.clone(),
                    ..failed(exit::UNSETTLED, "unsettled", message)
                }
                .hint("try again later: the provider tells whether it is")
                .with_facts_of(told);
            }
            let message = format!("{login} in {store} was not rotated: {why}");
            // Codex may have sent the token, and lost the answer.
            failed(exit::FAILED, "not-rotated", message)
                .hint("try again later; the login may be spent")
        }
        (Some(CommandEnd::Running), _) => unreachable!("what runs on is not unchanged"),
    };
    Ending {
        facts: told.facts,
        warnings: told.warnings,
        ..ending
    }
}

fn cannot_start(report: &Report, rotating: &Rotating<'_>) -> String {
    format!(
        "{} in {} was not rotated: `{}` cannot be started",
        super::login(report),
        rotating.store,
        rotating.codex.program.display()
    )
}

pub(crate) const OTHER_CODEX: &str = "name the Codex that rotates with `--codex PROGRAM`";

fn not_rotated(refreshed: &Refreshed) -> &'static str {
    match refreshed {
        Refreshed {
            out_of_time: true, ..
        } => "Codex was not done in time, and was ended",
        Refreshed {
            failure: Some(Failure::Refused),
            ..
        } => "the refresh token was refused, and Codex does not say why",
        Refreshed {
            failure: Some(Failure::Dead(_) | Failure::Passing),
            ..
        } => "the provider is out of reach or not well, says Codex",
        Refreshed {
            not_understood: true,
            ..
        } => "this Codex does not know how to",
        Refreshed { .. } => "Codex wrote no new login, and does not say why",
    }
}

/// Tells that a claim was not to be had.
pub(crate) fn unclaimed(rotating: &Rotating<'_>, rotated: &Rotated) -> Ending {
    match rotated.outcome {
        Outcome::Hindered(why) => hindered(rotating, rotated, why),
        Outcome::Fresh | Outcome::Nothing | Outcome::Turned | Outcome::Left => {
            let what = format!("{} has no claims", rotating.store);
            Ending::refused(exit::FAILED, what).hint("do without `--lease job`")
        }
    }
}

fn hindered(rotating: &Rotating<'_>, rotated: &Rotated, why: Hindrance) -> Ending {
    let store = rotating.store;
    let error = rotated.store_error.as_ref();
    match (why, rotated.signal) {
        (_, Some(signal)) => {
            let code = u8::try_from(128 + signal).unwrap_or(exit::FAILED);
            Ending::refused(code, "the job was cancelled before it began")
        }
        (Hindrance::Held, None) if rotated.at_work.is_some() => {
            let home = rotated.at_work.clone().unwrap_or_default();
            super::not_begun(&NotBegun::Rotating(home))
        }
        (Hindrance::Held, None) => {
            let (owner, until) = rotated.held.clone().unwrap_or_default();
            let until = i64::try_from(until).unwrap_or(i64::MAX);
            let until = OffsetDateTime::from_unix_timestamp(until)
                .map_or_else(|_| "some time".to_owned(), text);
            let what =
                format!("{owner} holds the claim to rotate the login in {store} until {until}");
            Ending {
                outcome: "held",
                ..Ending::refused(exit::HELD, what)
            }
            .hint("give it longer with `--wait TIME`; a claim that nobody renews is taken over half a minute after its end")
        }
        (Hindrance::Unreadable | Hindrance::Unwritable, None) => match error {
            Some(error) if why == Hindrance::Unwritable => super::claim(error),
            Some(error) => super::store(error),
            None => Ending::refused(exit::FAILED, format!("{store} cannot be used")),
        },
        (Hindrance::OutOfTime, None) => {
            let ending = super::out_of_time(store);
            match error {
                Some(error) => ending.caused_by(error),
                None => ending,
            }
        }
    }
}

/// Whether Codex would rotate the new login at once again.
fn is_spinning(report: &Report) -> bool {
    let now = commands::from_now(Duration::ZERO);
    let looping = report.refreshed.as_ref().is_some_and(|it| it.looping);
    let base = report.base.as_ref();
    looping || base.is_some_and(|base| base.generation.issued.is_due(now))
}

/// Whether the login is one that was to be rotated.
fn is_due(rotating: &Rotating<'_>, report: &Report) -> bool {
    let base = report.base.as_ref();
    base.is_some_and(|base| base.generation.issued.is_due(rotating.due_by))
}

fn before(rotated: &Rotated) -> String {
    let fingerprint: Option<Fingerprint> = rotated.generation.as_ref().map(|it| it.fingerprint);
    fingerprint.map(|it| it.to_string()).unwrap_or_default()
}
