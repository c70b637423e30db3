//! Mutation tests: each fault is compiled into a copy of the source, and the test that the
//! fault names must fail.
//!
//! A test that cannot fail proves nothing. Each `.toml` file here is one fault; see README.md.

mod build;
mod tree;

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    env,
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
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
    /// The consequence of the fault, for readers.
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

/// How many faults the gate draws: each costs a build.
const DRAWN: usize = 20;

/// The time limit of one test run. Only an infinite loop exceeds it: on a busy machine an
/// exhaustive check that a fault makes longer takes minutes.
const RUN_TIMEOUT: Duration = Duration::from_mins(30);

fn main() {
    let mut arguments = Arguments::from_args();
    // All faults share one copy of the source.
    arguments.test_threads = Some(1);
    let faults = faults();
    let drawn = drawn(&faults);
    let mut trials: Vec<_> = faults
        .iter()
        .map(|(name, fault)| {
            let target = fault.program.as_deref().unwrap_or("unit");
            let left_out = drawn.as_ref().is_some_and(|drawn| !drawn.contains(name));
            // Sorted by name, the faults of one test target follow each other, which saves builds.
            let name = format!("{}::{target}::{name}", fault.package);
            let (fault, faults) = (fault.clone(), faults.clone());
            Trial::test(name, move || is_caught(&fault, &faults)).with_ignored_flag(left_out)
        })
        .collect();
    trials.sort_by(|a, b| a.name().cmp(b.name()));
    // Also those that are not drawn fit the source and name a test that exists.
    trials.push(Trial::test(
        "every_fault_has_its_place_and_its_test",
        move || check_places(&faults),
    ));
    libtest_mimic::run(&arguments, trials).exit();
}

/// The names of the faults that the gate draws from its seed, or `None` for all of them: without a
/// seed, or in a run of everything.
fn drawn(faults: &[(String, Fault)]) -> Option<BTreeSet<String>> {
    let seed = env::var("AUTHFERRY_TEST_SEED").ok()?;
    if env::var_os("AUTHFERRY_TEST_ALL").is_some() {
        return None;
    }
    let mut by_chance: Vec<_> = faults
        .iter()
        .map(|(name, _)| {
            let mut hasher = DefaultHasher::new();
            (&seed, name).hash(&mut hasher);
            (hasher.finish(), name.clone())
        })
        .collect();
    by_chance.sort();
    Some(
        by_chance
            .into_iter()
            .take(DRAWN)
            .map(|(_, name)| name)
            .collect(),
    )
}

/// Checks that each fault has exactly one place in the source, and that its test exists.
fn check_places(faults: &[(String, Fault)]) -> Result<(), Failed> {
    let cargo = Cargo::of_this_run();
    let mut tests = BTreeMap::new();
    let mut wrong = Vec::new();
    for (name, fault) in faults {
        let source = fs::read_to_string(cargo.root().join(&fault.file))?;
        let places = source.matches(&fault.find).count();
        if places != 1 {
            wrong.push(format!(
                "{name}: {} has {places} places for it",
                fault.file.display()
            ));
        }
        let program = (fault.package.as_str(), fault.program.as_deref());
        let known = match tests.entry(program) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(vacant) => vacant.insert(test_names(&cargo.find(program.0, program.1)?)?),
        };
        if !known.contains(&fault.caught_by) {
            wrong.push(format!("{name}: no such test: {}", fault.caught_by));
        }
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(wrong.join("\n").into())
    }
}

/// The names of a program's tests.
fn test_names(program: &Executable) -> Result<BTreeSet<String>, Failed> {
    let output = Command::new(&program.path)
        .args(["--list", "--format", "terse"])
        .current_dir(&program.folder)
        .env("CARGO_MANIFEST_DIR", &program.folder)
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let names = text.lines().filter_map(|line| line.strip_suffix(": test"));
    Ok(names.map(str::to_owned).collect())
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
    // A test runner may start one process per fault.
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

    if !is_run_by_the_gate(fault) {
        let before = baseline_output(&cargo, &tree, fault, all)?;
        if verdict(&before, &fault.caught_by) != Some("ok") {
            let name = &fault.caught_by;
            return Err(format!("{name} does not pass without the fault:\n{before}").into());
        }
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

/// Whether the run that this is part of shows by itself that the test passes without the fault: the
/// gate runs every test of every program but `e2e`, of which it draws a sample.
fn is_run_by_the_gate(fault: &Fault) -> bool {
    env::var_os("AUTHFERRY_TEST_SEED").is_some() && fault.program.as_deref() != Some("e2e")
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
fn baseline_output(
    cargo: &Cargo,
    tree: &Tree,
    fault: &Fault,
    all: &[(String, Fault)],
) -> Result<String, Failed> {
    let target = fault.program.as_deref();
    let name = format!("before-{}-{}", fault.package, target.unwrap_or("unit"));
    let cache = cargo.folder().join(name);
    let drawn = drawn(all);
    let is_drawn = |name| drawn.as_ref().is_none_or(|drawn| drawn.contains(name));
    let mut tests: Vec<_> = all
        .iter()
        .filter(|(name, _)| is_drawn(name))
        .map(|(_, other)| other)
        .filter(|other| other.package == fault.package && other.program == fault.program)
        .map(|other| other.caught_by.as_str())
        .collect();
    tests.sort_unstable();
    tests.dedup();
    if let Some(output) = cached(&cache, tree)? {
        // Another seed draws other tests.
        if verdict(&output, &fault.caught_by).is_some() {
            return Ok(output);
        }
    }
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
    // The message test harness accepts one name.
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
