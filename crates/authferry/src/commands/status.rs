//! `status`: what the store holds.

use std::{fmt::Write, path::Path, time::Duration};

use authferry_core::{Generation, Origin, Stamp, Stored};
use authferry_runner::rescue::Location;
use authferry_runner::{LeaseDefect, Mark};
use time::OffsetDateTime;
use tokio::time::timeout;

use crate::args::{Global, Status};
use crate::commands::block_on;
use crate::copies::{self, Judged};
use crate::ending::{Ending, Result};
use crate::plan::Plan;
use crate::telling::time::text;
use crate::{exit, telling};

pub(crate) fn status(args: &Status, global: &Global) -> Result<Ending> {
    let plan = Plan::new(global)?;
    // Where there is no place for a rescue, there is none.
    let rescue = plan.rescue(global).ok();
    let patience = args.common.patience;
    let (looked, copies, unseen) = block_on(&plan, async {
        let looked = look(&plan, patience).await?;
        let (copies, unseen) = match &rescue {
            Some(rescue) => {
                let unseen = rescue.look(patience).await.err();
                let stored = looked.as_ref().map(|(stored, _, _)| stored);
                let judged = copies::judged(&plan, rescue, stored, patience).await;
                let folder = rescue.folder();
                let copies = judged.map_err(|error| telling::rescue_folder(folder, &error))?;
                (copies, unseen)
            }
            None => (Vec::new(), None),
        };
        Result::Ok((looked, copies, unseen))
    })??;
    let unseen = unseen.map(|error| telling::second_store(&error));
    let folder = rescue.as_ref().map_or(Path::new(""), |it| it.folder());
    let Some(looked) = looked else {
        let ending = if copies.is_empty() {
            let what = format!("{} holds no login yet", plan.store);
            Ending::bad(exit::FAILED, "empty", what)
                .hint("put one there with `authferry seed FILE`")
        } else {
            Ending {
                outcome: "empty",
                ..telling::only_copies(
                    &plan.store,
                    folder,
                    None,
                    copies.iter().map(|it| &it.location),
                )
            }
        };
        return Err(with_copies(ending, &copies).into());
    };
    let generation = authferry_codex::parse(&looked.0.secret).map_err(|why| {
        let ending = if copies.is_empty() {
            let what = format!("what {} holds is unusable: {why}", plan.store);
            Ending::bad(exit::FAILED, "unusable", what)
                .hint("put a fresh login over it with `authferry seed --replace FILE`")
        } else {
            let places = copies.iter().map(|it| &it.location);
            Ending {
                outcome: "unusable",
                ..telling::only_copies(&plan.store, folder, Some(why), places)
            }
        };
        with_copies(ending, &copies)
    })?;
    let head = Some(generation.fingerprint);
    let encrypted = rescue
        .as_ref()
        .map_or_else(Vec::new, |rescue| copies::encrypted(rescue, head));
    Ok(told(
        &plan,
        args,
        &looked,
        &generation,
        &Seen {
            folder,
            copies,
            encrypted,
            unseen,
        },
    ))
}

/// What the store holds, what was noted of it, and what is wrong with its lease.
type Looked = (Stored, Option<Mark>, Option<LeaseDefect>);

async fn look(plan: &Plan, patience: Duration) -> Result<Option<Looked>> {
    let read = timeout(patience, plan.store.read()).await;
    let read = read.map_err(|_| telling::out_of_time(&plan.store))?;
    let Some(stored) = read.map_err(|error| telling::store(&error))? else {
        return Ok(None);
    };
    let standing = match plan.store.claims() {
        Some(claims) => timeout(patience, claims.look()).await,
        None => Ok(Ok(None)),
    };
    let standing = standing.ok().and_then(std::result::Result::ok).flatten();
    let defect = standing.as_ref().and_then(LeaseDefect::of);
    let mark = authferry_codex::parse(&stored.secret)
        .ok()
        .and_then(|it| Mark::noted(it.fingerprint, standing.as_ref()?));
    Ok(Some((stored, mark, defect)))
}

/// The copies that can be seen.
struct Seen<'a> {
    /// The rescue folder.
    folder: &'a Path,
    copies: Vec<Judged>,
    /// The encrypted copies: whether each may be later, and what to say of it.
    encrypted: Vec<(bool, String)>,
    /// Why the second store could not be read.
    unseen: Option<Ending>,
}

/// Adds the copies to what is said of a store that holds no login.
fn with_copies(mut ending: Ending, copies: &[Judged]) -> Ending {
    let reason = ending.reason().to_owned();
    ending.message = reason;
    ending.fact("copies", copies::for_programs(copies))
}

fn told(
    plan: &Plan,
    args: &Status,
    looked: &Looked,
    generation: &Generation,
    seen: &Seen<'_>,
) -> Ending {
    let Seen {
        folder,
        copies,
        encrypted,
        unseen,
    } = seen;
    let now = OffsetDateTime::now_utc();
    let (stored, mark, defect) = looked;
    let (mark, defect) = (mark.as_ref(), *defect);
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
        &ends.map_or_else(|| "tells no end".to_owned(), |at| ending_at(at, now)),
    );
    row(
        "last refresh",
        &refreshed.map_or_else(|| "unknown".to_owned(), text),
    );
    let due = generation.issued.due();
    let due = due.and_then(|due| OffsetDateTime::from_unix_timestamp(due).ok());
    row("rotation", &due_at(due, now));
    if let Some(mark) = mark {
        row("refresh token", &telling::of_mark(mark));
    }
    if let Some(defect) = defect {
        row("lease", &telling::lease_defect(defect));
    }
    let encrypted = encrypted.iter().map(|(_, line)| line.clone());
    for line in copies.iter().map(Judged::line).chain(encrypted) {
        ending.lines.push(format!("{:<13} {line}", "copy"));
    }
    let attention = attention(
        plan,
        folder,
        looked,
        copies,
        unseen.as_ref(),
        ends.is_some_and(|ends| ends <= now),
    );
    if let (true, Some((what, hint))) = (args.check, attention) {
        ending.failed = true;
        ending.code = exit::ATTENTION;
        ending.outcome = "attention";
        ending.message = format!(
            "login {} is in {}, but {what}",
            generation.fingerprint, plan.store
        );
        ending = ending.hint(hint);
    }
    if let Some(unseen) = unseen {
        ending.warnings.push(unseen.reason().to_owned());
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
        .fact("dead_since", mark.map(telling::dead_since))
        .fact("copies", copies::for_programs(copies))
}

/// What needs the attention of a person, and what to do.
fn attention(
    plan: &Plan,
    rescue: &Path,
    (_, mark, defect): &Looked,
    copies: &[Judged],
    unseen: Option<&Ending>,
    has_ended: bool,
) -> Option<(String, String)> {
    if let Some(copy) = copies.iter().find(|copy| copy.is_adopted()) {
        let (place, put) = match &copy.location {
            Location::File(_) | Location::EncryptedFile(_) => {
                let login = &copy.fingerprint;
                let put = telling::pasted::rescue_put(&plan.store, rescue, "", login);
                ("on this machine".to_owned(), put)
            }
            location @ Location::SecondStore { .. } => {
                let put = telling::put(&plan.store, rescue, "", location);
                (format!("in {location}"), put)
            }
        };
        let hint = format!("let a job adopt it, or {put}");
        Some((format!("a later one is kept {place}"), hint))
    } else if mark.is_some() {
        let what = "its refresh token is dead".to_owned();
        Some((what, telling::RESEED.to_owned()))
    } else if let Some(unseen) = unseen {
        let hint = unseen.hints.first().cloned();
        let what = "the second store cannot be read".to_owned();
        Some((what, hint.unwrap_or_default()))
    } else if has_ended {
        let hint = "let a job rotate it: `authferry run -- codex exec …`".to_owned();
        Some(("its access token has ended".to_owned(), hint))
    } else {
        defect.map(|defect| {
            let what = telling::lease_defect(defect);
            (what, telling::take_over(&plan.store))
        })
    }
}

/// How a value came into the store, and by whom.
pub(crate) fn written(stamp: Option<&Stamp>) -> String {
    match stamp.map(|stamp| (stamp.origin, stamp.writer.as_str())) {
        None => "by hand".to_owned(),
        // Not every store has room for a name.
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

pub(crate) fn ending_at(ends: OffsetDateTime, now: OffsetDateTime) -> String {
    let mut line = String::new();
    let distance = (ends - now).unsigned_abs();
    let words = if ends > now {
        ("ends", "in ", "")
    } else {
        ("ended", "", " ago")
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

/// The span in its largest unit alone: nobody plans by the seconds of ten days.
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
    fn spans_are_told_in_their_largest_unit() {
        let told = |seconds| rounded(Duration::from_secs(seconds));
        assert_eq!(
            [told(1), told(59), told(60)],
            ["1 second", "59 seconds", "1 minute"]
        );
        assert_eq!([told(7200), told(86_400 * 10 - 1)], ["2 hours", "9 days"]);
    }

    #[test]
    fn a_token_that_has_ended_is_told_so() {
        let at = |seconds| OffsetDateTime::from_unix_timestamp(seconds).expect("a time");
        assert_eq!(
            ending_at(at(3600), at(0)),
            "ends 1970-01-01T01:00:00Z, in 1 hour"
        );
        assert_eq!(
            ending_at(at(0), at(120)),
            "ended 1970-01-01T00:00:00Z, 2 minutes ago"
        );
    }
}
