//! Mutation tests: each fault is compiled into a copy of the source, and the test that the
//! fault names must fail.
//!
//! A test that cannot fail proves nothing. Each `.toml` file here is one fault; see README.md.

mod build;
mod tree;

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use libtest_mimic::{Arguments, Failed, Trial};
use serde::Deserialize;

use crate::{
    build::{Cargo, Executable},
    tree::Tree,
};

/// One fault and the test that detects it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fault {
    /// What goes wrong, for readers.
    #[serde(rename = "about")]
    _about: String,
    /// The package that the test belongs to.
    package: String,
    /// The test target; the unit tests of the package without it.
    program: Option<String>,
    /// The file that is changed, relative to the workspace root.
    file: PathBuf,
    /// The text to replace, which occurs exactly once.
    find: String,
    /// The replacement.
    replace: String,
    /// The test that must fail.
    caught_by: String,
}

/// The test targets that reach the product through the binary that `AUTHFERRY_TEST_PROGRAM` names,
/// so that a fault costs no build of the target itself.
const DRIVES_THE_BINARY: [&str; 3] = ["cmd", "e2e", "github"];

/// The time limit of one test run. Only an infinite loop exceeds it: on a busy machine an
/// exhaustive check that a fault makes longer takes minutes.
const RUN_TIMEOUT: Duration = Duration::from_mins(30);

fn main() {
    let mut arguments = Arguments::from_args();
    // All faults share one copy of the source.
    arguments.test_threads = Some(1);
    let faults = faults();
    let mut trials: Vec<_> = faults
        .iter()
        .map(|(name, fault)| {
            let target = fault.program.as_deref().unwrap_or("unit");
            // Sorted by name, the faults of one test target follow each other, which saves builds.
            let name = format!("{}::{target}::{name}", fault.package);
            let (fault, faults) = (fault.clone(), faults.clone());
            Trial::test(name, move || is_caught(&fault, &faults))
        })
        .collect();
    trials.sort_by(|a, b| a.name().cmp(b.name()));
    libtest_mimic::run(&arguments, trials).exit();
}

/// Reads every fault with its name.
fn faults() -> Vec<(String, Fault)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("mutants");
    let entries = fs::read_dir(folder).expect("the folder of the faults");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut faults: Vec<_> = paths
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .map(|path| {
            let name = path.file_stem().expect("a name").to_string_lossy();
            let text = fs::read_to_string(&path).expect("a readable file");
            let fault = toml::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
            (name.into_owned(), fault)
        })
        .collect();
    faults.sort_by(|(a, _), (b, _)| a.cmp(b));
    faults
}

/// Compiles the fault in and runs its test, which must fail; without the fault it must pass.
fn is_caught(fault: &Fault, all: &[(String, Fault)]) -> Result<(), Failed> {
    let cargo = Cargo::of_this_run();
    fs::create_dir_all(cargo.folder())?;
    // A test runner may start each fault in a process of its own.
    let lock = File::create(cargo.folder().join("lock"))?;
    lock.lock()?;
    let units = unit_packages(all);
    let tree = Tree::sync(cargo.root(), &cargo.folder().join("tree"), &units)?;
    let file = tree.root().join(&fault.file);
    let source = fs::read_to_string(&file)?;
    let places = source.matches(&fault.find).count();
    if places != 1 {
        return Err(format!("{} has {places} places for it", fault.file.display()).into());
    }

    let before = before(&cargo, &tree, fault, all)?;
    if verdict(&before, &fault.caught_by) != Some("ok") {
        let name = &fault.caught_by;
        return Err(format!("{name} does not pass without the fault:\n{before}").into());
    }
    fs::write(&file, source.replace(&fault.find, &fault.replace))?;
    let target = fault.program.as_deref();
    let drives_the_binary = target.is_some_and(|target| DRIVES_THE_BINARY.contains(&target));
    let (program, binary) = if drives_the_binary {
        let program = cargo.find(&fault.package, target)?;
        (program, Some(cargo.build_binary(&tree)?))
    } else {
        let program = cargo.build_test(&tree, &fault.package, target)?;
        (program, None)
    };
    let after = run(&program, binary.as_deref(), &[&fault.caught_by]);
    if verdict(&after, &fault.caught_by) == Some("FAILED") {
        Ok(())
    } else {
        Err(format!("{} does not notice:\n{after}", fault.caught_by).into())
    }
}

/// Returns the packages whose unit tests detect faults.
fn unit_packages(all: &[(String, Fault)]) -> Vec<&str> {
    let of_units = all.iter().filter(|(_, fault)| fault.program.is_none());
    let mut packages: Vec<_> = of_units.map(|(_, fault)| fault.package.as_str()).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

/// Runs all named tests of the fault's test target in the source as it is, once for each
/// state of the source, and returns the output.
fn before(
    cargo: &Cargo,
    tree: &Tree,
    fault: &Fault,
    all: &[(String, Fault)],
) -> Result<String, Failed> {
    let target = fault.program.as_deref();
    let name = format!("before-{}-{}", fault.package, target.unwrap_or("unit"));
    let cache = cargo.folder().join(name);
    if let Some(output) = cached(&cache, tree)? {
        return Ok(output);
    }
    let mut tests: Vec<_> = all
        .iter()
        .map(|(_, other)| other)
        .filter(|other| other.package == fault.package && other.program == fault.program)
        .map(|other| other.caught_by.as_str())
        .collect();
    tests.sort_unstable();
    tests.dedup();
    let output = run(&cargo.find(&fault.package, target)?, None, &tests);
    let all_pass = tests
        .iter()
        .all(|test| verdict(&output, test) == Some("ok"));
    if all_pass {
        cache_as(&cache, tree, &output)?;
    }
    Ok(output)
}

/// Returns the content of a cache file, if the source has not changed since.
fn cached(cache: &Path, tree: &Tree) -> io::Result<Option<String>> {
    let text = match fs::read_to_string(cache) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let content = text.strip_prefix(&format!("{}\n", tree.hash()));
    Ok(content.map(str::to_owned))
}

fn cache_as(cache: &Path, tree: &Tree, content: &str) -> io::Result<()> {
    fs::write(cache, format!("{}\n{content}", tree.hash()))
}

/// Runs these tests of a program, maybe with another binary of the product, and returns its output.
fn run(program: &Executable, binary: Option<&Path>, tests: &[&str]) -> String {
    // The harness of the messages takes one name.
    let name = program.path.file_name().unwrap_or_default();
    let one_each = name.to_string_lossy().starts_with("cmd-");
    let runs = tests.chunks(if one_each { 1 } else { tests.len().max(1) });
    runs.map(|tests| run_once(program, binary, tests)).collect()
}

fn run_once(program: &Executable, binary: Option<&Path>, tests: &[&str]) -> String {
    let mut command = Command::new(&program.path);
    command
        .arg("--exact")
        .args(tests)
        .current_dir(&program.folder)
        .env("CARGO_MANIFEST_DIR", &program.folder)
        .envs(binary.map(|binary| ("AUTHFERRY_TEST_PROGRAM", binary)));
    let output = rig::finish_within(RUN_TIMEOUT, &mut command);
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

/// Returns what the test harness reports of one test.
fn verdict<'a>(output: &'a str, test: &str) -> Option<&'a str> {
    let mut reports = output.lines().filter_map(|line| {
        let report = line.strip_prefix("test ")?.strip_prefix(test)?;
        report.trim_start().strip_prefix("... ")
    });
    reports.next().map(str::trim_end)
}
