//! The store, and the calls of authferry on it.

use std::{
    cell::Cell,
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    pin::pin,
    task::Poll,
    thread,
    time::Duration,
};

use authferry_core::{Outcome, Secret};
use authferry_file::FileStore;
use authferry_runner::{Job, NotBegun, Receipt, Replace, Seed, Signals};
use tempfile::TempDir;
use tokio::{runtime, time::sleep};

use crate::machine::{Folders, Machine, SIGN, logins_in, make};
use crate::provider::number_of;

/// The store of one story, and the clock of all its processes.
#[derive(Debug)]
pub(crate) struct World {
    store: TempDir,
    address: String,
    runtime: runtime::Runtime,
}

/// How a call of authferry ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Called {
    /// It came to its end, and the login is where the outcome says.
    Done,
    /// The login stays, for a process still uses the home: exit code 119.
    InUse,
    /// Another job goes on in the home.
    Owned,
    /// A Codex of an earlier job may be about to write.
    LeftOver,
    /// A rotation is under way on this machine.
    Rotating,
    /// It refused before anything was touched.
    Refused,
    /// It was killed.
    Killed,
}

/// What came of a restore.
pub(crate) struct Restored {
    pub(crate) called: Called,
    /// A watch of the same job has made way.
    pub(crate) nested: bool,
    /// The Codex of an earlier job that was ended.
    pub(crate) ended: Option<i32>,
}

/// Something that happens on a machine while a call waits.
pub(crate) struct Meanwhile<'a> {
    pub(crate) after: Duration,
    pub(crate) happens: &'a dyn Fn(),
}

pub(crate) const NOTHING: Meanwhile<'static> = Meanwhile {
    after: Duration::MAX,
    happens: &|| (),
};

impl World {
    pub(crate) fn new() -> Self {
        let store = temp();
        let address = format!("file://{}/login.json", store.path().display());
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            // A pause takes no time.
            .start_paused(true)
            .build()
            .expect("a runtime");
        Self {
            store,
            address,
            runtime,
        }
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
    pub(crate) fn seed(&self, text: &str, machine: &mut Machine) -> bool {
        let (store, secret) = (self.open(), secret(text));
        let folders = machine.folders();
        let seed = Seed {
            store: &store,
            secret: &secret,
            origins: None,
            replace: Replace::Anything,
            refused: Vec::new(),
            writer: "a person",
            rescue: &folders.rescue,
            patience: PATIENCE,
        };
        let seeding = async { authferry_runner::seed(&seed).await.is_ok() };
        self.call(machine, seeding, None, &NOTHING).unwrap_or(false)
    }

    /// `authferry restore` of a job, killed after so many steps if a number is given.
    pub(crate) fn restore(
        &self,
        machine: &mut Machine,
        number: u32,
        kill_after: Option<u32>,
    ) -> Restored {
        machine.processes.show(number);
        let (store, folders) = (self.open(), machine.folders());
        let job = job(&store, &folders);
        let (nested, ended) = (Cell::new(false), Cell::new(None));
        let processes = machine.processes.folder().to_owned();
        let restoring = async {
            let admitted = match authferry_runner::admit(&job, LEFT_OVER_TIMEOUT).await {
                Ok(admitted) => admitted,
                Err(error) => return not_begun(&error),
            };
            nested.set(admitted.nested);
            if let Some(codex) = admitted.ended {
                // It has got its signal.
                ended.set(Some(codex.by.id()));
                fs::remove_dir_all(processes.join(codex.by.id().to_string())).ok();
            }
            let job = Job {
                nested: admitted.nested,
                ..job
            };
            restore(&job).await
        };
        let called = self.call(machine, restoring, kill_after, &NOTHING);
        Restored {
            called: called.unwrap_or(Called::Killed),
            nested: nested.get(),
            ended: ended.get(),
        }
    }

    /// `authferry persist` of a job.
    pub(crate) fn persist(
        &self,
        machine: &mut Machine,
        number: u32,
        kill_after: Option<u32>,
        meanwhile: &Meanwhile<'_>,
    ) -> Called {
        let folders = machine.folders();
        self.persist_in(machine, &folders, number, kill_after, meanwhile)
    }

    fn persist_in(
        &self,
        machine: &mut Machine,
        folders: &Folders,
        number: u32,
        kill_after: Option<u32>,
        meanwhile: &Meanwhile<'_>,
    ) -> Called {
        machine.processes.show(number);
        let store = self.open();
        let job = job(&store, folders);
        let Ok(Some(receipt)) = Receipt::read(&folders.home) else {
            return Called::Refused;
        };
        let persisting = async {
            let mut signals = Signals::install().expect("signals");
            let report = authferry_runner::persist(&job, &receipt, &mut signals).await;
            match report {
                Ok(report) if report.in_use.is_some() => Called::InUse,
                Ok(_) => Called::Done,
                Err(error) => not_begun(&error),
            }
        };
        let called = self.call(machine, persisting, kill_after, meanwhile);
        called.unwrap_or(Called::Killed)
    }

    /// The watch that a command leaves; it has begun when this returns.
    pub(crate) fn leave_a_watch(&self, machine: &mut Machine, number: u32) {
        machine.processes.show(number);
        let (store, folders) = (self.open(), machine.folders());
        let sign = folders.home.dir().join(SIGN);
        let Ok(Some(receipt)) = Receipt::read(&folders.home) else {
            return;
        };
        machine.watch = Some(Box::pin(async move {
            let job = job(&store, &folders);
            let mut signals = Signals::install().expect("signals");
            let watching = authferry_runner::watch(&job, &receipt, &mut signals, || ());
            watching.await.ok();
        }));
        let begins = async {
            while !sign.exists() {
                sleep(Duration::from_millis(1)).await;
            }
        };
        let begins = async { tokio::time::timeout(PATIENCE, begins).await.ok() };
        self.call(machine, begins, None, &NOTHING);
    }

    /// The watch of a machine goes on for so long.
    pub(crate) fn let_the_watch_work(&self, machine: &mut Machine, number: u32, time: Duration) {
        machine.processes.show(number);
        let home = machine.home();
        let goes_on = async {
            // A thread reports a change of the file, with a delay.
            for _ in 0..40 {
                sleep(time / 40).await;
                let file = fs::read(home.auth_file()).ok();
                if file.is_none() || file == fs::read(self.file()).ok() {
                    continue;
                }
                thread::sleep(Duration::from_micros(100));
            }
        };
        self.call(machine, goes_on, None, &NOTHING);
    }

    /// A rotation begins in a private home: the login is placed there, for a Codex that spends
    /// it. Returns the folder and its lock.
    pub(crate) fn begin_rotation(
        &self,
        machine: &mut Machine,
        number: u32,
        kill_after: Option<u32>,
    ) -> (Called, Option<(PathBuf, File)>) {
        machine.processes.show(number);
        let mut folders = machine.folders();
        let count = fs::read_dir(&folders.rotations).expect("there").count();
        let folder = format!("authferry-rotation-{number}-{count}");
        let folder = folders.rotations.join(folder);
        make(&folder);
        let lock = File::open(&folder).expect("there");
        lock.lock().expect("new");
        folders.home = authferry_codex::Home::new(&folder.join("home")).expect("a home");
        let store = self.open();
        let job = job(&store, &folders);
        let called = self.call(machine, restore(&job), kill_after, &NOTHING);
        let called = called.unwrap_or(Called::Killed);
        if called != Called::Done && called != Called::Killed {
            fs::remove_dir_all(&folder).expect("ours");
        }
        let folder = (called == Called::Done).then_some((folder, lock));
        (called, folder)
    }

    /// The supervisor of a rotation persists what its Codex wrote, and removes its folder.
    pub(crate) fn finish_rotation(
        &self,
        machine: &mut Machine,
        number: u32,
        folder: &Path,
        kill_after: Option<u32>,
    ) -> Called {
        let folders = Folders {
            home: authferry_codex::Home::new(&folder.join("home")).expect("a home"),
            ..machine.folders()
        };
        let called = self.persist_in(machine, &folders, number, kill_after, &NOTHING);
        if called == Called::Done && !folders.home.auth_file().exists() {
            fs::remove_dir_all(folder).ok();
        }
        called
    }

    /// Runs a call to its end, or drops it after so many polls, as a kill between two system calls
    /// that wait does. `None` if it was killed. What a thread of the store has begun comes to its
    /// end. The watch of the machine goes on meanwhile.
    fn call<T>(
        &self,
        machine: &mut Machine,
        call: impl Future<Output = T>,
        kill_after: Option<u32>,
        meanwhile: &Meanwhile<'_>,
    ) -> Option<T> {
        let mut watch = machine.watch.take();
        let ended = self.runtime.block_on(async {
            let mut call = pin!(call);
            let mut happens = pin!(async {
                sleep(meanwhile.after).await;
                (meanwhile.happens)();
            });
            let mut has_happened = meanwhile.after == Duration::MAX;
            let mut polls = 0;
            std::future::poll_fn(|context| {
                polls += 1;
                if kill_after.is_some_and(|limit| polls > limit) {
                    return Poll::Ready(None);
                }
                let is_over =
                    |it: &mut crate::machine::Watching| it.as_mut().poll(context).is_ready();
                if watch.as_mut().is_some_and(is_over) {
                    watch = None;
                }
                if !has_happened {
                    has_happened = happens.as_mut().poll(context).is_ready();
                }
                call.as_mut().poll(context).map(Some)
            })
            .await
        });
        machine.watch = watch;
        ended
    }
}

/// How long the store may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a Codex that an earlier job left is waited for.
const LEFT_OVER_TIMEOUT: Duration = Duration::from_secs(1);
/// How long processes may stay at the end of a job.
const LINGER: Duration = Duration::from_secs(2);

fn job<'a>(store: &'a FileStore, folders: &'a Folders) -> Job<'a> {
    Job {
        rotations: Some(&folders.rotations),
        linger: LINGER,
        ..Job::new(store, &folders.home, &folders.rescue, "a job", PATIENCE)
    }
}

async fn restore(job: &Job<'_>) -> Called {
    let mut signals = Signals::install().expect("signals");
    let report = authferry_runner::restore(job, None, &mut signals).await;
    match report.map(|report| report.outcome) {
        Ok(Outcome::Restored) => Called::Done,
        Ok(_) => Called::Refused,
        Err(error) => not_begun(&error),
    }
}

fn not_begun(error: &NotBegun) -> Called {
    match error {
        NotBegun::InUse(..) | NotBegun::Busy(_) => Called::Owned,
        NotBegun::LeftOver(..) => Called::LeftOver,
        NotBegun::Rotating(_) => Called::Rotating,
        NotBegun::AtWork(..) => Called::InUse,
        NotBegun::Unfit(_)
        | NotBegun::NothingLeft(_)
        | NotBegun::Occupied(_)
        | NotBegun::NoPlace(..)
        | NotBegun::NoRescue(..)
        | NotBegun::System(_) => Called::Refused,
    }
}

fn secret(text: &str) -> Secret {
    Secret::new(text.as_bytes().to_vec())
}

/// A folder in memory, where there is such a file system.
pub(crate) fn temp() -> TempDir {
    TempDir::new_in("/dev/shm")
        .or_else(|_| TempDir::new())
        .expect("a folder")
}

pub(crate) fn private_file(path: &Path, bytes: &[u8]) {
    let mut options = fs::OpenOptions::new();
    let file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path);
    io::Write::write_all(&mut file.expect("room"), bytes).expect("room");
}
