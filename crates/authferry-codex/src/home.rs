//! A Codex home, and the auth file in it.

use std::{
    fs::{self, DirBuilder, Permissions},
    io::{self, ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use authferry_core::Secret;

use crate::{HomeError, Look, checks};

mod aside;

/// A `CODEX_HOME`: the folder in which Codex keeps its auth file.
///
/// The parent folders are not checked: a user who can rename one of them can replace the home
/// at any time. The home may be a symbolic link, and its target is checked. The auth file must
/// not be a symbolic link.
///
/// # Examples
///
/// ```
/// use authferry_codex::{Home, Look};
/// use authferry_core::Secret;
///
/// let folder = tempfile::tempdir()?;
/// let home = Home::new(&folder.path().join("codex"))?;
/// let is_missing = |look: &Look| matches!(look, Look::Missing);
/// assert!(home.place(&Secret::new(b"{}".to_vec()), is_missing)?);
/// assert!(matches!(home.look()?, Look::Unusable { .. }));
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    dir: PathBuf,
    auth_file: PathBuf,
}

/// The prefix of temporary files.
const TEMP: &str = ".authferry-";

/// The name of the auth file while it is replaced or removed. Not a temporary file's name, because
/// those are swept: this file may be the only copy of its login.
const ASIDE: &str = "auth.json.authferry-aside";

impl Home {
    /// The auth file's name.
    pub(crate) const AUTH_FILE: &str = "auth.json";

    /// Creates a home from a path, without access to the folder. A relative `dir` is resolved
    /// against the current folder.
    ///
    /// Fails if `dir` is empty, or if `dir` is relative and there is no current folder.
    pub fn new(dir: &Path) -> io::Result<Self> {
        let dir = std::path::absolute(dir)?;
        let auth_file = dir.join(Self::AUTH_FILE);
        Ok(Self { dir, auth_file })
    }

    /// Returns the folder, as an absolute path.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the path of the auth file, which may be missing.
    #[must_use]
    pub fn auth_file(&self) -> &Path {
        &self.auth_file
    }

    /// Refuses a home in which Codex would ignore, lose or publish a login. Changes
    /// nothing.
    ///
    /// The home or its auth file may be missing. An existing home must be owned by us, writable
    /// for us alone, and outside of any git work tree. An existing auth file must be a writable
    /// regular file that we own, with one hard link, and not a mount point. The [`HomeError`]
    /// names the first check that failed. The settings of Codex are a check of their own:
    /// [`SettingSources`](crate::SettingSources).
    pub fn preflight(&self) -> Result<(), HomeError> {
        checks::preflight(self).map(drop)
    }

    /// Returns the mode of a home that other users can read or enter, such as the 0755 that Codex
    /// and `mkdir` give it; `None` if the home is closed or missing.
    pub fn open_mode(&self) -> Result<Option<u32>, HomeError> {
        checks::open_mode(&self.dir)
    }

    /// Closes a home that other users can read or enter: mode 0700. Returns the mode that it had.
    /// The home has passed the preflight, so it is ours.
    pub fn close(&self) -> Result<Option<u32>, HomeError> {
        checks::close(&self.dir)
    }

    /// Atomically replaces the auth file by these bytes, mode 0600, if the current file is
    /// expected; returns whether it was.
    ///
    /// Starts with [`preflight`](Self::preflight), creates a missing home, mode 0700, and closes an
    /// open one. A
    /// reader sees either the old or the new file, whole, also after a crash; after an error,
    /// the old file. The old file is read again after the exchange, to detect a concurrent
    /// write. Must not be called while Codex runs: Codex would lose its rotation.
    pub fn place(
        &self,
        secret: &Secret,
        is_expected: impl Fn(&Look) -> bool,
    ) -> Result<bool, HomeError> {
        if checks::preflight(self)? {
            self.close()?;
        } else {
            self.make()?;
        }
        self.sweep();
        let write = |error| HomeError::io("write", &self.auth_file, error);
        let mut file = tempfile::Builder::new()
            .prefix(TEMP)
            .permissions(Permissions::from_mode(0o600))
            .tempfile_in(&self.dir)
            .map_err(write)?;
        // Write to the plain file: errors of the temporary file name its meaningless path.
        file.as_file_mut()
            .write_all(secret.expose())
            .map_err(write)?;
        file.as_file().sync_all().map_err(write)?;
        // A rename replaces any file that appeared since the preflight, and follows no link. The
        // folder is not synced: the login is in the store, so a crash that undoes the rename
        // loses nothing.
        let aside = self.aside();
        file.persist_noclobber(&aside)
            .map_err(|error| write(error.error))?;
        aside::exchange(&aside, &self.auth_file, secret, is_expected).map_err(write)
    }

    /// Removes the auth file if it is expected; returns whether it was. Returns true if the file
    /// is missing.
    ///
    /// The file is renamed and read again before it is removed. Temporary files of a killed
    /// process are removed too. Fails with [`HomeError::Symlink`] or
    /// [`HomeError::NotARegularFile`] if [`place`](Self::place) cannot have written the file.
    pub fn remove(&self, is_expected: impl Fn(&Look) -> bool) -> Result<bool, HomeError> {
        let path = || self.auth_file.clone();
        let removed = match self.auth_file.symlink_metadata() {
            Ok(found) if found.is_symlink() => return Err(HomeError::Symlink { path: path() }),
            Ok(found) if !found.is_file() => {
                return Err(HomeError::NotARegularFile { path: path() });
            }
            Ok(_) => aside::remove(&self.auth_file, &self.aside(), is_expected),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(HomeError::io("remove", path(), error))
            }
            Ok(true) => {
                self.sweep();
                Ok(true)
            }
            Ok(false) => Ok(false),
            Err(_) => Ok(true),
        }
    }

    /// Restores the auth file that a killed process was replacing or removing. If a new auth file
    /// exists by now, it stays, and this returns the path and the bytes of the old one.
    pub fn recover(&self) -> Result<Option<(PathBuf, Secret)>, HomeError> {
        let aside = self.aside();
        if aside.symlink_metadata().is_err() {
            return Ok(None);
        }
        let read = |error| HomeError::io("read", &aside, error);
        match aside::put_back(&aside, &self.auth_file) {
            Ok(true) => Ok(None),
            Ok(false) => Ok(aside::bytes(&aside)
                .map_err(read)?
                .map(|it| (aside.clone(), it))),
            Err(error) => Err(read(error)),
        }
    }

    /// Returns the path of the auth file while it is replaced or removed.
    fn aside(&self) -> PathBuf {
        self.dir.join(ASIDE)
    }

    /// Removes the temporary files of a killed process: they may contain a whole login.
    fn sweep(&self) {
        let Ok(entries) = fs::read_dir(&self.dir) else {
            return;
        };
        for entry in entries.flatten() {
            let ours = entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(TEMP.as_bytes());
            if ours && entry.file_type().is_ok_and(|kind| kind.is_file()) {
                // A file that cannot be removed does not stop us from placing the login.
                fs::remove_file(entry.path()).ok();
            }
        }
    }

    /// Creates the home. Fails if the home exists: another process created it after the preflight,
    /// so that home is unchecked.
    fn make(&self) -> Result<(), HomeError> {
        let make = |dir: &Path, above: bool| {
            DirBuilder::new()
                .mode(0o700)
                .recursive(above)
                .create(dir)
                .map_err(|error| HomeError::io("make", dir, error))
        };
        if let Some(above) = self.dir.parent() {
            make(above, true)?;
        }
        make(&self.dir, false)
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::symlink, thread};

    use super::*;
    use crate::{
        Look,
        made_up::{auth_file, home, mode, secret, set_mode},
    };

    fn any(_: &Look) -> bool {
        true
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).expect("a folder");
        let name = |entry: io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
        let mut names: Vec<_> = entries
            .map(|entry| name(entry).into_string().expect("a text"))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_home_is_absolute() {
        let here = std::env::current_dir().expect("a folder");
        let home = Home::new(Path::new("a/b")).expect("a home");
        assert_eq!(home.dir(), here.join("a/b"));
        assert_eq!(home.auth_file(), here.join("a/b/auth.json"));
        assert!(Home::new(Path::new("")).is_err());
    }

    #[test]
    fn a_missing_home_is_created() {
        let above = tempfile::tempdir().expect("a folder");
        let home = Home::new(&above.path().join("a/b")).expect("a home");
        home.place(&secret(2), any).expect("a place");
        assert_eq!(
            fs::read(home.auth_file()).expect("a file"),
            auth_file(2).as_bytes()
        );
        assert_eq!(mode(home.auth_file()), 0o600);
        assert_eq!(mode(home.dir()), 0o700);
        assert_eq!(mode(&above.path().join("a")), 0o700);
    }

    #[test]
    fn temporary_files_of_a_killed_process_are_removed() {
        let (_above, home) = home();
        fs::write(home.dir().join(".authferry-a1b2c3"), auth_file(1)).expect("a file");
        home.place(&secret(2), any).expect("a place");
        assert_eq!(names(home.dir()), ["auth.json"]);
        fs::write(home.dir().join(".authferry-a1b2c3"), auth_file(1)).expect("a file");
        assert!(home.remove(any).expect("a file"));
        assert!(names(home.dir()).is_empty());
    }

    #[test]
    fn a_home_created_meanwhile_is_an_error() {
        let (_above, home) = home();
        let error = home.make().expect_err("an existing home");
        assert!(
            matches!(error, HomeError::Io { action: "make", .. }),
            "{error}"
        );
    }

    #[test]
    fn only_the_auth_file_is_replaced() {
        let (_above, home) = home();
        set_mode(home.auth_file(), 0o644);
        fs::write(home.dir().join("other"), "other").expect("a file");
        home.place(&secret(2), any).expect("a place");
        assert_eq!(
            fs::read(home.auth_file()).expect("a file"),
            auth_file(2).as_bytes()
        );
        assert_eq!(mode(home.auth_file()), 0o600);
        assert_eq!(names(home.dir()), ["auth.json", "other"]);
    }

    #[test]
    fn a_reader_sees_only_whole_files() {
        let (_above, home) = home();
        thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for n in 0..60 {
                    home.place(&secret(n % 3), any).expect("a place");
                }
            });
            while !writer.is_finished() {
                let look = home.look().expect("a look");
                assert!(matches!(look, Look::Usable { .. }), "{look:?}");
                assert_eq!(mode(home.auth_file()), 0o600);
                // A temporary file is as secret as the auth file.
                for entry in fs::read_dir(home.dir()).expect("a folder") {
                    let entry = entry.expect("an entry").metadata();
                    assert!(entry.map_or(true, |it| it.permissions().mode() & 0o7777 == 0o600));
                }
            }
        });
    }

    #[test]
    fn nothing_is_placed_if_the_preflight_fails() {
        let (above, home) = home();
        let elsewhere = above.path().join("elsewhere");
        let refused = |variant: &str| {
            let before = names(home.dir());
            let error = home.place(&secret(2), any).expect_err("a refusal");
            assert!(format!("{error:?}").starts_with(variant), "{error}");
            assert_eq!(names(home.dir()), before);
        };

        fs::hard_link(home.auth_file(), &elsewhere).expect("a link");
        refused("HardLinked");
        fs::remove_file(home.auth_file()).expect("a file");
        symlink(&elsewhere, home.auth_file()).expect("a link");
        refused("Symlink");
        assert_eq!(
            fs::read(&elsewhere).expect("a file"),
            auth_file(1).as_bytes()
        );
        fs::remove_file(home.auth_file()).expect("a link");
        fs::create_dir(home.auth_file()).expect("a folder");
        refused("NotARegularFile");

        let missing = Home::new(&above.path().join("a/b")).expect("a home");
        fs::create_dir(above.path().join(".git")).expect("a folder");
        let error = missing.place(&secret(2), any).expect_err("a refusal");
        assert!(
            matches!(error, HomeError::InsideGitWorkTree { .. }),
            "{error}"
        );
        assert!(!above.path().join("a").exists());
    }

    #[test]
    fn an_unexpected_file_is_neither_replaced_nor_removed() {
        let (_above, home) = home();
        let is = |n: u8| move |look: &Look| crate::made_up::is(look, n.into());
        assert!(!home.place(&secret(2), is(3)).expect("a place"));
        assert!(!home.remove(is(3)).expect("a file"));
        let bytes = |path: &Path| fs::read(path).expect("a file");
        assert_eq!(bytes(home.auth_file()), auth_file(1).as_bytes());
        assert_eq!(names(home.dir()), ["auth.json"]);
        // Nor is a file where none was expected.
        let missing = |look: &Look| matches!(look, Look::Missing);
        assert!(!home.place(&secret(2), missing).expect("a place"));
        assert_eq!(bytes(home.auth_file()), auth_file(1).as_bytes());
        assert!(home.place(&secret(2), is(1)).expect("a place"));
        assert!(home.remove(is(2)).expect("a file"));
        assert!(!home.place(&secret(2), is(1)).expect("a place"));
        assert!(names(home.dir()).is_empty());
    }

    #[test]
    fn recover_restores_the_file_of_a_killed_process() {
        let (_above, home) = home();
        let aside = home.dir().join(ASIDE);
        assert!(home.recover().expect("a home").is_none());
        fs::rename(home.auth_file(), &aside).expect("a file");
        assert!(home.recover().expect("a home").is_none());
        assert_eq!(names(home.dir()), ["auth.json"]);
        // A new auth file exists by now.
        fs::write(&aside, auth_file(2)).expect("room");
        let (path, other) = home.recover().expect("a home").expect("another one");
        assert_eq!((path, other.expose()), (aside, auth_file(2).as_bytes()));
        assert!(home.place(&secret(3), any).is_err());
        assert_eq!(names(home.dir()), ["auth.json", ASIDE]);
    }

    #[test]
    fn only_a_regular_file_is_removed() {
        let (above, home) = home();
        home.remove(any).expect("a file");
        assert!(names(home.dir()).is_empty());
        home.remove(any).expect("no file");

        let elsewhere = above.path().join("elsewhere");
        fs::write(&elsewhere, "other").expect("a file");
        symlink(&elsewhere, home.auth_file()).expect("a link");
        assert!(matches!(home.remove(any), Err(HomeError::Symlink { .. })));
        fs::remove_file(home.auth_file()).expect("a link");
        fs::create_dir(home.auth_file()).expect("a folder");
        assert!(matches!(
            home.remove(any),
            Err(HomeError::NotARegularFile { .. })
        ));
        assert!(elsewhere.exists());

        let missing = Home::new(&above.path().join("a/b")).expect("a home");
        missing.remove(any).expect("no home");
    }
}
