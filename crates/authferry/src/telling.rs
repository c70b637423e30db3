//! What became of a login, in words: every message about a trip, and every hint.

use std::{
    ffi::OsStr,
    io,
    time::{SystemTime, UNIX_EPOCH},
};

use authferry_codex::{Unfit, Unusable};
use authferry_core::{Cause, ErrorKind, Fingerprint, Outcome, Refusal, StoreError};
use authferry_runner::{CommandEnd, Job, Placement, Report, Written};
use serde_json::{Value, json};

use crate::ending::Ending;
use crate::exit;

/// Tells how a trip ended. `program`: the command it was to run, if it was.
pub(crate) fn trip(job: &Job<'_>, report: &Report, program: Option<&OsStr>) -> Ending {
    let ending = match &report.outcome {
        Outcome::Refused(why) => refused(job, report, *why),
        Outcome::Restored => restored(job, report),
        Outcome::Unchanged => {
            let message = format!("{} unchanged in {}", login(report), job.store);
            of_command(Ending::good("unchanged", message), report, program)
        }
        Outcome::Persisted { buried } => {
            let message = format!(
                "{} is now in {}, version {}",
                login(report),
                job.store,
                version(report)
            );
            let mut ending = of_command(Ending::good("persisted", message), report, program);
            for theirs in buried {
                let kept =
                    kept(report, *theirs).unwrap_or_else(|| "the store's history".to_owned());
                ending.warnings.push(format!(
                    "login {theirs} of another job was issued earlier, and was replaced; it is kept in {kept}"
                ));
            }
            ending.fact(
                "replaced",
                buried.iter().map(ToString::to_string).collect::<Vec<_>>(),
            )
        }
        Outcome::Superseded { by, rescued } => superseded(job, report, *by, *rescued),
        Outcome::Stranded { cause, rescued } => stranded(job, report, *cause, *rescued),
    };
    with_facts(ending, job, report)
}

/// Tells why a home or an auth file is refused.
pub(crate) fn unfit(unfit: &Unfit) -> Ending {
    let ending = Ending::refused(exit::REFUSED, unfit).because(unfit);
    match hint_for(unfit) {
        Some(hint) => ending.hint(hint),
        None => ending,
    }
}

/// Tells why the store did not do as asked, before anything was touched.
pub(crate) fn store(error: &StoreError) -> Ending {
    let ending = Ending::refused(exit::FAILED, error).because(error);
    match hint_for_store(error.kind) {
        Some(hint) => ending.hint(hint),
        None => ending,
    }
}

fn refused(job: &Job<'_>, report: &Report, why: Refusal) -> Ending {
    let file = job.home.auth_file().display();
    let store_error = report.store_error.as_ref();
    match why {
        Refusal::NothingStored => {
            Ending::refused(exit::FAILED, format!("{} holds no login yet", job.store))
                .hint("put one there with `authferry seed FILE`, or let the first job do so with `--seed-from-env VAR`")
        }
        Refusal::UnusableStored => {
            let what = format!("what {} holds is unusable: {}", job.store, reason(report.stored_unusable));
            Ending::refused(exit::FAILED, what)
                .hint("put a fresh login over it with `authferry seed --replace FILE`")
        }
        Refusal::UnusableFile => {
            let what = format!("{file} is unusable: {}", reason(report.file_unusable));
            Ending::refused(exit::REFUSED, what).hint("let go of it with `--replace`, or move it away")
        }
        Refusal::OtherAccount => {
            let what = format!("{file} belongs to another account than the login in {}", job.store);
            Ending::refused(exit::REFUSED, what)
                .hint("let go of it with `--replace`, or name another home with `--codex-home DIR`")
        }
        Refusal::Undecided => {
            let what = format!("{file} differs from the login in {}, and neither tells which is newer", job.store);
            Ending::refused(exit::REFUSED, what).hint("let go of the file with `--replace`, or move it away")
        }
        Refusal::Unreadable => store_error.map_or_else(
            || Ending::refused(exit::FAILED, format!("{} cannot be read", job.store)),
            store,
        ),
        Refusal::Unwritable => {
            let ending = store_error.map_or_else(
                || Ending::refused(exit::FAILED, format!("{} cannot be written", job.store)),
                store,
            );
            ending.hint(format!("{file} is newer than the store: it stays where it is, and is put there first when this is mended"))
        }
        Refusal::OutOfTime if report.signal.is_some() => {
            Ending::refused(cancelled(report), "the job was cancelled before it began")
        }
        Refusal::OutOfTime => {
            let what = format!("{} did not answer in time", job.store);
            let mut ending = Ending::refused(exit::FAILED, what);
            if let Some(error) = store_error {
                ending.causes.push(error.to_string());
                ending = ending.because(error);
            }
            ending.hint("give it longer with `--patience TIME`")
        }
        Refusal::NotPlaced => match &report.unfit {
            Some(unfit) => self::unfit(unfit),
            None => Ending::refused(exit::FAILED, format!("{file} cannot be placed")),
        },
    }
}

fn restored(job: &Job<'_>, report: &Report) -> Ending {
    let file = job.home.auth_file().display();
    let login = login(report);
    if let Some(error) = &report.receipt_error {
        let message = format!(
            "{login} is in {file}, but `authferry persist` will not find its receipt: {error}"
        );
        return Ending::bad(exit::FAILED, "restored", message)
            .hint("free some room, and run `authferry restore` again");
    }
    let message = match report.placement {
        Some(Placement::Adopted) => {
            format!(
                "{login} was newer in {file}, and is now in {}, version {}",
                job.store,
                version(report)
            )
        }
        Some(Placement::Kept) => format!("{login} was in {file} already"),
        Some(Placement::Placed) | None => {
            format!(
                "{login} is in {file}, from {}, version {}",
                job.store,
                version(report)
            )
        }
    };
    Ending::good("restored", message)
}

fn superseded(job: &Job<'_>, report: &Report, by: Fingerprint, rescued: bool) -> Ending {
    let what = format!(
        "login {by}, which somebody else put into {}, stays current",
        job.store
    );
    if rescued {
        let message = format!("the job's login is kept in {}: {what}", files(report));
        Ending::bad(exit::SUPERSEDED, "superseded", message)
            .hint("nothing has to be done unless the current login is dead")
            .hint(format!(
                "in that case put ours back with `authferry seed --replace {}`",
                files(report)
            ))
    } else {
        not_kept(
            Ending::bad(
                exit::LOST,
                "superseded",
                format!("the job's login is not in the store, and was not kept: {what}"),
            ),
            job,
            report,
        )
    }
}

fn stranded(job: &Job<'_>, report: &Report, cause: Cause, rescued: bool) -> Ending {
    let store = job.store;
    let what = match (cause, &report.store_error, &report.unfit) {
        (Cause::Store, Some(error), _) => error.to_string(),
        (Cause::Store, None, _) => format!("{store} did not answer in time"),
        (Cause::Emptied, _, _) => format!("{store} was emptied meanwhile"),
        (Cause::Stranger, _, _) => match report.stored_unusable {
            Some(why) => format!("what {store} holds now is unusable: {why}"),
            None => format!("{store} holds a login of another account now"),
        },
        (Cause::OtherAccount, _, _) => {
            "the auth file belongs to another account than was restored".to_owned()
        }
        (Cause::Older, _, _) => "the auth file carries a login that was issued earlier".to_owned(),
        (Cause::Unusable, _, Some(unfit)) => unfit.to_string(),
        (Cause::Unusable, _, None) => format!(
            "the auth file is unusable: {}",
            reason(report.file_unusable)
        ),
        (Cause::Missing, _, _) => "the auth file is gone".to_owned(),
    };
    let about_the_file = matches!(
        cause,
        Cause::OtherAccount | Cause::Older | Cause::Unusable | Cause::Missing
    );
    let (code, where_it_is) = match (about_the_file, rescued) {
        (true, true) => (
            exit::RESCUED,
            format!(
                "{store} still holds {}, and the file is kept in {}",
                login(report),
                files(report)
            ),
        ),
        (true, false) => (
            exit::LOST,
            format!("{store} still holds {}, which may be spent", login(report)),
        ),
        (false, true) => (
            exit::RESCUED,
            format!(
                "the rotated login is not in the store, and is kept in {}",
                files(report)
            ),
        ),
        (false, false) => (
            exit::LOST,
            "the rotated login is not in the store, and was not kept".to_owned(),
        ),
    };
    let mut ending = Ending::bad(code, "stranded", format!("{where_it_is}: {what}"));
    if let (Cause::Store, Some(error)) = (cause, &report.store_error) {
        ending = ending.because(error);
    }
    if !rescued && cause != Cause::Missing {
        ending = not_kept(ending, job, report);
    }
    match cause {
        Cause::Store | Cause::Stranger | Cause::Emptied if rescued => {
            ending.hint(format!("when the store is well again: `authferry seed --replace {}`", files(report)))
        }
        Cause::OtherAccount => ending.hint("if the change of account is wanted, add `--allow-account-change`"),
        Cause::Older => ending.hint("let nothing but Codex write the auth file, no cache and no copy"),
        Cause::Unusable | Cause::Missing => {
            ending.hint("if the next job finds the login dead, log in afresh and `authferry seed --replace FILE`")
        }
        Cause::Store | Cause::Stranger | Cause::Emptied => ending,
    }
}

fn not_kept(mut ending: Ending, job: &Job<'_>, report: &Report) -> Ending {
    if let Some(error) = &report.rescue_error {
        ending
            .causes
            .push(format!("cannot write to {}: {error}", job.rescue.display()));
    }
    if job.home.auth_file().exists() {
        ending = ending.hint(format!(
            "the only copy is {}: save it before the machine goes",
            job.home.auth_file().display()
        ));
    }
    ending
}

/// The login is safe: the command's own end decides.
fn of_command(mut ending: Ending, report: &Report, program: Option<&OsStr>) -> Ending {
    let program = program.unwrap_or_default().display();
    match &report.command {
        None => ending,
        Some(CommandEnd::Exited(code)) => {
            ending.code = *code;
            ending
        }
        Some(CommandEnd::Cancelled) => {
            let message = format!(
                "{}: the job was cancelled before `{program}` was started",
                ending.message
            );
            Ending::bad(cancelled(report), ending.outcome, message)
        }
        Some(CommandEnd::NotStarted(error)) => {
            let (code, hint) = if error.kind() == io::ErrorKind::NotFound {
                (exit::NOT_FOUND, "check the command's name and PATH")
            } else {
                (
                    exit::NOT_EXECUTABLE,
                    "check that the file is a program, and may be executed",
                )
            };
            let message = format!("{}: `{program}` cannot be started", ending.message);
            let mut ending = Ending::bad(code, ending.outcome, message).hint(hint);
            ending.causes.push(error.to_string());
            ending
        }
    }
}

fn with_facts(mut ending: Ending, job: &Job<'_>, report: &Report) -> Ending {
    if report.ended > 0 {
        ending.warnings.push(format!(
            "{} that the command left behind had to be ended, for a Codex among them could still rotate the login",
            if report.ended == 1 { "a process".to_owned() } else { format!("{} processes", report.ended) }
        ));
    }
    for write in &report.writes {
        ending.details.push(format!(
            "wrote login {} as version {}",
            write.fingerprint, write.version
        ));
    }
    let safe = matches!(
        report.outcome,
        Outcome::Unchanged | Outcome::Persisted { .. }
    );
    if let (true, Some(unfit)) = (safe, &report.unfit) {
        ending
            .warnings
            .push(format!("the auth file is left behind: {unfit}"));
    }
    let base = report.base.as_ref();
    let write = |write: &Written| {
        json!({
            "fingerprint": write.fingerprint.to_string(),
            "version": write.version.as_str(),
            "time": seconds(write.at),
        })
    };
    let writes: Vec<_> = report.writes.iter().map(write).collect();
    let command_exit_code = match report.command {
        Some(CommandEnd::Exited(code)) => Value::from(code),
        Some(CommandEnd::NotStarted(_) | CommandEnd::Cancelled) | None => Value::Null,
    };
    ending
        .fact("store", job.store.to_string())
        .fact("account", base.map(|b| b.generation.account.to_string()))
        .fact(
            "fingerprint",
            base.map(|b| b.generation.fingerprint.to_string()),
        )
        .fact("version", base.map(|b| b.version.to_string()))
        .fact("placement", report.placement.map(placement))
        .fact("command_exit_code", command_exit_code)
        .fact("signal", report.signal)
        .fact("writes", writes)
        .fact(
            "rescued",
            report
                .rescued
                .iter()
                .map(|p| p.display().to_string())
                .collect::<Vec<_>>(),
        )
}

fn login(report: &Report) -> String {
    let fingerprint = report
        .base
        .as_ref()
        .map(|base| base.generation.fingerprint.to_string());
    format!("login {}", fingerprint.unwrap_or_default())
}

fn version(report: &Report) -> &str {
    report
        .base
        .as_ref()
        .map_or("", |base| base.version.as_str())
}

fn files(report: &Report) -> String {
    let files: Vec<_> = report
        .rescued
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    files.join(" and ")
}

/// The rescue file of one fingerprint.
fn kept(report: &Report, fingerprint: Fingerprint) -> Option<String> {
    let name = format!("{fingerprint}.json");
    let file = report
        .rescued
        .iter()
        .find(|path| path.file_name() == Some(OsStr::new(&name)))?;
    Some(file.display().to_string())
}

fn reason(why: Option<Unusable>) -> String {
    why.map_or_else(|| "it cannot be read".to_owned(), |why| why.to_string())
}

/// The exit code of a shell whose command a signal ended.
fn cancelled(report: &Report) -> u8 {
    report
        .signal
        .and_then(|n| u8::try_from(128 + n).ok())
        .unwrap_or(exit::FAILED)
}

fn placement(placement: Placement) -> &'static str {
    match placement {
        Placement::Placed => "placed",
        Placement::Kept => "kept",
        Placement::Adopted => "adopted",
    }
}

fn hint_for(unfit: &Unfit) -> Option<String> {
    Some(match unfit {
        Unfit::Symlink { .. } => {
            "put the file itself there: Codex would replace what the link points to".to_owned()
        }
        Unfit::NotARegularFile { path } => format!("move {} away", path.display()),
        Unfit::HardLinked { path, .. } => {
            let path = path.display();
            format!("give it one name: `cp {path} {path}.new && mv {path}.new {path}`")
        }
        Unfit::MountPoint { .. } => {
            "mount the whole home of Codex: it replaces the file by renaming a new one over it"
                .to_owned()
        }
        Unfit::ForeignOwner { path, .. } | Unfit::HomeNotOurs { path, .. } => {
            format!("run as its owner, or `chown` {}", path.display())
        }
        Unfit::ReadOnlyFile { path } => {
            format!("`chmod 600 {}`: Codex has to write it", path.display())
        }
        Unfit::HomeReadableByOthers { path, .. } => format!("`chmod 700 {}`", path.display()),
        Unfit::HomeNotADirectory { .. } | Unfit::HomeNotWritable { .. } => {
            "name a folder of your own with `--codex-home DIR`".to_owned()
        }
        Unfit::InsideGitWorkTree { .. } => {
            "name a folder outside of it with `--codex-home DIR`, in $RUNNER_TEMP for one"
                .to_owned()
        }
        Unfit::CredentialsStore { .. } => {
            "set cli_auth_credentials_store = \"file\" there, or take the line out".to_owned()
        }
        Unfit::ForcedApiLogin { .. } => "take the line out".to_owned(),
        Unfit::ConfigMalformed { .. } => {
            "mend the file: Codex does not start with it either".to_owned()
        }
        Unfit::Io { .. } => return None,
    })
}

fn hint_for_store(kind: ErrorKind) -> Option<&'static str> {
    match kind {
        ErrorKind::NotFound => Some("check the address; the place itself has to be there already"),
        ErrorKind::PermissionDenied => Some("the job's identity lacks a right on the store"),
        ErrorKind::Unauthenticated => Some("check how the job logs in to the store"),
        ErrorKind::Throttled | ErrorKind::Unavailable => {
            Some("give it longer with `--patience TIME`")
        }
        ErrorKind::Full => Some("free some room there, and try again"),
        ErrorKind::TooLarge | ErrorKind::Malformed | ErrorKind::Unsafe | ErrorKind::Unexpected => {
            None
        }
    }
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
