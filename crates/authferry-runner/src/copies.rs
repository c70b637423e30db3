//! Finds every copy of a login that this machine can see.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use authferry_codex::{Look, Unusable};
use authferry_core::copies::{Content, Copy, Origins, Place, Rules, Verdict, judge};
use authferry_core::{Base, Fingerprint, Held, Secret};

use crate::rescue::{self, Location, Record, Rescue};
use crate::rotations::{self, State, Unfinished};
use crate::{Job, Receipt};

/// A copy, with what the machine in the core is not to see.
#[derive(Debug)]
pub struct FoundCopy {
    /// What the decision needs.
    pub copy: Copy,
    /// Where it is.
    pub location: Location,
    /// What is known of it, if it was kept in the rescue folder or in the second store.
    pub record: Option<Record>,
    /// The address that its receipt or record names, if that is not this store's.
    pub elsewhere: Option<String>,
    pub(crate) secret: Option<Arc<Secret>>,
    /// The unfinished rotation of this store that it is in. Nobody else removes it for as long as
    /// this lives.
    rotation: Option<Unfinished>,
}

/// What a search may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Keep unfinished rotations from being removed by others, and remove those that are empty.
    Job,
    /// Nothing but look.
    Look,
}

/// What was found on this machine.
pub(crate) struct Found {
    pub(crate) copies: Vec<FoundCopy>,
    /// The home of a rotation of this login in which a Codex may be running: what that writes is
    /// not known yet.
    pub(crate) at_work: Option<PathBuf>,
}

/// Returns the copies other than the auth file: those of the rescue folder and of the second store,
/// newest first, then those of unfinished rotations. The second store has those that it held when
/// it was read last.
///
/// A copy that was kept for another address is among them only if it may be of this login. Fails
/// if the rescue folder cannot be listed: the only live login may be there.
pub fn find(store: &str, rescue: &Rescue, rotations: Option<&Path>) -> io::Result<Vec<FoundCopy>> {
    Ok(search(store, rescue, rotations, Access::Job)?.copies)
}

/// Returns the same, and changes nothing: no lock is kept and nothing is removed.
pub fn look(store: &str, rescue: &Rescue, rotations: Option<&Path>) -> io::Result<Vec<FoundCopy>> {
    Ok(search(store, rescue, rotations, Access::Look)?.copies)
}

/// Returns the home of a rotation of this login that is under way.
pub(crate) fn rotation_at_work(store: &str, rotations: Option<&Path>) -> Option<PathBuf> {
    let mut folders = rotations.into_iter().flat_map(rotations::folders);
    folders.find(|folder| match rotations::look(folder) {
        Some(State::AtWork(Some(receipt))) => receipt.store == store,
        Some(State::AtWork(None) | State::Empty | State::Unfinished { .. }) | None => false,
    })
}

pub(crate) fn search(
    store: &str,
    rescue: &Rescue,
    rotations: Option<&Path>,
    access: Access,
) -> io::Result<Found> {
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
            // Without a base nothing tells that it is of this login.
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
    let mut at_work = None;
    for folder in rotations.into_iter().flat_map(rotations::folders) {
        match rotations::look(&folder) {
            Some(State::AtWork(Some(receipt))) if receipt.store == store => {
                at_work.get_or_insert(folder);
            }
            Some(State::AtWork(_) | State::Empty) | None => {}
            Some(State::Unfinished {
                receipt,
                content,
                rotation,
            }) => copies.extend(of_rotation(store, receipt, content, rotation, access)),
        }
    }
    Ok(Found { copies, at_work })
}

/// Returns the auth file of a home as a copy.
pub(crate) fn auth_file(job: &Job<'_>, look: &Look, receipt: Option<&Receipt>) -> FoundCopy {
    let lent = receipt.is_some_and(|receipt| receipt.access_only);
    let (content, secret) = match look {
        Look::Missing
        | Look::Unusable {
            why: Unusable::Empty,
            ..
        } => (Content::Missing, None),
        Look::Unusable { why, .. } if authferry_codex::is_access_only(*why) => {
            (Content::AccessOnly, None)
        }
        Look::Unusable { why, secret } => {
            let keepable = *why != Unusable::TooLarge;
            (Content::Unusable { keepable }, Some(secret))
        }
        Look::Usable { secret, generation } => (Content::Usable(generation.clone()), Some(secret)),
    };
    let store = job.store.to_string();
    let elsewhere = receipt.and_then(|it| (it.store != store).then(|| it.store.clone()));
    // What came in the place of a file that was lent descends from nothing that is known.
    let origins = receipt.filter(|_| !lent).map(|receipt| Origins {
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

/// Returns where there is a login.
pub(crate) fn locations_of_logins(copies: &[FoundCopy]) -> Vec<Location> {
    let logins = copies.iter().filter(|copy| copy.fingerprint().is_some());
    logins.map(|copy| copy.location.clone()).collect()
}

/// Returns the copies that were kept for another address and keep a job from beginning.
pub(crate) fn locations_elsewhere(copies: &[FoundCopy], head: Option<&Held>) -> Vec<Location> {
    let stops =
        |copy: &&FoundCopy| judge(head, &copy.copy, &Rules::default()) == Verdict::Elsewhere;
    copies
        .iter()
        .filter(stops)
        .map(|it| it.location.clone())
        .collect()
}

impl FoundCopy {
    /// Returns the fingerprint, if it is a login.
    #[must_use]
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.copy.generation().map(|it| it.fingerprint)
    }

    /// Returns the file's bytes, if there are any.
    #[must_use]
    pub fn secret(&self) -> Option<&Secret> {
        self.secret.as_deref()
    }

    /// Whether it is in an unfinished rotation that is removed once its login is safe elsewhere.
    pub(crate) fn is_to_be_swept(&self) -> bool {
        self.rotation.is_some()
    }

    /// Whether it was in the store by the time that a base tells of: it is that base, or a known
    /// ancestor of it.
    pub(crate) fn is_in_line(&self, base: &Base) -> bool {
        self.fingerprint()
            .is_some_and(|it| base.generation.fingerprint == it || base.ancestors.contains(&it))
    }

    /// Removes an unfinished rotation whose login is safe elsewhere, unless that has changed
    /// since it was looked at, or a process works there.
    pub fn sweep(&self) {
        if let Some(rotation) = &self.rotation {
            rotation.remove(self.secret());
        }
    }
}

/// What a killed rotation left, if that is a login or may have been one.
fn of_rotation(
    store: &str,
    receipt: Option<Receipt>,
    content: rotations::Content,
    rotation: Unfinished,
    access: Access,
) -> Option<FoundCopy> {
    let elsewhere = receipt
        .as_ref()
        .map(|it| &it.store)
        .filter(|it| *it != store);
    let elsewhere = elsewhere.cloned();
    let (content, secret, path) = match content {
        rotations::Content::Usable(login, secret, path) => (Content::Usable(login), secret, path),
        rotations::Content::Unusable(secret) => {
            let path = rotation.auth_file();
            (Content::Unusable { keepable: true }, secret, path)
        }
        rotations::Content::Missing => {
            // Killed before its login was placed, or what Codex was about to write died with it.
            if access == Access::Job && elsewhere.is_none() {
                rotation.remove(None);
            }
            return None;
        }
        rotations::Content::Unreadable => return None,
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
