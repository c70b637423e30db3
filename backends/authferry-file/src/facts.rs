//! The metadata of an open file, and whether it is safe for a login.

use std::{fs::Metadata, os::unix::fs::MetadataExt};

use crate::file_error::Exposure;

/// The metadata of a file, from its descriptor and never from its path: the path may name another
/// file a moment later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) inode: u64,
    pub(crate) len: u64,
    /// The modification time: seconds and nanoseconds.
    pub(crate) written: (i64, i64),
    /// The change time, which only the system sets.
    pub(crate) changed: (i64, i64),
    regular: bool,
    folder: bool,
    owner: u32,
    links: u64,
    mode: u32,
}

impl Facts {
    pub(crate) fn of(file: &Metadata) -> Self {
        Self {
            inode: file.ino(),
            len: file.len(),
            written: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
            regular: file.is_file(),
            folder: file.is_dir(),
            owner: file.uid(),
            links: file.nlink(),
            mode: file.mode() & 0o7777,
        }
    }

    /// Checks that a file with this metadata is safe for a login of user `me`.
    pub(crate) fn vet_file(&self, me: u32) -> Result<(), Exposure> {
        if !self.regular {
            return Err(Exposure::NotAFile);
        }
        if self.owner != me {
            return Err(Exposure::Foreign {
                owner: self.owner,
                me,
            });
        }
        if self.mode & 0o077 != 0 {
            return Err(Exposure::Open(self.mode));
        }
        if self.links > 1 {
            return Err(Exposure::HardLinked(self.links));
        }
        Ok(())
    }

    /// Checks that a folder with this metadata is safe for a login of user `me`.
    ///
    /// A world-writable folder is refused despite a sticky bit: other users cannot remove the
    /// login, but they can create its files before the first write.
    pub(crate) fn vet_folder(&self, me: u32) -> Result<(), Exposure> {
        if !self.folder {
            return Err(Exposure::NotAFile);
        }
        if self.owner != me && self.owner != ROOT {
            return Err(Exposure::Foreign {
                owner: self.owner,
                me,
            });
        }
        if self.mode & 0o022 != 0 {
            return Err(Exposure::OpenFolder(self.mode));
        }
        Ok(())
    }
}

const ROOT: u32 = 0;

#[cfg(test)]
mod tests {
    use super::*;

    const ME: u32 = 1000;

    const GOOD: Facts = Facts {
        inode: 1,
        len: 1,
        written: (0, 0),
        changed: (0, 0),
        regular: true,
        folder: false,
        owner: ME,
        links: 1,
        mode: 0o600,
    };

    const GOOD_FOLDER: Facts = Facts {
        regular: false,
        folder: true,
        links: 2,
        mode: 0o700,
        ..GOOD
    };

    #[test]
    fn only_a_private_file_of_ours_is_accepted() {
        for mode in [0o600, 0o400, 0o700, 0o200] {
            assert_eq!(Facts { mode, ..GOOD }.vet_file(ME), Ok(()), "{mode:o}");
        }
        for mode in [0o640, 0o620, 0o604, 0o602, 0o610, 0o601, 0o666, 0o4604] {
            let vetted = Facts { mode, ..GOOD }.vet_file(ME);
            assert_eq!(vetted, Err(Exposure::Open(mode)));
        }
        let foreign = |owner| Exposure::Foreign { owner, me: ME };
        for (facts, why) in [
            (
                Facts {
                    owner: 1001,
                    ..GOOD
                },
                foreign(1001),
            ),
            (
                Facts {
                    owner: ROOT,
                    ..GOOD
                },
                foreign(ROOT),
            ),
            (Facts { links: 2, ..GOOD }, Exposure::HardLinked(2)),
            (
                Facts {
                    regular: false,
                    ..GOOD
                },
                Exposure::NotAFile,
            ),
            (GOOD_FOLDER, Exposure::NotAFile),
        ] {
            assert_eq!(facts.vet_file(ME), Err(why));
        }
    }

    #[test]
    fn root_refuses_the_files_of_other_users() {
        assert_eq!(
            GOOD.vet_file(ROOT),
            Err(Exposure::Foreign {
                owner: ME,
                me: ROOT
            })
        );
    }

    #[test]
    fn only_a_folder_writable_by_us_or_root_is_accepted() {
        for mode in [0o700, 0o755, 0o750, 0o711] {
            let facts = Facts {
                mode,
                ..GOOD_FOLDER
            };
            assert_eq!(facts.vet_folder(ME), Ok(()), "{mode:o}");
            let facts = Facts {
                owner: ROOT,
                ..facts
            };
            assert_eq!(facts.vet_folder(ME), Ok(()), "{mode:o}");
        }
        for mode in [0o770, 0o775, 0o777, 0o1777, 0o702] {
            let vetted = Facts {
                mode,
                ..GOOD_FOLDER
            }
            .vet_folder(ME);
            assert_eq!(vetted, Err(Exposure::OpenFolder(mode)));
        }
        let foreign_folder = Facts {
            owner: 1001,
            ..GOOD_FOLDER
        };
        let foreign = Exposure::Foreign {
            owner: 1001,
            me: ME,
        };
        assert_eq!(foreign_folder.vet_folder(ME), Err(foreign));
        assert_eq!(GOOD.vet_folder(ME), Err(Exposure::NotAFile));
    }
}
