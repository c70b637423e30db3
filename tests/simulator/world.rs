//! The places where a login can be: the store, and the homes and rescue folders of machines.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    pin::pin,
    task::Poll,
    time::Duration,
};

use authferry_codex::Home;
use authferry_core::Secret;
use authferry_file::FileStore;
use authferry_runner::rescue::Rescue;
use authferry_runner::{Job, Receipt, Replace, Seed, Signals};
use tempfile::TempDir;
use tokio::runtime;

use crate::provider::number_of;

/// A machine: a home of Codex, and a state folder.
#[derive(Debug)]
pub(crate) struct Machine {
    folder: TempDir,
}

/// The store and the folders of one story.
#[derive(Debug)]
pub(crate) struct World {
    store: TempDir,
    address: String,
}

/// How a call of authferry ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Called {
    /// It came to its end, and the login is where the outcome says.
    Done,
    /// It refused before anything was touched.
    Refused,
    /// It was killed.
    Killed,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let folder = temp();
        make(&folder.path().join("home"));
        make(&folder.path().join("rotations"));
        Self { folder }
    }

    fn home(&self) -> Home {
        Home::new(&self.folder.path().join("home")).expect("a home")
    }

    fn rescue(&self) -> Rescue {
        Rescue::new(self.folder.path().join("rescue"))
    }

    /// The login in the auth file.
    pub(crate) fn auth_file(&self) -> Option<usize> {
        number_of(&fs::read(self.home().auth_file()).ok()?)
    }

    /// Every login on this machine.
    pub(crate) fn logins(&self) -> BTreeSet<usize> {
        logins_in(self.folder.path())
    }

    /// Writes the auth file as Codex does: in place, or by a new file that is renamed.
    pub(crate) fn write(&self, text: &str, in_place: bool) {
        let file = self.home().auth_file().to_owned();
        if in_place {
            private_file(&file, text.as_bytes());
        } else {
            let next = file.with_file_name(".auth-made-up");
            private_file(&next, text.as_bytes());
            fs::rename(next, file).expect("room");
        }
    }

    /// Removes the receipt, as a clean-up step does that knows nothing of it.
    pub(crate) fn forget_receipt(&self) {
        fs::remove_file(self.home().dir().join("authferry-receipt.json")).ok();
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let store = temp();
        let address = format!("file://{}/login.json", store.path().display());
        Self { store, address }
    }

    fn open(&self) -> FileStore {
        authferry_file::open(&self.address).expect("an address")
    }

    fn file(&self) -> PathBuf {
        self.store.path().join("login.json")
    }

    /// The login in the store.
    pub(crate) fn stored(&self) -> Option<usize> {
        number_of(&fs::read(self.file()).ok()?)
    }

    /// Every login in the store's folder.
    pub(crate) fn logins(&self) -> BTreeSet<usize> {
        logins_in(self.store.path())
    }

    /// A person puts a value there without authferry.
    pub(crate) fn put_by_hand(&self, text: &str) {
        let next = self.store.path().join("by-hand");
        private_file(&next, text.as_bytes());
        fs::rename(next, self.file()).expect("room");
    }

    /// A person changes the time of the file, and nothing else: the stamp is lost.
    pub(crate) fn touch(&self) {
        if let Ok(bytes) = fs::read(self.file()) {
            private_file(&self.file(), &bytes);
        }
    }

    /// `authferry seed --replace`.
    pub(crate) fn seed(&self, text: &str, machine: &Machine) -> bool {
        let (store, secret, rescue) = (self.open(), secret(text), machine.rescue());
        let seed = Seed {
            store: &store,
            secret: &secret,
            origins: None,
            replace: Replace::Anything,
            refused: Vec::new(),
            writer: "a person",
            rescue: &rescue,
            patience: PATIENCE,
        };
        let seeding = async { authferry_runner::seed(&seed).await.is_ok() };
        call(seeding, None).unwrap_or(false)
    }

    /// `authferry restore`, killed after so many steps if a number is given.
    pub(crate) fn restore(&self, machine: &Machine, kill_after: Option<u32>) -> Called {
        let (store, home, rescue) = (self.open(), machine.home(), machine.rescue());
        let rotations = machine.folder.path().join("rotations");
        let job = job(&store, &home, &rescue, &rotations);
        let restoring = async {
            let mut signals = Signals::install().expect("signals");
            let report = authferry_runner::restore(&job, None, &mut signals).await;
            match report.map(|report| report.outcome) {
                Ok(authferry_core::Outcome::Restored) => Called::Done,
                Ok(_) | Err(_) => Called::Refused,
            }
        };
        call(restoring, kill_after).unwrap_or(Called::Killed)
    }

    /// `authferry persist`.
    pub(crate) fn persist(&self, machine: &Machine, kill_after: Option<u32>) -> Called {
        let (store, home, rescue) = (self.open(), machine.home(), machine.rescue());
        let rotations = machine.folder.path().join("rotations");
        let job = job(&store, &home, &rescue, &rotations);
        let Ok(Some(receipt)) = Receipt::read(&home) else {
            return Called::Refused;
        };
        let persisting = async {
            let mut signals = Signals::install().expect("signals");
            let report = authferry_runner::persist(&job, &receipt, &mut signals).await;
            report.map_or(Called::Refused, |_| Called::Done)
        };
        call(persisting, kill_after).unwrap_or(Called::Killed)
    }
}

const PATIENCE: Duration = Duration::from_secs(30);

fn job<'a>(
    store: &'a FileStore,
    home: &'a Home,
    rescue: &'a Rescue,
    rotations: &'a Path,
) -> Job<'a> {
    Job {
        rotations: Some(rotations),
        ..Job::new(store, home, rescue, "a job", PATIENCE)
    }
}

/// Runs a future to its end, or drops it after so many polls, as a kill between two system calls
/// that wait does. `None` if it was killed. What a thread of the store has begun comes to its end.
fn call<T>(future: impl Future<Output = T>, kill_after: Option<u32>) -> Option<T> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        // A pause takes no time: the story has no concurrent process.
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut future = pin!(future);
        let mut polls = 0;
        std::future::poll_fn(|context| {
            polls += 1;
            if kill_after.is_some_and(|limit| polls > limit) {
                return Poll::Ready(None);
            }
            future.as_mut().poll(context).map(Some)
        })
        .await
    })
}

fn secret(text: &str) -> Secret {
    Secret::new(text.as_bytes().to_vec())
}

/// A folder in memory, where there is such a file system.
fn temp() -> TempDir {
    TempDir::new_in("/dev/shm")
        .or_else(|_| TempDir::new())
        .expect("a folder")
}

fn make(folder: &Path) {
    fs::DirBuilder::new()
        .mode(0o700)
        .create(folder)
        .expect("room");
}

fn private_file(path: &Path, bytes: &[u8]) {
    let mut options = fs::OpenOptions::new();
    let file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path);
    io::Write::write_all(&mut file.expect("room"), bytes).expect("room");
}

fn logins_in(folder: &Path) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(logins_in(&path));
        } else {
            found.extend(fs::read(&path).ok().and_then(|bytes| number_of(&bytes)));
        }
    }
    found
}
