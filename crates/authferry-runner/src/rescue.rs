//! The rescue: keeps generations that the store does not hold.
//!
//! A copy goes into the *second store* if one is given, else into the *rescue folder*. With a
//! [`Seal`] the folder gets only encrypted files, which this machine cannot read again. Each copy
//! has a record: its store, and why, when and by which job it was kept. A login without a record
//! belongs to no store, and is never used automatically.

mod document;
mod folder;
mod forget;
mod second_store;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use authferry_codex::AuthFileError;
use authferry_core::{Base, Generation, Secret, SecretStore};
use serde::{Deserialize, Serialize};

pub use document::KeptCopy;
pub use folder::{check, list};
pub use second_store::SecondStoreError;

use crate::lease;
use crate::unwound::guarded;
use forget::FileIdentity;
use second_store::SecondStore;

/// The record of a kept login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The address of the login's store.
    pub store: String,
    /// Why the login was kept.
    pub reason: Reason,
    /// The head that the login descends from; for a replaced head, that head itself. `None` if
    /// unknown.
    pub base: Option<Base>,
    /// The number of generations seen since that head, this one included.
    pub seen: u64,
    /// When the login was kept, in Unix seconds.
    pub time: u64,
    /// The job that kept the login, human-readable.
    pub job: String,
}

/// Why a login was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The store did not accept the login, or another login stays current.
    NotPersisted,
    /// The store's login takes precedence over this one from the auth file or an unfinished
    /// rotation.
    SetAside,
    /// The store held the login until another login replaced it.
    Replaced,
}

impl Reason {
    /// Returns the reason, human-readable.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::NotPersisted => "the store did not accept it",
            Self::SetAside => "set aside: the store's login takes precedence",
            Self::Replaced => "the store held it until it was replaced",
        }
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

impl Record {
    /// Merges this record with an earlier record of the same login. The earlier record's family
    /// wins, because a later job knows less about the login. Exception: this record is of a login
    /// that the store itself held.
    fn with_family_of(&self, known: &Self) -> Self {
        if self.reason == Reason::Replaced || self.store != known.store {
            return self.clone();
        }
        Self {
            base: known.base.clone(),
            seen: known.seen,
            ..self.clone()
        }
    }
}

/// The location of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A file that this machine can read.
    File(PathBuf),
    /// An encrypted file: reading it needs an identity.
    EncryptedFile(PathBuf),
    /// The second store.
    SecondStore {
        /// The store's address.
        address: String,
        /// The copy's name: the fingerprint, or `unusable-` and a fingerprint of the bytes.
        name: String,
    },
}

impl Location {
    /// Returns the path, if the copy is a file.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) | Self::EncryptedFile(path) => Some(path),
            Self::SecondStore { .. } => None,
        }
    }

    /// Returns the path of the file, or the address of the second store.
    #[must_use]
    pub fn place(&self) -> String {
        match self {
            Self::File(path) | Self::EncryptedFile(path) => path.display().to_string(),
            Self::SecondStore { address, .. } => address.clone(),
        }
    }

    /// Returns the argument that names this copy for `rescue put` and `rescue drop`.
    #[must_use]
    pub fn argument(&self) -> String {
        match self {
            Self::File(path) | Self::EncryptedFile(path) => path.display().to_string(),
            Self::SecondStore { name, .. } => name.clone(),
        }
    }

    /// Returns the copy's name without a file extension: the fingerprint of a login.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::File(path) | Self::EncryptedFile(path) => {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let name = name.strip_suffix(folder::ENCRYPTED).unwrap_or(&name);
                name.strip_suffix(folder::LOGIN).unwrap_or(name).to_owned()
            }
            Self::SecondStore { name, .. } => name.clone(),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::EncryptedFile(path) => write!(f, "{}, encrypted", path.display()),
            Self::SecondStore { address, .. } => write!(f, "the second store {address}"),
        }
    }
}

/// A kept copy.
#[derive(Debug)]
pub struct Rescued {
    /// The location.
    pub location: Location,
    /// The bytes.
    pub secret: Secret,
    /// The login, or why the copy is not one.
    pub login: Result<Generation, NotALogin>,
    /// The record.
    pub record: Option<Record>,
    /// The files read for a copy in the folder: the login's and its record's.
    files: [Option<FileIdentity>; 2],
}

/// Why a copy is not a login.
#[derive(Debug, thiserror::Error)]
pub enum NotALogin {
    /// The content is unusable.
    #[error(transparent)]
    AuthFileError(#[from] AuthFileError),
    /// The file cannot be read.
    #[error("the file cannot be read: {0}")]
    Unreadable(io::Error),
}

/// Encrypts the files of the rescue folder.
///
/// # Examples
///
/// ```
/// use std::io;
///
/// use authferry_core::Secret;
/// use authferry_runner::rescue::{Rescue, Seal};
///
/// #[derive(Debug)]
/// struct NoKey;
///
/// impl Seal for NoKey {
///     fn seal(&self, _: &Secret) -> io::Result<Vec<u8>> {
///         Err(io::Error::other("no key"))
///     }
/// }
///
/// let rescue = Rescue::new("/var/lib/authferry/rescue").with_seal(Box::new(NoKey));
/// assert_eq!(rescue.folder().to_str(), Some("/var/lib/authferry/rescue"));
/// ```
pub trait Seal: fmt::Debug {
    /// Returns the encrypted text.
    fn seal(&self, plain: &Secret) -> io::Result<Vec<u8>>;
}

/// Keeps copies in a second store, if one is given, else in a folder.
#[derive(Debug)]
pub struct Rescue {
    folder: PathBuf,
    second: Option<SecondStore>,
    seal: Option<Box<dyn Seal>>,
}

/// The result of keeping a copy.
#[derive(Debug)]
pub(crate) struct KeepResult {
    /// The location, or why the folder did not accept the copy.
    pub(crate) location: io::Result<Location>,
    /// Why the second store did not accept the copy.
    pub(crate) not_in_second_store: Option<String>,
}

impl Rescue {
    /// Keeps copies in a folder, which is created when needed.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            second: None,
            seal: None,
        }
    }

    /// Keeps copies in a second store, and falls back to the folder if that store fails.
    #[must_use]
    pub fn with_second_store(mut self, store: Arc<dyn SecretStore>) -> Self {
        self.second = Some(SecondStore::new(store));
        self
    }

    /// Encrypts the files of the folder.
    #[must_use]
    pub fn with_seal(mut self, seal: Box<dyn Seal>) -> Self {
        self.seal = Some(seal);
        self
    }

    /// Returns the folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Reads the second store, if there is one. Until then its copies are unknown.
    pub async fn load_second_store(&self, limit: Duration) -> Result<(), SecondStoreError> {
        match &self.second {
            Some(second) => second.load(limit).await,
            None => Ok(()),
        }
    }

    /// Returns the copies of the second store as of its last read, newest first.
    #[must_use]
    pub fn in_second_store(&self) -> Vec<Rescued> {
        self.second.iter().flat_map(SecondStore::list).collect()
    }

    /// Returns the encrypted files in the folder. This machine cannot read their content.
    pub fn encrypted(&self) -> io::Result<Vec<Location>> {
        folder::encrypted(&self.folder)
    }

    /// Keeps a copy in the second store within `limit`, else in the folder.
    pub(crate) async fn keep(
        &self,
        secret: &Secret,
        record: &Record,
        limit: Duration,
    ) -> KeepResult {
        let mut not_in_second_store = None;
        if let Some(second) = &self.second {
            // After a panic in a store's library, the copy still goes to the folder.
            let added = guarded(second.add(secret, record, limit)).await;
            match added {
                Ok(Ok(location)) => {
                    return KeepResult {
                        location: Ok(location),
                        not_in_second_store,
                    };
                }
                Ok(Err(error)) => not_in_second_store = Some(error.to_string()),
                Err(panicked) => not_in_second_store = Some(panicked.to_string()),
            }
        }
        KeepResult {
            location: self.keep_in_folder(secret, record),
            not_in_second_store,
        }
    }

    /// Keeps a copy in the folder, unless the last read of the second store shows it there.
    pub(crate) fn keep_locally(&self, secret: &Secret, record: &Record) -> io::Result<Location> {
        let name = copy_name(secret);
        let is_same = |it: &Rescued| {
            let store = it.record.as_ref().map(|known| &known.store);
            it.location.name() == name && store == Some(&record.store)
        };
        match self.in_second_store().into_iter().find(is_same) {
            Some(known) => Ok(known.location),
            None => self.keep_in_folder(secret, record),
        }
    }

    fn keep_in_folder(&self, secret: &Secret, record: &Record) -> io::Result<Location> {
        match &self.seal {
            None => folder::keep(&self.folder, secret, record).map(Location::File),
            // A failed encryption is an error: with a recipient, no login is written unencrypted.
            Some(seal) => folder::keep_encrypted(&self.folder, secret, record, &**seal)
                .map(Location::EncryptedFile),
        }
    }

    /// Removes a copy and its record. In the folder, both stay if a job has kept the login again
    /// since they were read; then returns `false`.
    pub async fn remove(&self, rescued: &Rescued, limit: Duration) -> io::Result<bool> {
        match (&rescued.location, &self.second, &rescued.record) {
            (Location::File(path) | Location::EncryptedFile(path), _, _) => {
                forget::remove_if_unchanged(path, rescued.files)
            }
            (Location::SecondStore { name, .. }, Some(second), Some(record)) => {
                let removed = second.remove(name, &record.store, limit).await;
                removed.map(|()| true).map_err(io::Error::other)
            }
            (Location::SecondStore { .. }, _, _) => Ok(true),
        }
    }

    /// Removes an encrypted file.
    pub fn remove_encrypted(&self, location: &Location) -> io::Result<()> {
        location.file().map_or(Ok(()), std::fs::remove_file)
    }
}

/// How long to wait for the second store before a copy goes to the folder; less after a signal.
/// GitHub kills a job 10 s after its first signal.
pub(crate) const SECOND_STORE_TIMEOUT: Duration = Duration::from_secs(8);

/// Returns the name of a copy: the fingerprint of a login, or of the bytes.
pub(crate) fn copy_name(secret: &Secret) -> String {
    match authferry_codex::parse(secret) {
        Ok(generation) => generation.fingerprint.to_string(),
        Err(_) => format!("unusable-{}", authferry_codex::fingerprint_of_bytes(secret)),
    }
}

#[cfg(test)]
mod tests;
