//! An ephemeral machine for one job.

use std::{
    ffi::OsStr,
    fs,
    io::{self, Read, Seek, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, OpenOptionsExt, symlink},
    },
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{Codex, Stub};

/// The Codex arguments of the tests' job.
pub const EXEC: [&str; 4] = ["exec", "--skip-git-repo-check", "--json", "Reply OK."];

/// The timeout of a job: a longer one counts as hung.
const JOB_TIMEOUT: Duration = Duration::from_mins(3);

/// An ephemeral runner: a user's home, a Codex home without a login, and an environment in which
/// Codex reaches only the stub. Its folder is removed when this is dropped.
///
/// It lies in the system's temporary directory, outside any git work tree.
#[derive(Debug)]
pub struct Runner {
    root: PathBuf,
    environment: Vec<(&'static str, String)>,
    _delete_on_drop: TempDir,
}

impl Runner {
    /// Sets up a runner with `codex` and `node` on its `PATH`.
    pub fn new(stub: &Stub, codex: &Codex) -> io::Result<Self> {
        let directory = TempDir::with_prefix("rig-")?;
        // On some systems the path of the temporary directory contains a symbolic link.
        let root = directory.path().canonicalize()?;
        let address = stub.address();
        let at = |path: &str| root.join(path).display().to_string();
        let runner = Self {
            environment: vec![
                ("PATH", format!("{}:/usr/bin:/bin", at("bin"))),
                ("HOME", at("home")),
                ("TMPDIR", at("tmp")),
                ("CODEX_HOME", at("home/.codex")),
                (
                    "CODEX_REFRESH_TOKEN_URL_OVERRIDE",
                    format!("http://{address}/oauth/token"),
                ),
                (
                    "CODEX_REVOKE_TOKEN_URL_OVERRIDE",
                    format!("http://{address}/oauth/revoke"),
                ),
                // Codex's requests to other hosts end at the stub too.
                ("HTTPS_PROXY", format!("http://{address}")),
                ("NO_PROXY", "127.0.0.1".to_owned()),
            ],
            root,
            _delete_on_drop: directory,
        };
        for path in ["bin", "tmp", "work", "home", "home/.codex"] {
            fs::DirBuilder::new()
                .mode(0o700)
                .create(runner.root.join(path))?;
        }
        fs::write(runner.codex_home().join("config.toml"), config(stub))?;
        runner.link("codex", codex.native())?;
        runner.link("node", codex.node())?;
        Ok(runner)
    }

    /// Returns the directory that is `$CODEX_HOME`.
    #[must_use]
    pub fn codex_home(&self) -> PathBuf {
        self.root.join("home/.codex")
    }

    /// Returns the path of the auth file, which does not exist at first.
    #[must_use]
    pub fn auth_file(&self) -> PathBuf {
        self.codex_home().join("auth.json")
    }

    /// Returns the directory that contains everything of this machine.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the ids of the processes that have the environment of this runner, reparented ones
    /// too. Needs Linux.
    pub fn processes(&self) -> io::Result<Vec<u32>> {
        let root = self.root.as_os_str().as_bytes();
        let processes = fs::read_dir("/proc")?.filter_map(|entry| {
            let name = entry.ok()?.file_name();
            let id: u32 = name.to_str()?.parse().ok()?;
            // A process that has ended has no environment, or no entry.
            let environment = fs::read(format!("/proc/{id}/environ")).ok()?;
            let is_ours = environment.windows(root.len()).any(|part| part == root);
            is_ours.then_some(id)
        });
        Ok(processes.collect())
    }

    /// Returns the empty directory that commands start in.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.root.join("work")
    }

    /// Writes a login to the auth file, as `codex login` would.
    pub fn place(&self, auth_json: &str) -> io::Result<()> {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.auth_file())?;
        file.write_all(auth_json.as_bytes())
    }

    /// Links a program under a new name into the first folder of `PATH`.
    pub fn link(&self, name: &str, program: &Path) -> io::Result<()> {
        let link = self.root.join("bin").join(name);
        if link.is_symlink() {
            fs::remove_file(&link)?;
        }
        symlink(program, link)
    }

    /// Returns a command with exactly the environment of this runner and no input. Every signal has
    /// its default action, even if this process ignores some.
    ///
    /// A bare name is looked up on the `PATH` of the runner.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = with_default_signals(program.as_ref());
        command
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(self.work())
            .stdin(Stdio::null());
        command
    }

    /// Returns the command of a job without authferry: `codex exec`.
    #[must_use]
    pub fn exec(&self) -> Command {
        let mut command = self.command("codex");
        command.args(EXEC);
        command
    }
}

/// Returns a command in which no signal is ignored.
///
/// A shell lets background jobs ignore SIGINT, and `nohup` lets them ignore SIGHUP; children
/// inherit that. Without unsafe code this process cannot reset it, so `env` of coreutils does
/// (8.31 and later) before it executes the program under the same process id.
fn with_default_signals(program: &OsStr) -> Command {
    if !ignores_signals() {
        return Command::new(program);
    }
    let mut command = Command::new("env");
    command.arg("--default-signal").arg(program);
    command
}

/// Returns whether this process ignores a signal that ends a process by default, except
/// SIGPIPE: Rust ignores it in every program, and resets it in the children.
fn ignores_signals() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // SIGHUP, SIGINT, SIGQUIT, SIGTERM.
    mask.is_some_and(|mask| {
        [1, 2, 3, 15]
            .iter()
            .any(|signal| mask & (1 << (signal - 1)) != 0)
    })
}

/// Runs a command and returns its output.
///
/// Unlike [`Command::output`] it returns when the command ends, even if a process that the command
/// left behind still has the output open.
///
/// # Panics
///
/// If the command cannot be started, or does not end within three minutes; it is killed then.
#[track_caller]
pub fn finish(command: &mut Command) -> Output {
    finish_within(JOB_TIMEOUT, command)
}

/// Runs a command as [`finish`] does, with another timeout.
///
/// # Panics
///
/// If the command cannot be started, or does not end in time; it is killed then.
#[track_caller]
pub fn finish_within(timeout: Duration, command: &mut Command) -> Output {
    let mut stdout = tempfile::tempfile().expect("a temporary file");
    let mut stderr = tempfile::tempfile().expect("a temporary file");
    let mut child = command
        .stdout(stdout.try_clone().expect("a file descriptor"))
        .stderr(stderr.try_clone().expect("a file descriptor"))
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    let deadline = Instant::now() + timeout;
    let status = loop {
        if let Some(status) = child.try_wait().expect("our own child") {
            break Some(status);
        }
        if Instant::now() > deadline {
            child.kill().expect("our own child");
            child.wait().expect("our own child");
            break None;
        }
        thread::sleep(Duration::from_millis(5));
    };
    let [stdout, stderr] = [&mut stdout, &mut stderr].map(|file| {
        let mut output = Vec::new();
        file.rewind().expect("a file");
        file.read_to_end(&mut output).expect("a file");
        output
    });
    let Some(status) = status else {
        panic!(
            "{command:?} is not done after {timeout:?}\n{}\n{}",
            String::from_utf8_lossy(&stdout),
            String::from_utf8_lossy(&stderr)
        );
    };
    Output {
        status,
        stdout,
        stderr,
    }
}

/// The built-in provider requires https, so the configuration defines another one.
fn config(stub: &Stub) -> String {
    let address = stub.address();
    format!(
        r#"model = "gpt-5-codex"
model_provider = "stub"
cli_auth_credentials_store = "file"
chatgpt_base_url = "http://{address}/backend-api/"
check_for_update_on_startup = false

[model_providers.stub]
name = "stub"
base_url = "http://{address}/backend-api/codex"
wire_api = "responses"
requires_openai_auth = true
supports_websockets = false
request_max_retries = 1
stream_max_retries = 1

[analytics]
enabled = false
"#
    )
}
