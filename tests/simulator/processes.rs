//! The processes of a machine as its kernel would show them: made up, in a folder like `/proc`.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use tempfile::TempDir;

/// A link to the processes of the machine on which authferry is called.
static SHOWN: OnceLock<PathBuf> = OnceLock::new();

/// The ids of made-up processes are higher than any that the kernel assigns.
const FIRST_CODEX: i32 = 5_000_000;
const FIRST_CALLER: i32 = 6_000_000;
/// The uptime of each machine, in seconds, and in ticks of `/proc`.
const UPTIME: u64 = 1_000_000;
const TICKS: u64 = UPTIME * 100;

/// Makes authferry see made-up processes from now on. The folder must outlive the stories.
pub(crate) fn make_up() -> TempDir {
    let folder = crate::world::temp();
    let link = folder.path().join("proc");
    authferry_runner::make_up_processes(link.clone());
    SHOWN.set(link).expect("once");
    folder
}

/// The processes of one machine.
#[derive(Debug)]
pub(crate) struct Processes {
    folder: PathBuf,
    count: i32,
}

/// What `/proc` shows of one process.
struct Shown<'a> {
    id: i32,
    name: &'a str,
    parent: i32,
    started: u64,
    variables: &'a [(&'a str, &'a str)],
}

impl Processes {
    pub(crate) fn new(folder: &Path) -> Self {
        let processes = Self {
            folder: folder.to_owned(),
            count: 0,
        };
        fs::create_dir(folder).expect("room");
        fs::write(folder.join("uptime"), format!("{UPTIME}.00 0.00\n")).expect("room");
        symlink(own_pid().to_string(), folder.join("self")).expect("room");
        processes.add(&Shown {
            id: 1,
            name: "init",
            parent: 0,
            started: 0,
            variables: &[],
        });
        processes
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A job begins: the process that calls authferry.
    pub(crate) fn begin_job(&self, job: u32) {
        self.add(&Shown {
            id: caller(job),
            name: "sh",
            parent: 1,
            started: TICKS - 1,
            variables: &[("CI_JOB_ID", &name(job))],
        });
    }

    pub(crate) fn end_job(&self, job: u32) {
        self.remove(caller(job));
    }

    /// Shows this machine to authferry, called by this job.
    pub(crate) fn show(&self, job: u32) {
        let link = SHOWN.get().expect("set at the begin");
        fs::remove_file(link).ok();
        symlink(&self.folder, link).expect("room");
        self.add(&Shown {
            id: own_pid(),
            name: "authferry",
            parent: caller(job),
            started: TICKS - 1,
            variables: &[("CI_JOB_ID", &name(job))],
        });
    }

    /// A Codex of this job starts in this home; returns its process.
    pub(crate) fn start_codex(&mut self, home: &Path, job: u32) -> i32 {
        self.count += 1;
        let id = FIRST_CODEX + self.count;
        self.show_codex(id, home, job, TICKS - 1);
        id
    }

    /// Makes the process old.
    pub(crate) fn age(&self, id: i32, home: &Path, job: u32) {
        self.show_codex(id, home, job, 0);
    }

    fn show_codex(&self, id: i32, home: &Path, job: u32, started: u64) {
        let home = home.to_str().expect("a plain path");
        self.add(&Shown {
            id,
            name: "codex",
            parent: 1,
            started,
            variables: &[("CODEX_HOME", home), ("CI_JOB_ID", &name(job))],
        });
    }

    pub(crate) fn remove(&self, id: i32) {
        fs::remove_dir_all(self.folder.join(id.to_string())).ok();
    }

    /// Ends every process except those that run at a machine's start.
    pub(crate) fn reset(&self) {
        for entry in fs::read_dir(&self.folder)
            .expect("an existing folder")
            .flatten()
        {
            let name = entry.file_name();
            let id = name.to_str().and_then(|name| name.parse::<i32>().ok());
            if id.is_some_and(|id| id >= FIRST_CODEX) {
                fs::remove_dir_all(entry.path()).expect("our own folder");
            }
        }
    }

    fn add(&self, process: &Shown<'_>) {
        let Shown {
            id,
            name,
            parent,
            started,
            variables,
        } = process;
        let folder = self.folder.join(id.to_string());
        fs::create_dir_all(&folder).expect("room");
        let rest = "0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0";
        let line = format!("{id} ({name}) S {parent} 1 1 {rest} {started} 0\n");
        fs::write(folder.join("stat"), line).expect("room");
        let variables = variables
            .iter()
            .map(|(name, value)| format!("{name}={value}\0"));
        fs::write(folder.join("environ"), variables.collect::<String>()).expect("room");
        let exe = folder.join("exe");
        if exe.symlink_metadata().is_err() {
            symlink(format!("/made-up/bin/{name}"), exe).expect("room");
        }
    }
}

/// The process id of the stories, which every authferry in them has.
fn own_pid() -> i32 {
    i32::try_from(std::process::id()).expect("a small number")
}

fn caller(job: u32) -> i32 {
    FIRST_CALLER + i32::try_from(job).expect("a small number")
}

fn name(job: u32) -> String {
    format!("made-up-{job}")
}
