//! A machine: a Codex home, a state folder, and processes.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    pin::Pin,
    time::{Duration, SystemTime},
};

use authferry_codex::Home;
use authferry_runner::rescue::Rescue;
use tempfile::TempDir;

use crate::processes::Processes;
use crate::provider::number_of;
use crate::world::{private_file, temp};

/// The background watch of a command.
pub(crate) type Watching = Pin<Box<dyn Future<Output = ()>>>;

pub(crate) struct Machine {
    folder: TempDir,
    pub(crate) processes: Processes,
    /// Pauses while no authferry runs on this machine, as a process without CPU time.
    pub(crate) watch: Option<Watching>,
    pub(crate) codexes: Vec<Codex>,
}

/// A Codex that authferry did not start in this call.
pub(crate) struct Codex {
    pub(crate) id: i32,
    pub(crate) job: u32,
    pub(crate) home: Home,
    pub(crate) in_flight: Option<InFlight>,
    /// An hour has passed since it wrote or started.
    pub(crate) is_idle: bool,
    /// For the Codex of a rotation: its folder with the lock.
    pub(crate) rotation: Option<(PathBuf, File)>,
}

/// The login that a Codex has spent, and the new login that it has not written yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InFlight {
    pub(crate) spent: usize,
    pub(crate) got: usize,
    /// It had been idle for an hour when it spent the login.
    pub(crate) was_idle: bool,
}

/// The folders that a call uses.
pub(crate) struct Folders {
    pub(crate) home: Home,
    pub(crate) rescue: Rescue,
    pub(crate) rotations: PathBuf,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let folder = temp();
        make(&folder.path().join("disk"));
        make(&folder.path().join("disk/home"));
        make(&folder.path().join("disk/rotations"));
        let processes = Processes::new(&folder.path().join("proc"));
        Self {
            folder,
            processes,
            watch: None,
            codexes: Vec::new(),
        }
    }

    fn disk(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    pub(crate) fn home(&self) -> Home {
        Home::new(&self.disk().join("home")).expect("a home")
    }

    pub(crate) fn folders(&self) -> Folders {
        Folders {
            home: self.home(),
            rescue: Rescue::new(self.disk().join("rescue")),
            rotations: self.disk().join("rotations"),
        }
    }

    /// The login in the auth file.
    pub(crate) fn auth_file(&self) -> Option<usize> {
        login_in(&self.home())
    }

    /// Every login on the disk of this machine.
    pub(crate) fn logins(&self) -> BTreeSet<usize> {
        logins_in(&self.disk())
    }

    /// The new logins that its Codexes have not written yet.
    pub(crate) fn in_flight(&self) -> impl Iterator<Item = usize> {
        self.codexes.iter().filter_map(|it| Some(it.in_flight?.got))
    }

    /// The Codexes that use the home of this machine.
    pub(crate) fn codexes_in_home(&mut self) -> impl Iterator<Item = &mut Codex> {
        self.codexes.iter_mut().filter(|it| it.rotation.is_none())
    }

    /// Writes the auth file as Codex does: in place, or by renaming a new file.
    pub(crate) fn write(&self, text: &str, in_place: bool) {
        write(&self.home(), text, in_place);
    }

    /// Removes the receipt, as a clean-up step does that does not know it.
    pub(crate) fn forget_receipt(&self) {
        fs::remove_file(self.receipt()).ok();
    }

    pub(crate) fn has_receipt(&self) -> bool {
        self.receipt().exists()
    }

    fn receipt(&self) -> PathBuf {
        self.home().dir().join("authferry-receipt.json")
    }

    pub(crate) fn has_a_watch(&self) -> bool {
        self.watch.is_some()
    }

    /// The watch is killed: its lock is released, and its marker stays.
    pub(crate) fn kill_the_watch(&mut self) {
        if self.watch.take().is_some() {
            fs::write(self.home().dir().join(WATCH_MARKER), "").expect("room");
        }
    }

    /// Ends a Codex, which loses an unwritten login.
    pub(crate) fn end_codex(&mut self, id: i32) -> Option<Codex> {
        self.processes.remove(id);
        let at = self.codexes.iter().position(|it| it.id == id)?;
        Some(self.codexes.remove(at))
    }

    /// The machine restarts: its disk stays, its processes end.
    pub(crate) fn reset(&mut self) {
        self.kill_the_watch();
        self.codexes.clear();
        self.processes.reset();
    }

    /// An hour passes in which no process writes.
    pub(crate) fn pass_an_hour(&mut self) {
        let before = SystemTime::now() - Duration::from_hours(1);
        for codex in &mut self.codexes {
            codex.is_idle = true;
            self.processes.age(codex.id, codex.home.dir(), codex.job);
            if let Ok(file) = File::open(codex.home.auth_file()) {
                file.set_modified(before).expect("our own file");
            }
        }
    }
}

/// The marker of a watch, with which others request its handover.
pub(crate) const WATCH_MARKER: &str = "authferry-watch";

pub(crate) fn login_in(home: &Home) -> Option<usize> {
    number_of(&fs::read(home.auth_file()).ok()?)
}

/// Writes the auth file of a home as Codex does.
pub(crate) fn write(home: &Home, text: &str, in_place: bool) {
    let file = home.auth_file().to_owned();
    if in_place {
        private_file(&file, text.as_bytes());
    } else {
        let next = file.with_file_name(".auth-made-up");
        private_file(&next, text.as_bytes());
        fs::rename(next, file).expect("room");
    }
}

pub(crate) fn make(folder: &Path) {
    fs::DirBuilder::new()
        .mode(0o700)
        .create(folder)
        .expect("room");
}

pub(crate) fn logins_in(folder: &Path) -> BTreeSet<usize> {
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
