//! Where the story is played: a store that stays, and machines that come and go.

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

use crate::{Told, check::claim, job::Job};

/// What this program is called to be the product.
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

/// What a store says that it holds.
#[derive(PartialEq)]
pub(crate) struct Held {
    pub(crate) fingerprint: String,
    pub(crate) version: String,
    pub(crate) generation: Option<u64>,
}

impl Stage {
    /// Removes what an earlier demo left, and sets the stage anew.
    pub(crate) fn set(codex: Codex, stub: Stub) -> io::Result<Self> {
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

    /// Returns how the folder with all that outlives the machines is called from here.
    pub(crate) fn folder(&self) -> Display<'_> {
        let here = env::current_dir().unwrap_or_default();
        let folder = self.folder.strip_prefix(here);
        folder.unwrap_or(&self.folder).display()
    }

    /// Returns the file that is the store.
    pub(crate) fn store(&self) -> PathBuf {
        self.folder.join("login.json")
    }

    /// Returns what the file holds.
    pub(crate) fn stored(&self) -> io::Result<Vec<u8>> {
        fs::read(self.store())
    }

    /// Runs `authferry seed` on a login, which belongs to the store from there on.
    pub(crate) fn seed(&self, login: &Login) -> Told {
        let desk = tempfile::tempdir()?;
        let file = written(&desk, login.auth_json().as_bytes())?;
        let mut seed = self.authferry(&self.store());
        let seeded = seed.arg("seed").arg(file).output()?;
        let said = String::from_utf8_lossy(&seeded.stderr);
        claim(
            seeded.status.success(),
            &format!("the login is seeded: {said}"),
        )
    }

    /// Asks `authferry status` what the store holds.
    pub(crate) fn status(&self) -> Told<Held> {
        self.status_of(&self.store())
    }

    /// Asks `authferry status` for the fingerprint of an auth file's bytes.
    pub(crate) fn fingerprint(&self, auth_json: &[u8]) -> Told<String> {
        // A file by itself is a store that was filled by hand.
        let desk = tempfile::tempdir()?;
        let file = written(&desk, auth_json)?;
        Ok(self.status_of(&file)?.fingerprint)
    }

    /// Has a new machine do something. Then it is gone, unless it went wrong.
    pub(crate) fn on_a_machine<T>(&self, act: impl FnOnce(&Runner) -> Told<T>) -> Told<T> {
        let machine = Runner::new(&self.stub, &self.codex)?;
        machine.link(AUTHFERRY, &self.program)?;
        let home = machine.codex_home();
        match act(&machine) {
            Ok(done) => {
                drop(machine);
                claim(!home.exists(), "the machine is gone")?;
                Ok(done)
            }
            Err(why) => {
                mem::forget(machine);
                Err(format!("{why}\nThe machine was kept: {}", home.display()).into())
            }
        }
    }

    /// Returns the command of a machine that has authferry.
    pub(crate) fn with_authferry(&self, machine: &Runner) -> Command {
        let mut command = machine.command(AUTHFERRY);
        command
            .env("AUTHFERRY_STORE", address(&self.store()))
            .args(["run", "--no-rotate-first", "--", "codex"])
            .args(EXEC);
        command
    }

    /// Returns the command of a machine that has Codex alone.
    pub(crate) fn alone(machine: &Runner) -> Command {
        let mut command = machine.command("codex");
        command.args(EXEC);
        command
    }

    /// Runs a job, with an eye on where a login newer than `old` comes up.
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

    /// Returns what authferry said of the login after a job.
    pub(crate) fn told(&self, job: &Job) -> Told<String> {
        let mut lines = job.said.lines();
        let told = lines.find_map(|line| line.strip_prefix("authferry: "));
        let told = told.ok_or("authferry did not say what became of the login")?;
        Ok(told.replace(&self.folder.display().to_string(), "/…"))
    }

    fn status_of(&self, file: &Path) -> Told<Held> {
        let status = self.authferry(file).args(["status", "--json"]).output()?;
        let told: Value = serde_json::from_slice(&status.stdout)?;
        let text = |name: &str| {
            let text = told[name].as_str();
            text.map(str::to_owned)
                .ok_or_else(|| format!("no {name} in {told}"))
        };
        Ok(Held {
            fingerprint: text("fingerprint")?,
            version: text("version")?,
            generation: told["generation"].as_u64(),
        })
    }

    /// `authferry` on the desk of whoever looks after the store.
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

/// Writes an auth file that nobody else may read.
fn written(folder: &TempDir, auth_json: &[u8]) -> io::Result<PathBuf> {
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
