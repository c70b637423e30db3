//! The store, and authferry's calls on it.

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
use authferry_runner::{Job, Receipt, Replace, Seed, Signals, StartError};
use tempfile::TempDir;
use tokio::{runtime, time::sleep};

use crate::machine::{Folders, Machine, WATCH_MARKER, logins_in, make};
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
pub(crate) enum CallResult {
    /// It completed, and the login is where the outcome says.
    Done,
    /// The login stays because a process still uses the home: exit code 119.
    InUse,
    /// Another job still runs in the home.
    Owned,
    /// A Codex of an earlier job may be about to write.
    LeftOver,
    /// A rotation runs on this machine.
    Rotating,
    /// It refused before it changed anything.
    Refused,
    /// It was killed.
    Killed,
}

/// The result of a restore.
pub(crate) struct Restored {
    pub(crate) called: CallResult,
    /// A watch of the same job handed over.
    pub(crate) nested: bool,
    /// The Codex of an earlier job that was ended.
    pub(crate) ended: Option<i32>,
}

/// An event on a machine while a call waits.
pub(crate) struct ConcurrentEvent<'a> {
    pub(crate) after: Duration,
    pub(crate) happens: &'a dyn Fn(),
}

pub(crate) const NOTHING: ConcurrentEvent<'static> = ConcurrentEvent {
    after: Duration::MAX,
    happens: &|| (),
};

impl World {
    pub(crate) fn new() -> Self {
        let store = temp();
        let address = format!("file://{}/login.json", store.path().display());
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            // With the clock paused, a sleep takes no time.
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

    /// A person writes a value there without authferry.
    pub(crate) fn put_by_hand(&self, text: &str) {
        let next = self.store.path().join("by-hand");
        private_file(&next, text.as_bytes());
        fs::rename(next, self.file()).expect("room");
    }

    /// A person changes the time of the file, and nothing else: the stamp no longer matches.
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
            store_timeout: STORE_TIMEOUT,
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
                Err(error) => return start_error_result(&error),
            };
            nested.set(admitted.nested);
            if let Some(codex) = admitted.ended {
                // The process has received its signal.
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
            called: called.unwrap_or(CallResult::Killed),
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
        meanwhile: &ConcurrentEvent<'_>,
    ) -> CallResult {
        let folders = machine.folders();
        self.persist_in(machine, &folders, number, kill_after, meanwhile)
    }

    fn persist_in(
        &self,
        machine: &mut Machine,
        folders: &Folders,
        number: u32,
        kill_after: Option<u32>,
        meanwhile: &ConcurrentEvent<'_>,
    ) -> CallResult {
        machine.processes.show(number);
        let store = self.open();
        let job = job(&store, folders);
        let Ok(Some(receipt)) = Receipt::read(&folders.home) else {
            return CallResult::Refused;
        };
        let persisting = async {
            let mut signals = Signals::install().expect("signals");
            let report = authferry_runner::persist(&job, &receipt, &mut signals).await;
            match report {
                Ok(report) if report.in_use.is_some() => CallResult::InUse,
                Ok(_) => CallResult::Done,
                Err(error) => start_error_result(&error),
            }
        };
        let called = self.call(machine, persisting, kill_after, meanwhile);
        called.unwrap_or(CallResult::Killed)
    }

    /// The background watch of a command; it has started when this returns.
    pub(crate) fn leave_a_watch(&self, machine: &mut Machine, number: u32) {
        machine.processes.show(number);
        let (store, folders) = (self.open(), machine.folders());
        let marker = folders.home.dir().join(WATCH_MARKER);
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
            while !marker.exists() {
                sleep(Duration::from_millis(1)).await;
            }
        };
        let begins = async { tokio::time::timeout(STORE_TIMEOUT, begins).await.ok() };
        self.call(machine, begins, None, &NOTHING);
    }

    /// Runs the watch of a machine for a given time.
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

    /// Starts a rotation in a private home: places the login there for a Codex that spends it.
    /// Returns the folder and its lock.
    pub(crate) fn begin_rotation(
        &self,
        machine: &mut Machine,
        number: u32,
        kill_after: Option<u32>,
    ) -> (CallResult, Option<(PathBuf, File)>) {
        machine.processes.show(number);
        let mut folders = machine.folders();
        let count = fs::read_dir(&folders.rotations)
            .expect("an existing folder")
            .count();
        let folder = format!("authferry-rotation-{number}-{count}");
        let folder = folders.rotations.join(folder);
        make(&folder);
        let lock = File::open(&folder).expect("an existing folder");
        lock.lock().expect("new");
        folders.home = authferry_codex::Home::new(&folder.join("home")).expect("a home");
        let store = self.open();
        let job = job(&store, &folders);
        let called = self.call(machine, restore(&job), kill_after, &NOTHING);
        let called = called.unwrap_or(CallResult::Killed);
        if called != CallResult::Done && called != CallResult::Killed {
            fs::remove_dir_all(&folder).expect("our own folder");
        }
        let folder = (called == CallResult::Done).then_some((folder, lock));
        (called, folder)
    }

    /// The supervisor of a rotation persists the file of its Codex and removes the folder.
    pub(crate) fn finish_rotation(
        &self,
        machine: &mut Machine,
        number: u32,
        folder: &Path,
        kill_after: Option<u32>,
    ) -> CallResult {
        let folders = Folders {
            home: authferry_codex::Home::new(&folder.join("home")).expect("a home"),
            ..machine.folders()
        };
        let called = self.persist_in(machine, &folders, number, kill_after, &NOTHING);
        if called == CallResult::Done && !folders.home.auth_file().exists() {
            fs::remove_dir_all(folder).ok();
        }
        called
    }

    /// Runs a call to its end, or drops it after so many polls, as a kill between two awaited
    /// system calls. `None` if it was killed. Store operations on a thread still complete. The
    /// watch of the machine runs meanwhile.
    fn call<T>(
        &self,
        machine: &mut Machine,
        call: impl Future<Output = T>,
        kill_after: Option<u32>,
        meanwhile: &ConcurrentEvent<'_>,
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

/// The timeout of the store.
const STORE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait for a Codex that an earlier job left.
const LEFT_OVER_TIMEOUT: Duration = Duration::from_secs(1);
/// How long processes may stay at the end of a job.
const EXIT_GRACE: Duration = Duration::from_secs(2);

fn job<'a>(store: &'a FileStore, folders: &'a Folders) -> Job<'a> {
    Job {
        rotations: Some(&folders.rotations),
        exit_grace: EXIT_GRACE,
        ..Job::new(
            store,
            &folders.home,
            &folders.rescue,
            "a job",
            STORE_TIMEOUT,
        )
    }
}

async fn restore(job: &Job<'_>) -> CallResult {
    let mut signals = Signals::install().expect("signals");
    let report = authferry_runner::restore(job, None, &mut signals).await;
    match report.map(|report| report.outcome) {
        Ok(Outcome::Restored) => CallResult::Done,
        Ok(_) => CallResult::Refused,
        Err(error) => start_error_result(&error),
    }
}

fn start_error_result(error: &StartError) -> CallResult {
    match error {
        StartError::InUse(..) | StartError::Busy(_) => CallResult::Owned,
        StartError::LeftoverCodex(..) => CallResult::LeftOver,
        StartError::Rotating(_) => CallResult::Rotating,
        StartError::StillRunning(..) => CallResult::InUse,
        StartError::HomeError(_)
        | StartError::AlreadyPersisted(_)
        | StartError::AuthFileExists(_)
        | StartError::NoPrivateHome(..)
        | StartError::RescueFolder(..)
        | StartError::System(_) => CallResult::Refused,
    }
}

fn secret(text: &str) -> Secret {
    Secret::new(text.as_bytes().to_vec())
}

/// A temporary folder, in memory if there is such a file system.
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
