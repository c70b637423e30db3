//! The rescue: where a generation goes that the store does not hold.
//!
//! A copy goes into the *second store* if one is given, else into the *rescue folder*. With a
//! [`Seal`] the folder gets encrypted files only, which this machine cannot read again. Each copy
//! carries its record: whose it is, why, when and by which job it was kept. A login without a
//! record belongs to no store, and is never used by itself.

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

use authferry_codex::Unusable;
use authferry_core::{Base, Generation, Secret, SecretStore};
use serde::{Deserialize, Serialize};

pub use document::KeptCopy;
pub use folder::{check, list};
pub use second_store::SecondStoreError;

use crate::lease;
use crate::unwound::guarded;
use forget::Seen;
use second_store::SecondStore;

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
    /// Returns the record of a login that was kept before. It keeps what the earlier record says
    /// of the login's family, unless the store itself has said it meanwhile: a job that finds the
    /// login again knows less of it than the one that kept it first.
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

/// Where a copy is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A file that this machine can read.
    File(PathBuf),
    /// An encrypted file: only the owner of an identity can read it.
    EncryptedFile(PathBuf),
    /// The second store.
    SecondStore {
        /// The store's address.
        address: String,
        /// Which of its copies: the fingerprint, or `unusable-` and a fingerprint of the bytes.
        name: String,
    },
}

impl Location {
    /// Returns the file, if it is one.
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

    /// Returns how `rescue put` and `rescue drop` are told of it.
    #[must_use]
    pub fn argument(&self) -> String {
        match self {
            Self::File(path) | Self::EncryptedFile(path) => path.display().to_string(),
            Self::SecondStore { name, .. } => name.clone(),
        }
    }

    /// Returns the copy's name without the ending of a file: the fingerprint of a login.
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

/// A copy that was kept earlier.
#[derive(Debug)]
pub struct Rescued {
    /// Where it is.
    pub location: Location,
    /// Its bytes.
    pub secret: Secret,
    /// The login, or why it is none.
    pub login: Result<Generation, NotALogin>,
    /// What is known of it.
    pub record: Option<Record>,
    /// Which files were read, if it is in the folder: the login's and its record's.
    seen: [Option<Seen>; 2],
}

/// Why a copy is not a login.
#[derive(Debug, thiserror::Error)]
pub enum NotALogin {
    /// Its content.
    #[error(transparent)]
    Unusable(#[from] Unusable),
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(io::Error),
}

/// Encrypts what is written to the rescue folder.
pub trait Seal: fmt::Debug {
    /// Returns the encrypted text.
    fn seal(&self, plain: &Secret) -> io::Result<Vec<u8>>;
}

/// The places for copies: a folder, and a second store in front of it if there is one.
#[derive(Debug)]
pub struct Rescue {
    folder: PathBuf,
    second: Option<SecondStore>,
    seal: Option<Box<dyn Seal>>,
}

/// What became of a copy that was to be kept.
#[derive(Debug)]
pub(crate) struct Kept {
    /// Where it is, or why the folder did not take it.
    pub(crate) location: io::Result<Location>,
    /// Why the second store did not take it.
    pub(crate) not_in_second_store: Option<String>,
}

impl Rescue {
    /// Keeps copies in a folder, which need not exist.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            second: None,
            seal: None,
        }
    }

    /// Keeps copies in a second store. The folder is used if that store fails.
    #[must_use]
    pub fn with_second_store(mut self, store: Arc<dyn SecretStore>) -> Self {
        self.second = Some(SecondStore::new(store));
        self
    }

    /// Encrypts what goes into the folder.
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

    /// Reads the second store, if there is one. Its copies are unknown before that.
    pub async fn look(&self, limit: Duration) -> Result<(), SecondStoreError> {
        match &self.second {
            Some(second) => second.look(limit).await,
            None => Ok(()),
        }
    }

    /// Returns the copies that the second store held when it was read last, newest first.
    #[must_use]
    pub fn in_second_store(&self) -> Vec<Rescued> {
        self.second.iter().flat_map(SecondStore::list).collect()
    }

    /// Returns the encrypted files in the folder. What is in them this machine cannot tell.
    pub fn encrypted(&self) -> io::Result<Vec<Location>> {
        folder::encrypted(&self.folder)
    }

    /// Keeps a copy. The second store may take `limit`; the folder is next.
    pub(crate) async fn keep(&self, secret: &Secret, record: &Record, limit: Duration) -> Kept {
        let mut not_in_second_store = None;
        if let Some(second) = &self.second {
            // A panic in the library of a store is no reason not to write to the folder.
            let added = guarded(second.add(secret, record, limit)).await;
            match added {
                Ok(Ok(location)) => {
                    return Kept {
                        location: Ok(location),
                        not_in_second_store,
                    };
                }
                Ok(Err(error)) => not_in_second_store = Some(error.to_string()),
                Err(panicked) => not_in_second_store = Some(panicked.to_string()),
            }
        }
        Kept {
            location: self.keep_in_folder(secret, record),
            not_in_second_store,
        }
    }

    /// Keeps a copy in the folder, unless the second store is known to have it.
    pub(crate) fn keep_now(&self, secret: &Secret, record: &Record) -> io::Result<Location> {
        let name = name(secret);
        let is_it = |it: &Rescued| {
            let store = it.record.as_ref().map(|known| &known.store);
            it.location.name() == name && store == Some(&record.store)
        };
        match self.in_second_store().into_iter().find(is_it) {
            Some(known) => Ok(known.location),
            None => self.keep_in_folder(secret, record),
        }
    }

    fn keep_in_folder(&self, secret: &Secret, record: &Record) -> io::Result<Location> {
        match &self.seal {
            None => folder::keep(&self.folder, secret, record).map(Location::File),
            // A failed encryption is an error: with a recipient, no login is written in the clear.
            Some(seal) => folder::keep_encrypted(&self.folder, secret, record, &**seal)
                .map(Location::EncryptedFile),
        }
    }

    /// Removes a copy, and its record, if both still are what was read; returns whether they
    /// were. A job may have kept the login anew.
    pub async fn forget(&self, rescued: &Rescued, limit: Duration) -> io::Result<bool> {
        match (&rescued.location, &self.second, &rescued.record) {
            (Location::File(path) | Location::EncryptedFile(path), _, _) => {
                forget::forget(path, rescued.seen)
            }
            (Location::SecondStore { name, .. }, Some(second), Some(record)) => {
                let removed = second.remove(name, &record.store, limit).await;
                removed.map(|()| true).map_err(io::Error::other)
            }
            (Location::SecondStore { .. }, _, _) => Ok(true),
        }
    }

    /// Removes an encrypted file.
    pub fn forget_encrypted(&self, location: &Location) -> io::Result<()> {
        location.file().map_or(Ok(()), std::fs::remove_file)
    }
}

/// How long the second store may take before a copy goes to the folder, unless a job was asked
/// to end. GitHub kills a job 10 s after its first signal.
pub(crate) const SECOND_STORE_TIMEOUT: Duration = Duration::from_secs(8);

/// Returns the name of a copy: the fingerprint of a login. The same bytes have the same name.
pub(crate) fn name(secret: &Secret) -> String {
    match authferry_codex::parse(secret) {
        Ok(generation) => generation.fingerprint.to_string(),
        Err(_) => format!("unusable-{}", authferry_codex::fingerprint_of_bytes(secret)),
    }
}

#[cfg(test)]
mod tests;
