//! Messages about rescued logins: where each is, and how to put it back.

use std::{fmt::Display, path::Path};

use authferry_core::SecretStore;
use authferry_runner::rescue::{Location, SecondStoreError};
use authferry_runner::{Job, Report};

use super::{hints, pasted};
use crate::exit;
use crate::outcome::Ending;

/// Refuses to rotate while the second store cannot be read: it may hold a later login.
pub(crate) fn second_store(error: &SecondStoreError) -> Ending {
    let problem = format!("the second store may hold a later login, and cannot be read: {error}");
    let ending = Ending::refused(exit::FAILED, problem).because(error);
    let ending = match error {
        SecondStoreError::Store(below) => match hints::for_store(below) {
            Some(hint) => ending.hint(hint),
            None => ending,
        },
        SecondStoreError::Foreign(_) => {
            return ending.hint(OTHER_SECOND_STORE);
        }
        SecondStoreError::TimedOut(_)
        | SecondStoreError::NoRoom(_)
        | SecondStoreError::System(_) => ending,
    };
    ending.hint(
        "if it holds no login that you need, continue without `--rescue-store` and AUTHFERRY_RESCUE_STORE",
    )
}

/// Refuses a second store that is the store.
pub(crate) fn same_place(store: &dyn SecretStore) -> Ending {
    let problem = format!("the second store is the same place as the store, {store}");
    Ending::refused(exit::FAILED, problem).hint(OTHER_SECOND_STORE)
}

const OTHER_SECOND_STORE: &str = "use `--rescue-store ADDRESS` with a place only for rescued logins, which fails independently of the store";

/// The command that puts the rescued login into the store.
pub(super) fn put_back(job: &Job<'_>, report: &Report, options: &str) -> String {
    let folder = job.rescue.folder();
    match login(report) {
        Some(location) => put(job.store, folder, options, location),
        None => pasted::rescue_put(job.store, folder, options, "FILE"),
    }
}

/// The command that puts a copy into the store, on any machine that has the copy.
pub(crate) fn put(
    store: impl Display,
    folder: &Path,
    options: &str,
    location: &Location,
) -> String {
    // An encrypted file is put back from where it was downloaded, and a copy in a second store from
    // any machine: neither needs this machine's rescue folder.
    let default_folder = Path::new("authferry/rescue");
    match location {
        Location::File(path) => pasted::rescue_put(store, folder, options, &path.display()),
        Location::EncryptedFile(_) => {
            let options = format!("{options} --identity KEY");
            pasted::rescue_put(store, default_folder, &options, &file_name(location))
        }
        Location::SecondStore { address, name } => {
            let options = format!("{options} --rescue-store '{address}'");
            pasted::rescue_put(store, default_folder, &options, name)
        }
    }
}

/// How to put the login back once the store works again.
pub(super) fn once_the_store_works(job: &Job<'_>, report: &Report) -> String {
    let put = put_back(job, report, "");
    let how = match login(report) {
        Some(Location::SecondStore { .. }) => {
            "let the next job with the same second store put it back, or "
        }
        Some(Location::EncryptedFile(_)) => "download the file, and with the age identity in KEY: ",
        Some(Location::File(_)) | None => "let the next job on this machine put it back, or ",
    };
    format!("when the store works again: {how}{put}")
}

/// What to do if the rescue folder is lost with the machine.
pub(super) fn save_before_removal(report: &Report) -> String {
    let encrypted = report.rescued.iter().filter(|it| is_encrypted(it));
    let encrypted: Vec<_> = encrypted.map(Location::argument).collect();
    if !encrypted.is_empty() {
        return format!(
            "before this machine is removed: upload {}, for example as a job artifact; only the owner of the age identity can read it",
            encrypted.join(" and ")
        );
    }
    if report.rescued.iter().any(|it| it.file().is_some()) {
        return UNENCRYPTED.to_owned();
    }
    "no action is needed before this machine is removed".to_owned()
}

const UNENCRYPTED: &str = "if this machine is removed with the job: copy that file to \
    private, persistent storage before the job ends, and use `--rescue-dir DIR` with such a folder \
    in the next job";

/// Whether a copy on this machine is encrypted.
pub(super) fn has_encrypted(report: &Report) -> bool {
    report.rescued.iter().any(is_encrypted)
}

/// The locations of the copies, as text.
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

/// The rescued copy that holds a login: at most one does.
fn login(report: &Report) -> Option<&Location> {
    let is_login = |it: &&Location| !it.name().starts_with("unusable-");
    report.rescued.iter().find(is_login)
}
