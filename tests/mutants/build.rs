//! Builds of the source as it is, and of the copy that contains a fault.
//!
//! Both use the same build directory and the same features, so that the dependencies are built
//! once. `RUSTC_WORKSPACE_WRAPPER` keeps the artifacts of the workspace's own packages apart:
//! cargo hashes it into their names. What cargo names without a hash, such as the binary, lies
//! in a target directory of the copy.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
};

use libtest_mimic::Failed;
use serde_json::Value;

use crate::tree::{EMPTY, Tree, unit_package, unit_target};

/// A program that runs another one, as a compiler wrapper.
const WRAPPER: &str = "env";

/// The binary of the product that the end-to-end tests start.
const BINARY: &str = "authferry-under-test";

/// How cargo has built this program.
pub(crate) struct Cargo {
    root: PathBuf,
    target: PathBuf,
    profile: String,
}

/// A test program.
pub(crate) struct Executable {
    pub(crate) path: PathBuf,
    /// The folder of its package, in which cargo starts it.
    pub(crate) folder: PathBuf,
}

impl Cargo {
    pub(crate) fn of_this_run() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
        // It lies in TARGET/PROFILE/deps.
        let program = env::current_exe().expect("this program");
        let mut folders = program.ancestors().skip(2);
        let profile = folders.next().and_then(Path::file_name).expect("a profile");
        let profile = match profile.to_str().expect("a text") {
            "debug" => "test",
            other => other,
        };
        Self {
            root: root.expect("a workspace").to_owned(),
            target: folders.next().expect("a target directory").to_owned(),
            profile: profile.to_owned(),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of everything that the mutation tests write.
    pub(crate) fn folder(&self) -> PathBuf {
        self.target.join("mutants")
    }

    /// Returns a test program of the source as it is; builds it unless that is done.
    pub(crate) fn find(&self, package: &str, target: Option<&str>) -> Result<Executable, Failed> {
        let mut command = self.command(&self.root, "test");
        command
            .arg("--no-run")
            .env("CARGO_TARGET_DIR", &self.target);
        match target {
            Some(target) => command.args(["--test", target]),
            None => command.arg("--lib"),
        };
        executable(
            &mut command,
            package,
            target.unwrap_or(&unit_target(package)),
        )
    }

    /// Builds a test target in the copy.
    pub(crate) fn build_test(
        &self,
        tree: &Tree,
        package: &str,
        target: Option<&str>,
    ) -> Result<Executable, Failed> {
        let (package, target) = match target {
            Some(target) => (package.to_owned(), target.to_owned()),
            None => (unit_package(package), unit_target(package)),
        };
        let mut command = self.in_copy(tree, "test");
        command.args(["--no-run", "--test", &target]);
        executable(&mut command, &package, &target)
    }

    /// Builds the product's binary in the copy.
    pub(crate) fn build_binary(&self, tree: &Tree) -> Result<(), Failed> {
        let mut command = self.in_copy(tree, "build");
        // With a test target selected, cargo unites the features as for tests.
        command.args(["--bin", BINARY, "--test", EMPTY]);
        output(&mut command).map(drop)
    }

    fn in_copy(&self, tree: &Tree, verb: &str) -> Command {
        let mut command = self.command(tree.root(), verb);
        command
            // The lock file has no entries for the packages of the unit tests.
            .arg("--offline")
            .env("CARGO_BUILD_BUILD_DIR", &self.target)
            .env("CARGO_TARGET_DIR", self.folder().join("target"))
            .env("RUSTC_WORKSPACE_WRAPPER", WRAPPER)
            .env("CARGO_PROFILE_DEV_DEBUG", "false")
            .env("CARGO_PROFILE_TEST_DEBUG", "false");
        command
    }

    fn command(&self, folder: &Path, verb: &str) -> Command {
        let mut command = Command::new(env!("CARGO"));
        command
            .args([verb, "--workspace", "--profile", &self.profile])
            .args(["--message-format", "json-render-diagnostics"])
            .current_dir(folder);
        for (name, _) in env::vars_os().filter(|(name, _)| describes_this_test(name)) {
            command.env_remove(name);
        }
        command
    }
}

/// Returns whether cargo, or another test runner, has set this variable to describe the running
/// test. The build script of `ring` reads some of them, so that cargo would build it and all
/// that depends on it again.
fn describes_this_test(variable: &OsStr) -> bool {
    let variable = variable.to_string_lossy();
    let prefixes = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"];
    let names = [
        "CARGO_CRATE_NAME",
        "CARGO_PRIMARY_PACKAGE",
        "CARGO_TARGET_TMPDIR",
        "OUT_DIR",
    ];
    prefixes.iter().any(|prefix| variable.starts_with(prefix)) || names.contains(&variable.as_ref())
}

/// Builds, and returns the program of one test target.
fn executable(command: &mut Command, package: &str, target: &str) -> Result<Executable, Failed> {
    let messages = output(command)?;
    let mut messages = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let found = messages.find_map(|message| {
        let is_it = message["executable"].is_string()
            && message["profile"]["test"] == true
            && message["target"]["name"] == target
            && message["package_id"].as_str().is_some_and(|id| {
                id.contains(&format!("/{package}#")) || id.contains(&format!("#{package}@"))
            });
        let folder = Path::new(message["manifest_path"].as_str()?).parent()?;
        is_it.then(|| Executable {
            path: message["executable"].as_str().unwrap_or_default().into(),
            folder: folder.to_owned(),
        })
    });
    found.ok_or_else(|| format!("{package} has no test program {target}").into())
}

/// Runs cargo and returns its messages.
fn output(command: &mut Command) -> Result<String, Failed> {
    let output = command.output()?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let errors = String::from_utf8_lossy(&output.stderr);
        Err(format!("it does not compile:\n{errors}").into())
    }
}
