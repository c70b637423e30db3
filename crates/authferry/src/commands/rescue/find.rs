//! Which kept login is meant.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use authferry_core::copies::Origins;
use authferry_core::{Fingerprint, Secret};
use authferry_runner::FoundCopy;
use authferry_runner::rescue::{KeptCopy, Location, Record, Rescue, Rescued};

use super::{encrypted, kept};
use crate::args::RescuePut;
use crate::commands::seed;
use crate::ending::{Ending, Result};
use crate::plan::Plan;
use crate::telling::pasted;
use crate::{exit, seal, telling};

/// What is to be put into the store.
pub(super) struct Found {
    pub(super) location: Location,
    pub(super) secret: Secret,
    pub(super) origins: Option<Origins>,
    pub(super) place: Place,
    /// The other store to which it belongs, if it does.
    pub(super) other_store: Option<String>,
}

/// Where it was found.
pub(super) enum Place {
    /// In the rescue folder, or in the second store.
    Rescue(Box<Rescued>),
    /// In an encrypted file in the rescue folder.
    Encrypted,
    /// In the private home of an unfinished rotation, which is locked for as long as this lives.
    Rotation(Box<FoundCopy>),
    /// In a file that was named.
    Elsewhere,
}

/// Finds the login that is meant: by its fingerprint or its file; without either the only one
/// of this store.
pub(super) fn find(plan: &Plan, rescue: &Rescue, args: &RescuePut) -> Result<Found> {
    let login = args.login.as_deref();
    if let (Some(login), Some(identity)) = (login, &args.identity) {
        return decrypted(plan, rescue, login, identity);
    }
    let store = plan.store.to_string();
    let mut kept = kept(rescue)?;
    let of_store = authferry_runner::find(&store, rescue, Some(&plan.rotations));
    let folder = rescue.folder();
    let mut of_store = of_store.map_err(|error| telling::rescue_folder(folder, &error))?;
    of_store.retain(|copy| {
        // One that was kept for another address is put there by its name alone.
        if copy.elsewhere.is_some() && login.is_none() {
            return false;
        }
        copy.fingerprint().is_some_and(|fingerprint| {
            login.is_none_or(|login| names(login, Some(fingerprint), &copy.location))
        })
    });
    if login.is_none() && of_store.len() > 1 {
        return Err(several(&store, rescue, &of_store).into());
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
        let kept = kept.map(|kept| Place::Rescue(Box::new(kept)));
        if let Some(secret) = copy.secret() {
            return Ok(Found {
                location,
                secret: secret.duplicate(),
                origins,
                place: kept.unwrap_or_else(|| Place::Rotation(Box::new(copy))),
                other_store,
            });
        }
    }
    let Some(login) = login else {
        return Err(none(plan, rescue)?.into());
    };
    // Another store's, or of no known store: it begins a new family in this one.
    if let Some(found) = kept.into_iter().find(|kept| is_meant(kept, login)) {
        return Ok(Found {
            location: found.location.clone(),
            secret: found.secret.duplicate(),
            origins: None,
            other_store: found
                .record
                .as_ref()
                .and_then(|record| other_store(record, plan)),
            place: Place::Rescue(Box::new(found)),
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
    Ok(Found {
        location: Location::File(file.to_owned()),
        secret,
        origins: None,
        place: Place::Elsewhere,
        other_store: None,
    })
}

/// The other store to which a kept login belongs, if it does.
fn other_store(record: &Record, plan: &Plan) -> Option<String> {
    (record.store != plan.store.to_string()).then(|| record.store.clone())
}

/// Decrypts a file. Its record is in it: a login of this store stays in its family.
fn decrypted(plan: &Plan, rescue: &Rescue, login: &str, identity: &Path) -> Result<Found> {
    let (location, place) = match encrypted_file(rescue, login)? {
        Some(location) => (location, Place::Encrypted),
        None => (Location::EncryptedFile(login.into()), Place::Elsewhere),
    };
    let file = location.file().unwrap_or(Path::new(login));
    if !file.is_file() {
        return Err(unknown(login, rescue).into());
    }
    let bytes = read(file).map_err(|error| unreadable(file, &error))?;
    let opened = seal::open(file, &bytes, identity)?;
    let copy = KeptCopy::parse(&opened).map_err(|error| {
        let what = format!("what is encrypted in {} was not rescued", file.display());
        Ending::refused(exit::FAILED, what)
            .caused_by(&error)
            .hint("if it is an auth file, decrypt it with `age -d` and put it there with `authferry seed`")
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
    Ok(Found {
        location,
        secret: copy.secret,
        origins,
        place,
        other_store,
    })
}

/// More than any encrypted copy takes, in bytes: the largest auth file in base64, and a record.
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

fn several(store: &str, rescue: &Rescue, copies: &[FoundCopy]) -> Ending {
    let on_this_machine = copies.iter().all(|copy| copy.location.file().is_some());
    let place = if on_this_machine {
        " on this machine"
    } else {
        ""
    };
    let what = format!("{} logins of {store} are kept{place}", copies.len());
    let each = copies.iter();
    let each = each.map(|copy| telling::put(store, rescue.folder(), "", &copy.location));
    each.fold(Ending::refused(exit::FAILED, what), |ending, put| {
        ending.hint(format!("name one of them: {put}"))
    })
    .hint("see what each is worth: `authferry rescue list`")
}

fn none(plan: &Plan, rescue: &Rescue) -> Result<Ending> {
    let folder = rescue.folder().display();
    let what = format!("no login of {} is kept in {folder}", plan.store);
    let mut ending = Ending::refused(exit::FAILED, what);
    for location in encrypted(rescue)? {
        ending
            .hints
            .extend(is_encrypted(plan, rescue, &location).hints);
    }
    Ok(ending.hint("see what is kept: `authferry rescue list`"))
}

pub(super) fn is_meant(kept: &Rescued, login: &str) -> bool {
    let fingerprint = kept.login.as_ref().ok().map(|it| it.fingerprint);
    names(login, fingerprint, &kept.location)
}

/// Whether what was typed names a login by its fingerprint, its file, or its name in the second
/// store.
pub(super) fn names(typed: &str, fingerprint: Option<Fingerprint>, location: &Location) -> bool {
    let by_name = match fingerprint {
        Some(fingerprint) => fingerprint.to_string() == typed,
        None => match location {
            Location::EncryptedFile(_) | Location::SecondStore { .. } => location.name() == typed,
            Location::File(_) => false,
        },
    };
    let file = Path::new(typed);
    let is_file =
        |path: &Path| path == file || std::path::absolute(file).is_ok_and(|file| file == path);
    by_name || location.file().is_some_and(is_file)
}

pub(super) fn unknown(login: &str, rescue: &Rescue) -> Ending {
    let what = format!(
        "{login} is no login that is kept in {}, and no file",
        rescue.folder().display()
    );
    Ending::refused(exit::FAILED, what).hint("see what is kept: `authferry rescue list`")
}

fn unreadable(file: &Path, error: &io::Error) -> Ending {
    let what = format!("{} cannot be read", file.display());
    Ending::refused(exit::FAILED, what).caused_by(error)
}
