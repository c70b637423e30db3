//! Messages for when the store does not hold the newest login.

use authferry_codex::{AuthFileError, MAX_LEN};
use authferry_core::{Cause, Fingerprint};
use authferry_runner::{Job, Report};

use super::rescue::{has_encrypted, once_the_store_works, places, put_back, save_before_removal};
use super::{hints, login, reason};
use crate::exit;
use crate::outcome::Ending;

/// Another writer's login stays current.
pub(super) fn superseded(job: &Job<'_>, report: &Report, by: Fingerprint, rescued: bool) -> Ending {
    let problem = format!(
        "login {by}, which another writer put into {}, stays current",
        job.store
    );
    if !rescued {
        let message =
            format!("the job's login is not in the store, and no copy is saved: {problem}");
        return not_kept(Ending::bad(exit::LOST, "superseded", message), job, report);
    }
    let message = format!("the job's login is saved in {}: {problem}", places(report));
    let ending = Ending::bad(exit::SUPERSEDED, "superseded", message)
        .hint("no action is needed unless the current login is dead")
        .hint(format!(
            "in that case: {}",
            put_back(job, report, " --replace --allow-older")
        ));
    if has_encrypted(report) {
        return ending.hint(save_before_removal(report));
    }
    ending
}

/// The newest login is not in the store, as far as is known.
pub(super) fn not_persisted(job: &Job<'_>, report: &Report, cause: Cause, rescued: bool) -> Ending {
    let (code, location) = login_location(job, report, cause, rescued);
    let message = format!("{location}: {}", problem(job, report, cause));
    let mut ending = Ending::bad(code, "not-persisted", message);
    match (cause, &report.store_error, &report.home_error) {
        (Cause::Store, Some(error), _) => {
            ending = ending.because(error);
            ending.hints.extend(hints::for_store(error));
        }
        (Cause::AuthFileError, _, Some(error)) => ending = ending.because(error),
        _ => {}
    }
    if !rescued {
        ending = not_kept(ending, job, report);
    }
    match cause {
        Cause::Store if rescued => ending
            .hint(once_the_store_works(job, report))
            .hint(save_before_removal(report)),
        Cause::Emptied if rescued => ending
            .hint(format!("put it into the store: {}", put_back(job, report, "")))
            .hint(save_before_removal(report)),
        Cause::ForeignLogin if rescued => ending
            .hint(format!(
                "to use this login: {}",
                put_back(job, report, " --replace")
            ))
            .hint(save_before_removal(report)),
        Cause::OtherAccount if rescued => ending
            .hint(format!(
                "to change the account: {}",
                put_back(job, report, " --replace")
            ))
            .hint(save_before_removal(report)),
        Cause::Older => ending.hint("let only Codex write the auth file: do not restore it from a cache or a copy"),
        Cause::AuthFileError | Cause::Missing => ending
            .hint("if the next job finds the login dead, log in again and run `authferry seed --replace FILE`"),
        Cause::NotKept => ending
            .hint("use a writable folder with `--rescue-dir DIR`"),
        Cause::Store | Cause::ForeignLogin | Cause::Emptied | Cause::OtherAccount => ending,
    }
}

/// Where the login is, with the exit code: the message begins with it.
fn login_location(job: &Job<'_>, report: &Report, cause: Cause, rescued: bool) -> (u8, String) {
    let (store, login) = (job.store, login(report));
    // A swap without an answer may have landed.
    let is_stored = if report.doubtful { "may be" } else { "is not" };
    match cause {
        Cause::OtherAccount
        | Cause::Older
        | Cause::AuthFileError
        | Cause::Missing
        | Cause::NotKept
            if rescued =>
        {
            (
                exit::RESCUED,
                format!(
                    "{store} held {login} at the last read, and the auth file is saved in {}",
                    places(report)
                ),
            )
        }
        Cause::OtherAccount
        | Cause::Older
        | Cause::AuthFileError
        | Cause::Missing
        | Cause::NotKept => (
            exit::LOST,
            format!("{login} may be spent, and {store} held it at the last read"),
        ),
        Cause::Store | Cause::ForeignLogin | Cause::Emptied if rescued => (
            exit::RESCUED,
            format!(
                "the rotated login {is_stored} in the store, and is saved in {}",
                places(report)
            ),
        ),
        Cause::Store | Cause::ForeignLogin | Cause::Emptied => (
            exit::LOST,
            format!("the rotated login {is_stored} in the store, and no copy is saved"),
        ),
    }
}

fn problem(job: &Job<'_>, report: &Report, cause: Cause) -> String {
    let store = job.store;
    match cause {
        Cause::Store => report.store_error.as_ref().map_or_else(
            || format!("timeout: {store} did not answer in time"),
            ToString::to_string,
        ),
        Cause::Emptied => format!("{store} was emptied during the job"),
        Cause::ForeignLogin => match report.stored_unusable {
            Some(why) => format!("the value now in {store} is unusable: {why}"),
            None => format!("{store} now holds a login of another account"),
        },
        Cause::OtherAccount => {
            "the auth file belongs to another account than the restored login".to_owned()
        }
        Cause::NotKept => {
            "the order of the auth file's login and the store's is unknown, and the store's cannot be saved first"
                .to_owned()
        }
        Cause::Older => "the auth file carries an older login, or one that the store's login has replaced".to_owned(),
        Cause::AuthFileError => match &report.home_error {
            Some(error) => error.to_string(),
            None => format!(
                "the auth file is unusable: {}",
                reason(report.file_unusable)
            ),
        },
        Cause::Missing => "the auth file is missing".to_owned(),
    }
}

fn not_kept(mut ending: Ending, job: &Job<'_>, report: &Report) -> Ending {
    if let Some(error) = &report.rescue_error {
        ending.causes.push(format!(
            "cannot write to {}: {error}",
            job.rescue.folder().display()
        ));
    }
    let file = job.home.auth_file();
    // A folder, a pipe or a file that is longer than any login holds no login.
    let may_hold_a_login = std::fs::metadata(file)
        .is_ok_and(|found| found.is_file() && (1..=MAX_LEN as u64).contains(&found.len()));
    if may_hold_a_login && report.file_unusable != Some(AuthFileError::Empty) {
        ending = ending.hint(format!(
            "the only copy is {}: save it before this machine is removed",
            file.display()
        ));
    }
    ending
}
