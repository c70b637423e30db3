//! The rescue folder: one file per copy, with its record in a second file or encrypted with it.

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
use super::forget::FileIdentity;
use super::{Location, NotALogin, Record, Rescued, Seal, copy_name};
use crate::bounded;

/// The extension of a login's file.
pub(super) const LOGIN: &str = ".json";
/// The second extension of an encrypted file.
pub(super) const ENCRYPTED: &str = ".age";

/// More bytes than any record has.
const MAX_RECORD_BYTES: usize = 64 * 1024;

/// Writes the bytes and the record to files of mode 0600 in `directory` (created with mode 0700),
/// durable once it returns; returns the path.
///
/// An existing file with this name holds the same login; `Record::with_family_of` merges the
/// records. The record of another store is never overwritten: the login then gets a second file.
/// `PermissionDenied` if the folder belongs to another user or is open to others.
pub(super) fn keep(directory: &Path, secret: &Secret, record: &Record) -> io::Result<PathBuf> {
    create_folder(directory)?;
    // The record first: the next job cannot use a login without a record.
    let path = write_record(directory, &copy_name(secret), record)?;
    temporary(directory, secret.expose())?.persist(&path)?;
    File::open(directory)?.sync_all()?;
    Ok(path)
}

/// Writes the record of a login; returns the login's path.
fn write_record(directory: &Path, name: &str, record: &Record) -> io::Result<PathBuf> {
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
            // A job of another store kept the same login at the same moment.
            Err(error) if error.error.kind() == ErrorKind::AlreadyExists => {}
            written => {
                written?;
                return Ok(path);
            }
        }
    }
}

/// Returns the file name of a login whose first name is used by another store.
fn second_name(name: &str, store: &str) -> String {
    let store = Secret::new(store.as_bytes().to_vec());
    let store = authferry_codex::fingerprint_of_bytes(&store);
    format!("{name}-{store}{LOGIN}")
}

/// Writes the bytes and the record to one encrypted file of mode 0600 in `directory`, durable once
/// it returns; returns the path. Writes nothing unencrypted. An existing file with the login's name
/// stays, and the login then gets a second file.
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
    create_folder(directory)?;
    let mut path = directory.join(copy_name(secret) + LOGIN + ENCRYPTED);
    match temporary(directory, &encrypted)?.persist_noclobber(&path) {
        // This machine cannot read the existing file, and its record may contain more.
        Err(existing) if existing.error.kind() == ErrorKind::AlreadyExists => {
            path = directory.join(second_name(&copy_name(secret), &record.store) + ENCRYPTED);
            existing.file.persist(&path)?;
        }
        written => drop(written?),
    }
    File::open(directory)?.sync_all()?;
    Ok(path)
}

fn create_folder(directory: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    check_private(directory)
}

/// Checks that a rescue folder can keep logins. The folder may be missing.
///
/// `PermissionDenied` if the folder belongs to another user or is open to others.
pub fn check(directory: &Path) -> io::Result<()> {
    match check_private(directory) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(error),
        _ => Ok(()),
    }
}

/// Returns the copies in a rescue folder, newest first; none if the folder is missing. A file that
/// cannot be read does not hide the others.
///
/// `PermissionDenied` if the folder belongs to another user or is open to others.
pub fn list(directory: &Path) -> io::Result<Vec<Rescued>> {
    match check_private(directory) {
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
            // Another process removed the file since the folder was listed.
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

/// Reads one copy; `None` if the path is not a regular file.
fn read(path: PathBuf) -> io::Result<Option<Rescued>> {
    if !fs::symlink_metadata(&path)?.is_file() {
        return Ok(None);
    }
    let files = [
        FileIdentity::of(&path),
        FileIdentity::of(&record_path(&path)),
    ];
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
        files,
    }))
}

/// Returns the encrypted files of a rescue folder by name; none if the folder is missing.
///
/// `PermissionDenied` if the folder belongs to another user or is open to others.
pub(super) fn encrypted(directory: &Path) -> io::Result<Vec<Location>> {
    match check_private(directory) {
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

/// Reads a record. A record that cannot be parsed counts as none.
fn read_record(path: &Path) -> Option<Record> {
    let text = bounded::read(&record_path(path), MAX_RECORD_BYTES).ok()?;
    let text: RecordText = serde_json::from_slice(&text).ok()?;
    text.try_into().ok()
}

/// Whether the error means that the folder is missing. A parent that is a file counts too.
fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// Fails if other users can read logins in the folder or put some there.
fn check_private(directory: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(directory)?;
    let is_ours = metadata.uid() == rustix::process::geteuid().as_raw();
    if metadata.is_dir() && is_ours && !is_open_to_others(metadata.mode()) {
        return Ok(());
    }
    let cause = if metadata.is_dir() && is_ours {
        "the folder is open to other users"
    } else {
        "the path belongs to another user or is not a folder"
    };
    Err(io::Error::new(ErrorKind::PermissionDenied, cause))
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
