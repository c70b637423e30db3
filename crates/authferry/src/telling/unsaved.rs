//! What to say when the newest login is not what the store holds.

use authferry_codex::{MAX_LEN, Unusable};
use authferry_core::{Cause, Fingerprint};
use authferry_runner::{Job, Report};

use super::rescue::{
    before_the_machine_goes, has_encrypted, places, put_back, when_the_store_is_well,
};
use super::{hints, login, reason};
use crate::ending::Ending;
use crate::exit;

/// Somebody else's login stays current.
pub(super) fn superseded(job: &Job<'_>, report: &Report, by: Fingerprint, rescued: bool) -> Ending {
    let what = format!(
        "login {by}, which somebody else put into {}, stays current",
        job.store
    );
    if !rescued {
        let message = format!("the job's login is not in the store, and was not kept: {what}");
        return not_kept(Ending::bad(exit::LOST, "superseded", message), job, report);
    }
    let message = format!("the job's login is kept in {}: {what}", places(report));
    let ending = Ending::bad(exit::SUPERSEDED, "superseded", message)
        .hint("nothing has to be done unless the current login is dead")
        .hint(format!(
            "in that case: {}",
            put_back(job, report, " --replace --allow-older")
        ));
    if has_encrypted(report) {
        return ending.hint(before_the_machine_goes(report));
    }
    ending
}

/// The newest login is not in the store, as far as is known.
pub(super) fn stranded(job: &Job<'_>, report: &Report, cause: Cause, rescued: bool) -> Ending {
    let (code, where_it_is) = whereabouts(job, report, cause, rescued);
    let message = format!("{where_it_is}: {}", problem(job, report, cause));
    let mut ending = Ending::bad(code, "stranded", message);
    match (cause, &report.store_error, &report.unfit) {
        (Cause::Store, Some(error), _) => {
            ending = ending.because(error);
            ending.hints.extend(hints::for_store(error));
        }
        (Cause::Unusable, _, Some(unfit)) => ending = ending.because(unfit),
        _ => {}
    }
    if !rescued {
        ending = not_kept(ending, job, report);
    }
    match cause {
        Cause::Store if rescued => ending
            .hint(when_the_store_is_well(job, report))
            .hint(before_the_machine_goes(report)),
        Cause::Emptied if rescued => ending
            .hint(format!("put it into the store: {}", put_back(job, report, "")))
            .hint(before_the_machine_goes(report)),
        Cause::Stranger if rescued => ending
            .hint(format!(
                "if this login is to be used: {}",
                put_back(job, report, " --replace")
            ))
            .hint(before_the_machine_goes(report)),
        Cause::OtherAccount if rescued => ending
            .hint(format!(
                "if the change of account is wanted: {}",
                put_back(job, report, " --replace")
            ))
            .hint(before_the_machine_goes(report)),
        Cause::Older => ending.hint("let nothing but Codex write the auth file, no cache and no copy"),
        Cause::Unusable | Cause::Missing => ending
            .hint("if the next job finds the login dead, log in afresh and `authferry seed --replace FILE`"),
        Cause::NotKept => ending
            .hint("name a folder that can be written with `--rescue-dir DIR`"),
        Cause::Store | Cause::Stranger | Cause::Emptied | Cause::OtherAccount => ending,
    }
}

/// What became of the login: the first thing that a person wants to know.
fn whereabouts(job: &Job<'_>, report: &Report, cause: Cause, rescued: bool) -> (u8, String) {
    let (store, login) = (job.store, login(report));
    // A swap that was never answered may have landed.
    let is_there = if report.doubtful { "may be" } else { "is not" };
    match cause {
        Cause::OtherAccount | Cause::Older | Cause::Unusable | Cause::Missing | Cause::NotKept
            if rescued =>
        {
            (
                exit::RESCUED,
                format!(
                    "{store} held {login} when it was looked at last, and the file is kept in {}",
                    places(report)
                ),
            )
        }
        Cause::OtherAccount | Cause::Older | Cause::Unusable | Cause::Missing | Cause::NotKept => (
            exit::LOST,
            format!("{store} held {login} when it was looked at last, and that may be spent"),
        ),
        Cause::Store | Cause::Stranger | Cause::Emptied if rescued => (
            exit::RESCUED,
            format!(
                "the rotated login {is_there} in the store, and is kept in {}",
                places(report)
            ),
        ),
        Cause::Store | Cause::Stranger | Cause::Emptied => (
            exit::LOST,
            format!("the rotated login {is_there} in the store, and was not kept"),
        ),
    }
}

fn problem(job: &Job<'_>, report: &Report, cause: Cause) -> String {
    let store = job.store;
    match cause {
        Cause::Store => report.store_error.as_ref().map_or_else(
            || format!("{store} did not answer in time"),
            ToString::to_string,
        ),
        Cause::Emptied => format!("{store} was emptied meanwhile"),
        Cause::Stranger => match report.stored_unusable {
            Some(why) => format!("what {store} holds now is unusable: {why}"),
            None => format!("{store} holds a login of another account now"),
        },
        Cause::OtherAccount => {
            "the auth file belongs to another account than was restored".to_owned()
        }
        Cause::NotKept => {
            "nothing tells that the auth file's login is later, and the store's cannot be kept first"
                .to_owned()
        }
        Cause::Older => "the auth file carries an older login, or one that the store's login has replaced".to_owned(),
        Cause::Unusable => match &report.unfit {
            Some(unfit) => unfit.to_string(),
            None => format!(
                "the auth file is unusable: {}",
                reason(report.file_unusable)
            ),
        },
        Cause::Missing => "the auth file is gone".to_owned(),
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
    // A folder, a pipe or a file that is longer than any login holds none.
    let may_hold_a_login = std::fs::metadata(file)
        .is_ok_and(|found| found.is_file() && (1..=MAX_LEN as u64).contains(&found.len()));
    if may_hold_a_login && report.file_unusable != Some(Unusable::Empty) {
        ending = ending.hint(format!(
            "the only copy is {}: save it before the machine goes",
            file.display()
        ));
    }
    ending
}
