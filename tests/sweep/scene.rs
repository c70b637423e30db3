//! One machine with a store, and the jobs that run on it.

use std::{
    env,
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        LazyLock,
        mpsc::{RecvTimeoutError, channel},
    },
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;
use time::OffsetDateTime;

use crate::{
    stand_in::{LEDGER, LIVE, REFUSED, login, replace},
    store::Store,
    tracee::processes,
    tracer::{Fault, Position, Trace, Tracer},
};

/// How long a job may take before it counts as hung. The longest wait in one without a fault takes
/// less than a second.
const JOB_TIMEOUT: Duration = Duration::from_mins(2);

/// The numbers of the logins that a scene begins with.
const FIRST: u32 = 1;
const RESEED: u32 = 11;

/// What is swept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// Its name, for people.
    pub(crate) name: &'static str,
    /// The processes in which calls are swept.
    pub(crate) swept: &'static [&'static str],
    /// The job, in the shell's words: `$A` is authferry.
    job: &'static str,
    /// Whether the login in the store is due.
    is_due: bool,
    /// Whether an exit code of 0 says that the store holds the live login.
    pub(crate) promises: bool,
}

const STEPS: &str = r#""$A" restore --no-watch || exit; codex exec rotate || exit; "$A" persist"#;

/// Each command of the sweep.
pub(crate) const PARTS: [Part; 7] = [
    Part {
        name: "seed",
        swept: &["seed"],
        job: r#""$A" seed --replace "$ROOT/reseed.json""#,
        is_due: false,
        promises: true,
    },
    Part {
        name: "restore",
        swept: &["restore"],
        job: STEPS,
        is_due: false,
        promises: true,
    },
    Part {
        name: "persist",
        swept: &["persist"],
        job: STEPS,
        is_due: false,
        promises: true,
    },
    Part {
        name: "watch",
        swept: &["watch"],
        job: r#""$A" restore --no-watch || exit; "$A" watch & w=$!
i=0; while [ ! -e "$CODEX_HOME/authferry-watch" ] && [ $i -lt 40 ]; do sleep 0.01; i=$((i+1)); done
codex exec rotate || exit; sleep 0.1; kill "$w"; wait "$w""#,
        is_due: false,
        promises: false,
    },
    Part {
        name: "run_and_rotate",
        swept: &["run"],
        job: r#""$A" run --no-rotate-first -- codex exec"#,
        is_due: true,
        promises: true,
    },
    Part {
        name: "rotate_and_run",
        swept: &["run", "apart"],
        job: r#""$A" run -- codex exec"#,
        is_due: true,
        promises: true,
    },
    Part {
        name: "refresh",
        swept: &["refresh", "apart"],
        job: r#""$A" refresh"#,
        is_due: true,
        promises: true,
    },
];

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
            .env("CI_JOB_ID", format!("sweep-{}", self.store.next()))
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

/// Does something, and ends the processes of a scene if that takes too long.
fn limited<T>(root: &Path, act: impl FnOnce() -> T) -> (T, bool) {
    let (done, is_done) = channel::<()>();
    let root = root.to_owned();
    let guard = thread::spawn(move || {
        let hung = is_done.recv_timeout(JOB_TIMEOUT) == Err(RecvTimeoutError::Timeout);
        while hung && is_done.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout)
        {
            for id in processes(&root) {
                kill(id, Signal::SIGKILL).ok();
            }
        }
        hung
    });
    let result = act();
    drop(done);
    (result, guard.join().unwrap_or(true))
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

/// The program under test.
fn program() -> &'static Path {
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
        let path = Path::new(env!("CARGO_BIN_EXE_authferry-under-test"));
        path.canonicalize().expect("cargo built it")
    });
    &PROGRAM
}

/// The folder in which this program has the name of Codex.
fn tools() -> io::Result<PathBuf> {
    static MADE: LazyLock<io::Result<PathBuf>> = LazyLock::new(|| {
        let this = env::current_exe()?;
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/sweep/bin");
        fs::create_dir_all(&folder)?;
        let folder = folder.canonicalize()?;
        let new = folder.join(std::process::id().to_string());
        fs::hard_link(&this, &new)?;
        fs::rename(&new, folder.join("codex"))?;
        // Where both names are of one file already, nothing is renamed.
        fs::remove_file(&new).ok();
        Ok(folder)
    });
    match &*MADE {
        Ok(folder) => Ok(folder.clone()),
        Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
    }
}
