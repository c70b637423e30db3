//! The preflight checks, which change nothing.

use std::{
    fs::{self, Metadata, Permissions},
    io::ErrorKind::{NotADirectory, NotFound},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::{fs::Access, io::Errno, process::geteuid};

use crate::{Home, HomeError, mounts::is_mount_point};

/// Implements [`Home::preflight`]; returns whether the home exists.
pub(crate) fn preflight(home: &Home) -> Result<bool, HomeError> {
    let us = geteuid().as_raw();
    let (path, resolved) = nearest(home.dir())?;
    let folder = fs::metadata(&resolved).map_err(|error| HomeError::io("examine", path, error))?;
    if !folder.is_dir() {
        return Err(HomeError::HomeNotADirectory { path: path.into() });
    }
    let exists = path == home.dir();
    if exists {
        check_home(path, &folder, us)?;
    } else {
        // The home is missing, and will be created in this folder.
        check_writable(path)?;
    }
    check_work_tree(home.dir(), &resolved)?;
    if exists {
        check_file(home.auth_file(), &resolved, &folder, us)?;
    }
    Ok(exists)
}

/// Implements [`Home::close`]. The home has passed the preflight.
pub(crate) fn close(home: &Path) -> Result<Option<u32>, HomeError> {
    let Some(mode) = open_mode(home)? else {
        return Ok(None);
    };
    fs::set_permissions(home, Permissions::from_mode(0o700))
        .map_err(|error| HomeError::io("close", home, error))?;
    Ok(Some(mode))
}

/// Implements [`Home::open_mode`].
pub(crate) fn open_mode(home: &Path) -> Result<Option<u32>, HomeError> {
    match fs::metadata(home) {
        Ok(folder) => {
            let mode = folder.mode() & 0o7777;
            Ok((mode & 0o077 != 0).then_some(mode))
        }
        Err(error) if error.kind() == NotFound => Ok(None),
        Err(error) => Err(HomeError::io("examine", home, error)),
    }
}

/// Returns the home or its nearest existing parent: the path as given, and the path with all
/// links resolved.
pub(crate) fn nearest(home: &Path) -> Result<(&Path, PathBuf), HomeError> {
    for path in home.ancestors() {
        match path.canonicalize() {
            Ok(resolved) => return Ok((path, resolved)),
            // A dangling link: no folder can be created at this path.
            Err(_) if path.is_symlink() => {
                return Err(HomeError::HomeNotADirectory { path: path.into() });
            }
            Err(error) if matches!(error.kind(), NotFound | NotADirectory) => {}
            Err(error) => return Err(HomeError::io("examine", path, error)),
        }
    }
    Err(HomeError::HomeNotADirectory { path: home.into() })
}

/// Refuses a home in a git work tree. `.git` is a folder, or a file in a submodule or a linked
/// work tree.
fn check_work_tree(home: &Path, resolved: &Path) -> Result<(), HomeError> {
    for root in resolved.ancestors() {
        let path = root.join(".git");
        match path.symlink_metadata() {
            Ok(_) => {
                return Err(HomeError::InsideGitWorkTree {
                    path: home.into(),
                    root: root.into(),
                });
            }
            Err(error) if error.kind() == NotFound => {}
            Err(error) => return Err(HomeError::io("examine", path, error)),
        }
    }
    Ok(())
}

fn check_home(path: &Path, folder: &Metadata, us: u32) -> Result<(), HomeError> {
    let (owner, mode) = (folder.uid(), folder.mode() & 0o7777);
    let path = path.to_path_buf();
    if owner != us {
        return Err(HomeError::HomeNotOurs { path, owner });
    }
    // The home that Codex itself creates is readable: see `close`. In a writable one, other users
    // may have put a configuration or a file in the auth file's place.
    if mode & 0o022 != 0 {
        return Err(HomeError::HomeWritableByOthers { path, mode });
    }
    // Root may write with any mode, but the mode shows the owner's intent.
    if mode & 0o300 != 0o300 {
        return Err(HomeError::HomeNotWritable { path });
    }
    check_writable(&path)
}

/// Refuses an auth file that Codex cannot replace: Codex notices only after it has spent the
/// refresh token. Permissions for others are accepted: the home's mode keeps other users out,
/// and the next write removes these permissions.
pub(crate) fn check_file(
    path: &Path,
    resolved: &Path,
    folder: &Metadata,
    us: u32,
) -> Result<(), HomeError> {
    let file = match path.symlink_metadata() {
        Ok(file) => file,
        Err(error) if error.kind() == NotFound => return Ok(()),
        Err(error) => return Err(HomeError::io("examine", path, error)),
    };
    let path = path.to_path_buf();
    if file.is_symlink() {
        return Err(HomeError::Symlink { path });
    }
    if !file.is_file() {
        return Err(HomeError::NotARegularFile { path });
    }
    if file.nlink() != 1 {
        let links = file.nlink();
        return Err(HomeError::HardLinked { path, links });
    }
    if is_mount_point(&resolved.join(Home::AUTH_FILE), &file, folder) {
        return Err(HomeError::MountPoint { path });
    }
    if file.uid() != us {
        let owner = file.uid();
        return Err(HomeError::ForeignOwner { path, owner });
    }
    if file.mode() & 0o200 == 0 || !has_access(&path, Access::WRITE_OK)? {
        return Err(HomeError::ReadOnlyFile { path });
    }
    Ok(())
}

fn check_writable(folder: &Path) -> Result<(), HomeError> {
    if has_access(folder, Access::WRITE_OK | Access::EXEC_OK)? {
        Ok(())
    } else {
        Err(HomeError::HomeNotWritable {
            path: folder.into(),
        })
    }
}

/// Asks the kernel, which also considers read-only file systems, immutable files and access
/// control lists.
///
/// `access` checks the real user, which equals the effective user in a program that is never
/// set-uid. System call filters of older container runtimes reject the call for the effective
/// user.
fn has_access(path: &Path, access: Access) -> Result<bool, HomeError> {
    match rustix::fs::access(path, access) {
        Ok(()) => Ok(true),
        Err(Errno::ACCESS | Errno::PERM | Errno::ROFS) => Ok(false),
        Err(error) => Err(HomeError::io("examine", path, error)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::made_up::{home, name, set_mode};

    fn outcome(home: &Home) -> String {
        name(home.preflight())
    }

    fn metadata(path: &Path) -> Metadata {
        fs::metadata(path).expect("a file")
    }

    #[test]
    fn a_usual_home_passes_unchanged() {
        let (above, home) = home();
        for mode in [0o600, 0o640, 0o644, 0o666] {
            set_mode(home.auth_file(), mode);
            let before = metadata(home.auth_file());
            assert_eq!(outcome(&home), "fine");
            let after = metadata(home.auth_file());
            assert_eq!(
                (before.ino(), before.ctime_nsec()),
                (after.ino(), after.ctime_nsec())
            );
        }
        let link = above.path().join("link");
        symlink(home.dir(), &link).expect("a link");
        assert_eq!(outcome(&Home::new(&link).expect("a home")), "fine");

        fs::remove_file(home.auth_file()).expect("a file");
        assert_eq!(outcome(&home), "fine");
        assert_eq!(fs::read_dir(home.dir()).expect("a folder").count(), 0);
        let missing = Home::new(&home.dir().join("a/b")).expect("a home");
        assert_eq!(outcome(&missing), "fine");
        assert_eq!(fs::read_dir(home.dir()).expect("a folder").count(), 0);
    }

    #[test]
    fn the_auth_file_must_be_replaceable() {
        let (above, home) = home();
        let elsewhere = above.path().join("elsewhere");
        fs::hard_link(home.auth_file(), &elsewhere).expect("a link");
        assert_eq!(outcome(&home), "HardLinked");

        fs::remove_file(home.auth_file()).expect("a file");
        for target in [elsewhere.as_path(), Path::new("/nowhere/at/all")] {
            symlink(target, home.auth_file()).expect("a link");
            assert_eq!(outcome(&home), "Symlink");
            fs::remove_file(home.auth_file()).expect("a link");
        }

        fs::create_dir(home.auth_file()).expect("a folder");
        assert_eq!(outcome(&home), "NotARegularFile");
        fs::remove_dir(home.auth_file()).expect("a folder");

        fs::rename(elsewhere, home.auth_file()).expect("a file");
        for mode in [0o400, 0o444, 0o466] {
            set_mode(home.auth_file(), mode);
            assert_eq!(outcome(&home), "ReadOnlyFile", "{mode:o}");
        }
        set_mode(home.auth_file(), 0o600);
        assert_eq!(outcome(&home), "fine");
    }

    #[test]
    fn home_and_file_must_be_owned_by_us() {
        let (_above, home) = home();
        let folder = metadata(home.dir());
        let file = |us| name(check_file(home.auth_file(), home.dir(), &folder, us));
        assert_eq!(file(folder.uid()), "fine");
        assert_eq!(file(folder.uid() + 1), "ForeignOwner");
        let dir = |us| name(check_home(home.dir(), &folder, us));
        assert_eq!(dir(folder.uid()), "fine");
        assert_eq!(dir(folder.uid() + 1), "HomeNotOurs");
    }

    #[test]
    fn the_home_must_be_a_private_writable_folder() {
        let (_above, home) = home();
        for mode in [0o770, 0o702, 0o777, 0o1777] {
            set_mode(home.dir(), mode);
            let error = home.preflight().expect_err("a writable home").to_string();
            assert!(error.contains(&format!("(mode {mode:04o}, ")), "{error}");
        }
        for mode in [0o500, 0o600] {
            set_mode(home.dir(), mode);
            assert_eq!(outcome(&home), "HomeNotWritable", "{mode:o}");
        }
        set_mode(home.dir(), 0o700);

        let link = home.dir().join("link");
        symlink("nowhere", &link).expect("a link");
        for path in [
            home.auth_file(),
            &home.auth_file().join("a/b"),
            &link,
            &link.join("a"),
        ] {
            let home = Home::new(path).expect("a home");
            assert_eq!(outcome(&home), "HomeNotADirectory", "{path:?}");
        }
    }

    #[test]
    fn a_home_in_a_work_tree_is_refused() {
        let (above, home) = home();
        let root = above.path().canonicalize().expect("a folder");
        let missing = Home::new(&above.path().join("a/b")).expect("a home");
        let link = tempfile::tempdir().expect("a folder");
        symlink(&root, link.path().join("link")).expect("a link");
        let linked = Home::new(&link.path().join("link/home")).expect("a home");
        let git = above.path().join(".git");

        let refused = |home: &Home| {
            let found = match home.preflight() {
                Err(HomeError::InsideGitWorkTree { root, .. }) => root,
                other => panic!("{other:?}"),
            };
            assert_eq!(found, root);
        };
        let all = [&home, &missing, &linked];
        for home in all {
            assert_eq!(outcome(home), "fine");
        }
        fs::create_dir(&git).expect("a folder");
        all.into_iter().for_each(refused);
        fs::remove_dir(&git).expect("a folder");
        fs::write(&git, "gitdir: elsewhere").expect("a file");
        all.into_iter().for_each(refused);
        fs::rename(&git, home.dir().join(".git")).expect("a file");
        assert_eq!(outcome(&home), "InsideGitWorkTree");
        assert_eq!(outcome(&missing), "fine");
    }

    #[test]
    fn a_home_that_others_can_only_read_is_closed() {
        let (above, home) = home();
        for mode in [0o755, 0o750, 0o711, 0o701, 0o1755] {
            set_mode(home.dir(), mode);
            assert_eq!(outcome(&home), "fine", "{mode:o}");
            assert_eq!(metadata(home.dir()).mode() & 0o7777, mode);
            assert_eq!(home.open_mode().expect("a home"), Some(mode));
            assert_eq!(home.close().expect("our home"), Some(mode));
            assert_eq!(metadata(home.dir()).mode() & 0o7777, 0o700);
        }
        assert_eq!(home.close().expect("our home"), None);
        let missing = Home::new(&above.path().join("a")).expect("a home");
        assert_eq!(missing.close().expect("no home"), None);
    }
}
