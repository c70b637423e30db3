//! What a scenario works with: one version of Codex, the program under test, a file store, and the
//! provider's stub.

use std::{
    env,
    error::Error,
    fmt, fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use rig::{Codex, EXEC, Login, MARKERS, Runner, Stub, What, finish};
use serde_json::Value;
use tempfile::TempDir;

use crate::facts::Facts;

/// The name under which this program acts as the product.
pub(crate) const AUTHFERRY: &str = "authferry";

/// How long an awaited state may take.
const WAIT_LIMIT: Duration = Duration::from_mins(2);

/// What a scenario observed, in words that are the same in each run; or why it could not end.
pub(crate) type Seen = Result<String, Box<dyn Error>>;

/// One version of Codex, and the program under test.
#[derive(Clone, Debug)]
pub(crate) struct Bench {
    pub(crate) codex: Codex,
    pub(crate) facts: Facts,
    program: PathBuf,
}

impl Bench {
    /// Installs a version of Codex if it is missing.
    pub(crate) fn of(version: &str, program: &Path) -> Result<Self, Box<dyn Error>> {
        Ok(Self {
            codex: Codex::install(version)?,
            facts: Facts::of(version),
            program: program.to_owned(),
        })
    }

    /// Places a login in the home of a fresh runner, for Codex alone.
    pub(crate) fn codex_alone(&self, login: &Login) -> Result<(Stub, Runner), Box<dyn Error>> {
        let stub = Stub::start(login);
        let runner = Runner::new(&stub, &self.codex)?;
        runner.place(&login.auth_json())?;
        Ok((stub, runner))
    }
}

/// Copies this program under the product's name, so that a build meanwhile does not change what is
/// tested.
pub(crate) fn copy_program(folder: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let program = folder.join(AUTHFERRY);
    fs::copy(env::current_exe()?, &program)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700))?;
    Ok(program)
}

/// A store that holds a login, and its provider.
pub(crate) struct Scene {
    pub(crate) stub: Stub,
    bench: Bench,
    seeded: Vec<u8>,
    folder: TempDir,
}

impl Scene {
    /// Signs a login in and seeds it.
    pub(crate) fn holding(bench: &Bench, login: &Login) -> Result<Self, Box<dyn Error>> {
        Self::holding_text(bench, login, &login.auth_json())
    }

    /// Signs a login in and seeds this text of its auth file.
    pub(crate) fn holding_text(
        bench: &Bench,
        login: &Login,
        text: &str,
    ) -> Result<Self, Box<dyn Error>> {
        let scene = Self {
            stub: Stub::start(login),
            bench: bench.clone(),
            seeded: text.as_bytes().to_owned(),
            folder: TempDir::with_prefix("store-")?,
        };
        let file = scene.folder.path().join("seed.json");
        fs::write(&file, text)?;
        let runner = scene.runner()?;
        let seeded = scene.act(&runner, &["seed", &file.display().to_string()]);
        if seeded.code == Some(0) {
            Ok(scene)
        } else {
            Err(format!("the seed failed: {seeded}").into())
        }
    }

    /// A fresh runner without a login.
    pub(crate) fn runner(&self) -> Result<Runner, Box<dyn Error>> {
        Ok(Runner::new(&self.stub, &self.bench.codex)?)
    }

    /// `authferry` on a runner. It leaves a report, which [`Self::result`] reads.
    pub(crate) fn authferry(&self, runner: &Runner, arguments: &[&str]) -> Command {
        let mut command = runner.command(&self.bench.program);
        let store = format!("file://{}", self.store().display());
        command
            .env("AUTHFERRY_STORE", store)
            .arg("--report")
            .arg(report(runner))
            .args(arguments);
        command
    }

    /// Runs `authferry` to its end.
    pub(crate) fn act(&self, runner: &Runner, arguments: &[&str]) -> Act {
        self.result(runner, &finish(&mut self.authferry(runner, arguments)))
    }

    /// The command of a job: `authferry run OPTIONS -- codex exec …`.
    pub(crate) fn job(&self, runner: &Runner, options: &[&str]) -> Command {
        let mut command = self.authferry(runner, &["run"]);
        command.args(options).args(["--", "codex"]).args(EXEC);
        command
    }

    /// Runs a job to its end.
    pub(crate) fn run_job(&self, runner: &Runner, options: &[&str]) -> Act {
        self.result(runner, &finish(&mut self.job(runner, options)))
    }

    /// Starts a job, without its output.
    pub(crate) fn start_job(
        &self,
        runner: &Runner,
        options: &[&str],
    ) -> Result<Child, Box<dyn Error>> {
        Ok(start(&mut self.job(runner, options))?)
    }

    /// Reads how `authferry` ended on a runner.
    #[expect(clippy::unused_self, reason = "reads like its siblings")]
    pub(crate) fn result(&self, runner: &Runner, output: &Output) -> Act {
        let text = fs::read(report(runner)).unwrap_or_default();
        let report: Value = serde_json::from_slice(&text).unwrap_or_default();
        Act {
            code: output.status.code(),
            outcome: report["outcome"].as_str().unwrap_or_default().to_owned(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The bytes in the store.
    pub(crate) fn stored(&self) -> Vec<u8> {
        fs::read(self.store()).unwrap_or_default()
    }

    /// Whether the store holds the login that was seeded.
    pub(crate) fn is_as_seeded(&self) -> bool {
        self.stored() == self.seeded
    }

    /// Whether the store holds the live generation.
    pub(crate) fn is_live(&self) -> bool {
        self.stub.is_live(&self.stored())
    }

    /// How many refreshes the provider got.
    pub(crate) fn refreshes(&self) -> usize {
        self.stub.count(What::is_refresh)
    }

    fn store(&self) -> PathBuf {
        self.folder.path().join("login.json")
    }
}

/// How `authferry` has ended.
#[derive(Debug)]
pub(crate) struct Act {
    pub(crate) code: Option<i32>,
    pub(crate) outcome: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Act {
    /// Whether the program printed a part of a token.
    pub(crate) fn leaks(&self) -> bool {
        let texts = [&self.stdout, &self.stderr];
        let mut leaks = texts
            .iter()
            .filter(|text| MARKERS.iter().any(|it| text.contains(it)));
        leaks.next().is_some()
    }

    /// Whether the program printed this text on standard error.
    pub(crate) fn says(&self, text: &str) -> bool {
        self.stderr.contains(text)
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (code, outcome) = (self.code, &self.outcome);
        write!(f, "{code:?} {outcome}\n{}{}", self.stdout, self.stderr)
    }
}

/// Starts a command without its output.
pub(crate) fn start(command: &mut Command) -> io::Result<Child> {
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()
}

/// Waits for a state.
pub(crate) fn wait_until(
    what: &str,
    mut holds: impl FnMut() -> bool,
) -> Result<(), Box<dyn Error>> {
    let deadline = Instant::now() + WAIT_LIMIT;
    while !holds() {
        if Instant::now() > deadline {
            return Err(format!("timed out: {what}").into());
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn report(runner: &Runner) -> PathBuf {
    runner.root().join("report.json")
}
