//! `status`: shows what the store holds.

use std::{fmt::Write, path::Path, time::Duration};

use authferry_core::{Generation, Origin, Stamp, Stored};
use authferry_runner::rescue::Location;
use authferry_runner::{DeadLoginNote, LeaseDefect};
use time::OffsetDateTime;
use tokio::time::timeout;

use crate::args::{Global, StatusArgs};
use crate::commands::block_on;
use crate::copies::{self, JudgedCopy};
use crate::messages::time::text;
use crate::outcome::{Ending, Result};
use crate::plan::Plan;
use crate::{exit, messages};

pub(crate) fn status(args: &StatusArgs, global: &Global) -> Result<Ending> {
    let plan = Plan::new(global)?;
    // Without a usable rescue folder there are no rescued logins.
    let rescue = plan.rescue(global).ok();
    let store_timeout = args.common.store_timeout;
    let (state, copies, unread) = block_on(&plan, async {
        let state = read_store(&plan, store_timeout).await?;
        let (copies, unread) = match &rescue {
            Some(rescue) => {
                let unread = rescue.load_second_store(store_timeout).await.err();
                let stored = state.as_ref().map(|(stored, _, _)| stored);
                let judged = copies::judge(&plan, rescue, stored, store_timeout).await;
                let folder = rescue.folder();
                let copies = judged.map_err(|error| messages::rescue_folder(folder, &error))?;
                (copies, unread)
            }
            None => (Vec::new(), None),
        };
        Result::Ok((state, copies, unread))
    })??;
    let unread = unread.map(|error| messages::second_store(&error));
    let folder = rescue.as_ref().map_or(Path::new(""), |it| it.folder());
    let Some(state) = state else {
        let ending = if copies.is_empty() {
            let problem = format!("{} holds no login yet", plan.store);
            Ending::bad(exit::FAILED, "empty", problem).hint("seed it with `authferry seed FILE`")
        } else {
            Ending {
                outcome: "empty",
                ..messages::only_copies(
                    &plan.store,
                    folder,
                    None,
                    copies.iter().map(|it| &it.location),
                )
            }
        };
        return Err(with_copies(ending, &copies).into());
    };
    let generation = authferry_codex::parse(&state.0.secret).map_err(|why| {
        let ending = if copies.is_empty() {
            let problem = format!("the value in {} is unusable: {why}", plan.store);
            Ending::bad(exit::FAILED, "unusable", problem).hint(messages::RESEED)
        } else {
            let places = copies.iter().map(|it| &it.location);
            Ending {
                outcome: "unusable",
                ..messages::only_copies(&plan.store, folder, Some(why), places)
            }
        };
        with_copies(ending, &copies)
    })?;
    let head = Some(generation.fingerprint);
    let encrypted = rescue
        .as_ref()
        .map_or_else(Vec::new, |rescue| copies::encrypted(rescue, head));
    Ok(describe(
        &plan,
        args,
        &state,
        &generation,
        &Copies {
            folder,
            judged: copies,
            encrypted,
            unread,
        },
    ))
}

/// The store's value, the note that its login is dead, and the defect of its lease.
type StoreState = (Stored, Option<DeadLoginNote>, Option<LeaseDefect>);

async fn read_store(plan: &Plan, store_timeout: Duration) -> Result<Option<StoreState>> {
    let read = timeout(store_timeout, plan.store.read()).await;
    let read = read.map_err(|_| messages::out_of_time(&plan.store))?;
    let Some(stored) = read.map_err(|error| messages::store(&error))? else {
        return Ok(None);
    };
    let lease = match plan.store.leases() {
        Some(leases) => timeout(store_timeout, leases.look()).await,
        None => Ok(Ok(None)),
    };
    let lease = lease.ok().and_then(std::result::Result::ok).flatten();
    let defect = lease.as_ref().and_then(LeaseDefect::of);
    let note = authferry_codex::parse(&stored.secret)
        .ok()
        .and_then(|it| DeadLoginNote::in_status(it.fingerprint, lease.as_ref()?));
    Ok(Some((stored, note, defect)))
}

/// The copies outside of the store.
struct Copies<'a> {
    /// The rescue folder.
    folder: &'a Path,
    judged: Vec<JudgedCopy>,
    /// The encrypted copies: whether each may be later, and a line about it.
    encrypted: Vec<(bool, String)>,
    /// Why the second store could not be read.
    unread: Option<Ending>,
}

/// Adds the copies to the message about a store without a login.
fn with_copies(mut ending: Ending, copies: &[JudgedCopy]) -> Ending {
    let reason = ending.reason().to_owned();
    ending.message = reason;
    ending.fact("copies", copies::to_json(copies))
}

fn describe(
    plan: &Plan,
    args: &StatusArgs,
    state: &StoreState,
    generation: &Generation,
    copies: &Copies<'_>,
) -> Ending {
    let Copies {
        folder,
        judged: copies,
        encrypted,
        unread,
    } = copies;
    let now = OffsetDateTime::now_utc();
    let (stored, note, defect) = state;
    let (note, defect) = (note.as_ref(), *defect);
    let ends = generation
        .issued
        .exp
        .and_then(|exp| OffsetDateTime::from_unix_timestamp(exp).ok());
    let refreshed = generation
        .issued
        .last_refresh
        .and_then(|nanoseconds| OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).ok());
    let stamp = stored.stamp.as_ref();
    let written = written(stamp);
    let mut ending = Ending::good("held", "");
    let mut row = |name: &str, value: &dyn std::fmt::Display| {
        ending.lines.push(format!("{name:<13} {value}"));
    };
    row("store", &plan.store);
    row("login", &generation.fingerprint);
    row("account", &generation.identity);
    row("version", &stored.version);
    if let Some(stamp) = stamp {
        row("generation", &stamp.count);
    }
    row("written", &written);
    row(
        "access token",
        &ends.map_or_else(|| "expiry unknown".to_owned(), |at| expiry_at(at, now)),
    );
    row(
        "last refresh",
        &refreshed.map_or_else(|| "unknown".to_owned(), text),
    );
    let due = generation.issued.due();
    let due = due.and_then(|due| OffsetDateTime::from_unix_timestamp(due).ok());
    row("rotation", &due_at(due, now));
    if let Some(note) = note {
        row("refresh token", &messages::dead_login(note));
    }
    if let Some(defect) = defect {
        row("lease", &messages::lease_defect(defect));
    }
    let encrypted = encrypted.iter().map(|(_, line)| line.clone());
    for line in copies.iter().map(JudgedCopy::line).chain(encrypted) {
        ending.lines.push(format!("{:<13} {line}", "copy"));
    }
    let attention = attention(
        plan,
        folder,
        state,
        copies,
        unread.as_ref(),
        ends.is_some_and(|ends| ends <= now),
    );
    if let (true, Some((problem, hint))) = (args.check, attention) {
        ending.failed = true;
        ending.code = exit::ATTENTION;
        ending.outcome = "attention";
        ending.message = format!(
            "login {} is in {}, but {problem}",
            generation.fingerprint, plan.store
        );
        ending = ending.hint(hint);
    }
    if let Some(unread) = unread {
        ending.warnings.push(unread.reason().to_owned());
    }
    if let Some(defect) = defect {
        let word = match defect {
            LeaseDefect::Foreign => "foreign",
            LeaseDefect::EndsTooLate => "ends-too-late",
        };
        ending = ending.fact("lease_defect", word);
    }
    ending
        .fact("store", plan.store.to_string())
        .fact("fingerprint", generation.fingerprint.to_string())
        .fact("account", generation.identity.to_string())
        .fact("version", stored.version.to_string())
        .fact("generation", stamp.map(|stamp| stamp.count))
        .fact("origin", stamp.map(|stamp| stamp.origin.to_string()))
        .fact(
            "writer",
            stamp
                .map(|stamp| stamp.writer.clone())
                .filter(|writer| !writer.is_empty()),
        )
        .fact("access_token_ends", ends.map(text))
        .fact("last_refresh", refreshed.map(text))
        .fact("rotation_due", due.map(text))
        .fact("dead_since", note.map(messages::dead_since))
        .fact("copies", copies::to_json(copies))
}

/// What needs attention, with a hint.
fn attention(
    plan: &Plan,
    rescue: &Path,
    (_, note, defect): &StoreState,
    copies: &[JudgedCopy],
    unread: Option<&Ending>,
    has_expired: bool,
) -> Option<(String, String)> {
    if let Some(copy) = copies.iter().find(|copy| copy.is_adopted()) {
        let (place, put) = match &copy.location {
            Location::File(_) | Location::EncryptedFile(_) => {
                let login = &copy.fingerprint;
                let put = messages::pasted::rescue_put(&plan.store, rescue, "", login);
                ("on this machine".to_owned(), put)
            }
            location @ Location::SecondStore { .. } => {
                let put = messages::put(&plan.store, rescue, "", location);
                (format!("in {location}"), put)
            }
        };
        let hint = format!("let a job adopt it, or {put}");
        Some((format!("a later one is saved {place}"), hint))
    } else if note.is_some() {
        let problem = "its refresh token is dead".to_owned();
        Some((problem, messages::RESEED.to_owned()))
    } else if let Some(unread) = unread {
        let hint = unread.hints.first().cloned();
        let problem = "the second store cannot be read".to_owned();
        Some((problem, hint.unwrap_or_default()))
    } else if has_expired {
        let hint = "let a job rotate it: `authferry run -- codex exec …`".to_owned();
        Some(("its access token has expired".to_owned(), hint))
    } else {
        defect.map(|defect| {
            let problem = messages::lease_defect(defect);
            (problem, messages::take_over(&plan.store))
        })
    }
}

/// How a value was written to the store, and by which writer.
pub(crate) fn written(stamp: Option<&Stamp>) -> String {
    match stamp.map(|stamp| (stamp.origin, stamp.writer.as_str())) {
        None => "by hand".to_owned(),
        // Some stores cannot hold the writer's name.
        Some((Origin::Seed, "")) => "seeded".to_owned(),
        Some((Origin::Rotation, "")) => "persisted".to_owned(),
        Some((Origin::Seed, writer)) => format!("seeded by {writer}"),
        Some((Origin::Rotation, writer)) => format!("persisted by {writer}"),
    }
}

pub(crate) fn due_at(due: Option<OffsetDateTime>, now: OffsetDateTime) -> String {
    match due {
        None => "never due".to_owned(),
        Some(due) if due <= now => format!("due since {}", text(due)),
        Some(due) => format!("due from {} on", text(due)),
    }
}

pub(crate) fn expiry_at(ends: OffsetDateTime, now: OffsetDateTime) -> String {
    let mut line = String::new();
    let distance = (ends - now).unsigned_abs();
    let words = if ends > now {
        ("expires", "in ", "")
    } else {
        ("expired", "", " ago")
    };
    // Writing to a string cannot fail.
    write!(
        line,
        "{} {}, {}{}{}",
        words.0,
        text(ends),
        words.1,
        rounded(distance),
        words.2
    )
    .ok();
    line
}

/// A duration in its largest unit only.
fn rounded(span: Duration) -> String {
    let seconds = span.as_secs();
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_rounded_down_to_the_largest_unit() {
        let text = |seconds| rounded(Duration::from_secs(seconds));
        assert_eq!(
            [text(1), text(59), text(60)],
            ["1 second", "59 seconds", "1 minute"]
        );
        assert_eq!([text(7200), text(86_400 * 10 - 1)], ["2 hours", "9 days"]);
    }

    #[test]
    fn an_expiry_is_in_the_future_or_in_the_past() {
        let at = |seconds| OffsetDateTime::from_unix_timestamp(seconds).expect("a time");
        assert_eq!(
            expiry_at(at(3600), at(0)),
            "expires 1970-01-01T01:00:00Z, in 1 hour"
        );
        assert_eq!(
            expiry_at(at(0), at(120)),
            "expired 1970-01-01T00:00:00Z, 2 minutes ago"
        );
    }
}
