//! The setup of the demo: a persistent store, and ephemeral machines.

use std::{
    env, fmt,
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    mem,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink},
    path::{Display, Path, PathBuf},
    process::Command,
};

use rig::{Codex, Login, Runner, Stub};
use serde_json::Value;
use tempfile::TempDir;

use crate::{DemoResult, check::require, job::Job};

/// The name under which this program acts as the product.
pub(crate) const AUTHFERRY: &str = "authferry";

/// The arguments of Codex.
const EXEC: [&str; 3] = ["exec", "--skip-git-repo-check", "Reply OK."];

/// A store, the provider, and a Codex for the machines.
pub(crate) struct Stage {
    pub(crate) stub: Stub,
    codex: Codex,
    folder: PathBuf,
    program: PathBuf,
}

/// The content of the store, from `authferry status`.
#[derive(PartialEq)]
pub(crate) struct Held {
    pub(crate) fingerprint: String,
    pub(crate) version: String,
    pub(crate) generation: Option<u64>,
}

impl Stage {
    /// Removes the files of an earlier demo, and sets up a new store.
    pub(crate) fn new(codex: Codex, stub: Stub) -> io::Result<Self> {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target");
        let folder = target.join("demo");
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(&folder)?;
        let program = folder.join(AUTHFERRY);
        symlink(env::current_exe()?, &program)?;
        Ok(Self {
            stub,
            codex,
            folder,
            program,
        })
    }

    /// Returns the folder of the store and the logs, relative to the current folder.
    pub(crate) fn folder(&self) -> Display<'_> {
        let here = env::current_dir().unwrap_or_default();
        let folder = self.folder.strip_prefix(here);
        folder.unwrap_or(&self.folder).display()
    }

    /// Returns the file of the store.
    pub(crate) fn store(&self) -> PathBuf {
        self.folder.join("login.json")
    }

    /// Returns the bytes in the store.
    pub(crate) fn stored(&self) -> io::Result<Vec<u8>> {
        fs::read(self.store())
    }

    /// Runs `authferry seed` with a login.
    pub(crate) fn seed(&self, login: &Login) -> DemoResult {
        let folder = tempfile::tempdir()?;
        let file = write_auth_file(&folder, login.auth_json().as_bytes())?;
        let mut seed = self.authferry(&self.store());
        let seeded = seed.arg("seed").arg(file).output()?;
        let stderr = String::from_utf8_lossy(&seeded.stderr);
        require(
            seeded.status.success(),
            &format!("the login is seeded: {stderr}"),
        )
    }

    /// Returns the store's content by `authferry status`.
    pub(crate) fn status(&self) -> DemoResult<Held> {
        self.status_of(&self.store())
    }

    /// Returns the fingerprint of an auth file by `authferry status`.
    pub(crate) fn fingerprint(&self, auth_json: &[u8]) -> DemoResult<String> {
        // A single file is a store that was filled manually.
        let folder = tempfile::tempdir()?;
        let file = write_auth_file(&folder, auth_json)?;
        Ok(self.status_of(&file)?.fingerprint)
    }

    /// Runs `act` on a new machine, and deletes the machine if it succeeds.
    pub(crate) fn on_a_machine<T>(
        &self,
        act: impl FnOnce(&Runner) -> DemoResult<T>,
    ) -> DemoResult<T> {
        let machine = Runner::new(&self.stub, &self.codex)?;
        machine.link(AUTHFERRY, &self.program)?;
        let home = machine.codex_home();
        match act(&machine) {
            Ok(done) => {
                drop(machine);
                require(!home.exists(), "the machine is deleted")?;
                Ok(done)
            }
            Err(why) => {
                mem::forget(machine);
                Err(format!("{why}\nThe machine was kept: {}", home.display()).into())
            }
        }
    }

    /// Returns the command of a machine with authferry.
    pub(crate) fn with_authferry(&self, machine: &Runner) -> Command {
        let mut command = machine.command(AUTHFERRY);
        command
            .env("AUTHFERRY_STORE", address(&self.store()))
            .args(["run", "--no-rotate-first", "--", "codex"])
            .args(EXEC);
        command
    }

    /// Returns the command of a machine with only Codex.
    pub(crate) fn codex_only(machine: &Runner) -> Command {
        let mut command = machine.command("codex");
        command.args(EXEC);
        command
    }

    /// Runs a job, and records when a login newer than `old` appears.
    pub(crate) fn watch(
        &self,
        machine: &Runner,
        command: &mut Command,
        old: &[u8],
    ) -> io::Result<Job> {
        let log = self.folder.join("last-run.txt");
        let (home, store) = (machine.auth_file(), self.store());
        Job::watch(command, &log, &self.stub, old, [&home, &store])
    }

    /// Returns authferry's message about the login after a job.
    pub(crate) fn summary(&self, job: &Job) -> DemoResult<String> {
        let mut lines = job.output.lines();
        let summary = lines.find_map(|line| line.strip_prefix("authferry: "));
        let summary = summary.ok_or("authferry printed nothing about the login")?;
        Ok(summary.replace(&self.folder.display().to_string(), "/…"))
    }

    fn status_of(&self, file: &Path) -> DemoResult<Held> {
        let status = self.authferry(file).args(["status", "--json"]).output()?;
        let report: Value = serde_json::from_slice(&status.stdout)?;
        let text = |name: &str| {
            let text = report[name].as_str();
            text.map(str::to_owned)
                .ok_or_else(|| format!("no {name} in {report}"))
        };
        Ok(Held {
            fingerprint: text("fingerprint")?,
            version: text("version")?,
            generation: report["generation"].as_u64(),
        })
    }

    /// `authferry` on the machine of the store's administrator.
    fn authferry(&self, store: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .env("HOME", &self.folder)
            .env("AUTHFERRY_STORE", address(store));
        command
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "login {}, ", self.fingerprint)?;
        if let Some(generation) = self.generation {
            write!(f, "generation {generation}, ")?;
        }
        write!(f, "version {}", self.version)
    }
}

/// Returns the names in a folder.
pub(crate) fn names(folder: &Path) -> io::Result<Vec<String>> {
    let name =
        |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
    fs::read_dir(folder)?.map(name).collect()
}

fn address(store: &Path) -> String {
    format!("file://{}", store.display())
}

/// Writes an auth file of mode 0600.
fn write_auth_file(folder: &TempDir, auth_json: &[u8]) -> io::Result<PathBuf> {
    let path = folder.path().join("auth.json");
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    file.write_all(auth_json)?;
    Ok(path)
}
