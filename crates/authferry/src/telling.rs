//! What became of a login, in words: every message about a trip, and every hint.

use std::{
    ffi::OsStr,
    fmt::Display,
    io,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use ::time::OffsetDateTime;
use authferry_codex::{Unfit, Unusable};
use authferry_core::{Fingerprint, Generation, Outcome, Refusal, StoreError};
use authferry_runner::rescue::Location;
use authferry_runner::{CommandEnd, Job, LeaseDefect, NotBegun, Placement, Report, Written};
use serde_json::{Value, json};

use crate::ending::Ending;
use crate::exit;

mod hints;
pub(crate) mod pasted;
mod rescue;
mod rotation;
pub(crate) mod time;
mod unsaved;
mod unsettled;
mod use_of_home;
mod watching;

pub(crate) use hints::for_opening;
pub(crate) use rescue::{put, same_place, second_store};
pub(crate) use rotation::{
    OTHER_CODEX, all_the_same, dead, dead_since, may_begin, of_mark, rotation, unclaimed, unsettled,
};
pub(crate) use unsettled::may_be_spent;
pub(crate) use use_of_home::ended;
pub(crate) use watching::{watched, watching};

/// Tells how a trip ended. `program`: the command it was to run, if it was.
pub(crate) fn trip(job: &Job<'_>, report: &Report, program: Option<&OsStr>) -> Ending {
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
        Outcome::Superseded { by, rescued } => unsaved::superseded(job, report, *by, *rescued),
        Outcome::Stranded { cause, rescued } => unsaved::stranded(job, report, *cause, *rescued),
    };
    let of_command = program.is_some();
    with_facts(ending, job, report, of_command)
}

/// Tells why a trip did not begin.
pub(crate) fn not_begun(error: &NotBegun) -> Ending {
    match error {
        NotBegun::Unfit(unfit) => self::unfit(unfit),
        NotBegun::Busy(_) | NotBegun::InUse(..) => {
            Ending::refused(exit::REFUSED, error).hint(use_of_home::ONE_JOB_EACH)
        }
        NotBegun::LeftOver(..) => Ending {
            outcome: "held",
            ..Ending::refused(exit::HELD, error)
        }
        .hint(use_of_home::TRY_AGAIN),
        NotBegun::AtWork(file, by, may_be_spent) => use_of_home::at_work(file, by, *may_be_spent),
        NotBegun::NothingLeft(_) => Ending {
            midway: true,
            ..Ending::good("nothing", error.to_string())
        },
        NotBegun::Occupied(path) => Ending::refused(exit::REFUSED, error).hint(format!(
            "move {} away, or name another home with `--codex-home DIR`",
            path.display()
        )),
        NotBegun::Rotating(_) => Ending {
            outcome: "held",
            ..Ending::refused(exit::HELD, error)
        }
        .hint("try again when it is over: what it writes is the next generation of the login"),
        NotBegun::NoPlace(rotations, _) => Ending::refused(exit::FAILED, error)
            .because(error)
            .hint(elsewhere(rotations)),
        NotBegun::NoRescue(folder, error) => rescue_folder(folder, error),
        NotBegun::System(_) => Ending::refused(exit::FAILED, error).because(error),
    }
}

/// What gives rotations another folder for their private homes.
pub(crate) fn elsewhere(rotations: &Path) -> String {
    let variable = if rotations.ends_with("authferry/rotations") {
        "XDG_STATE_HOME"
    } else {
        "TMPDIR"
    };
    format!("name a folder that can be written and has room with the variable {variable}")
}

/// Tells why a home or an auth file is refused.
pub(crate) fn unfit(unfit: &Unfit) -> Ending {
    // That the system failed us is no verdict on the home.
    let failed = matches!(unfit, Unfit::Io { .. });
    let code = if failed { exit::FAILED } else { exit::REFUSED };
    let ending = Ending::refused(code, unfit).because(unfit);
    match hints::for_home(unfit) {
        Some(hint) => ending.hint(hint),
        None => ending,
    }
}

/// Tells why the store did not do as asked, before anything was touched.
pub(crate) fn store(error: &StoreError) -> Ending {
    let ending = Ending::refused(exit::FAILED, error).because(error);
    match hints::for_store(error) {
        Some(hint) => ending.hint(hint),
        None => ending,
    }
}

/// Tells why a store did not give the claim.
pub(crate) fn claim(error: &StoreError) -> Ending {
    let ending = Ending::refused(exit::FAILED, error).because(error);
    match hints::for_claim(error) {
        Some(hint) => ending.hint(hint),
        None => ending,
    }
}

/// What is wrong with the record of a lease.
pub(crate) fn lease_defect(defect: LeaseDefect) -> String {
    let what = match defect {
        LeaseDefect::Foreign => {
            "the lease record is not as authferry wrote it: it was copied or written by hand"
        }
        LeaseDefect::EndsTooLate => {
            "the lease ends later than any new lease: the clock of its holder, or of this \
             machine, is wrong"
        }
    };
    let wait = LeaseDefect::WAIT.as_secs();
    format!("{what}; since when is not known, and a job that needs it waits up to {wait} seconds")
}

/// How to take over a lease that nobody renews.
pub(crate) fn take_over(store: impl Display) -> String {
    format!("take it over with `authferry doctor --store '{store}' --probe --patience 2m`")
}

/// Tells that a store did not answer, before anything was touched.
pub(crate) fn out_of_time(store: impl Display) -> Ending {
    Ending::refused(exit::FAILED, format!("{store} did not answer in time"))
        .hint("give it longer with `--patience TIME`")
}

/// Tells that no login can be kept in a rescue folder.
pub(crate) fn rescue_folder(folder: &Path, error: &io::Error) -> Ending {
    let what = format!(
        "the rescue folder {} cannot be used: {error}",
        folder.display()
    );
    let folder = pasted::path(folder);
    Ending::refused(exit::REFUSED, what).hint(format!(
        "close it to others with `chmod 700 {folder}`, or name another with `--rescue-dir DIR`"
    ))
}

/// Tells that a store holds nothing yet.
pub(crate) fn nothing_stored(store: impl Display) -> Ending {
    Ending::refused(exit::FAILED, format!("{store} holds no login yet"))
        .hint("put one there with `authferry seed FILE`, or let the first job do so with `--seed-from-env VAR`")
}

/// Tells that what a store holds is no login.
pub(crate) fn unusable_stored(store: impl Display, why: Option<Unusable>) -> Ending {
    let what = format!("what {store} holds is unusable: {}", reason(why));
    Ending::refused(exit::FAILED, what).hint(RESEED)
}

/// Tells that a store holds no login, and that this machine has copies that it could hold.
pub(crate) fn only_copies<'a>(
    store: impl Display,
    rescue: &Path,
    unusable: Option<Unusable>,
    copies: impl IntoIterator<Item = &'a Location>,
) -> Ending {
    let copies: Vec<_> = copies.into_iter().collect();
    let what = match unusable {
        None => format!("{store} holds no login"),
        Some(why) => format!("what {store} holds is unusable: {why}"),
    };
    let count = match copies.len() {
        1 => "a copy is".to_owned(),
        count => format!("{count} copies are"),
    };
    let on_this_machine = copies.iter().all(|copy| copy.file().is_some());
    let place = if on_this_machine {
        "on this machine"
    } else {
        "kept"
    };
    let listed: Vec<_> = copies.iter().map(ToString::to_string).collect();
    let listed = listed.join(" and ");
    let replace = if unusable.is_some() { " --replace" } else { "" };
    copies.iter().fold(
        Ending::refused(
            exit::FAILED,
            format!("{what}, but {count} {place}: {listed}"),
        ),
        |ending, copy| {
            let put = put(&store, rescue, replace, copy);
            ending.hint(format!("put it into the store: {put}"))
        },
    )
}

/// What brings a login back that is dead or spoilt.
pub(crate) const RESEED: &str = "put a fresh login over it with `authferry seed --replace FILE`";

/// What ends a loop of rotations.
const CLOCK: &str = "set the clock: Codex would rotate such a login for ever";

/// Where copies are, for programs: paths, and the address of the second store.
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
    // A newer copy was on its way to the store: whether it is there nobody has said.
    let message = format!(
        "{} is as it was, and may be in {} already: {}",
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
            let what = format!("{file} is unusable: {}", reason(report.file_unusable));
            let ending = Ending::refused(exit::REFUSED, what);
            match report.file_unusable {
                // Not even `--replace` can keep all of it.
                Some(Unusable::TooLarge) => ending.hint("move it away"),
                Some(_) | None => ending.hint(set_aside(job)),
            }
        }
        Refusal::OtherAccount => {
            let what = format!(
                "{file} belongs to another account than the login in {}",
                job.store
            );
            Ending::refused(exit::REFUSED, what)
                .hint(set_aside(job))
                .hint("or name another home with `--codex-home DIR`")
        }
        Refusal::UnknownFamily => {
            let what = format!(
                "{file} holds a login that did not come from {}: it may be a person's own, and newer",
                job.store
            );
            Ending::refused(exit::REFUSED, what)
                .hint(format!(
                    "if that login is to be used: {}",
                    pasted::seed(job.store, job.home.auth_file())
                ))
                .hint(format!(
                    "if the login in the store is to be used: {}",
                    set_aside(job)
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
            ending.hint(format!("{newer} is newer than the store: it stays where it is, and is put there first when this is mended"))
        }
        Refusal::OutOfTime if report.signal.is_some() => {
            Ending::refused(cancelled(report), "the job was cancelled before it began")
        }
        Refusal::OutOfTime => {
            let ending = out_of_time(job.store);
            match store_error {
                Some(error) => ending.caused_by(error),
                None => ending,
            }
        }
        Refusal::Overtaken if let Some(in_use) = &report.in_use => Ending::refused(
            exit::REFUSED,
            format!(
                "{file} is not replaced: {} uses it, and may be rotating its login",
                in_use.by
            ),
        )
        .hint("try again when that Codex has ended, or has written its new login"),
        Refusal::Overtaken => Ending::refused(
            exit::REFUSED,
            format!("{file} was written to by somebody else at the same moment"),
        )
        .hint("see that no Codex is at work there, and try again"),
        Refusal::NotKept => {
            let what = format!(
                "what would be replaced cannot be kept in {} first",
                job.rescue.folder().display()
            );
            let ending = Ending::refused(exit::FAILED, what)
                .hint("name a folder that can be written with `--rescue-dir DIR`");
            match &report.rescue_error {
                Some(error) => ending.caused_by(error),
                None => ending,
            }
        }
        Refusal::NotPlaced => match &report.unfit {
            Some(unfit) => self::unfit(unfit),
            None => Ending::refused(exit::FAILED, format!("{file} cannot be placed")),
        },
    }
}

/// The copy that counts more than the store's login.
fn newer(job: &Job<'_>, report: &Report) -> String {
    let copy = report.adopted_from.as_ref();
    copy.map_or_else(
        || job.home.auth_file().display().to_string(),
        ToString::to_string,
    )
}

/// How to set an auth file aside that keeps a job from beginning.
fn set_aside(job: &Job<'_>) -> String {
    format!(
        "set the file aside and place the store's login: `authferry restore --store '{}' \
         --codex-home {} --replace`",
        job.store,
        pasted::path(job.home.dir())
    )
}

/// Tells that a copy was kept for another address, which may be the store's by another name.
fn copy_elsewhere(job: &Job<'_>, report: &Report) -> Ending {
    let copies: Vec<_> = report.copies.iter().map(ToString::to_string).collect();
    let what = format!(
        "{} was kept for another address, and may be later than the login in {}",
        copies.join(" and "),
        job.store
    );
    let refused = Ending::refused(exit::REFUSED, what);
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
            .hint(format!("if it is to be used: {put}"))
            .hint(format!("if it is not: `{drop}`"))
    })
}

/// The folder of the unfinished rotation that a file is in.
fn rotation_of(file: &Path) -> Option<&Path> {
    let folder = file.parent()?.parent()?;
    let name = folder.file_name()?.to_str()?;
    name.starts_with("authferry-rotation-").then_some(folder)
}

fn restored(job: &Job<'_>, report: &Report) -> Ending {
    let file = job.home.auth_file().display();
    let login = login(report);
    if let Some(error) = &report.receipt_error {
        let message =
            format!("{login} is in {file}, but `authferry persist` will not find its receipt");
        let home = job.home.dir().display();
        return Ending::bad(exit::FAILED, "restored", message)
            .caused_by(error)
            .hint(format!(
                "see that {home} can be written, and run `authferry restore` again"
            ));
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
        Some(Placement::Placed) | None => match &report.adopted_from {
            Some(copy) => format!(
                "{login} was newer in {}, and is now in {}, version {}",
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
    let lent = job.access_only.then(|| {
        "it has no refresh token there: no Codex can rotate it, and nothing has to be persisted"
            .to_owned()
    });
    Ending::good("restored", message).note(lent)
}

/// The login is safe: the command's own end decides.
fn of_command(mut ending: Ending, report: &Report, program: Option<&OsStr>) -> Ending {
    let program = program.unwrap_or_default().display();
    match &report.command {
        None | Some(CommandEnd::Running) => ending,
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
            let (code, hint) = not_started(error);
            let message = format!("{}: `{program}` cannot be started", ending.message);
            let mut ending = Ending::bad(code, ending.outcome, message).hint(hint);
            ending.causes.push(error.to_string());
            ending
        }
    }
}

/// The exit code for a command that cannot be started, and what to do.
pub(crate) fn not_started(error: &io::Error) -> (u8, &'static str) {
    if error.kind() == io::ErrorKind::NotFound {
        (exit::NOT_FOUND, "check the command's name and PATH")
    } else {
        let hint = "check that the file is a program, and may be executed";
        (exit::NOT_EXECUTABLE, hint)
    }
}

fn warn_of_processes(ending: &mut Ending, report: &Report) {
    if report.ended > 0 {
        ending.warnings.push(format!(
            "what the command left behind had to be ended ({}): a Codex could still rotate the login",
            processes(report.ended)
        ));
    }
    if report.left > 0 {
        ending.warnings.push(format!(
            "{} that the command left behind cannot be ended, and may still rotate the login",
            processes(report.left)
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
            "{} held no login after an earlier job: {} may be spent",
            job.home.auth_file().display(),
            login(report)
        ));
    }
    let without_end = report.rotation_without_end && unchanged;
    ending
        .warnings
        .extend(without_end.then(|| unsettled::without_end(report)));
    if report.busy {
        ending.warnings.push(format!(
            "{} is left behind, for somebody is still writing it",
            job.home.auth_file().display()
        ));
    }
    if report.unseen {
        ending.warnings.push(format!(
            "{} is left behind: this system does not show which processes use it",
            job.home.auth_file().display()
        ));
    }
    if unchanged {
        for location in &report.rescued {
            ending
                .notes
                .push(format!("what was replaced is kept in {location}"));
        }
    }
    if let Some(why) = &report.not_in_second_store {
        ending
            .warnings
            .push(format!("the second store did not take the copy: {why}"));
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

/// Whether the login is another one than the job began with.
fn rotated(report: &Report) -> bool {
    let now = report.base.as_ref().map(|base| base.generation.fingerprint);
    report.began.is_some() && now != report.began
}

/// When the access token ends.
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

/// Where the login of one fingerprint was kept.
fn kept(report: &Report, fingerprint: Fingerprint) -> Option<String> {
    let name = fingerprint.to_string();
    let mut locations = report.rescued.iter();
    let location = locations.find(|it| it.name().starts_with(&name))?;
    Some(location.to_string())
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

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
