//! The private homes of rotations: how they are made, locked, and removed.
//!
//! A rotation holds an exclusive lock on its folder for as long as it or its Codex lives: Codex
//! inherits the descriptor. A process that looks at the folder holds a shared lock. So a folder
//! without an exclusive lock is that of a rotation that was killed, with its Codex.

use std::{
    fs::{self, File, Permissions, TryLockError},
    io::{self, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant, SystemTime},
};

use authferry_codex::{Home, Look, Unusable};
use authferry_core::{Generation, Secret};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::codex_process::CodexProcess;
use crate::own_time::Limit;
use crate::supervise::SPENT_LIMIT;
use crate::{NotBegun, Receipt, codex_process, processes};

/// How the name of the folder of a rotation begins. Nothing else is looked at, let alone removed:
/// without a state folder, rotations share the folder for temporary files.
const PREFIX: &str = "authferry-rotation-";

/// The name of the home in the folder of a rotation.
pub(crate) const HOME: &str = "home";

/// How much room there has to be for the home of a refresh, in bytes. The app server of
/// Codex 0.169.0 fills it with 1.2 MiB before it writes what it got.
const ROOM: usize = 4 << 20;

/// How long a process that only looks may keep the lock of a new folder from us.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);
/// The same for a folder that is to be removed, which another job may do as well.
const SWEEP_TIMEOUT: Duration = Duration::from_millis(50);
/// Between two attempts to get it.
const LOCK_PACE: Duration = Duration::from_millis(2);

/// Within which time a rotation has locked the folder that it made.
const LOCKED_WITHIN: Duration = Duration::from_mins(1);

/// A folder that only its owner works in, gone when dropped.
pub(crate) struct Private {
    folder: TempDir,
    lock: Option<File>,
}

/// Makes a private folder, and locks it.
pub(crate) fn private(rotations: &Path) -> Result<Private, NotBegun> {
    let no_place = |error| NotBegun::NoPlace(rotations.to_owned(), error);
    let folder = tempfile::Builder::new()
        .prefix(PREFIX)
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(rotations)
        .map_err(no_place)?;
    let lock = File::open(folder.path()).map_err(no_place)?;
    let lock = exclusive(&lock, LOOK_TIMEOUT)
        .map_err(no_place)?
        .then_some(lock);
    has_room(folder.path()).map_err(no_place)?;
    Ok(Private { folder, lock })
}

impl Private {
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Another handle of the lock, for the Codex that runs there.
    pub(crate) fn lock(&self) -> Option<File> {
        self.lock.as_ref()?.try_clone().ok()
    }

    /// Leaves the folder there.
    pub(crate) fn keep(self) {
        drop(self.folder.keep());
    }
}

/// What there is to know of the folder of a rotation.
#[expect(clippy::large_enum_variant, reason = "one at a time, and on the stack")]
pub(crate) enum State {
    /// A rotation, or a Codex that one left behind, is running there.
    AtWork(Option<Receipt>),
    /// There is no receipt, or one that cannot be read, and no login.
    Empty,
    /// Its rotation was killed.
    Unfinished {
        receipt: Option<Receipt>,
        content: Content,
        rotation: Unfinished,
    },
}

/// What is in the home of a rotation.
pub(crate) enum Content {
    Missing,
    Unusable(Secret),
    /// It cannot be read, or is too large to be one.
    Unreadable,
    Usable(Generation, Secret, PathBuf),
}

/// The folder of a rotation that was killed. It is not removed by others for as long as this
/// lives.
#[derive(Debug)]
pub(crate) struct Unfinished {
    folder: PathBuf,
    /// `None` on a file system that has no locks for folders.
    lock: Option<File>,
}

/// Returns the folders of rotations that are ours alone.
pub(crate) fn folders(rotations: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(rotations).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX))
        .map(|entry| entry.path())
        .filter(|folder| is_private(folder))
        .collect();
    folders.sort();
    folders
}

/// Looks at the folder of a rotation, and changes nothing. `None` if it was removed meanwhile.
pub(crate) fn look(folder: &Path) -> Option<State> {
    let lock = File::open(folder).ok()?;
    let locked = lock.try_lock_shared();
    let home = Home::new(&folder.join(HOME)).ok()?;
    let receipt = Receipt::read(&home);
    let is_locked = matches!(locked, Err(TryLockError::WouldBlock));
    if is_locked || processes::work_in(folder) {
        return Some(State::AtWork(receipt.ok().flatten()));
    }
    let base = receipt.as_ref().ok().and_then(Option::as_ref);
    let content = content(&home, base);
    let is_new = is_recent(folder) && matches!(receipt, Ok(None));
    if is_new && matches!(content, Content::Missing) {
        return Some(State::Empty);
    }
    Some(State::Unfinished {
        receipt: receipt.ok().flatten(),
        content,
        rotation: Unfinished {
            folder: folder.to_owned(),
            lock: locked.is_ok().then_some(lock),
        },
    })
}

/// The Codex of a rotation that is waited for, and that may be overdue.
#[derive(Debug, Default)]
pub(crate) struct Overdue(Option<Limit>);

impl Overdue {
    /// Ends the Codex of a rotation that has been there for so long without a write that no refresh
    /// can be under way. What supervised it was killed, or ends it by itself.
    ///
    /// Call it once per [`TICK`](crate::own_time::TICK): a longer gap counts as one, because a machine
    /// that was paused gives its Codex no time.
    pub(crate) fn look(&mut self, folder: &Path) {
        self.look_at(folder, SPENT_LIMIT);
    }

    fn look_at(&mut self, folder: &Path, limit: Duration) {
        let home = folder.join(HOME);
        let written = fs::metadata(home.join("auth.json")).and_then(|it| it.modified());
        let is_old = |at: SystemTime| at.elapsed().is_ok_and(|age| age >= limit);
        let overdue = if written.is_ok_and(is_old) {
            codexes_older_than(&home, limit)
        } else {
            Vec::new()
        };
        if overdue.is_empty() {
            self.0 = None;
            return;
        }
        let seen = self.0.get_or_insert_with(|| Limit::new(OVERDUE_FOR));
        if seen.is_over() {
            for codex in overdue {
                codex.process().signal(Signal::KILL);
            }
        }
    }
}

/// Returns the Codexes that use this home and were started this long ago.
fn codexes_older_than(home: &Path, limit: Duration) -> Vec<CodexProcess> {
    let Ok(home) = home.canonicalize() else {
        return Vec::new();
    };
    let codexes = codex_process::all_of(&home);
    codexes
        .filter(|codex| codex.process().age() >= limit)
        .collect()
}

/// For how long a Codex is seen to be overdue before it is ended, in the time that this process runs.
pub(crate) const OVERDUE_FOR: Duration = Duration::from_secs(20);

impl Unfinished {
    /// Returns the path of its auth file, which may be missing.
    pub(crate) fn auth_file(&self) -> PathBuf {
        self.folder.join(HOME).join("auth.json")
    }

    /// Removes the folder, unless it is in use or holds another login than these bytes
    /// (`None`: any login at all) and what they descend from. Of several logins that Codex did not
    /// rename this one alone goes. What is left is found again by the next job.
    pub(crate) fn remove(&self, expected: Option<&Secret>) {
        let may_go = |folder: &Path| {
            let home = Home::new(&folder.join(HOME));
            home.is_ok_and(|home| holds_only(&home, expected)) && !processes::work_in(folder)
        };
        let is_ours = match &self.lock {
            Some(lock) => exclusive(lock, SWEEP_TIMEOUT).unwrap_or(false),
            None => true,
        };
        let may_go_now = is_ours && may_go(&self.folder);
        if is_ours && !may_go_now && !processes::work_in(&self.folder) {
            remove_unrenamed(&self.folder, expected);
        }
        if may_go_now {
            // Renamed aside, looked at again, and only then unlinked.
            let name = self.folder.file_name().unwrap_or_default();
            let name = name.to_string_lossy();
            let aside = format!("{PREFIX}gone-{}", name.trim_start_matches(PREFIX));
            let aside = self.folder.with_file_name(aside);
            if fs::rename(&self.folder, &aside).is_ok() && may_go(&aside) {
                fs::remove_dir_all(aside).ok();
            }
        }
        // Others are to see what stays.
        if let Some(lock) = &self.lock {
            lock.try_lock_shared().ok();
        }
    }
}

/// Takes the exclusive lock, also in place of our shared one. A process that only looks lets go
/// in a moment. `false`: another process keeps it, or the file system has no locks for folders,
/// which is no reason to do without the rotation.
pub(crate) fn exclusive(lock: &File, timeout: Duration) -> io::Result<bool> {
    let began = Instant::now();
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) if began.elapsed() < timeout => thread::sleep(LOCK_PACE),
            Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::ResourceBusy.into()),
            Err(TryLockError::Error(_)) => return Ok(false),
        }
    }
}

/// Removes the temporary files with these bytes, which are safe elsewhere.
fn remove_unrenamed(folder: &Path, expected: Option<&Secret>) {
    let (Ok(home), Some(expected)) = (Home::new(&folder.join(HOME)), expected) else {
        return;
    };
    let unrenamed = home.all_unrenamed().into_iter();
    for it in unrenamed.filter(|it| it.secret.expose() == expected.expose()) {
        fs::remove_file(it.path).ok();
    }
}

/// Whether the home of a rotation holds nothing but these bytes, and what they descend from.
fn holds_only(home: &Home, expected: Option<&Secret>) -> bool {
    let receipt = Receipt::read(home).ok().flatten();
    let is_expected =
        |secret: &Secret| expected.is_some_and(|expected| expected.expose() == secret.expose());
    let is_known = |login: &Generation| {
        let base = receipt.as_ref().map(|receipt| &receipt.base);
        base.is_some_and(|base| {
            base.generation.fingerprint == login.fingerprint
                || base.ancestors.contains(&login.fingerprint)
        })
    };
    let found = match content(home, receipt.as_ref()) {
        Content::Missing => true,
        Content::Unusable(secret) | Content::Usable(_, secret, _) => is_expected(&secret),
        Content::Unreadable => false,
    };
    found
        && home
            .all_unrenamed()
            .iter()
            .all(|it| is_expected(&it.secret) || is_known(&it.generation))
}

/// What is in the home of a rotation: also what a killed Codex wrote and did not rename.
fn content(home: &Home, receipt: Option<&Receipt>) -> Content {
    let base = receipt.map(|receipt| receipt.base.generation.fingerprint);
    if let Some(next) = home.unrenamed(base) {
        return Content::Usable(next.generation, next.secret, next.path);
    }
    match home.settled_look() {
        Ok(Look::Usable { secret, generation }) => {
            Content::Usable(generation, secret, home.auth_file().to_owned())
        }
        Ok(
            Look::Missing
            | Look::Unusable {
                why: Unusable::Empty,
                ..
            },
        ) => Content::Missing,
        Ok(Look::Unusable {
            why: Unusable::TooLarge,
            ..
        })
        | Err(_) => Content::Unreadable,
        Ok(Look::Unusable { secret, .. }) => Content::Unusable(secret),
    }
}

/// Whether only we can write in a folder, which is no link to another one.
fn is_private(folder: &Path) -> bool {
    folder.symlink_metadata().is_ok_and(|found| {
        let is_ours = found.uid() == rustix::process::geteuid().as_raw();
        // A backup may restore the folder with a mode that lets others read it, but not write.
        found.is_dir() && is_ours && found.mode() & 0o022 == 0
    })
}

/// Whether a folder was made or changed a moment ago, as far as the clock can be trusted.
fn is_recent(folder: &Path) -> bool {
    let modified = folder.metadata().and_then(|it| it.modified());
    modified.is_ok_and(|at| at.elapsed().map_or(true, |age| age < LOCKED_WITHIN))
}

/// Sees that Codex will not run out of room: it spends the token first, and what it got is
/// lost if it cannot be written.
fn has_room(folder: &Path) -> io::Result<()> {
    tempfile::tempfile_in(folder)?.write_all(&vec![0; ROOM])
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::{process::Command, time::Duration};

    use tokio::time::advance;

    use super::*;

    /// A program with the name of Codex that waits in the home of a rotation.
    struct Hangs {
        folder: TempDir,
        codex: std::process::Child,
    }

    impl Hangs {
        fn start() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let home = folder.path().join(HOME);
            fs::create_dir(&home).expect("room");
            fs::write(home.join("auth.json"), "made up").expect("room");
            let program = folder.path().join("codex");
            let sleep = ["/bin/sleep", "/usr/bin/sleep"].map(Path::new);
            let sleep = sleep.into_iter().find(|it| it.exists()).expect("sleep");
            fs::copy(sleep, &program).expect("room");
            let mut codex = Command::new(&program);
            let codex = codex.arg("60").env("CODEX_HOME", &home).spawn();
            Self {
                folder,
                codex: codex.expect("a program"),
            }
        }

        fn is_alive(&mut self) -> bool {
            self.codex.try_wait().expect("our child").is_none()
        }
    }

    impl Drop for Hangs {
        fn drop(&mut self) {
            self.codex.kill().ok();
            self.codex.wait().ok();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_codex_that_hangs_is_ended_once_no_refresh_can_be_under_way() {
        let mut hangs = Hangs::start();
        let folder = hangs.folder.path().to_owned();
        thread::sleep(Duration::from_millis(300));
        let mut overdue = Overdue::default();
        for _ in 0..2 * OVERDUE_FOR.as_secs() {
            overdue.look(&folder);
            advance(Duration::from_secs(1)).await;
        }
        assert!(hangs.is_alive(), "it may have spent the token");
        let file = File::open(folder.join(HOME).join("auth.json")).expect("there");
        let an_hour_ago = SystemTime::now() - Duration::from_hours(1);
        file.set_modified(an_hour_ago).expect("ours");
        for _ in 0..2 * OVERDUE_FOR.as_secs() {
            overdue.look(&folder);
            advance(Duration::from_secs(1)).await;
        }
        assert!(hangs.is_alive(), "it was started a moment ago");
        let mut overdue = Overdue::default();
        let limit = Duration::from_millis(200);
        overdue.look_at(&folder, limit);
        // A machine that was paused.
        advance(Duration::from_secs(1000)).await;
        overdue.look_at(&folder, limit);
        thread::sleep(Duration::from_millis(100));
        assert!(hangs.is_alive(), "it has only just gone on");
        for _ in 0..OVERDUE_FOR.as_secs() {
            overdue.look_at(&folder, limit);
            advance(Duration::from_secs(1)).await;
        }
        while hangs.is_alive() {
            thread::yield_now();
        }
    }
}
