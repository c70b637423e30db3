//! Where a rescued login is, what to do before the machine goes, and what brings the login back.

use std::{fmt::Display, path::Path};

use authferry_core::SecretStore;
use authferry_runner::rescue::{Location, SecondStoreError};
use authferry_runner::{Job, Report};

use super::{hints, pasted};
use crate::ending::Ending;
use crate::exit;

/// Tells that nothing may be spent: the second store may hold a later login.
pub(crate) fn second_store(error: &SecondStoreError) -> Ending {
    let what = format!("the second store may hold a later login, and cannot be read: {error}");
    let ending = Ending::refused(exit::FAILED, what).because(error);
    let ending = match error {
        SecondStoreError::Store(below) => match hints::for_store(below) {
            Some(hint) => ending.hint(hint),
            None => ending,
        },
        SecondStoreError::Foreign(_) => {
            return ending.hint(ANOTHER_PLACE);
        }
        SecondStoreError::OutOfTime(_)
        | SecondStoreError::NoRoom(_)
        | SecondStoreError::System(_) => ending,
    };
    ending.hint(
        "if it surely holds no login that you need, go on without `--rescue-store` and AUTHFERRY_RESCUE_STORE",
    )
}

/// Tells that the second store is no other place than the store.
pub(crate) fn same_place(store: &dyn SecretStore) -> Ending {
    let what = format!("the second store is the same place as the store, {store}");
    Ending::refused(exit::FAILED, what).hint(ANOTHER_PLACE)
}

const ANOTHER_PLACE: &str = "name a place for rescued logins alone, and one that fails for other reasons than the store, with `--rescue-store ADDRESS`";

/// The command that puts what was rescued into the store.
pub(super) fn put_back(job: &Job<'_>, report: &Report, options: &str) -> String {
    let folder = job.rescue.folder();
    match login(report) {
        Some(location) => put(job.store, folder, options, location),
        None => pasted::rescue_put(job.store, folder, options, "FILE"),
    }
}

/// The command that puts a copy into the store, as it works on any machine that has the copy.
pub(crate) fn put(
    store: impl Display,
    folder: &Path,
    options: &str,
    location: &Location,
) -> String {
    // An encrypted file is put back where it was downloaded, and what is in a second store from
    // anywhere: neither needs the rescue folder of this machine.
    let anywhere = Path::new("authferry/rescue");
    match location {
        Location::File(path) => pasted::rescue_put(store, folder, options, &path.display()),
        Location::EncryptedFile(_) => {
            let options = format!("{options} --identity KEY");
            pasted::rescue_put(store, anywhere, &options, &file_name(location))
        }
        Location::SecondStore { address, name } => {
            let options = format!("{options} --rescue-store '{address}'");
            pasted::rescue_put(store, anywhere, &options, name)
        }
    }
}

/// How the login comes back when the store is well again.
pub(super) fn when_the_store_is_well(job: &Job<'_>, report: &Report) -> String {
    let put = put_back(job, report, "");
    let who = match login(report) {
        Some(Location::SecondStore { .. }) => {
            "let the next job that names the same second store put it there, or "
        }
        Some(Location::EncryptedFile(_)) => "download the file, and with the identity in KEY: ",
        Some(Location::File(_)) | None => "let the next job on this machine put it there, or ",
    };
    format!("when the store is well again: {who}{put}")
}

/// What to do where the rescue folder is lost with the machine.
pub(super) fn before_the_machine_goes(report: &Report) -> String {
    let encrypted = report.rescued.iter().filter(|it| is_encrypted(it));
    let encrypted: Vec<_> = encrypted.map(Location::argument).collect();
    if !encrypted.is_empty() {
        return format!(
            "before this machine goes away: upload {}, for example as an artifact of the job; only the owner of the identity can read it",
            encrypted.join(" and ")
        );
    }
    if report.rescued.iter().any(|it| it.file().is_some()) {
        return IN_THE_CLEAR.to_owned();
    }
    "nothing has to be done before this machine goes away".to_owned()
}

const IN_THE_CLEAR: &str = "if this machine goes away with the job: copy that file to \
    a place that stays and is closed to others before the job ends, and name such a place with \
    `--rescue-dir DIR` for the next one";

/// Whether a copy is on this machine and cannot be read here.
pub(super) fn has_encrypted(report: &Report) -> bool {
    report.rescued.iter().any(is_encrypted)
}

/// Where the copies are, for people.
pub(super) fn places(report: &Report) -> String {
    let places: Vec<_> = report.rescued.iter().map(Location::to_string).collect();
    places.join(" and ")
}

fn is_encrypted(location: &Location) -> bool {
    matches!(location, Location::EncryptedFile(_))
}

fn file_name(location: &Location) -> String {
    let name = location.file().and_then(|file| file.file_name());
    name.unwrap_or_default().display().to_string()
}

/// The rescued copy that carries a login, of which there is one at most.
fn login(report: &Report) -> Option<&Location> {
    let is_login = |it: &&Location| !it.name().starts_with("unusable-");
    report.rescued.iter().find(is_login)
}
