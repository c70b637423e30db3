//! The rescue folder: where a generation goes that the store does not hold.
//!
//! Each login has a record file next to it: whose it is, why, when and by which job it was kept. A
//! login without a record belongs to nobody, and is never used by itself.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use authferry_codex::{MAX_LEN, Unusable};
use authferry_core::{Base, Generation, Secret};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use crate::{base_text::BaseText, bounded, lease};

/// More than any record takes, in bytes.
const MAX_RECORD: usize = 64 * 1024;

mod forget;

pub use forget::forget;

use forget::Seen;

/// What is known of a login that was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The address of the store that it belongs to.
    pub store: String,
    /// Why it was kept.
    pub reason: Reason,
    /// The head that it descends from; of a head that was replaced, that head itself. `None`
    /// if nothing was known.
    pub base: Option<Base>,
    /// How many generations were seen since that head, up to this one.
    pub seen: u64,
    /// When it was kept, in Unix seconds.
    pub time: u64,
    /// Which job kept it, for people.
    pub job: String,
}

/// Why a login was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The store did not take it, or another one stays current.
    NotPersisted,
    /// The store's login counts, and this one was in the auth file or in an unfinished
    /// rotation.
    SetAside,
    /// The store held it, and it was replaced.
    Replaced,
}

impl Reason {
    /// Returns the reason, for people.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::NotPersisted => "the store did not take it",
            Self::SetAside => "set aside: the store's login counts",
            Self::Replaced => "the store held it until it was replaced",
        }
    }
}

/// A file in the rescue folder.
#[derive(Debug)]
pub struct Rescued {
    /// The file.
    pub path: PathBuf,
    /// Its bytes.
    pub secret: Secret,
    /// The login, or why it is none.
    pub login: Result<Generation, NotALogin>,
    /// What is known of it.
    pub record: Option<Record>,
    /// Which files were read: the login's and its record's.
    seen: [Option<Seen>; 2],
}

/// Why a file in the rescue folder is not a login.
#[derive(Debug, thiserror::Error)]
pub enum NotALogin {
    /// Its content.
    #[error(transparent)]
    Unusable(#[from] Unusable),
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(io::Error),
}

/// Writes the bytes to a file of mode 0600 in `directory` (made 0700 if missing) with its
/// record, safe against a crash once it returns; gives its path.
///
/// A file that is there already under that name is the same login. Its record keeps what it says
/// of the login's family, unless the store itself has said it meanwhile: a job that finds the
/// login again knows less of it than the one that kept it first. The record of another store is
/// never touched: the login has a second file then.
/// `PermissionDenied` if the folder belongs to another user or is open to others.
pub(crate) fn keep(directory: &Path, secret: &Secret, record: &Record) -> io::Result<PathBuf> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    is_private(directory)?;
    // The record first: a login without its record is of no use to the next job.
    let path = keep_record(directory, &name(secret), record)?;
    temporary(directory, secret.expose())?.persist(&path)?;
    File::open(directory)?.sync_all()?;
    Ok(path)
}

/// Writes the record of a login; returns the login's path.
fn keep_record(directory: &Path, name: &str, record: &Record) -> io::Result<PathBuf> {
    let store = Secret::new(record.store.clone().into_bytes());
    let store = authferry_codex::fingerprint_of_bytes(&store);
    let mut path = directory.join(format!("{name}.json"));
    let second = directory.join(format!("{name}-{store}.json"));
    loop {
        let known = read_record(&path);
        let is_ours = known.as_ref().is_some_and(|it| it.store == record.store);
        if record_path(&path).exists() && !is_ours && path != second {
            path.clone_from(&second);
            continue;
        }
        let merged = match known.filter(|_| is_ours) {
            Some(known) if record.reason != Reason::Replaced => Record {
                base: known.base,
                seen: known.seen,
                ..record.clone()
            },
            Some(_) | None => record.clone(),
        };
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
    found.sort_by(|a, b| time(b).cmp(&time(a)).then_with(|| a.path.cmp(&b.path)));
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
        path,
        seen,
    }))
}

/// Returns the name under which bytes are kept, without its ending. The same bytes have the same
/// name.
fn name(secret: &Secret) -> String {
    match authferry_codex::parse(secret) {
        Ok(generation) => generation.fingerprint.to_string(),
        Err(_) => format!("unusable-{}", authferry_codex::fingerprint_of_bytes(secret)),
    }
}

impl Record {
    pub(crate) fn new(store: String, reason: Reason, base: Option<Base>, job: &str) -> Self {
        Self {
            store,
            reason,
            base,
            seen: 1,
            time: lease::now(),
            job: job.to_owned(),
        }
    }
}

fn record_path(path: &Path) -> PathBuf {
    path.with_extension("json.record")
}

fn is_login(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "json")
}

/// A record that cannot be parsed counts as none.
fn read_record(path: &Path) -> Option<Record> {
    let text = bounded::read(&record_path(path), MAX_RECORD).ok()?;
    let text: RecordText = serde_json::from_slice(&text).ok()?;
    (text.format == FORMAT).then_some(())?;
    Some(Record {
        store: text.store,
        reason: text.reason,
        base: text.base.map(Base::try_from).transpose().ok()?,
        seen: text.seen,
        time: text.time,
        job: text.job,
    })
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

/// The only format so far.
const FORMAT: u64 = 1;

/// A record as it is written down.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordText {
    format: u64,
    store: String,
    reason: Reason,
    base: Option<BaseText>,
    seen: u64,
    time: u64,
    job: String,
}

impl From<&Record> for RecordText {
    fn from(record: &Record) -> Self {
        Self {
            format: FORMAT,
            store: record.store.clone(),
            reason: record.reason,
            base: record.base.as_ref().map(BaseText::from),
            seen: record.seen,
            time: record.time,
            job: record.job.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
