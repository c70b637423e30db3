//! The rescue folder: one file for each copy, with its record next to it or encrypted with it.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use authferry_codex::MAX_LEN;
use authferry_core::Secret;
use tempfile::NamedTempFile;

use super::document::{self, KeptCopy, RecordText};
use super::forget::Seen;
use super::{Location, NotALogin, Record, Rescued, Seal, name};
use crate::bounded;

/// How the name of a login's file ends.
pub(super) const LOGIN: &str = ".json";
/// What the name of an encrypted file ends in, beyond that of a login.
pub(super) const ENCRYPTED: &str = ".age";

/// More than any record takes, in bytes.
const MAX_RECORD: usize = 64 * 1024;

/// Writes the bytes to a file of mode 0600 in `directory` (made 0700 if missing) with its
/// record, safe against a crash once it returns; gives its path.
///
/// A file that is there already under that name is the same login. Its record keeps what it says
/// of the login's family, unless the store itself has said it meanwhile: a job that finds the
/// login again knows less of it than the one that kept it first. The record of another store is
/// never touched: the login has a second file then.
/// `PermissionDenied` if the folder belongs to another user or is open to others.
pub(super) fn keep(directory: &Path, secret: &Secret, record: &Record) -> io::Result<PathBuf> {
    make(directory)?;
    // The record first: a login without its record is of no use to the next job.
    let path = keep_record(directory, &name(secret), record)?;
    temporary(directory, secret.expose())?.persist(&path)?;
    File::open(directory)?.sync_all()?;
    Ok(path)
}

/// Writes the record of a login; returns the login's path.
fn keep_record(directory: &Path, name: &str, record: &Record) -> io::Result<PathBuf> {
    let mut path = directory.join(format!("{name}{LOGIN}"));
    let second = directory.join(second_name(name, &record.store));
    loop {
        let known = read_record(&path);
        let is_ours = known.as_ref().is_some_and(|it| it.store == record.store);
        if record_path(&path).exists() && !is_ours && path != second {
            path.clone_from(&second);
            continue;
        }
        let known = known.filter(|_| is_ours);
        let merged = known.map_or_else(|| record.clone(), |known| record.with_family_of(&known));
        let text = serde_json::to_vec_pretty(&RecordText::from(&merged))?;
        let text = temporary(directory, &text)?;
        if is_ours || path == second {
            text.persist(record_path(&path))?;
            return Ok(path);
        }
        match text.persist_noclobber(record_path(&path)) {
            // A job of another store has kept the same login at the same moment.
            Err(error) if error.error.kind() == ErrorKind::AlreadyExists => {}
            written => {
                written?;
                return Ok(path);
            }
        }
    }
}

/// The name of a login's file where another store has one of the same login.
fn second_name(name: &str, store: &str) -> String {
    let store = Secret::new(store.as_bytes().to_vec());
    let store = authferry_codex::fingerprint_of_bytes(&store);
    format!("{name}-{store}{LOGIN}")
}

/// Writes the bytes with their record to an encrypted file of mode 0600 in `directory`, safe
/// against a crash once it returns; gives its path. Nothing is written in the clear. A file that is
/// there under the login's name stays, and the login has a second file then.
///
/// `PermissionDenied` if the folder belongs to another user or is open to others.
pub(super) fn keep_encrypted(
    directory: &Path,
    secret: &Secret,
    record: &Record,
    seal: &dyn Seal,
) -> io::Result<PathBuf> {
    let copy = KeptCopy {
        secret: secret.duplicate(),
        record: record.clone(),
    };
    let encrypted = seal.seal(&document::text(&[copy])?)?;
    make(directory)?;
    let mut path = directory.join(name(secret) + LOGIN + ENCRYPTED);
    match temporary(directory, &encrypted)?.persist_noclobber(&path) {
        // Nobody here can read whose it is, and its record may know more.
        Err(there) if there.error.kind() == ErrorKind::AlreadyExists => {
            path = directory.join(second_name(&name(secret), &record.store) + ENCRYPTED);
            there.file.persist(&path)?;
        }
        written => drop(written?),
    }
    File::open(directory)?.sync_all()?;
    Ok(path)
}

fn make(directory: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    is_private(directory)
}

/// Checks that logins can be kept in a rescue folder; it need not be there.
///
/// `PermissionDenied` if the folder belongs to another user or is open to others.
pub fn check(directory: &Path) -> io::Result<()> {
    match is_private(directory) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(error),
        _ => Ok(()),
    }
}

/// Returns what a rescue folder holds, newest first; nothing if there is no folder. A file that
/// cannot be read is no reason not to see the others.
///
/// `PermissionDenied` if the folder belongs to another user or is open to others.
pub fn list(directory: &Path) -> io::Result<Vec<Rescued>> {
    match is_private(directory) {
        Err(error) if is_missing(&error) => return Ok(Vec::new()),
        checked => checked?,
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if !is_login(&path) {
            continue;
        }
        match read(path) {
            // Another process has removed it meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            read => found.extend(read?),
        }
    }
    let time = |rescued: &Rescued| rescued.record.as_ref().map_or(0, |record| record.time);
    found.sort_by(|a, b| {
        time(b)
            .cmp(&time(a))
            .then_with(|| a.location.file().cmp(&b.location.file()))
    });
    Ok(found)
}

/// Reads one file; `None` if it is no file.
fn read(path: PathBuf) -> io::Result<Option<Rescued>> {
    if !fs::symlink_metadata(&path)?.is_file() {
        return Ok(None);
    }
    let seen = [Seen::of(&path), Seen::of(&record_path(&path))];
    let mut bytes = Vec::new();
    let limit = MAX_LEN as u64 + 1;
    let read = File::open(&path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
    let secret = Secret::new(bytes);
    let login = match read {
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(error),
        Err(error) => Err(NotALogin::Unreadable(error)),
        Ok(_) => authferry_codex::parse(&secret).map_err(NotALogin::from),
    };
    Ok(Some(Rescued {
        login,
        record: read_record(&path),
        secret,
        location: Location::File(path),
        seen,
    }))
}

/// Returns the encrypted files of a rescue folder, by name; nothing if there is no folder.
///
/// `PermissionDenied` if the folder belongs to another user or is open to others.
pub(super) fn encrypted(directory: &Path) -> io::Result<Vec<Location>> {
    match is_private(directory) {
        Err(error) if is_missing(&error) => return Ok(Vec::new()),
        checked => checked?,
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_encrypted = name.strip_suffix(ENCRYPTED);
        if is_encrypted.is_some_and(|name| name.ends_with(LOGIN)) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found.into_iter().map(Location::EncryptedFile).collect())
}

pub(super) fn record_path(path: &Path) -> PathBuf {
    path.with_extension("json.record")
}

pub(super) fn is_login(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "json")
}

/// A record that cannot be parsed counts as none.
fn read_record(path: &Path) -> Option<Record> {
    let text = bounded::read(&record_path(path), MAX_RECORD).ok()?;
    let text: RecordText = serde_json::from_slice(&text).ok()?;
    text.try_into().ok()
}

/// Whether there is no folder: what is above it may be a file.
fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// Refuses a folder from which others could take a login, or into which they could put one.
fn is_private(directory: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(directory)?;
    let is_ours = metadata.uid() == rustix::process::geteuid().as_raw();
    if metadata.is_dir() && is_ours && !is_open_to_others(metadata.mode()) {
        return Ok(());
    }
    let what = if metadata.is_dir() && is_ours {
        "the folder is open to other users"
    } else {
        "the folder belongs to another user, or is no folder"
    };
    Err(io::Error::new(ErrorKind::PermissionDenied, what))
}

fn is_open_to_others(mode: u32) -> bool {
    mode & 0o077 != 0
}

fn temporary(directory: &Path, bytes: &[u8]) -> io::Result<NamedTempFile> {
    let mut file = tempfile::Builder::new()
        .prefix(".rescue-")
        .permissions(fs::Permissions::from_mode(0o600))
        .tempfile_in(directory)?;
    file.as_file_mut().write_all(bytes)?;
    file.as_file().sync_all()?;
    Ok(file)
}

#[cfg(test)]
mod tests;
