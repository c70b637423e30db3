//! Finds every copy of a login on this machine.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use authferry_codex::{AuthFileError, Look};
use authferry_core::copies::{Content, Copy, Origins, Place, Rules, Verdict, judge};
use authferry_core::{Base, Fingerprint, Generation, Held, Secret};

use crate::rescue::{self, Location, Record, Rescue};
use crate::rotations::{self, FolderState, HomeContent, UnfinishedRotation};
use crate::{Job, Receipt};

/// A copy, with its bytes and its location, which the core does not get.
#[derive(Debug)]
pub struct FoundCopy {
    /// The input of the core's decision.
    pub copy: Copy,
    /// Where the copy is.
    pub location: Location,
    /// The record of a copy in the rescue folder or the second store.
    pub record: Option<Record>,
    /// The store address in the copy's receipt or record, if that address is not this store's.
    pub elsewhere: Option<String>,
    pub(crate) secret: Option<Arc<Secret>>,
    /// The unfinished rotation of this store that holds the copy. No other process removes it while
    /// this is alive.
    rotation: Option<UnfinishedRotation>,
}

/// What a search may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Lock unfinished rotations against removal by other processes, and remove empty ones.
    Job,
    /// Change nothing.
    ReadOnly,
}

/// The result of a search on this machine.
pub(crate) struct FoundCopies {
    pub(crate) copies: Vec<FoundCopy>,
    /// The folder of a rotation of this login in which a Codex may be running and may still write.
    pub(crate) running_rotation: Option<PathBuf>,
}

/// Returns the copies other than the auth file: those in the rescue folder and the second store,
/// newest first, then those in unfinished rotations. The copies of the second store are those of
/// its last read.
///
/// Includes a copy that was kept for another address only if it may belong to this login. Fails if
/// the rescue folder cannot be listed: the only live login may be there.
pub fn find(store: &str, rescue: &Rescue, rotations: Option<&Path>) -> io::Result<Vec<FoundCopy>> {
    Ok(search(store, rescue, rotations, Access::Job)?.copies)
}

/// Like [`find`], but changes nothing: keeps no lock and removes nothing.
pub fn find_read_only(
    store: &str,
    rescue: &Rescue,
    rotations: Option<&Path>,
) -> io::Result<Vec<FoundCopy>> {
    Ok(search(store, rescue, rotations, Access::ReadOnly)?.copies)
}

/// Returns the folder of a running rotation of this login.
pub(crate) fn running_rotation(store: &str, rotations: Option<&Path>) -> Option<PathBuf> {
    let mut folders = rotations.into_iter().flat_map(rotations::folders);
    folders.find(|folder| match rotations::inspect(folder) {
        Some(FolderState::Running(Some(receipt))) => receipt.store == store,
        Some(FolderState::Running(None) | FolderState::Empty | FolderState::Unfinished { .. })
        | None => false,
    })
}

pub(crate) fn search(
    store: &str,
    rescue: &Rescue,
    rotations: Option<&Path>,
    access: Access,
) -> io::Result<FoundCopies> {
    let in_folder = rescue::list(rescue.folder())?.into_iter();
    let mut copies: Vec<FoundCopy> = in_folder
        .chain(rescue.in_second_store())
        .filter_map(|rescued| {
            let record = rescued.record?;
            let elsewhere = (record.store != store).then(|| record.store.clone());
            let origins = record.base.clone().map(|base| Origins {
                base,
                seen: record.seen,
                by_name: true,
                hints_count: false,
                elsewhere: elsewhere.is_some(),
            });
            // Without a base, nothing shows that the copy belongs to this login.
            if elsewhere.is_some() && origins.is_none() {
                return None;
            }
            Some(FoundCopy {
                copy: Copy {
                    place: Place::Rescue,
                    content: Content::Usable(rescued.login.ok()?),
                    origins,
                },
                location: rescued.location,
                record: Some(record),
                elsewhere,
                secret: Some(Arc::new(rescued.secret)),
                rotation: None,
            })
        })
        .collect();
    let time = |found: &FoundCopy| found.record.as_ref().map_or(0, |record| record.time);
    copies.sort_by_key(|found| std::cmp::Reverse(time(found)));
    let mut running_rotation = None;
    for folder in rotations.into_iter().flat_map(rotations::folders) {
        match rotations::inspect(&folder) {
            Some(FolderState::Running(Some(receipt))) if receipt.store == store => {
                running_rotation.get_or_insert(folder);
            }
            Some(FolderState::Running(_) | FolderState::Empty) | None => {}
            Some(FolderState::Unfinished {
                receipt,
                content,
                rotation,
            }) => copies.extend(copy_in_rotation(store, receipt, content, rotation, access)),
        }
    }
    Ok(FoundCopies {
        copies,
        running_rotation,
    })
}

/// Returns the auth file of a home as a copy.
pub(crate) fn auth_file(job: &Job<'_>, look: &Look, receipt: Option<&Receipt>) -> FoundCopy {
    let is_access_only = receipt.is_some_and(|receipt| receipt.access_only);
    let (content, secret) = match look {
        Look::Missing
        | Look::Unusable {
            why: AuthFileError::Empty,
            ..
        } => (Content::Missing, None),
        Look::Unusable { why, .. } if authferry_codex::is_access_only(*why) => {
            (Content::AccessOnly, None)
        }
        Look::Unusable { why, secret } => {
            let keepable = *why != AuthFileError::TooLarge;
            (Content::AuthFileError { keepable }, Some(secret))
        }
        Look::Usable { secret, generation } => (Content::Usable(generation.clone()), Some(secret)),
    };
    let store = job.store.to_string();
    let elsewhere = receipt.and_then(|it| (it.store != store).then(|| it.store.clone()));
    // A file that replaced an access-only one has no known base.
    let origins = receipt.filter(|_| !is_access_only).map(|receipt| Origins {
        base: receipt.base.clone(),
        seen: 0,
        by_name: false,
        hints_count: true,
        elsewhere: elsewhere.is_some(),
    });
    FoundCopy {
        copy: Copy {
            place: Place::AuthFile,
            content,
            origins,
        },
        location: Location::File(job.home.auth_file().to_owned()),
        record: None,
        elsewhere,
        secret: secret.map(|secret| Arc::new(secret.duplicate())),
        rotation: None,
    }
}

/// Returns the locations of the copies that are logins.
pub(crate) fn locations_of_logins(copies: &[FoundCopy]) -> Vec<Location> {
    let logins = copies.iter().filter(|copy| copy.fingerprint().is_some());
    logins.map(|copy| copy.location.clone()).collect()
}

/// Returns the locations of the copies that were kept for another address and block a job.
pub(crate) fn locations_elsewhere(copies: &[FoundCopy], head: Option<&Held>) -> Vec<Location> {
    let blocks =
        |copy: &&FoundCopy| judge(head, &copy.copy, &Rules::default()) == Verdict::Elsewhere;
    copies
        .iter()
        .filter(blocks)
        .map(|it| it.location.clone())
        .collect()
}

impl FoundCopy {
    /// Returns the fingerprint, if the copy is a login.
    #[must_use]
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.copy.generation().map(|it| it.fingerprint)
    }

    /// Returns the copy's bytes, if it has any.
    #[must_use]
    pub fn secret(&self) -> Option<&Secret> {
        self.secret.as_deref()
    }

    /// Whether the copy is in an unfinished rotation, which is removed once its login is safe
    /// elsewhere.
    pub(crate) fn can_sweep(&self) -> bool {
        self.rotation.is_some()
    }

    /// Whether the copy is this base or a known ancestor of it, so that the store held it.
    pub(crate) fn is_base_or_ancestor(&self, base: &Base) -> bool {
        self.fingerprint()
            .is_some_and(|it| base.generation.fingerprint == it || base.ancestors.contains(&it))
    }

    /// Whether the copy is in a rotation that began with this login and wrote no new one.
    pub(crate) fn is_unfinished_rotation_of(&self, login: &Generation) -> bool {
        let began_with = self
            .copy
            .origins
            .as_ref()
            .map(|origins| origins.base.generation.fingerprint);
        self.can_sweep() && [self.fingerprint(), began_with] == [Some(login.fingerprint); 2]
    }

    /// Removes the unfinished rotation, whose login is safe elsewhere, unless its content changed
    /// since it was read or a process works there.
    pub fn sweep(&self) {
        if let Some(rotation) = &self.rotation {
            rotation.remove(self.secret());
        }
    }
}

/// Returns what a killed rotation left, if that is or may be a login.
fn copy_in_rotation(
    store: &str,
    receipt: Option<Receipt>,
    content: HomeContent,
    rotation: UnfinishedRotation,
    access: Access,
) -> Option<FoundCopy> {
    let elsewhere = receipt
        .as_ref()
        .map(|it| &it.store)
        .filter(|it| *it != store);
    let elsewhere = elsewhere.cloned();
    let (content, secret, path) = match content {
        HomeContent::Usable(login, secret, path) => (Content::Usable(login), secret, path),
        HomeContent::Unusable(secret) => {
            let path = rotation.auth_file();
            (Content::AuthFileError { keepable: true }, secret, path)
        }
        HomeContent::Missing => {
            // The rotation was killed before it placed the login, or Codex before it wrote.
            if access == Access::Job && elsewhere.is_none() {
                rotation.remove(None);
            }
            return None;
        }
        HomeContent::Unreadable => return None,
    };
    let is_ours = receipt.is_some() && elsewhere.is_none();
    let origins = receipt.map(|receipt| Origins {
        base: receipt.base,
        seen: 1,
        by_name: false,
        hints_count: false,
        elsewhere: elsewhere.is_some(),
    });
    Some(FoundCopy {
        copy: Copy {
            place: Place::Rotation,
            content,
            origins,
        },
        location: Location::File(path),
        record: None,
        elsewhere,
        secret: Some(Arc::new(secret)),
        rotation: Some(rotation).filter(|_| is_ours && access == Access::Job),
    })
}

#[cfg(test)]
mod tests;
