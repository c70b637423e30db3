//! The protocol that reads and replaces a login.
//!
//! A login and its metadata are two files, which cannot be replaced atomically together. So a
//! writer first writes metadata that describe *both* the current and the new login. The rename of
//! the login is then the commit. A reader finds the entry of the current file by its bytes, its
//! inode and its modification time. A writer that is killed at any moment leaves either the old
//! login with its stamp or the new login with its own.
//!
//! The new login may be the only copy of a rotated login. So the metadata with its digest reach the
//! disk before its bytes. If a writer is killed after it wrote all bytes, the next reader or writer
//! detects that they are complete, and finishes the rename. If another login was written
//! meanwhile, the next writer keeps the complete login in the same folder, as
//! `NAME.unfinished-DIGEST`. Incomplete bytes are removed.

use std::time::Duration;

use authferry_core::{Secret, Stamp, Stored, Version};

use crate::{
    address::{Address, LOCK, META, TEMP},
    disk::{Folder, Lock, LockMode},
    file_error::FileError,
    meta::{self, Entry, Meta, version_by_hand},
};

/// The maximum size of a login, in bytes. An auth file has a few thousand.
pub(crate) const MAX_LEN: usize = 1024 * 1024;

/// The timeout of the lock. A writer holds the lock until its writes are synced to the disk.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// The file names of one login or lease.
pub(crate) struct FilePlace {
    folder: String,
    login: String,
    login_temp: String,
    meta: String,
    meta_temp: String,
    lock: String,
    lock_timeout: Duration,
    /// Whether this is a lease. Its record is read even if the metadata are damaged: the record is
    /// expendable.
    is_lease: bool,
}

/// Why a swap failed, and whether the login may be replaced.
#[derive(Debug)]
pub(crate) enum SwapError {
    /// Not written: the current version is not the expected one.
    Conflict,
    /// Not written: the error occurred before the rename.
    NotWritten(FileError),
    /// Maybe written: the error occurred during or after the rename.
    MaybeWritten(FileError),
}

impl FilePlace {
    pub(crate) fn new(address: &Address) -> Self {
        let name = address.name();
        Self {
            folder: address.folder().into(),
            login: name.into(),
            login_temp: format!("{name}{TEMP}"),
            meta: format!("{name}{META}"),
            meta_temp: format!("{name}{META}{TEMP}"),
            lock: format!("{name}{LOCK}"),
            lock_timeout: LOCK_TIMEOUT,
            is_lease: false,
        }
    }

    /// Like [`new`](Self::new), for the record of a lease.
    pub(crate) fn of_lease(address: &Address) -> Self {
        Self {
            is_lease: true,
            ..Self::new(address)
        }
    }

    /// Returns the current login.
    pub(crate) fn read(&self) -> Result<Option<Stored>, FileError> {
        let folder = Folder::open(&self.folder)?;
        // A read of an empty place does not create a lock file.
        if !folder.has(&self.login)? && !folder.has(&self.login_temp)? {
            return Ok(None);
        }
        let lock = folder.lock(&self.lock, LockMode::Shared, self.lock_timeout)?;
        let held = self.held(&folder)?;
        // No writer is active, so a temporary file is one that a killed writer left.
        if self.unfinished(&folder, held.as_ref())?.is_none() {
            return Ok(held.map(|held| held.stored));
        }
        drop(lock);
        let lock = folder.lock(&self.lock, LockMode::Exclusive, self.lock_timeout)?;
        self.roll_forward(&folder, &lock)?;
        Ok(self.held(&folder)?.map(|held| held.stored))
    }

    /// Replaces the current login if its version is `expected`.
    pub(crate) fn swap(
        &self,
        expected: Option<&Version>,
        new: &Secret,
        stamp: &Stamp,
    ) -> Result<Version, SwapError> {
        use SwapError::{Conflict, MaybeWritten, NotWritten};

        if new.expose().len() > MAX_LEN {
            return Err(NotWritten(FileError::TooLong {
                name: "the new login".into(),
                len: new.expose().len() as u64,
                max: MAX_LEN,
            }));
        }
        let folder = Folder::open(&self.folder).map_err(NotWritten)?;
        let lock = folder
            .lock(&self.lock, LockMode::Exclusive, self.lock_timeout)
            .map_err(NotWritten)?;
        self.roll_forward(&folder, &lock).map_err(NotWritten)?;
        self.keep_unfinished(&folder).map_err(NotWritten)?;
        let held = self.held(&folder).map_err(NotWritten)?;

        if let Some(held) = held.as_ref().filter(|held| held.is_write(new, stamp)) {
            // A retry after an unknown outcome. The first attempt may have failed right after the
            // rename, so sync the folder before reporting success.
            folder.sync().map_err(MaybeWritten)?;
            return Ok(held.version().clone());
        }
        if held.as_ref().map(Contents::version) != expected {
            return Err(Conflict);
        }
        let written = self
            .prepare(&folder, held.as_ref(), new, stamp)
            .and_then(|version| self.commit(&folder, &lock, expected).map(|()| version));
        let version = match written {
            Ok(version) => version,
            Err(failed @ (NotWritten(_) | Conflict)) => {
                let mut cleaned = self.clean_up(&folder);
                if held.is_none() && cleaned.is_ok() {
                    // The metadata describe no existing login.
                    cleaned = folder.remove(&self.meta);
                }
                return Err(match (cleaned, failed) {
                    // A temporary file that was not removed may be rolled forward.
                    (Err(_), NotWritten(cause)) => MaybeWritten(cause),
                    // Report the first error.
                    (_, failed) => failed,
                });
            }
            Err(failed @ MaybeWritten(_)) => return Err(failed),
        };
        folder.sync().map_err(MaybeWritten)?;
        Ok(version)
    }

    /// Writes the metadata to the disk, and then the new login to its temporary file. The current
    /// login keeps its bytes and its version.
    fn prepare(
        &self,
        folder: &Folder,
        held: Option<&Contents>,
        new: &Secret,
        stamp: &Stamp,
    ) -> Result<Version, SwapError> {
        let prepare = || {
            let draft = folder.create(&self.login_temp)?;
            let next = Entry::new(new, &draft.facts, stamp).map_err(FileError::Random)?;
            let version = next.version.clone();
            let current = held.and_then(|held| held.entry.clone());
            let replaces = held.map(|held| (held.version(), &held.stored.secret));
            let meta = Meta::between(current, replaces, next);
            folder.write(&self.meta_temp, &meta.text(&self.meta)?)?;
            folder.rename(&self.meta_temp, &self.meta)?;
            // After a power loss, the rename of the login must not survive without this one.
            folder.sync()?;
            draft.fill(new.expose())?;
            Ok(version)
        };
        prepare().map_err(SwapError::NotWritten)
    }

    /// Renames the new login over the expected one: the commit.
    fn commit(
        &self,
        folder: &Folder,
        lock: &Lock<'_>,
        expected: Option<&Version>,
    ) -> Result<(), SwapError> {
        // A person takes no lock, and can remove the lock's file. Writing the new login took time,
        // so check the version again: only a write by hand in the next few microseconds is lost.
        //
        // If the lock's file was removed, another process may have rolled the login forward.
        folder.check_lock(lock).map_err(SwapError::MaybeWritten)?;
        let held = self.held(folder).map_err(SwapError::NotWritten)?;
        if held.as_ref().map(Contents::version) != expected {
            return Err(SwapError::Conflict);
        }
        folder
            .rename(&self.login_temp, &self.login)
            .map_err(|cause| match folder.has(&self.login_temp) {
                Ok(true) => SwapError::NotWritten(cause),
                Ok(false) | Err(_) => SwapError::MaybeWritten(cause),
            })
    }

    /// Finishes the swap of a killed writer, if its login is complete and no other login was written
    /// meanwhile. Requires the exclusive lock.
    fn roll_forward(&self, folder: &Folder, lock: &Lock<'_>) -> Result<(), FileError> {
        let held = self.held(folder)?;
        let Some(next) = self.unfinished(folder, held.as_ref())? else {
            return Ok(());
        };
        folder.finish(&self.login_temp, next.written)?;
        folder.check_lock(lock)?;
        folder.rename(&self.login_temp, &self.login)?;
        folder.sync()
    }

    /// Returns the entry of a complete login with which a killed writer was about to replace the
    /// current one.
    fn unfinished(
        &self,
        folder: &Folder,
        held: Option<&Contents>,
    ) -> Result<Option<Entry>, FileError> {
        let Some(login) = self.read_temp(folder)? else {
            return Ok(None);
        };
        let current = held.map(|held| &held.stored.secret);
        Ok(self.meta(folder)?.next_after(current, &login).cloned())
    }

    /// Reads the temporary file of a killed writer.
    fn read_temp(&self, folder: &Folder) -> Result<Option<Secret>, FileError> {
        match folder.read(&self.login_temp, MAX_LEN) {
            Ok(found) => Ok(found.map(|(login, _)| login)),
            // No writer of authferry creates such a file.
            Err(FileError::TooLong { .. }) => Ok(None),
            Err(cause) => Err(cause),
        }
    }

    /// Removes the temporary files of a killed writer. Keeps a complete login under another name: it
    /// may be the only copy. Requires the exclusive lock.
    fn keep_unfinished(&self, folder: &Folder) -> Result<(), FileError> {
        let left = self.read_temp(folder)?.filter(|_| !self.is_lease);
        if let Some(login) = left.filter(is_complete) {
            folder.rename(&self.login_temp, &self.unfinished_name(&login))?;
        }
        self.clean_up(folder)
    }

    /// Removes the temporary files. Requires the exclusive lock.
    fn clean_up(&self, folder: &Folder) -> Result<(), FileError> {
        folder.remove(&self.login_temp)?;
        folder.remove(&self.meta_temp)
    }

    fn unfinished_name(&self, login: &Secret) -> String {
        format!("{}.unfinished-{:.16}", self.login, meta::digest(login))
    }

    fn meta(&self, folder: &Folder) -> Result<Meta, FileError> {
        let Some((text, _)) = folder.read(&self.meta, meta::MAX_LEN)? else {
            return Ok(Meta::default());
        };
        match Meta::parse(&self.meta, text.expose()) {
            Err(FileError::Corrupt { .. } | FileError::Format { .. }) if self.is_lease => {
                Ok(Meta::default())
            }
            parsed => parsed,
        }
    }

    fn held(&self, folder: &Folder) -> Result<Option<Contents>, FileError> {
        let meta = self.meta(folder)?;
        let Some((secret, facts)) = folder.read(&self.login, MAX_LEN)? else {
            return Ok(None);
        };
        let entry = meta.entry_of(&secret, &facts).cloned();
        let (version, stamp) = match &entry {
            Some(entry) => (entry.version.clone(), Some(entry.stamp.clone())),
            None => (version_by_hand(&secret, &facts), None),
        };
        Ok(Some(Contents {
            stored: Stored {
                secret,
                version,
                stamp,
            },
            entry,
        }))
    }
}

/// The current login, with its metadata entry.
struct Contents {
    stored: Stored,
    entry: Option<Entry>,
}

impl Contents {
    fn version(&self) -> &Version {
        &self.stored.version
    }

    /// Returns whether this write stored it.
    fn is_write(&self, new: &Secret, stamp: &Stamp) -> bool {
        let stored = self.stored.stamp.as_ref();
        stored.is_some_and(|stored| stored.id == stamp.id)
            && self.stored.secret.expose() == new.expose()
    }
}

/// Returns whether the login is complete: a truncated login is not valid JSON.
fn is_complete(login: &Secret) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(login.expose()).is_ok()
}

#[cfg(test)]
mod tests;
