//! Finds every copy of a login that this machine can see.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use authferry_codex::{Home, Look, Unusable};
use authferry_core::copies::{Content, Copy, Origins, Place};
use authferry_core::{Fingerprint, Secret};

use crate::rescue::{self, Record};
use crate::{Job, Receipt};

/// A copy, with what the machine in the core is not to see.
#[derive(Debug)]
pub struct FoundCopy {
    /// What the decision needs.
    pub copy: Copy,
    /// The file.
    pub path: PathBuf,
    /// What is known of it, if it is in the rescue folder.
    pub record: Option<Record>,
    pub(crate) secret: Option<Arc<Secret>>,
    /// The unfinished rotation that it is in, locked for as long as this lives.
    rotation: Option<Unfinished>,
}

/// The private home of a rotation that did not come to its end. Nobody is at work there: its
/// lock is ours.
#[derive(Debug)]
struct Unfinished {
    folder: PathBuf,
    _lock: File,
}

/// Returns the copies other than the auth file: those of the rescue folder, newest first, then
/// those of unfinished rotations.
///
/// Fails if the rescue folder cannot be listed: the only live login may be there.
pub fn find(store: &str, rescue: &Path, rotations: Option<&Path>) -> io::Result<Vec<FoundCopy>> {
    let mut found: Vec<FoundCopy> = rescue::list(rescue)?
        .into_iter()
        .filter_map(|rescued| {
            let record = rescued.record.filter(|record| record.store == store)?;
            Some(FoundCopy {
                copy: Copy {
                    place: Place::Rescue,
                    content: Content::Usable(rescued.login.ok()?),
                    origins: record.base.clone().map(|base| Origins {
                        base,
                        seen: record.seen,
                        by_name: true,
                        hints_count: false,
                    }),
                },
                path: rescued.path,
                record: Some(record),
                secret: Some(Arc::new(rescued.secret)),
                rotation: None,
            })
        })
        .collect();
    found.extend(rotations.into_iter().flat_map(|it| unfinished(store, it)));
    Ok(found)
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
    // What came in the place of a file that was lent descends from nothing that is known.
    let origins = receipt.filter(|_| !lent).map(|receipt| Origins {
        base: receipt.base.clone(),
        seen: 0,
        by_name: false,
        hints_count: true,
    });
    FoundCopy {
        copy: Copy {
            place: Place::AuthFile,
            content,
            origins,
        },
        path: job.home.auth_file().to_owned(),
        record: None,
        secret: secret.map(|secret| Arc::new(secret.duplicate())),
        rotation: None,
    }
}

/// Returns the files that hold a login.
pub(crate) fn paths_of_logins(copies: &[FoundCopy]) -> Vec<PathBuf> {
    let logins = copies.iter().filter(|copy| copy.fingerprint().is_some());
    logins.map(|copy| copy.path.clone()).collect()
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

    /// Removes an unfinished rotation whose login is safe elsewhere, unless that has changed
    /// since it was looked at.
    pub fn sweep(&self) {
        let Some(rotation) = &self.rotation else {
            return;
        };
        let now = Home::new(&rotation.folder.join(HOME)).and_then(|home| {
            home.settled_look()
                .map_err(|_| io::ErrorKind::InvalidData.into())
        });
        let unchanged = match now {
            Ok(Look::Usable { generation, .. }) => {
                self.fingerprint() == Some(generation.fingerprint)
            }
            Ok(Look::Missing) => self.fingerprint().is_none(),
            Ok(Look::Unusable { .. }) | Err(_) => false,
        };
        if unchanged {
            // What cannot be removed now is found again by the next job.
            fs::remove_dir_all(&rotation.folder).ok();
        }
    }
}

/// How the name of the folder of a rotation begins. Nothing else is looked at, let alone removed:
/// without a state folder, rotations share the folder for temporary files.
pub(crate) const PREFIX: &str = "authferry-rotation-";

/// The name of the home in the folder of a rotation.
pub(crate) const HOME: &str = "home";

/// The private homes of rotations that did not come to their end.
fn unfinished(store: &str, rotations: &Path) -> Vec<FoundCopy> {
    let entries = fs::read_dir(rotations).into_iter().flatten().flatten();
    let folders = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX))
        .map(|entry| entry.path())
        .filter(|folder| is_private(folder));
    let mut found: Vec<FoundCopy> = folders
        .filter_map(|folder| of_rotation(store, &folder))
        .collect();
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// Whether a folder is ours alone, as a rotation makes it, and no link to another one.
fn is_private(folder: &Path) -> bool {
    folder.symlink_metadata().is_ok_and(|found| {
        let is_ours = found.uid() == rustix::process::geteuid().as_raw();
        found.is_dir() && is_ours && found.mode() & 0o7777 == 0o700
    })
}

/// Within which time a rotation has locked the folder that it made.
const LOCKED_WITHIN: Duration = Duration::from_mins(1);

/// Whether a folder was made or changed a moment ago, as far as the clock can be trusted.
fn is_recent(folder: &Path) -> bool {
    let modified = folder.metadata().and_then(|it| it.modified());
    modified.is_ok_and(|at| at.elapsed().map_or(true, |age| age < LOCKED_WITHIN))
}

fn of_rotation(store: &str, folder: &Path) -> Option<FoundCopy> {
    // In use, or removed meanwhile.
    let lock = File::open(folder).ok()?;
    lock.try_lock().ok()?;
    let home = Home::new(&folder.join(HOME)).ok()?;
    let receipt = Receipt::read(&home).ok().flatten();
    let Some(receipt) = receipt else {
        // Killed before its login was placed: there is nothing in it. A folder that was just made
        // is locked in a moment by the rotation that made it.
        if matches!(home.settled_look(), Ok(Look::Missing)) && !is_recent(folder) {
            fs::remove_dir_all(folder).ok();
        }
        return None;
    };
    if receipt.store != store {
        return None;
    }
    let (content, secret) = match home.settled_look().ok()? {
        Look::Usable { secret, generation } => (Content::Usable(generation), secret),
        Look::Missing
        | Look::Unusable {
            why: Unusable::Empty,
            ..
        } => {
            // What Codex was about to write died with it.
            fs::remove_dir_all(folder).ok();
            return None;
        }
        Look::Unusable {
            why: Unusable::TooLarge,
            ..
        } => return None,
        Look::Unusable { secret, .. } => (Content::Unusable { keepable: true }, secret),
    };
    Some(FoundCopy {
        copy: Copy {
            place: Place::Rotation,
            content,
            origins: Some(Origins {
                base: receipt.base,
                seen: 1,
                by_name: false,
                hints_count: false,
            }),
        },
        path: home.auth_file().to_owned(),
        record: None,
        secret: Some(Arc::new(secret)),
        rotation: Some(Unfinished {
            folder: folder.to_owned(),
            _lock: lock,
        }),
    })
}

#[cfg(test)]
mod tests {
    use std::{fs::FileTimes, os::unix::fs::DirBuilderExt, time::SystemTime};

    use super::*;

    /// Makes a folder with a file in it that nobody has touched for an hour.
    fn old_folder(above: &Path, name: &str, mode: u32) -> PathBuf {
        let folder = above.join(name);
        fs::DirBuilder::new()
            .mode(mode)
            .create(&folder)
            .expect("room");
        fs::write(folder.join("file"), "").expect("room");
        let hour = Duration::from_hours(1);
        let times = FileTimes::new().set_modified(SystemTime::now() - hour);
        let opened = File::open(&folder).expect("a folder");
        opened.set_times(times).expect("our folder");
        folder
    }

    #[test]
    fn only_the_folders_of_rotations_are_looked_at_and_swept() {
        let above = tempfile::tempdir().expect("a folder");
        let dead = old_folder(above.path(), &format!("{PREFIX}dead"), 0o700);
        let others = [
            old_folder(above.path(), "work", 0o700),
            old_folder(above.path(), "authferry-of-another-kind", 0o700),
            old_folder(above.path(), &format!("{PREFIX}open"), 0o755),
        ];
        assert!(unfinished("memory:a", above.path()).is_empty());
        assert!(!dead.exists(), "a dead rotation stays for ever");
        for other in others {
            assert!(
                other.join("file").exists(),
                "{} was removed",
                other.display()
            );
        }
    }
}
