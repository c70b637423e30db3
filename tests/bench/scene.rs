//! The setting of the measurements.

use std::{
    env,
    ffi::OsStr,
    fs::{self, DirBuilder},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rig::Login;
use serde_json::Value;
use tempfile::TempDir;

/// The release binary, a store that holds a login, and a home without one.
pub(crate) struct Scene {
    program: PathBuf,
    folder: TempDir,
}

impl Scene {
    /// Builds the program and seeds a login.
    ///
    /// With `AUTHFERRY_TEST_BENCH=dev` it uses the program of the tests, which exists already: the
    /// gate tests the benchmark, and `tests/run --all` the release build as well.
    pub(crate) fn set() -> Self {
        let program = if env::var("AUTHFERRY_TEST_BENCH").is_ok_and(|profile| profile == "dev") {
            PathBuf::from(env!("CARGO_BIN_EXE_authferry-under-test"))
        } else {
            release_build()
        };
        let scene = Self {
            program,
            folder: TempDir::with_prefix("bench-").expect("a temporary folder"),
        };
        for folder in [scene.codex_home(), scene.elsewhere()] {
            DirBuilder::new().mode(0o700).create(folder).expect("room");
        }
        let login = scene.folder.path().join("to-be-seeded.json");
        fs::write(&login, Login::fresh().auth_json()).expect("room");
        let mut seed = scene.authferry(&["-q", "seed"]);
        let seeded = seed.arg(login).stderr(Stdio::null()).status();
        assert!(seeded.is_ok_and(|it| it.success()), "{seed:?} failed");
        scene
    }

    /// Returns the home of Codex.
    pub(crate) fn codex_home(&self) -> PathBuf {
        self.folder.path().join(".codex")
    }

    /// Returns an unused folder.
    pub(crate) fn elsewhere(&self) -> PathBuf {
        self.folder.path().join("elsewhere")
    }

    /// Returns the file that is the store.
    pub(crate) fn store(&self) -> PathBuf {
        self.folder.path().join("login.json")
    }

    /// Returns the path of the program.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// Returns the size of the program, in megabytes.
    pub(crate) fn size(&self) -> f64 {
        let program = fs::metadata(&self.program);
        megabytes(program.expect("just built").len())
    }

    /// Returns a command that finds the store and the home, outside any CI system.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let store = format!("file://{}", self.store().display());
        let mut command = Command::new(program);
        command
            .env_clear()
            .envs(env::var_os("PATH").map(|path| ("PATH", path)))
            .env("HOME", self.folder.path())
            .env("AUTHFERRY_STORE", store)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    /// Returns an authferry command.
    pub(crate) fn authferry(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(&self.program);
        command.args(arguments);
        command
    }
}

/// Returns bytes in megabytes.
pub(crate) fn megabytes(bytes: u64) -> f64 {
    let kilobytes = u32::try_from(bytes / 1000).expect("less than a terabyte");
    f64::from(kilobytes) / 1000.0
}

/// Builds the binary that users get: Cargo's build for a benchmark differs, because it shares
/// dependencies with this file.
fn release_build() -> PathBuf {
    let mut cargo = rig::cargo();
    cargo
        // The gate compiles with Clippy.
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .args(["build", "--release", "--package", "authferry"])
        .arg("--message-format=json-render-diagnostics")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit());
    let built = cargo.output().expect("cargo");
    assert!(built.status.success(), "{cargo:?} failed");
    let messages = String::from_utf8_lossy(&built.stdout);
    let program = messages.lines().find_map(|message| {
        let message: Value = serde_json::from_str(message).ok()?;
        message["executable"].as_str().map(PathBuf::from)
    });
    program.expect("cargo tells where the program is")
}
