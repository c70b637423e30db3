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

/// The numbers of the logins that a scene begins with.
const FIRST: u32 = 1;
const RESEED: u32 = 11;

/// The job that follows on the machine.
const NEXT: &str = r#""$A" run --wait 5s -- codex exec"#;

/// A machine.
pub(crate) struct Scene<'a> {
    _folder: TempDir,
    root: PathBuf,
    store: &'a Store,
    number: usize,
}

/// Whether the calls of a job are followed.
enum Traced<'a> {
    No,
    /// They are, and this fault happens at one of them.
    Faulted(Option<(&'a Position, Fault)>),
}

/// What came of a job.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    pub(crate) trace: Trace,
    pub(crate) hung: bool,
    pub(crate) said: String,
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
            return Err(io::Error::other(seeded.said));
        }
        let live = if part.name == "seed" {
            reseed.auth_json()
        } else {
            first
        };
        replace(&scene.live_file(), live.as_bytes())?;
        Ok(scene)
    }

    /// Runs the job of a part, with a fault at one call, or to see which calls there are.
    pub(crate) fn faulted(
        &self,
        part: &Part,
        fault: Option<(&Position, Fault)>,
    ) -> io::Result<Ended> {
        self.job(part.job, &Traced::Faulted(fault))
    }

    /// Runs the job that follows.
    pub(crate) fn next(&self, part: &Part) -> io::Result<Ended> {
        // The person whose seed failed seeds again.
        if part.name == "seed" {
            self.job(part.job, &Traced::No)?;
        }
        self.job(NEXT, &Traced::No)
    }

    /// What is in the store, if that can be read.
    pub(crate) fn stored(&self) -> Vec<u8> {
        self.store.read(self.number, &self.root)
    }

    /// The auth file with the token that the provider accepts.
    pub(crate) fn live(&self) -> Vec<u8> {
        fs::read(self.live_file()).unwrap_or_default()
    }

    /// Which spent tokens were used.
    pub(crate) fn refused(&self) -> String {
        fs::read_to_string(self.root.join("ledger").join(REFUSED)).unwrap_or_default()
    }

    /// Lets the lease end, as a minute without its owner does.
    pub(crate) fn end_lease(&self) {
        self.store.end_lease(self.number, &self.root);
    }

    /// The files of the machine with these bytes that are no part of the setting.
    pub(crate) fn find(&self, bytes: &[u8]) -> Vec<PathBuf> {
        let mut found = Vec::new();
        search(&self.root.join("home"), bytes, &mut found);
        search(&self.root.join("tmp"), bytes, &mut found);
        search(&self.root.join("store"), bytes, &mut found);
        found
    }

    /// Ends the processes that are left; returns how many there were.
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

    /// Runs a job, whose only process without a fault is a shell: it is the job's caller, and ends
    /// with it.
    fn job(&self, job: &str, traced: &Traced<'_>) -> io::Result<Ended> {
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
        let said = fs::read(&log).unwrap_or_default();
        Ok(Ended {
            trace: trace?,
            hung,
            said: String::from_utf8_lossy(&said).into_owned(),
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
