//! One machine with a store, and the jobs that run on it.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rig::unique;
use tempfile::TempDir;
use time::OffsetDateTime;

use crate::{
    parts::Part,
    position::{Fault, Position},
    programs::{limited, program, tools},
    stand_in::{LEDGER, LIVE, REFUSED, login, replace},
    store::Store,
    tracee::processes,
    tracer::{Trace, Tracer},
};

/// The generations that a scene begins with.
const FIRST: u32 = 1;
const RESEED: u32 = 11;

/// The next job on the machine.
const NEXT: &str = r#""$A" run --lease-timeout 5s -- codex exec"#;

/// A machine.
pub(crate) struct Scene<'a> {
    _folder: TempDir,
    root: PathBuf,
    store: &'a Store,
    number: usize,
}

/// Whether a job's calls are traced.
enum Traced<'a> {
    No,
    /// Traced, with this fault at one of the calls.
    Faulted(Option<(&'a Position, Fault)>),
}

/// The result of a job.
#[derive(Debug, Default)]
pub(crate) struct JobResult {
    pub(crate) trace: Trace,
    pub(crate) hung: bool,
    pub(crate) output: String,
}

impl<'a> Scene<'a> {
    /// Sets up a machine whose store holds a login.
    pub(crate) fn new(part: &Part, store: &'a Store) -> io::Result<Self> {
        let folder = TempDir::with_prefix("sweep-")?;
        let root = folder.path().canonicalize()?;
        for path in ["home", "home/.codex", "tmp", "store", "ledger"] {
            DirBuilder::new().mode(0o700).create(root.join(path))?;
        }
        let scene = Self {
            _folder: folder,
            root,
            store,
            number: store.next(),
        };
        let now = OffsetDateTime::now_utc();
        let age = if part.is_due {
            rig::ACCESS_LIFETIME + time::Duration::HOUR
        } else {
            time::Duration::HOUR
        };
        let first = login(FIRST, now - age).auth_json();
        let reseed = rig::Login {
            session: Some(rig::Session::numbered("account-1", RESEED)),
            ..login(RESEED, now - time::Duration::MINUTE)
        };
        replace(
            &scene.root.join("reseed.json"),
            reseed.auth_json().as_bytes(),
        )?;
        replace(&scene.root.join("first.json"), first.as_bytes())?;
        let seeded = scene.job(r#""$A" seed "$ROOT/first.json""#, &Traced::No)?;
        if seeded.trace.code != Some(0) {
            return Err(io::Error::other(seeded.output));
        }
        let live = if part.name == "seed" {
            reseed.auth_json()
        } else {
            first
        };
        replace(&scene.live_file(), live.as_bytes())?;
        Ok(scene)
    }

    /// Runs the job of a part, with a fault at one call, or without one to list the calls.
    pub(crate) fn faulted(
        &self,
        part: &Part,
        fault: Option<(&Position, Fault)>,
    ) -> io::Result<JobResult> {
        self.job(part.job, &Traced::Faulted(fault))
    }

    /// Runs the next job.
    pub(crate) fn next(&self, part: &Part) -> io::Result<JobResult> {
        // The person whose seed failed seeds again.
        if part.name == "seed" {
            self.job(part.job, &Traced::No)?;
        }
        self.job(NEXT, &Traced::No)
    }

    /// The content of the store; empty if it cannot be read.
    pub(crate) fn stored(&self) -> Vec<u8> {
        self.store.read(self.number, &self.root)
    }

    /// The auth file with the token that the provider accepts.
    pub(crate) fn live(&self) -> Vec<u8> {
        fs::read(self.live_file()).unwrap_or_default()
    }

    /// The spent tokens that were used.
    pub(crate) fn refused(&self) -> String {
        fs::read_to_string(self.root.join("ledger").join(REFUSED)).unwrap_or_default()
    }

    /// Removes the lease, as its expiry after a minute would.
    pub(crate) fn end_lease(&self) {
        self.store.end_lease(self.number, &self.root);
    }

    /// The files of the machine with these bytes, except those of the test setup.
    pub(crate) fn find(&self, bytes: &[u8]) -> Vec<PathBuf> {
        let mut found = Vec::new();
        search(&self.root.join("home"), bytes, &mut found);
        search(&self.root.join("tmp"), bytes, &mut found);
        search(&self.root.join("store"), bytes, &mut found);
        found
    }

    /// Kills the remaining processes and returns how many there were.
    pub(crate) fn end_processes(&self) -> usize {
        let left = processes(&self.root);
        for &id in &left {
            kill(id, Signal::SIGKILL).ok();
        }
        left.len()
    }

    fn live_file(&self) -> PathBuf {
        self.root.join("ledger").join(LIVE)
    }

    /// Runs a job. Its shell, the job's caller, is the only process that gets no fault. It ends
    /// with the job.
    fn job(&self, job: &str, traced: &Traced<'_>) -> io::Result<JobResult> {
        let log = self.root.join("said");
        let output = File::create(&log)?;
        let tools = tools()?;
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg(format!("read -r go\n{job}"))
            .env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", tools.display()))
            .env("HOME", self.root.join("home"))
            .env("CODEX_HOME", self.root.join("home/.codex"))
            .env("TMPDIR", self.root.join("tmp"))
            .env(LEDGER, self.root.join("ledger"))
            .env("ROOT", &self.root)
            .env("A", program())
            .env("CI_JOB_ID", unique("sweep-"))
            .envs(self.store.environment(self.number, &self.root))
            .current_dir(self.root.join("tmp"))
            .stdin(Stdio::piped())
            .stdout(output.try_clone()?)
            .stderr(output);
        let mut child = command.spawn()?;
        let root = Pid::from_raw(i32::try_from(child.id()).unwrap_or_default());
        let following = match traced {
            Traced::Faulted(fault) => Some(Tracer::attach(root, program(), &self.root, *fault)?),
            Traced::No => None,
        };
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(b"go\n")?;
        }
        let (trace, hung) = limited(&self.root, || match following {
            Some(it) => it.follow(),
            None => Ok(Trace {
                code: child.wait()?.code(),
                ..Trace::default()
            }),
        });
        let printed = fs::read(&log).unwrap_or_default();
        Ok(JobResult {
            trace: trace?,
            hung,
            output: String::from_utf8_lossy(&printed).into_owned(),
        })
    }
}

impl Drop for Scene<'_> {
    fn drop(&mut self) {
        self.end_processes();
    }
}

fn search(folder: &Path, bytes: &[u8], found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            search(&path, bytes, found);
        } else if fs::read(&path).is_ok_and(|it| it == bytes) {
            found.push(path);
        }
    }
}
