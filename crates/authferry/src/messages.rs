//! The messages and hints about a round trip: what happened to the login, and what to do next.

use std::{
    ffi::OsStr,
    fmt::Display,
    io,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use ::time::OffsetDateTime;
use authferry_codex::{AuthFileError, HomeError};
use authferry_core::{Fingerprint, Generation, Outcome, Refusal, StoreError};
use authferry_runner::rescue::Location;
use authferry_runner::{CommandEnd, Job, LeaseDefect, Placement, Report, StartError, Written};
use serde_json::{Value, json};

use crate::exit;
use crate::outcome::Ending;

mod hints;
pub(crate) mod pasted;
mod refusal;
mod rescue;
mod rotation;
pub(crate) mod time;
mod unsaved;
mod unsettled;
mod use_of_home;
mod watching;

pub(crate) use hints::for_opening;
pub(crate) use refusal::{refused_by_provider, refused_login, refused_since};
pub(crate) use rescue::{put, same_place, second_store};
pub(crate) use rotation::{
    OTHER_CODEX, may_start, no_lease, not_rotated_first, rotation, unsettled,
};
pub(crate) use unsettled::may_be_spent;
pub(crate) use use_of_home::terminated;
pub(crate) use watching::{watched, watching};

/// Describes the end of a round trip. `program` is the command of `run`.
pub(crate) fn round_trip(job: &Job<'_>, report: &Report, program: Option<&OsStr>) -> Ending {
    let ending = match &report.outcome {
        Outcome::Refused(why) => refused(job, report, *why),
        Outcome::Restored => restored(job, report),
        Outcome::Unsettled => unsettled::left_running(job, report),
        Outcome::Unchanged | Outcome::Persisted { .. } if report.in_use.is_some() => {
            use_of_home::unsettled(job, report)
        }
        Outcome::Unchanged if report.nested => {
            of_command(use_of_home::kept(job, report), report, program)
        }
        Outcome::Unchanged if unsettled::is_interrupted(report) => {
            unsettled::interrupted(job, report)
        }
        Outcome::Unchanged if unsettled::may_be_spent(job, report) => {
            of_command(unsettled::not_replaced(job, report), report, program)
        }
        Outcome::Unchanged if report.unfinished_rotation => {
            of_command(unsettled::unanswered(job, report), report, program)
        }
        Outcome::Unchanged => {
            let message = format!("{} is unchanged in {}", login(report), job.store);
            of_command(Ending::good("unchanged", message), report, program)
        }
        Outcome::Persisted { overwritten } => {
            let message = format!(
                "{} is now in {}, version {}",
                login(report),
                job.store,
                version(report)
            );
            let mut ending = of_command(Ending::good("persisted", message), report, program);
            for theirs in overwritten {
                let kept =
                    kept(report, *theirs).unwrap_or_else(|| "the store's history".to_owned());
                ending.warnings.push(format!(
                    "login {theirs} of another job was issued earlier and was overwritten: it is saved in {kept}"
                ));
            }
            ending.fact(
                "replaced",
                overwritten
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>(),
            )
        }
        Outcome::Superseded { by, rescued } => unsaved::superseded(job, report, *by, *rescued),
        Outcome::NotPersisted { cause, rescued } => {
            unsaved::not_persisted(job, report, *cause, *rescued)
        }
    };
    let of_command = program.is_some();
    with_facts(ending, job, report, of_command)
}

/// Explains why a round trip did not start.
pub(crate) fn start_error(error: &StartError) -> Ending {
    match error {
        StartError::HomeError(error) => home_error(error),
        StartError::Busy(_) | StartError::InUse(..) => {
            Ending::refused(exit::REFUSED, error).hint(use_of_home::ONE_JOB_EACH)
        }
        StartError::LeftoverCodex(..) => Ending {
            outcome: "held",
            ..Ending::refused(exit::HELD, error)
        }
        .hint(use_of_home::TRY_AGAIN),
        StartError::StillRunning(file, by, may_be_spent) => {
            use_of_home::still_running(file, by, *may_be_spent)
        }
        StartError::AlreadyPersisted(_) => Ending {
            midway: true,
            ..Ending::good("nothing", error.to_string())
        },
        StartError::AuthFileExists(path) => Ending::refused(exit::REFUSED, error).hint(format!(
            "move {} away, or name another home with `--codex-home DIR`",
            path.display()
        )),
        StartError::Rotating(_) => Ending {
            outcome: "held",
            ..Ending::refused(exit::HELD, error)
        }
        .hint("try again when that rotation has ended: it writes the next generation of the login"),
        StartError::NoPrivateHome(rotations, _) => Ending::refused(exit::FAILED, error)
            .because(error)
            .hint(other_rotations_folder(rotations)),
        StartError::RescueFolder(folder, error) => rescue_folder(folder, error),
        StartError::System(_) => Ending::refused(exit::FAILED, error).because(error),
    }
}

/// How to choose another folder for the private homes of rotations.
pub(crate) fn other_rotations_folder(rotations: &Path) -> String {
    let variable = if rotations.ends_with("authferry/rotations") {
        "XDG_STATE_HOME"
    } else {
        "TMPDIR"
    };
    format!("set {variable} to a writable folder with free space")
}

/// Explains why a home or an auth file is refused.
pub(crate) fn home_error(error: &HomeError) -> Ending {
    // An I/O error says nothing about the home.
    let failed = matches!(error, HomeError::Io { .. });
    let code = if failed { exit::FAILED } else { exit::REFUSED };
    let ending = Ending::refused(code, error).because(error);
    match hints::for_home(error) {
        Some(hint) => ending.hint(hint),
        None => ending,
    }
}

/// Explains an error of the store, before anything was touched.
pub(crate) fn store(error: &StoreError) -> Ending {
    let ending = Ending::refused(exit::FAILED, error).because(error);
    match hints::for_store(error) {
        Some(hint) => ending.hint(hint),
        None => ending,
    }
}

/// Explains why the lease could not be acquired or read.
pub(crate) fn lease(error: &StoreError) -> Ending {
    let ending = Ending::refused(exit::FAILED, error).because(error);
    match hints::for_lease(error) {
        Some(hint) => ending.hint(hint),
        None => ending,
    }
}

/// What is wrong with the record of a lease.
pub(crate) fn lease_defect(defect: LeaseDefect) -> String {
    let problem = match defect {
        LeaseDefect::Foreign => {
            "authferry did not write the lease record: it was copied or written by hand"
        }
        LeaseDefect::EndsTooLate => {
            "the lease expires later than any new lease: the clock of its holder, or of this \
             machine, is wrong"
        }
    };
    let wait = LeaseDefect::TAKEOVER_DELAY.as_secs();
    format!("{problem}; its age is unknown, so a job that needs it waits up to {wait} seconds")
}

/// How to take over a lease that its holder does not renew.
pub(crate) fn take_over(store: impl Display) -> String {
    format!("take it over: `authferry doctor --store '{store}' --probe --store-timeout 2m`")
}

/// Reports a timeout of the store, before anything was touched.
pub(crate) fn out_of_time(store: impl Display) -> Ending {
    Ending::refused(
        exit::FAILED,
        format!("timeout: {store} did not answer in time"),
    )
    .hint("increase the timeout with `--store-timeout TIME`")
}

/// Explains why a rescue folder cannot hold a login.
pub(crate) fn rescue_folder(folder: &Path, error: &io::Error) -> Ending {
    let problem = format!(
        "the rescue folder {} cannot be used: {error}",
        folder.display()
    );
    let folder = pasted::path(folder);
    Ending::refused(exit::REFUSED, problem).hint(format!(
        "deny others access with `chmod 700 {folder}`, or use another folder with `--rescue-dir DIR`"
    ))
}

/// Reports an empty store.
pub(crate) fn nothing_stored(store: impl Display) -> Ending {
    Ending::refused(exit::FAILED, format!("{store} holds no login yet"))
        .hint("seed it with `authferry seed FILE`, or let the first job seed it with `--seed-from-env VAR`")
}

/// Reports a store whose value is not a login.
pub(crate) fn unusable_stored(store: impl Display, why: Option<AuthFileError>) -> Ending {
    let problem = format!("the value in {store} is unusable: {}", reason(why));
    Ending::refused(exit::FAILED, problem).hint(RESEED)
}

/// Reports a store without a login, and the copies that could be put into it.
pub(crate) fn only_copies<'a>(
    store: impl Display,
    rescue: &Path,
    unusable: Option<AuthFileError>,
    copies: impl IntoIterator<Item = &'a Location>,
) -> Ending {
    let copies: Vec<_> = copies.into_iter().collect();
    let problem = match unusable {
        None => format!("{store} holds no login"),
        Some(why) => format!("the value in {store} is unusable: {why}"),
    };
    let count = match copies.len() {
        1 => "1 copy is".to_owned(),
        count => format!("{count} copies are"),
    };
    let on_this_machine = copies.iter().all(|copy| copy.file().is_some());
    let place = if on_this_machine {
        "on this machine"
    } else {
        "saved"
    };
    let listed: Vec<_> = copies.iter().map(ToString::to_string).collect();
    let listed = listed.join(" and ");
    let replace = if unusable.is_some() { " --replace" } else { "" };
    copies.iter().fold(
        Ending::refused(
            exit::FAILED,
            format!("{problem}, but {count} {place}: {listed}"),
        ),
        |ending, copy| {
            let put = put(&store, rescue, replace, copy);
            ending.hint(format!("put it into the store: {put}"))
        },
    )
}

/// How to replace a dead or unusable login.
pub(crate) const RESEED: &str = "overwrite it with a fresh login: `authferry seed --replace FILE`";

/// How to end a loop of rotations.
const CLOCK: &str =
    "set the clock of this machine: while it is ahead, Codex rotates the login again and again";

/// The locations of copies, for programs: paths, and addresses in the second store.
pub(crate) fn places<'a>(copies: impl IntoIterator<Item = &'a Location>) -> Vec<String> {
    copies.into_iter().map(Location::place).collect()
}

fn refused(job: &Job<'_>, report: &Report, why: Refusal) -> Ending {
    let ending = refusal(job, report, why);
    if !report.writes.is_empty() {
        // A copy was put into the store first.
        let (login, store) = (login(report), job.store);
        let message = format!("{login} is now in {store}, but {}", ending.reason());
        return Ending { message, ..ending };
    }
    if !report.doubtful {
        return ending;
    }
    // The store did not answer the swap of a newer copy: that swap may have landed.
    let message = format!(
        "{} is unchanged, and may already be in {}: {}",
        newer(job, report),
        job.store,
        ending.reason()
    );
    Ending { message, ..ending }
}

fn refusal(job: &Job<'_>, report: &Report, why: Refusal) -> Ending {
    let file = job.home.auth_file().display();
    let store_error = report.store_error.as_ref();
    match why {
        Refusal::NothingStored => nothing_stored(job.store),
        Refusal::UnusableStored => unusable_stored(job.store, report.stored_unusable),
        Refusal::UnusableFile => {
            let problem = format!("{file} is unusable: {}", reason(report.file_unusable));
            let ending = Ending::refused(exit::REFUSED, problem);
            match report.file_unusable {
                // `--replace` cannot save a file of this size either.
                Some(AuthFileError::TooLarge) => ending.hint("move the file away"),
                Some(_) | None => ending.hint(replace_hint(job)),
            }
        }
        Refusal::OtherAccount => {
            let problem = format!(
                "{file} belongs to another account than the login in {}",
                job.store
            );
            Ending::refused(exit::REFUSED, problem)
                .hint(replace_hint(job))
                .hint("or use another home with `--codex-home DIR`")
        }
        Refusal::UnknownFamily => {
            let problem = format!(
                "{file} holds a login that did not come from {}: it may be a person's, and newer",
                job.store
            );
            Ending::refused(exit::REFUSED, problem)
                .hint(format!(
                    "to use that login: {}",
                    pasted::seed(job.store, job.home.auth_file())
                ))
                .hint(format!(
                    "to use the login in the store: {}",
                    replace_hint(job)
                ))
        }
        Refusal::CopyElsewhere => copy_elsewhere(job, report),
        Refusal::OnlyCopies => only_copies(
            job.store,
            job.rescue.folder(),
            report.stored_unusable,
            &report.copies,
        ),
        Refusal::Unreadable => store_error.map_or_else(
            || Ending::refused(exit::FAILED, format!("{} cannot be read", job.store)),
            store,
        ),
        Refusal::Unwritable => {
            let ending = store_error.map_or_else(
                || Ending::refused(exit::FAILED, format!("{} cannot be written", job.store)),
                store,
            );
            let newer = newer(job, report);
            ending.hint(format!("{newer} is newer than the store's login: keep it, the next job puts it into the store once the store can be written"))
        }
        Refusal::OutOfTime if report.signal.is_some() => {
            Ending::refused(cancelled(report), "the job was cancelled before it started")
        }
        Refusal::OutOfTime => {
            let ending = out_of_time(job.store);
            match store_error {
                Some(error) => ending.caused_by(error),
                None => ending,
            }
        }
        Refusal::ConcurrentWrite if let Some(in_use) = &report.in_use => Ending::refused(
            exit::REFUSED,
            format!(
                "{file} was not overwritten: {} uses it, and may be rotating its login",
                in_use.by
            ),
        )
        .hint("try again when that Codex has ended, or has written the new login"),
        Refusal::ConcurrentWrite => Ending::refused(
            exit::REFUSED,
            format!("concurrent write: another process changed {file} at the same moment"),
        )
        .hint("make sure that no Codex is running there, and try again"),
        Refusal::NotKept => {
            let problem = format!(
                "what would be overwritten cannot be saved in {}",
                job.rescue.folder().display()
            );
            let ending = Ending::refused(exit::FAILED, problem)
                .hint("use a writable folder with `--rescue-dir DIR`");
            match &report.rescue_error {
                Some(error) => ending.caused_by(error),
                None => ending,
            }
        }
        Refusal::NotPlaced => match &report.home_error {
            Some(error) => self::home_error(error),
            None => Ending::refused(exit::FAILED, format!("{file} cannot be placed")),
        },
    }
}

/// The copy that is newer than the store's login.
fn newer(job: &Job<'_>, report: &Report) -> String {
    let copy = report.adopted_from.as_ref();
    copy.map_or_else(
        || job.home.auth_file().display().to_string(),
        ToString::to_string,
    )
}

/// How to replace an auth file with which no job starts.
fn replace_hint(job: &Job<'_>) -> String {
    format!(
        "save the file and place the store's login: `authferry restore --store '{}' \
         --codex-home {} --replace`",
        job.store,
        pasted::path(job.home.dir())
    )
}

/// Reports copies that were saved for another address, which may be an alias of the store's.
fn copy_elsewhere(job: &Job<'_>, report: &Report) -> Ending {
    let copies: Vec<_> = report.copies.iter().map(ToString::to_string).collect();
    let problem = format!(
        "{} was saved for another address, and may be later than the login in {}",
        copies.join(" and "),
        job.store
    );
    let refused = Ending::refused(exit::REFUSED, problem);
    report.copies.iter().fold(refused, |ending, copy| {
        let rotation = copy.file().and_then(rotation_of);
        let drop = match (rotation, copy) {
            (Some(folder), _) => format!("rm -r {}", pasted::path(folder)),
            (None, Location::SecondStore { address, name }) => {
                format!("authferry rescue drop --rescue-store '{address}' {name}")
            }
            (None, Location::File(_) | Location::EncryptedFile(_)) => {
                let file = pasted::quoted(&copy.argument());
                format!("authferry rescue drop {file}")
            }
        };
        let put = put(job.store, job.rescue.folder(), "", copy);
        ending
            .hint(format!("to use it: {put}"))
            .hint(format!("to remove it: `{drop}`"))
    })
}

/// The folder of the unfinished rotation that holds the file.
fn rotation_of(file: &Path) -> Option<&Path> {
    let folder = file.parent()?.parent()?;
    let name = folder.file_name()?.to_str()?;
    name.starts_with("authferry-rotation-").then_some(folder)
}

fn restored(job: &Job<'_>, report: &Report) -> Ending {
    let file = job.home.auth_file().display();
    let login = login(report);
    if let Some(error) = &report.receipt_error {
        let message = format!(
            "{login} is in {file}, but its receipt for `authferry persist` could not be written"
        );
        let home = job.home.dir().display();
        return Ending::bad(exit::FAILED, "restored", message)
            .caused_by(error)
            .hint(format!(
                "make {home} writable, and run `authferry restore` again"
            ));
    }
    let message = match report.placement {
        Some(Placement::Adopted) => {
            format!(
                "{login} in {file} was newer, and is now in {}, version {}",
                job.store,
                version(report)
            )
        }
        Some(Placement::Kept) => format!("{login} was already in {file}"),
        Some(Placement::Placed) | None => match &report.adopted_from {
            Some(copy) => format!(
                "{login} in {} was newer, and is now in {}, version {}",
                copy,
                job.store,
                version(report)
            ),
            None => format!(
                "{login} is in {file}, from {}, version {}",
                job.store,
                version(report)
            ),
        },
    };
    let access_only = job.access_only.then(|| {
        "the auth file has no refresh token: Codex cannot rotate the login, and there is nothing to persist"
            .to_owned()
    });
    Ending::good("restored", message).note(access_only)
}

/// The login is safe: the command's end decides the exit code.
fn of_command(mut ending: Ending, report: &Report, program: Option<&OsStr>) -> Ending {
    let program = program.unwrap_or_default().display();
    match &report.command {
        None | Some(CommandEnd::Running) => ending,
        Some(CommandEnd::Exited(code)) => {
            ending.code = exit_code(*code, report);
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
            let (code, hint) = not_started(error);
            let message = format!("{}: `{program}` cannot be started", ending.message);
            let mut ending = Ending::bad(code, ending.outcome, message).hint(hint);
            ending.causes.push(error.to_string());
            ending
        }
    }
}

/// The exit code for a command that exited. A signal that ended the job makes a success a failure:
/// npm's launcher of Codex up to 0.165.0 exits with 0 after SIGTERM has ended Codex.
fn exit_code(of_command: u8, report: &Report) -> u8 {
    match report.ended_by {
        Some(signal) if of_command == exit::OK => {
            u8::try_from(128 + signal).unwrap_or(exit::FAILED)
        }
        Some(_) | None => of_command,
    }
}

/// The exit code for a command that cannot be started, and a hint.
pub(crate) fn not_started(error: &io::Error) -> (u8, &'static str) {
    if error.kind() == io::ErrorKind::NotFound {
        (exit::NOT_FOUND, "check the command's name and PATH")
    } else {
        let hint = "check that the file is a program, and is executable";
        (exit::NOT_EXECUTABLE, hint)
    }
}

fn warn_of_processes(ending: &mut Ending, report: &Report) {
    if report.terminated > 0 {
        ending.warnings.push(format!(
            "authferry terminated {} that the command left running: a Codex could still rotate the login",
            processes(report.terminated)
        ));
    }
    if report.unkillable > 0 {
        ending.warnings.push(format!(
            "{} that the command left running cannot be terminated, and may still rotate the login",
            processes(report.unkillable)
        ));
    }
}

fn with_facts(mut ending: Ending, job: &Job<'_>, report: &Report, of_command: bool) -> Ending {
    warn_of_processes(&mut ending, report);
    if let Some(count) = report.rotations_in_a_loop {
        ending.warnings.push(format!(
            "the login was rotated {count} times, three of them within a minute: is the clock of \
             this machine ahead?"
        ));
        ending.hints.push(CLOCK.to_owned());
    }
    let unchanged = matches!(report.outcome, Outcome::Restored | Outcome::Unchanged);
    if report.may_be_spent && unchanged {
        ending.warnings.push(format!(
            "{} may be spent: {} held no login after an earlier job",
            login(report),
            job.home.auth_file().display()
        ));
    }
    // Without a placed login, the message says so itself.
    let is_unfinished = report.unfinished_rotation && report.outcome == Outcome::Restored;
    ending
        .warnings
        .extend(is_unfinished.then(|| unsettled::unfinished_rotation(&login(report))));
    if report.busy {
        ending.warnings.push(format!(
            "{} is left in place: a process is still writing it",
            job.home.auth_file().display()
        ));
    }
    if report.usage_unknown {
        ending.warnings.push(format!(
            "{} is left in place: this system does not show which processes use it",
            job.home.auth_file().display()
        ));
    }
    if unchanged {
        for location in &report.rescued {
            ending
                .notes
                .push(format!("what was replaced is saved in {location}"));
        }
    }
    if let Some(why) = &report.not_in_second_store {
        ending
            .warnings
            .push(format!("the second store did not accept the copy: {why}"));
    }
    if let Some(CommandEnd::Exited(code)) = report.command
        && of_command
        && code != ending.code
    {
        ending.notes.push(format!("the command exited with {code}"));
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
    if let (true, Some(error)) = (safe, &report.home_error) {
        ending
            .warnings
            .push(format!("the auth file is left in place: {error}"));
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
        Some(CommandEnd::NotStarted(_) | CommandEnd::Cancelled | CommandEnd::Running) | None => {
            Value::Null
        }
    };
    ending
        .fact("store", job.store.to_string())
        .fact("account", base.map(|b| b.generation.identity.to_string()))
        .fact(
            "fingerprint",
            base.map(|b| b.generation.fingerprint.to_string()),
        )
        .fact("version", base.map(|b| b.version.to_string()))
        .fact("expires_at", base.and_then(|b| expiry(&b.generation)))
        .fact("rotated", rotated(report))
        .fact("placement", report.placement.map(placement))
        .fact("command_exit_code", command_exit_code)
        .fact("signal", report.signal)
        .fact("writes", writes)
        .fact("rescued", places(&report.rescued))
}

/// Whether the login differs from the one at the start of the job.
fn rotated(report: &Report) -> bool {
    let now = report.base.as_ref().map(|base| base.generation.fingerprint);
    report.began.is_some() && now != report.began
}

/// When the access token expires.
fn expiry(generation: &Generation) -> Option<String> {
    let exp = OffsetDateTime::from_unix_timestamp(generation.issued.exp?).ok()?;
    Some(self::time::text(exp))
}

fn processes(count: usize) -> String {
    format!("{count} process{}", if count == 1 { "" } else { "es" })
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

/// Where the login with the fingerprint was saved.
fn kept(report: &Report, fingerprint: Fingerprint) -> Option<String> {
    let name = fingerprint.to_string();
    let mut locations = report.rescued.iter();
    let location = locations.find(|it| it.name().starts_with(&name))?;
    Some(location.to_string())
}

fn reason(why: Option<AuthFileError>) -> String {
    why.map_or_else(|| "it cannot be read".to_owned(), |why| why.to_string())
}

/// The exit code of a shell whose command was ended by a signal.
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

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
