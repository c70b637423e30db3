//! How a login is read and replaced, step by step.
//!
//! A login and what stands beside it are two files, and there is no way to replace two
//! files at once. So the file beside it is written first and describes *both* the login
//! that is there and the one that is coming; the rename of the login alone decides.
//! Whoever looks recognises the file that is there by its bytes, its inode and the time
//! it was written. There is no moment at which a killed writer leaves anything else than
//! the old login with its stamp or the new one with its own.
//!
//! The new login may be the only copy of a rotated one. So the file beside it is on the disk
//! before the bytes of the new login are, with their digest. If a writer is killed after it
//! wrote all bytes, the next reader or writer sees that they are complete, and finishes the
//! rename. If another login was put there meanwhile, the next writer keeps the complete one in
//! the same folder, as `NAME.unfinished-DIGEST`. Bytes that are not complete are removed.

use std::time::Duration;

use authferry_core::{Secret, Stamp, Stored, Version};

use crate::{
    address::{Address, LOCK, META, TEMP},
    disk::{Folder, Lock, Sharing},
    meta::{self, Entry, Meta, version_by_hand},
    trouble::Trouble,
};

/// The largest login, in bytes. An auth file has a few thousand.
pub(crate) const MAX_LEN: usize = 1024 * 1024;

/// How long to wait for others. A writer holds the lock for as long as its disk takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// The names of one place's files.
pub(crate) struct Place {
    folder: String,
    login: String,
    login_temp: String,
    meta: String,
    meta_temp: String,
    lock: String,
    patience: Duration,
    /// Whether a login without metadata is better than none: a lease, whose record has no
    /// other copy and is worth nothing.
    is_lease: bool,
}

/// What is known after a swap that did not succeed.
#[derive(Debug)]
pub(crate) enum Unswapped {
    /// Not written: something else is there than was expected.
    Conflict,
    /// Not written: what went wrong came before the login was replaced.
    Before(Trouble),
    /// The login was replaced, or may have been, and then something went wrong.
    After(Trouble),
}

impl Place {
    pub(crate) fn new(address: &Address) -> Self {
        let name = address.name();
        Self {
            folder: address.folder().into(),
            login: name.into(),
            login_temp: format!("{name}{TEMP}"),
            meta: format!("{name}{META}"),
            meta_temp: format!("{name}{META}{TEMP}"),
            lock: format!("{name}{LOCK}"),
            patience: PATIENCE,
            is_lease: false,
        }
    }

    /// The same for the record of a lease.
    pub(crate) fn of_lease(address: &Address) -> Self {
        Self {
            is_lease: true,
            ..Self::new(address)
        }
    }

    /// Returns what is there.
    pub(crate) fn read(&self) -> Result<Option<Stored>, Trouble> {
        let folder = Folder::open(&self.folder)?;
        // Who only looks leaves no lock behind where nobody has ever written.
        if !folder.has(&self.login)? && !folder.has(&self.login_temp)? {
            return Ok(None);
        }
        let lock = folder.lock(&self.lock, Sharing::Readers, self.patience)?;
        let held = self.held(&folder)?;
        // No writer is active, so a temporary file is one that a killed writer left.
        if self.unfinished(&folder, held.as_ref())?.is_none() {
            return Ok(held.map(|held| held.stored));
        }
        drop(lock);
        let lock = folder.lock(&self.lock, Sharing::Nobody, self.patience)?;
        self.roll_forward(&folder, &lock)?;
        Ok(self.held(&folder)?.map(|held| held.stored))
    }

    /// Replaces what is there if it is still `expected`.
    pub(crate) fn swap(
        &self,
        expected: Option<&Version>,
        new: &Secret,
        stamp: &Stamp,
    ) -> Result<Version, Unswapped> {
        use Unswapped::{After, Before, Conflict};

        if new.expose().len() > MAX_LEN {
            return Err(Before(Trouble::TooLong {
                name: "the new login".into(),
                len: new.expose().len() as u64,
                max: MAX_LEN,
            }));
        }
        let folder = Folder::open(&self.folder).map_err(Before)?;
        let lock = folder
            .lock(&self.lock, Sharing::Nobody, self.patience)
            .map_err(Before)?;
        self.roll_forward(&folder, &lock).map_err(Before)?;
        self.make_room(&folder).map_err(Before)?;
        let held = self.held(&folder).map_err(Before)?;

        if let Some(held) = held.as_ref().filter(|held| held.is_write(new, stamp)) {
            // Sent again because the first answer was lost, maybe to a disk that failed
            // right after the rename: the name must be down before we say so.
            folder.sync().map_err(After)?;
            return Ok(held.version().clone());
        }
        if held.as_ref().map(Held::version) != expected {
            return Err(Conflict);
        }
        let written = self
            .prepare(&folder, held.as_ref(), new, stamp)
            .and_then(|version| self.replace(&folder, &lock, expected).map(|()| version));
        let version = match written {
            Ok(version) => version,
            Err(failed @ (Before(_) | Conflict)) => {
                let mut cleaned = self.clean_up(&folder);
                if held.is_none() && cleaned.is_ok() {
                    // It speaks of no login that is there.
                    cleaned = folder.remove(&self.meta);
                }
                return Err(match (cleaned, failed) {
                    // What is left may be rolled forward.
                    (Err(_), Before(trouble)) => After(trouble),
                    // The trouble that is already known is the one to tell.
                    (_, failed) => failed,
                });
            }
            Err(failed @ After(_)) => return Err(failed),
        };
        folder.sync().map_err(After)?;
        Ok(version)
    }

    /// Brings what is to stand beside the new login to the disk, and then the new login under
    /// another name. What is there keeps its bytes and its version.
    fn prepare(
        &self,
        folder: &Folder,
        held: Option<&Held>,
        new: &Secret,
        stamp: &Stamp,
    ) -> Result<Version, Unswapped> {
        let prepare = || {
            let draft = folder.create(&self.login_temp)?;
            let next = Entry::new(new, &draft.facts, stamp).map_err(Trouble::Random)?;
            let version = next.version.clone();
            let current = held.and_then(|held| held.entry.clone());
            let replaces = held.map(|held| (held.version(), &held.stored.secret));
            let meta = Meta::between(current, replaces, next);
            folder.write(&self.meta_temp, &meta.text(&self.meta)?)?;
            folder.rename(&self.meta_temp, &self.meta)?;
            // A crash of the whole machine must not keep the second rename alone.
            folder.sync()?;
            draft.fill(new.expose())?;
            Ok(version)
        };
        prepare().map_err(Unswapped::Before)
    }

    /// Puts the new login in the place of the expected one: the step that decides.
    fn replace(
        &self,
        folder: &Folder,
        lock: &Lock<'_>,
        expected: Option<&Version>,
    ) -> Result<(), Unswapped> {
        // Hands take no lock, and can even remove it. Bringing the new login to the disk
        // took its time, so look again: what is left for a hand to get lost in is a few
        // microseconds.
        //
        // Without the lock, others may have rolled the complete login forward.
        folder.check(lock).map_err(Unswapped::After)?;
        let held = self.held(folder).map_err(Unswapped::Before)?;
        if held.as_ref().map(Held::version) != expected {
            return Err(Unswapped::Conflict);
        }
        folder
            .rename(&self.login_temp, &self.login)
            .map_err(|trouble| match folder.has(&self.login_temp) {
                Ok(true) => Unswapped::Before(trouble),
                Ok(false) | Err(_) => Unswapped::After(trouble),
            })
    }

    /// Finishes what a killed writer has begun, if its login is complete and nothing else came
    /// between. Only for who has the lock alone.
    fn roll_forward(&self, folder: &Folder, lock: &Lock<'_>) -> Result<(), Trouble> {
        let held = self.held(folder)?;
        let Some(next) = self.unfinished(folder, held.as_ref())? else {
            return Ok(());
        };
        folder.finish(&self.login_temp, next.written)?;
        folder.check(lock)?;
        folder.rename(&self.login_temp, &self.login)?;
        folder.sync()
    }

    /// Returns the entry of a complete login that a killed writer was about to put in the place
    /// of what is there.
    fn unfinished(&self, folder: &Folder, held: Option<&Held>) -> Result<Option<Entry>, Trouble> {
        let Some(login) = self.left_behind(folder)? else {
            return Ok(None);
        };
        let current = held.map(|held| &held.stored.secret);
        Ok(self.meta(folder)?.next_after(current, &login).cloned())
    }

    /// Returns what a killed writer left in the place of the next login.
    fn left_behind(&self, folder: &Folder) -> Result<Option<Secret>, Trouble> {
        match folder.read(&self.login_temp, MAX_LEN) {
            Ok(found) => Ok(found.map(|(login, _)| login)),
            // No writer of ours leaves such a file.
            Err(Trouble::TooLong { .. }) => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }

    /// Makes room for the next login. What a killed writer left may be the only copy of a login,
    /// and is kept if it is complete. Only for who has the lock alone.
    fn make_room(&self, folder: &Folder) -> Result<(), Trouble> {
        let left = self.left_behind(folder)?.filter(|_| !self.is_lease);
        if let Some(login) = left.filter(is_complete) {
            folder.rename(&self.login_temp, &self.unfinished_name(&login))?;
        }
        self.clean_up(folder)
    }

    /// Removes what a writer left. Only for who has the lock alone.
    fn clean_up(&self, folder: &Folder) -> Result<(), Trouble> {
        folder.remove(&self.login_temp)?;
        folder.remove(&self.meta_temp)
    }

    fn unfinished_name(&self, login: &Secret) -> String {
        format!("{}.unfinished-{:.16}", self.login, meta::digest(login))
    }

    fn meta(&self, folder: &Folder) -> Result<Meta, Trouble> {
        let Some((text, _)) = folder.read(&self.meta, meta::MAX_LEN)? else {
            return Ok(Meta::default());
        };
        match Meta::parse(&self.meta, text.expose()) {
            Err(Trouble::Corrupt { .. } | Trouble::Format { .. }) if self.is_lease => {
                Ok(Meta::default())
            }
            parsed => parsed,
        }
    }

    fn held(&self, folder: &Folder) -> Result<Option<Held>, Trouble> {
        let meta = self.meta(folder)?;
        let Some((secret, facts)) = folder.read(&self.login, MAX_LEN)? else {
            return Ok(None);
        };
        let entry = meta.entry_of(&secret, &facts).cloned();
        let (version, stamp) = match &entry {
            Some(entry) => (entry.version.clone(), Some(entry.stamp.clone())),
            None => (version_by_hand(&secret, &facts), None),
        };
        Ok(Some(Held {
            stored: Stored {
                secret,
                version,
                stamp,
            },
            entry,
        }))
    }
}

/// What is there, with what is to stand beside it while it is replaced.
struct Held {
    stored: Stored,
    entry: Option<Entry>,
}

impl Held {
    fn version(&self) -> &Version {
        &self.stored.version
    }

    /// Returns whether it came by this very write.
    fn is_write(&self, new: &Secret, stamp: &Stamp) -> bool {
        let theirs = self.stored.stamp.as_ref();
        theirs.is_some_and(|theirs| theirs.id == stamp.id)
            && self.stored.secret.expose() == new.expose()
    }
}

/// Whether all bytes of a login are there: what is cut off is no JSON.
fn is_complete(login: &Secret) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(login.expose()).is_ok()
}

#[cfg(test)]
mod tests;
