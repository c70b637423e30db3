//! A Codex home, and the auth file in it.

use std::{
    fs::{self, DirBuilder, Permissions},
    io::{self, ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use authferry_core::Secret;

use crate::{Look, Unfit, checks};

mod aside;

/// A `CODEX_HOME`: the folder in which Codex keeps its auth file.
///
/// The folders above it are taken as they are: whoever may rename one of them can put
/// another home in this one's place at any time. A home that is itself a symbolic link is
/// followed, and its target is what is checked; only the auth file must not be one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    dir: PathBuf,
    auth_file: PathBuf,
}

/// How the names of temporary files begin.
const TEMP: &str = ".authferry-";

/// The name of the auth file while it is replaced or removed. Not that of a temporary file: it may
/// be the only one that holds its login.
const ASIDE: &str = "auth.json.authferry-aside";

impl Home {
    /// The auth file's name.
    pub(crate) const AUTH_FILE: &str = "auth.json";

    /// Names a home. Nothing is looked at, except for the current folder when `dir` is
    /// relative.
    ///
    /// Fails if `dir` is empty, or relative while there is no current folder.
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

    /// Returns the path of the auth file, whether or not it is there.
    #[must_use]
    pub fn auth_file(&self) -> &Path {
        &self.auth_file
    }

    /// Refuses a home in which Codex would ignore, lose or publish a login. Changes
    /// nothing.
    ///
    /// A missing home is fine, as is a missing auth file. Otherwise the home must be
    /// ours, writable, closed to everybody else and outside of any git work tree; the
    /// auth file must be a regular file of ours with one name, writable and not a mount
    /// point; and `config.toml` must leave the auth file in use. The variants of [`Unfit`]
    /// say which of these failed, the first one found.
    pub fn preflight(&self) -> Result<(), Unfit> {
        checks::preflight(self).map(drop)
    }

    /// Puts these bytes in the auth file's place, mode 0600, if what is there is what is
    /// expected; returns whether it was.
    ///
    /// Begins with [`preflight`](Self::preflight), and makes a missing home, mode 0700. A
    /// reader sees the file that was there or the new one, whole, also after a crash; after
    /// an error it is the former. What was there is looked at once more when it has been taken
    /// away. Must not be called while Codex runs, which would throw its own rotation away.
    pub fn place(
        &self,
        secret: &Secret,
        is_expected: impl Fn(&Look) -> bool,
    ) -> Result<bool, Unfit> {
        if !checks::preflight(self)? {
            self.make()?;
        }
        self.sweep();
        let write = |error| Unfit::io("write", &self.auth_file, error);
        let mut file = tempfile::Builder::new()
            .prefix(TEMP)
            .permissions(Permissions::from_mode(0o600))
            .tempfile_in(&self.dir)
            .map_err(write)?;
        // By the plain file: errors of the other name the temporary one, which tells nobody
        // anything.
        file.as_file_mut()
            .write_all(secret.expose())
            .map_err(write)?;
        file.as_file().sync_all().map_err(write)?;
        // A rename replaces whatever came there since the preflight; it follows no link.
        // The folder is not synced: what is placed is in the store, so that a crash which
        // undoes the rename costs nothing.
        let aside = self.aside();
        file.persist_noclobber(&aside)
            .map_err(|error| write(error.error))?;
        aside::exchange(&aside, &self.auth_file, secret, is_expected).map_err(write)
    }

    /// Removes the auth file if it is what is expected; returns whether it was. A missing one is
    /// fine.
    ///
    /// It is renamed and looked at once more before it is removed; what a killed predecessor left
    /// half-way goes with it. [`Unfit::Symlink`] and
    /// [`Unfit::NotARegularFile`] for what [`place`](Self::place) cannot have put there.
    pub fn remove(&self, is_expected: impl Fn(&Look) -> bool) -> Result<bool, Unfit> {
        let path = || self.auth_file.clone();
        let removed = match self.auth_file.symlink_metadata() {
            Ok(found) if found.is_symlink() => return Err(Unfit::Symlink { path: path() }),
            Ok(found) if !found.is_file() => return Err(Unfit::NotARegularFile { path: path() }),
            Ok(_) => aside::remove(&self.auth_file, &self.aside(), is_expected),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(Unfit::io("remove", path(), error))
            }
            Ok(true) => {
                self.sweep();
                Ok(true)
            }
            Ok(false) => Ok(false),
            Err(_) => Ok(true),
        }
    }

    /// Gives an auth file its name again that was being replaced or removed when its process was
    /// killed. Returns what else is there, with its path: a file that came into its place must not
    /// be replaced by it.
    pub fn recover(&self) -> Result<Option<(PathBuf, Secret)>, Unfit> {
        let aside = self.aside();
        if aside.symlink_metadata().is_err() {
            return Ok(None);
        }
        let read = |error| Unfit::io("read", &aside, error);
        match aside::put_back(&aside, &self.auth_file) {
            Ok(true) => Ok(None),
            Ok(false) => Ok(aside::bytes(&aside)
                .map_err(read)?
                .map(|it| (aside.clone(), it))),
            Err(error) => Err(read(error)),
        }
    }

    /// Where the auth file goes for as long as it is looked at once more.
    fn aside(&self) -> PathBuf {
        self.dir.join(ASIDE)
    }

    /// Removes what a killed predecessor left half-way: it may hold a whole login.
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
                // What cannot be removed is no reason not to place the login.
                fs::remove_file(entry.path()).ok();
            }
        }
    }

    /// Makes the home, which was missing a moment ago. If it is there by now then
    /// somebody else made it, and nobody has checked it.
    fn make(&self) -> Result<(), Unfit> {
        let make = |dir: &Path, above: bool| {
            DirBuilder::new()
                .mode(0o700)
                .recursive(above)
                .create(dir)
                .map_err(|error| Unfit::io("make", dir, error))
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
    fn a_missing_home_is_made() {
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
    fn what_a_killed_predecessor_left_is_removed() {
        let (_above, home) = home();
        fs::write(home.dir().join(".authferry-a1b2c3"), auth_file(1)).expect("a file");
        home.place(&secret(2), any).expect("a place");
        assert_eq!(names(home.dir()), ["auth.json"]);
        fs::write(home.dir().join(".authferry-a1b2c3"), auth_file(1)).expect("a file");
        assert!(home.remove(any).expect("a file"));
        assert!(names(home.dir()).is_empty());
    }

    #[test]
    fn a_home_that_came_meanwhile_is_not_taken_over() {
        let (_above, home) = home();
        let unfit = home.make().expect_err("a home of somebody else's");
        assert!(matches!(unfit, Unfit::Io { action: "make", .. }), "{unfit}");
    }

    #[test]
    fn the_file_is_replaced_and_nothing_else() {
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
    fn a_reader_never_sees_anything_between() {
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
                // A temporary file is no less secret than the one that it becomes.
                for entry in fs::read_dir(home.dir()).expect("a folder") {
                    let entry = entry.expect("an entry").metadata();
                    assert!(entry.map_or(true, |it| it.permissions().mode() & 0o7777 == 0o600));
                }
            }
        });
    }

    #[test]
    fn nothing_is_placed_where_the_preflight_refuses() {
        let (above, home) = home();
        let elsewhere = above.path().join("elsewhere");
        let refused = |variant: &str| {
            let before = names(home.dir());
            let unfit = home.place(&secret(2), any).expect_err("a refusal");
            assert!(format!("{unfit:?}").starts_with(variant), "{unfit}");
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
        let unfit = missing.place(&secret(2), any).expect_err("a refusal");
        assert!(matches!(unfit, Unfit::InsideGitWorkTree { .. }), "{unfit}");
        assert!(!above.path().join("a").exists());
    }

    #[test]
    fn what_changed_is_neither_replaced_nor_removed() {
        let (_above, home) = home();
        let is = |n: u8| move |look: &Look| crate::made_up::is(look, n.into());
        assert!(!home.place(&secret(2), is(3)).expect("a place"));
        assert!(!home.remove(is(3)).expect("a file"));
        let bytes = |path: &Path| fs::read(path).expect("a file");
        assert_eq!(bytes(home.auth_file()), auth_file(1).as_bytes());
        assert_eq!(names(home.dir()), ["auth.json"]);
        // What comes where nothing was expected stays as well.
        let missing = |look: &Look| matches!(look, Look::Missing);
        assert!(!home.place(&secret(2), missing).expect("a place"));
        assert_eq!(bytes(home.auth_file()), auth_file(1).as_bytes());
        assert!(home.place(&secret(2), is(1)).expect("a place"));
        assert!(home.remove(is(2)).expect("a file"));
        assert!(!home.place(&secret(2), is(1)).expect("a place"));
        assert!(names(home.dir()).is_empty());
    }

    #[test]
    fn what_a_killed_predecessor_took_away_comes_back() {
        let (_above, home) = home();
        let aside = home.dir().join(ASIDE);
        assert!(home.recover().expect("a home").is_none());
        fs::rename(home.auth_file(), &aside).expect("a file");
        assert!(home.recover().expect("a home").is_none());
        assert_eq!(names(home.dir()), ["auth.json"]);
        // Something else has come into its place.
        fs::write(&aside, auth_file(2)).expect("room");
        let (path, other) = home.recover().expect("a home").expect("another one");
        assert_eq!((path, other.expose()), (aside, auth_file(2).as_bytes()));
        assert!(home.place(&secret(3), any).is_err());
        assert_eq!(names(home.dir()), ["auth.json", ASIDE]);
    }

    #[test]
    fn what_was_placed_is_removed_and_nothing_else() {
        let (above, home) = home();
        home.remove(any).expect("a file");
        assert!(names(home.dir()).is_empty());
        home.remove(any).expect("no file");

        let elsewhere = above.path().join("elsewhere");
        fs::write(&elsewhere, "other").expect("a file");
        symlink(&elsewhere, home.auth_file()).expect("a link");
        assert!(matches!(home.remove(any), Err(Unfit::Symlink { .. })));
        fs::remove_file(home.auth_file()).expect("a link");
        fs::create_dir(home.auth_file()).expect("a folder");
        assert!(matches!(
            home.remove(any),
            Err(Unfit::NotARegularFile { .. })
        ));
        assert!(elsewhere.exists());

        let missing = Home::new(&above.path().join("a/b")).expect("a home");
        missing.remove(any).expect("no home");
    }
}
