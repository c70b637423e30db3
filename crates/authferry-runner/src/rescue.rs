//! The rescue folder: where a generation goes that the store does not hold.
//!
//! Each login has a record file next to it: whose it is, why, when and by which job it was kept. A
//! login without a record belongs to nobody, and is never used by itself.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use authferry_codex::{MAX_LEN, Unusable};
use authferry_core::{Base, Generation, Secret};
use serde::{Deserialize, Serialize};

use crate::{base_text::BaseText, lease};

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
    pub login: Result<Generation, Unusable>,
    /// What is known of it.
    pub record: Option<Record>,
}

/// Writes the bytes to a file of mode 0600 in `directory` (made 0700 if missing) with its
/// record, safe against a crash once it returns; gives its path.
///
/// A file that is there already under that name is the same login. Its record keeps what it says
/// of the login's family, unless the store itself has said it meanwhile: a job that finds the
/// login again knows less of it than the one that kept it first.
/// `PermissionDenied` if the folder belongs to another user or is open to others.
pub(crate) fn keep(directory: &Path, secret: &Secret, record: &Record) -> io::Result<PathBuf> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    is_private(directory)?;
    let path = directory.join(name(secret));
    let known = read_record(&path).filter(|known| known.store == record.store);
    let record = &match known {
        Some(known) if record.reason != Reason::Replaced => Record {
            base: known.base,
            seen: known.seen,
            ..record.clone()
        },
        Some(_) | None => record.clone(),
    };
    let text = serde_json::to_vec_pretty(&RecordText::from(record))?;
    // The record first: a login without its record is of no use to the next job.
    write(directory, &record_path(&path), &text)?;
    write(directory, &path, secret.expose())?;
    File::open(directory)?.sync_all()?;
    Ok(path)
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

/// Returns what a rescue folder holds, newest first; nothing if there is no folder.
///
/// `PermissionDenied` if the folder belongs to another user or is open to others.
pub fn list(directory: &Path) -> io::Result<Vec<Rescued>> {
    match is_private(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        checked => checked?,
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        let metadata = entry.metadata()?;
        if !metadata.is_file() || metadata.len() > MAX_LEN as u64 || !is_login(&path) {
            continue;
        }
        let secret = Secret::new(fs::read(&path)?);
        found.push(Rescued {
            login: authferry_codex::parse(&secret),
            record: read_record(&path),
            secret,
            path,
        });
    }
    let time = |rescued: &Rescued| rescued.record.as_ref().map_or(0, |record| record.time);
    found.sort_by(|a, b| time(b).cmp(&time(a)).then_with(|| a.path.cmp(&b.path)));
    Ok(found)
}

/// Removes a login from the rescue folder, and its record.
pub fn forget(path: &Path) -> io::Result<()> {
    fs::remove_file(path)?;
    match fs::remove_file(record_path(path)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Returns the name under which bytes are kept. The same bytes have the same name.
pub(crate) fn name(secret: &Secret) -> String {
    match authferry_codex::parse(secret) {
        Ok(generation) => format!("{}.json", generation.fingerprint),
        Err(_) => format!(
            "unusable-{}.json",
            authferry_codex::fingerprint_of_bytes(secret)
        ),
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
    let text = fs::read(record_path(path)).ok()?;
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

fn write(directory: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = tempfile::Builder::new()
        .prefix(".rescue-")
        .permissions(fs::Permissions::from_mode(0o600))
        .tempfile_in(directory)?;
    file.as_file_mut().write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
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
mod tests {
    use authferry_core::{Family, Fingerprint, Identity, Issued, SessionHints, Version};

    use super::*;

    fn record() -> Record {
        Record::new("memory:a".into(), Reason::NotPersisted, None, "a job")
    }

    #[test]
    fn a_rescue_is_ours_alone_to_read_and_has_its_record() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let place = dir.path().join("state/rescue");
        assert!(list(&place).expect("no folder").is_empty());
        for _ in 0..2 {
            let path = keep(&place, &Secret::new(b"made up".to_vec()), &record()).expect("kept");
            let mode =
                |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
            assert_eq!((mode(&place), mode(&path)), (0o700, 0o600));
            assert_eq!(mode(&record_path(&path)), 0o600);
            assert_eq!(fs::read(&path).expect("readable"), b"made up");
        }
        let found = list(&place).expect("our folder");
        let [rescued] = &found[..] else {
            panic!("{found:?}");
        };
        let found = rescued.record.as_ref().expect("a record");
        assert_eq!(
            Record {
                time: 0,
                ..found.clone()
            },
            Record {
                time: 0,
                ..record()
            }
        );
        assert_eq!(
            fs::read_dir(&place).expect("there").count(),
            2,
            "no temporary file stays"
        );
        forget(&rescued.path).expect("there");
        assert_eq!(fs::read_dir(&place).expect("there").count(), 0);
    }

    #[test]
    fn a_record_keeps_what_it_says_of_the_family() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let place = dir.path().join("rescue");
        let login = Secret::new(b"made up".to_vec());
        let found = |record: &Record| {
            keep(&place, &login, record).expect("kept");
            let mut found = list(&place).expect("our folder");
            assert_eq!(found.len(), 1, "{found:?}");
            found.remove(0).record.expect("a record")
        };
        let first = Record {
            base: Some(base(1)),
            seen: 2,
            ..Record::new("memory:a".into(), Reason::SetAside, None, "a job")
        };
        assert_eq!(found(&first), first);
        let again = Record {
            base: Some(base(7)),
            time: first.time + 9,
            ..record()
        };
        let expected = Record {
            base: Some(base(1)),
            seen: 2,
            ..again.clone()
        };
        assert_eq!(found(&again), expected);
        let of_the_store = Record {
            base: Some(base(7)),
            reason: Reason::Replaced,
            ..record()
        };
        assert_eq!(found(&of_the_store), of_the_store);
    }

    fn base(number: u8) -> Base {
        let fingerprint = Fingerprint::new([number; 8]);
        Base {
            version: Version::new("1"),
            generation: Generation {
                fingerprint,
                identity: Identity::default(),
                hints: SessionHints::default(),
                issued: Issued::default(),
            },
            count: 1,
            family: Family(fingerprint),
            ancestors: vec![],
            volatile_hints: false,
            unrelated: vec![],
        }
    }

    #[test]
    fn a_folder_that_is_open_to_others_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o750)).expect("ours");
        let kept = keep(dir.path(), &Secret::new(b"made up".to_vec()), &record());
        for error in [kept.map(drop), list(dir.path()).map(drop)] {
            let error = error.expect_err("open to others");
            assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        }
    }
}
