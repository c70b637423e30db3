//! Finds a rescued login by its fingerprint, file or name.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use authferry_core::copies::Origins;
use authferry_core::{Fingerprint, Secret};
use authferry_runner::FoundCopy;
use authferry_runner::rescue::{KeptCopy, Location, Record, Rescue, Rescued};

use super::{encrypted, list_rescued};
use crate::args::RescuePutArgs;
use crate::commands::seed;
use crate::messages::pasted;
use crate::outcome::{Ending, Result};
use crate::plan::Plan;
use crate::{exit, messages, seal};

/// The login to put into the store.
pub(super) struct FoundLogin {
    pub(super) location: Location,
    pub(super) secret: Secret,
    pub(super) origins: Option<Origins>,
    pub(super) source: Source,
    /// The other store to which the login belongs, if any.
    pub(super) other_store: Option<String>,
}

/// Where the login was found.
pub(super) enum Source {
    /// In the rescue folder, or in the second store.
    Rescue(Box<Rescued>),
    /// In an encrypted file in the rescue folder.
    Encrypted,
    /// In the private home of an unfinished rotation, which stays locked while this value lives.
    Rotation(Box<FoundCopy>),
    /// In a file outside of the rescue folder.
    File,
}

/// Finds a login by its fingerprint or its file. Without either, it is the only one of this store.
pub(super) fn find(plan: &Plan, rescue: &Rescue, args: &RescuePutArgs) -> Result<FoundLogin> {
    let login = args.login.as_deref();
    if let (Some(login), Some(identity)) = (login, &args.identity) {
        return decrypted(plan, rescue, login, identity);
    }
    let store = plan.store.to_string();
    let mut kept = list_rescued(rescue)?;
    let of_store = authferry_runner::find(&store, rescue, Some(&plan.rotations));
    let folder = rescue.folder();
    let mut of_store = of_store.map_err(|error| messages::rescue_folder(folder, &error))?;
    of_store.retain(|copy| {
        // A login of another address is only put back by its fingerprint or file.
        if copy.elsewhere.is_some() && login.is_none() {
            return false;
        }
        copy.fingerprint().is_some_and(|fingerprint| {
            login.is_none_or(|login| names(login, Some(fingerprint), &copy.location))
        })
    });
    if login.is_none() && of_store.len() > 1 {
        return Err(ambiguous(&store, rescue, &of_store).into());
    }
    if !of_store.is_empty() {
        let copy = of_store.remove(0);
        let (location, origins) = (copy.location.clone(), copy.copy.origins.clone());
        let kept = kept
            .iter()
            .position(|it| it.location == location && it.record == copy.record)
            .map(|at| kept.swap_remove(at));
        let other_store = kept
            .as_ref()
            .and_then(|kept| other_store(kept.record.as_ref()?, plan));
        let kept = kept.map(|kept| Source::Rescue(Box::new(kept)));
        if let Some(secret) = copy.secret() {
            return Ok(FoundLogin {
                location,
                secret: secret.duplicate(),
                origins,
                source: kept.unwrap_or_else(|| Source::Rotation(Box::new(copy))),
                other_store,
            });
        }
    }
    let Some(login) = login else {
        return Err(not_found(plan, rescue)?.into());
    };
    // A login of another or an unknown store starts a new family in this store.
    if let Some(found) = kept.into_iter().find(|kept| is_named_by(kept, login)) {
        return Ok(FoundLogin {
            location: found.location.clone(),
            secret: found.secret.duplicate(),
            origins: None,
            other_store: found
                .record
                .as_ref()
                .and_then(|record| other_store(record, plan)),
            source: Source::Rescue(Box::new(found)),
        });
    }
    if let Some(location) = encrypted_file(rescue, login)? {
        return Err(is_encrypted(plan, rescue, &location).into());
    }
    let file = Path::new(login);
    if !file.is_file() {
        return Err(unknown(login, rescue).into());
    }
    let location = Location::EncryptedFile(file.to_owned());
    if file.extension().is_some_and(|end| end == "age") {
        return Err(is_encrypted(plan, rescue, &location).into());
    }
    let secret = seed::read(file).map_err(|error| unreadable(file, &error))?;
    Ok(FoundLogin {
        location: Location::File(file.to_owned()),
        secret,
        origins: None,
        source: Source::File,
        other_store: None,
    })
}

/// The other store to which a rescued login belongs, if any.
fn other_store(record: &Record, plan: &Plan) -> Option<String> {
    (record.store != plan.store.to_string()).then(|| record.store.clone())
}

/// Decrypts a file. The file holds its record: a login of this store stays in its family.
fn decrypted(plan: &Plan, rescue: &Rescue, login: &str, identity: &Path) -> Result<FoundLogin> {
    let (location, source) = match encrypted_file(rescue, login)? {
        Some(location) => (location, Source::Encrypted),
        None => (Location::EncryptedFile(login.into()), Source::File),
    };
    let file = location.file().unwrap_or(Path::new(login));
    if !file.is_file() {
        return Err(unknown(login, rescue).into());
    }
    let bytes = read(file).map_err(|error| unreadable(file, &error))?;
    let opened = seal::open(file, &bytes, identity)?;
    let copy = KeptCopy::parse(&opened).map_err(|error| {
        let problem = format!("the content of {} is not a rescued login", file.display());
        Ending::refused(exit::FAILED, problem)
            .caused_by(&error)
            .hint("if it is an auth file, decrypt it with `age -d`, and put it into the store with `authferry seed`")
    })?;
    let record = copy.record;
    let other_store = other_store(&record, plan);
    let origins = record.base.map(|base| Origins {
        base,
        seen: record.seen,
        by_name: true,
        hints_count: false,
        elsewhere: other_store.is_some(),
    });
    Ok(FoundLogin {
        location,
        secret: copy.secret,
        origins,
        source,
        other_store,
    })
}

/// Longer than any encrypted copy, in bytes: the largest auth file in base64, and a record.
const ENCRYPTED_MAX_LEN: u64 = 2 << 20;

fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(file)?;
    file.take(ENCRYPTED_MAX_LEN).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn encrypted_file(rescue: &Rescue, login: &str) -> Result<Option<Location>> {
    let mut encrypted = encrypted(rescue)?.into_iter();
    Ok(encrypted.find(|location| names(login, None, location)))
}

fn is_encrypted(plan: &Plan, rescue: &Rescue, location: &Location) -> Ending {
    let file = location.place();
    let put = pasted::rescue_put(&plan.store, rescue.folder(), " --identity KEY", &file);
    Ending::refused(exit::FAILED, format!("{file} is encrypted"))
        .hint(format!("with the age identity in KEY: {put}"))
}

fn ambiguous(store: &str, rescue: &Rescue, copies: &[FoundCopy]) -> Ending {
    let on_this_machine = copies.iter().all(|copy| copy.location.file().is_some());
    let place = if on_this_machine {
        " on this machine"
    } else {
        ""
    };
    let problem = format!("{} logins of {store} are saved{place}", copies.len());
    let each = copies.iter();
    let each = each.map(|copy| messages::put(store, rescue.folder(), "", &copy.location));
    each.fold(Ending::refused(exit::FAILED, problem), |ending, put| {
        ending.hint(format!("choose one of them: {put}"))
    })
    .hint("compare them: `authferry rescue list`")
}

fn not_found(plan: &Plan, rescue: &Rescue) -> Result<Ending> {
    let folder = rescue.folder().display();
    let problem = format!("no login of {} is saved in {folder}", plan.store);
    let mut ending = Ending::refused(exit::FAILED, problem);
    for location in encrypted(rescue)? {
        ending
            .hints
            .extend(is_encrypted(plan, rescue, &location).hints);
    }
    Ok(ending.hint("list the rescued logins: `authferry rescue list`"))
}

pub(super) fn is_named_by(kept: &Rescued, login: &str) -> bool {
    let fingerprint = kept.login.as_ref().ok().map(|it| it.fingerprint);
    names(login, fingerprint, &kept.location)
}

/// Whether an argument names a login by its fingerprint, its file, or its name in the second store.
pub(super) fn names(argument: &str, fingerprint: Option<Fingerprint>, location: &Location) -> bool {
    let by_name = match fingerprint {
        Some(fingerprint) => fingerprint.to_string() == argument,
        None => match location {
            Location::EncryptedFile(_) | Location::SecondStore { .. } => {
                location.name() == argument
            }
            Location::File(_) => false,
        },
    };
    let file = Path::new(argument);
    let is_file =
        |path: &Path| path == file || std::path::absolute(file).is_ok_and(|file| file == path);
    by_name || location.file().is_some_and(is_file)
}

pub(super) fn unknown(login: &str, rescue: &Rescue) -> Ending {
    let problem = format!(
        "{login} is neither a rescued login in {} nor a file",
        rescue.folder().display()
    );
    Ending::refused(exit::FAILED, problem).hint("list the rescued logins: `authferry rescue list`")
}

fn unreadable(file: &Path, error: &io::Error) -> Ending {
    let problem = format!("{} cannot be read", file.display());
    Ending::refused(exit::FAILED, problem).caused_by(error)
}
