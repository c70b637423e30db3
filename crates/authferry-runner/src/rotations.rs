//! Creates, locks, and removes the private homes of rotations.
//!
//! A rotation holds an exclusive lock on its folder while it or its Codex is alive: Codex inherits
//! the descriptor. A process that reads the folder holds a shared lock. So a folder without an
//! exclusive lock belongs to a rotation that was killed together with its Codex.

use std::{
    fs::{self, File, Permissions, TryLockError},
    io::{self, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant, SystemTime},
};

use authferry_codex::{AuthFileError, Home, Look};
use authferry_core::{Generation, Secret};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::codex_process::CodexProcess;
use crate::own_time::Limit;
use crate::supervise::SPENT_LIMIT;
use crate::{Receipt, StartError, codex_process, processes};

/// The prefix of a rotation's folder. No other folder is read or removed: without a state folder,
/// rotations share the folder for temporary files.
const PREFIX: &str = "authferry-rotation-";

/// The name of the home in a rotation's folder.
pub(crate) const HOME: &str = "home";

/// The free space that the home of a refresh needs. The app server of Codex 0.169.0 writes
/// 1.2 MiB there before it writes the new login.
const MIN_FREE_BYTES: usize = 4 << 20;

/// How long to wait for the lock of a new folder while a reader holds it.
const READER_LOCK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long to wait for the lock of a folder to remove; another job may remove it instead.
const SWEEP_LOCK_TIMEOUT: Duration = Duration::from_millis(50);
/// The delay between two attempts to lock a folder.
const LOCK_RETRY_INTERVAL: Duration = Duration::from_millis(2);

/// A folder without a receipt and younger than this is new: its rotation may not have locked it
/// yet.
const MAX_UNLOCKED_AGE: Duration = Duration::from_mins(1);

/// The private folder of a rotation. Dropping this removes it.
pub(crate) struct PrivateFolder {
    folder: TempDir,
    lock: Option<File>,
}

/// Creates a private folder and locks it.
pub(crate) fn create_private_folder(rotations: &Path) -> Result<PrivateFolder, StartError> {
    let no_place = |error| StartError::NoPrivateHome(rotations.to_owned(), error);
    let folder = tempfile::Builder::new()
        .prefix(PREFIX)
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(rotations)
        .map_err(no_place)?;
    let lock = File::open(folder.path()).map_err(no_place)?;
    let lock = lock_exclusively(&lock, READER_LOCK_TIMEOUT)
        .map_err(no_place)?
        .then_some(lock);
    check_free_space(folder.path()).map_err(no_place)?;
    Ok(PrivateFolder { folder, lock })
}

impl PrivateFolder {
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Returns a second handle of the lock, for the Codex that runs in the folder.
    pub(crate) fn lock(&self) -> Option<File> {
        self.lock.as_ref()?.try_clone().ok()
    }

    /// Keeps the folder on disk.
    pub(crate) fn keep(self) {
        drop(self.folder.keep());
    }
}

/// The state of a rotation's folder.
#[expect(clippy::large_enum_variant, reason = "one at a time, and on the stack")]
pub(crate) enum FolderState {
    /// A rotation, or a Codex that it left behind, is running in the folder.
    Running(Option<Receipt>),
    /// A new folder without a receipt and without a login.
    Empty,
    /// Its rotation was killed.
    Unfinished {
        receipt: Option<Receipt>,
        content: HomeContent,
        rotation: UnfinishedRotation,
    },
}

/// The content of a rotation's home.
pub(crate) enum HomeContent {
    Missing,
    Unusable(Secret),
    /// The auth file cannot be read, or is too large.
    Unreadable,
    Usable(Generation, Secret, PathBuf),
}

/// The folder of a rotation that was killed. While this is alive, its shared lock keeps other
/// processes from removing the folder.
#[derive(Debug)]
pub(crate) struct UnfinishedRotation {
    folder: PathBuf,
    /// `None` if the file system does not support locks on folders.
    lock: Option<File>,
}

/// Returns the rotation folders that only this user can write.
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

/// Reads the state of a rotation's folder, and changes nothing. `None` if the folder is gone.
pub(crate) fn inspect(folder: &Path) -> Option<FolderState> {
    let lock = File::open(folder).ok()?;
    let locked = lock.try_lock_shared();
    let home = Home::new(&folder.join(HOME)).ok()?;
    let receipt = Receipt::read(&home);
    let is_locked = matches!(locked, Err(TryLockError::WouldBlock));
    if is_locked || processes::work_in(folder) {
        return Some(FolderState::Running(receipt.ok().flatten()));
    }
    let base = receipt.as_ref().ok().and_then(Option::as_ref);
    let content = read_content(&home, base);
    let is_new = is_recent(folder) && matches!(receipt, Ok(None));
    if is_new && matches!(content, HomeContent::Missing) {
        return Some(FolderState::Empty);
    }
    Some(FolderState::Unfinished {
        receipt: receipt.ok().flatten(),
        content,
        rotation: UnfinishedRotation {
            folder: folder.to_owned(),
            lock: locked.is_ok().then_some(lock),
        },
    })
}

/// Watches the Codex of another rotation, and kills it once it is overdue.
#[derive(Debug, Default)]
pub(crate) struct OverdueCodex(Option<Limit>);

impl OverdueCodex {
    /// Kills the rotation's Codex if it is so old, and its last write so long ago, that no refresh
    /// can be running. The supervisor of that Codex was killed, or kills Codex as well.
    ///
    /// Call it once per [`TICK`](crate::own_time::TICK). A longer gap counts as one tick, because
    /// Codex does not run while the machine is paused.
    pub(crate) fn check(&mut self, folder: &Path) {
        self.check_with_limit(folder, SPENT_LIMIT);
    }

    fn check_with_limit(&mut self, folder: &Path, limit: Duration) {
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
        let grace = self.0.get_or_insert_with(|| Limit::new(OVERDUE_GRACE));
        if grace.is_over() {
            for codex in overdue {
                codex.process().signal(Signal::KILL);
            }
        }
    }
}

/// Returns the Codex processes that use this home and are at least this old.
fn codexes_older_than(home: &Path, limit: Duration) -> Vec<CodexProcess> {
    let Ok(home) = home.canonicalize() else {
        return Vec::new();
    };
    let codexes = codex_process::all_of(&home);
    codexes
        .filter(|codex| codex.process().age() >= limit)
        .collect()
}

/// How long a Codex stays overdue before it is killed. Counts only time in which this process runs.
pub(crate) const OVERDUE_GRACE: Duration = Duration::from_secs(20);

impl UnfinishedRotation {
    /// Returns the path of the auth file, which may be missing.
    pub(crate) fn auth_file(&self) -> PathBuf {
        self.folder.join(HOME).join("auth.json")
    }

    /// Removes the folder, unless a process uses it or it holds a login other than these bytes and
    /// their ancestors (`None`: any login). If Codex left several logins in temporary files,
    /// removes only the one with these bytes. The next job finds the rest.
    pub(crate) fn remove(&self, expected: Option<&Secret>) {
        let may_go = |folder: &Path| {
            let home = Home::new(&folder.join(HOME));
            home.is_ok_and(|home| holds_only(&home, expected)) && !processes::work_in(folder)
        };
        let is_ours = match &self.lock {
            Some(lock) => lock_exclusively(lock, SWEEP_LOCK_TIMEOUT).unwrap_or(false),
            None => true,
        };
        let may_go_now = is_ours && may_go(&self.folder);
        if is_ours && !may_go_now && !processes::work_in(&self.folder) {
            remove_unrenamed(&self.folder, expected);
        }
        if may_go_now {
            // Rename the folder, check it again, and only then remove it.
            let name = self.folder.file_name().unwrap_or_default();
            let name = name.to_string_lossy();
            let aside = format!("{PREFIX}gone-{}", name.trim_start_matches(PREFIX));
            let aside = self.folder.with_file_name(aside);
            if fs::rename(&self.folder, &aside).is_ok() && may_go(&aside) {
                fs::remove_dir_all(aside).ok();
            }
        }
        // Downgrade to a shared lock, so that other processes can read what stays.
        if let Some(lock) = &self.lock {
            lock.try_lock_shared().ok();
        }
    }
}

/// Acquires the exclusive lock, also in place of our shared one. A reader releases its lock within
/// milliseconds. Returns `false` if the file system does not support locks on folders: the caller
/// goes on without a lock.
pub(crate) fn lock_exclusively(lock: &File, timeout: Duration) -> io::Result<bool> {
    let started = Instant::now();
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) if started.elapsed() < timeout => {
                thread::sleep(LOCK_RETRY_INTERVAL);
            }
            Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::ResourceBusy.into()),
            Err(TryLockError::Error(_)) => return Ok(false),
        }
    }
}

/// Removes the temporary files with these bytes: the login is safe elsewhere.
fn remove_unrenamed(folder: &Path, expected: Option<&Secret>) {
    let (Ok(home), Some(expected)) = (Home::new(&folder.join(HOME)), expected) else {
        return;
    };
    let unrenamed = home.all_unrenamed().into_iter();
    for it in unrenamed.filter(|it| it.secret.expose() == expected.expose()) {
        fs::remove_file(it.path).ok();
    }
}

/// Whether a rotation's home holds only these bytes and their ancestors.
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
    let has_expected_file = match read_content(home, receipt.as_ref()) {
        HomeContent::Missing => true,
        HomeContent::Unusable(secret) | HomeContent::Usable(_, secret, _) => is_expected(&secret),
        HomeContent::Unreadable => false,
    };
    has_expected_file
        && home
            .all_unrenamed()
            .iter()
            .all(|it| is_expected(&it.secret) || is_known(&it.generation))
}

/// Reads a rotation's home, including a temporary file that a killed Codex did not rename.
fn read_content(home: &Home, receipt: Option<&Receipt>) -> HomeContent {
    let base = receipt.map(|receipt| receipt.base.generation.fingerprint);
    if let Some(next) = home.unrenamed(base) {
        return HomeContent::Usable(next.generation, next.secret, next.path);
    }
    match home.settled_look().map(Look::restored) {
        Ok(Look::Usable { secret, generation }) => {
            HomeContent::Usable(generation, secret, home.auth_file().to_owned())
        }
        Ok(
            Look::Missing
            | Look::Unusable {
                why: AuthFileError::Empty,
                ..
            },
        ) => HomeContent::Missing,
        Ok(Look::Unusable {
            why: AuthFileError::TooLarge,
            ..
        })
        | Err(_) => HomeContent::Unreadable,
        Ok(Look::Unusable { secret, .. }) => HomeContent::Unusable(secret),
    }
}

/// Whether this is a folder, no symlink, that only this user can write.
fn is_private(folder: &Path) -> bool {
    folder.symlink_metadata().is_ok_and(|found| {
        let is_ours = found.uid() == rustix::process::geteuid().as_raw();
        // A backup may restore the folder readable by others, which is fine; writable is not.
        found.is_dir() && is_ours && found.mode() & 0o022 == 0
    })
}

/// Whether a folder was modified recently. A modification time in the future counts as recent.
fn is_recent(folder: &Path) -> bool {
    let modified = folder.metadata().and_then(|it| it.modified());
    modified.is_ok_and(|at| at.elapsed().map_or(true, |age| age < MAX_UNLOCKED_AGE))
}

/// Checks that the disk has room for Codex: Codex spends the token first, and the new login is
/// lost if it cannot be written.
fn check_free_space(folder: &Path) -> io::Result<()> {
    tempfile::tempfile_in(folder)?.write_all(&vec![0; MIN_FREE_BYTES])
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::{process::Command, time::Duration};

    use tokio::time::advance;

    use super::*;

    /// A program named codex in the home of a rotation. It sleeps, and writes nothing.
    struct HangingCodex {
        folder: TempDir,
        codex: std::process::Child,
    }

    impl HangingCodex {
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

    impl Drop for HangingCodex {
        fn drop(&mut self) {
            self.codex.kill().ok();
            self.codex.wait().ok();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_hanging_codex_is_killed_once_no_refresh_can_be_running() {
        let mut codex = HangingCodex::start();
        let folder = codex.folder.path().to_owned();
        thread::sleep(Duration::from_millis(300));
        let mut overdue = OverdueCodex::default();
        for _ in 0..2 * OVERDUE_GRACE.as_secs() {
            overdue.check(&folder);
            advance(Duration::from_secs(1)).await;
        }
        assert!(codex.is_alive(), "it may have spent the token");
        let file = File::open(folder.join(HOME).join("auth.json")).expect("there");
        let an_hour_ago = SystemTime::now() - Duration::from_hours(1);
        file.set_modified(an_hour_ago).expect("ours");
        for _ in 0..2 * OVERDUE_GRACE.as_secs() {
            overdue.check(&folder);
            advance(Duration::from_secs(1)).await;
        }
        assert!(codex.is_alive(), "the process is too young");
        let mut overdue = OverdueCodex::default();
        let limit = Duration::from_millis(200);
        overdue.check_with_limit(&folder, limit);
        // A machine that was paused.
        advance(Duration::from_secs(1000)).await;
        overdue.check_with_limit(&folder, limit);
        thread::sleep(Duration::from_millis(100));
        assert!(
            codex.is_alive(),
            "a pause of the machine counts as one tick"
        );
        for _ in 0..OVERDUE_GRACE.as_secs() {
            overdue.check_with_limit(&folder, limit);
            advance(Duration::from_secs(1)).await;
        }
        while codex.is_alive() {
            thread::yield_now();
        }
    }
}
