//! Builds of the source as it is, and of the copy that contains a fault.
//!
//! Both use the same build directory and the same features, so that the dependencies are built
//! once. `RUSTC_WORKSPACE_WRAPPER` keeps the artifacts of the workspace's own packages apart:
//! cargo hashes it into their names. What cargo names without a hash, such as the binary, lies
//! in a target directory of the copy.

use std::{
    env,
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
            Some(target) => command.args([selector(target), target]),
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
        command.args(["--no-run", selector(&target), &target]);
        executable(&mut command, &package, &target)
    }

    /// Builds the product's binary in the copy, and returns its path.
    pub(crate) fn build_binary(&self, tree: &Tree) -> Result<PathBuf, Failed> {
        let mut command = self.in_copy(tree, "build");
        // With a test target selected, cargo unites the features as for tests.
        command.args(["--bin", BINARY, "--test", EMPTY]);
        let messages = messages(&mut command)?;
        let mut executables = messages.iter().filter_map(|message| {
            let is_it = message["target"]["name"] == BINARY;
            message["executable"].as_str().filter(|_| is_it)
        });
        let path = executables.next().ok_or("cargo built no binary")?;
        Ok(path.into())
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
        let mut command = rig::cargo();
        command
            .args([verb, "--workspace", "--profile", &self.profile])
            .args(["--message-format", "json-render-diagnostics"])
            .current_dir(folder);
        command
    }
}

/// The option of cargo that selects a target: `drift` is a binary with unit tests.
fn selector(target: &str) -> &'static str {
    match target {
        "drift" => "--bin",
        _ => "--test",
    }
}

/// Builds, and returns the program of one test target.
fn executable(command: &mut Command, package: &str, target: &str) -> Result<Executable, Failed> {
    let messages = messages(command)?;
    let found = messages.iter().find_map(|message| {
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
fn messages(command: &mut Command) -> Result<Vec<Value>, Failed> {
    let output = command.output()?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(format!("it does not compile:\n{errors}").into());
    }
    let lines = String::from_utf8_lossy(&output.stdout);
    let messages = lines
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    Ok(messages.collect())
}
