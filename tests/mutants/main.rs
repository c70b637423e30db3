//! Plants a known fault into a copy of the source, and sees the named test catch it.
//!
//! A test that cannot fail proves nothing. Each file here is one fault; see README.md.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use libtest_mimic::{Arguments, Failed, Trial};
use serde::Deserialize;

/// One fault, and who has to notice it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutant {
    /// What goes wrong, for readers.
    #[serde(rename = "about")]
    _about: String,
    /// The package whose tests notice.
    package: String,
    /// Which of its test programs, if it is not its unit tests.
    program: Option<String>,
    /// The file that is changed, from the workspace's root.
    file: PathBuf,
    /// What stands there, exactly once.
    find: String,
    /// What stands there instead.
    replace: String,
    /// The test that must fail.
    caught_by: String,
}

fn main() {
    let mut arguments = Arguments::from_args();
    // There is one copy of the source, and cargo would not build two at once anyway.
    arguments.test_threads = Some(1);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("mutants");
    let mut trials: Vec<_> = fs::read_dir(folder)
        .expect("the folder of the mutants")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .map(|path| {
            let name = path
                .file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            Trial::test(name, move || is_caught(&path))
        })
        .collect();
    trials.sort_by(|a, b| a.name().cmp(b.name()));
    libtest_mimic::run(&arguments, trials).exit();
}

fn is_caught(path: &Path) -> Result<(), Failed> {
    let mutant: Mutant = toml::from_str(&fs::read_to_string(path)?)?;
    let tree = copy_of_the_source()?;
    let file = tree.join(&mutant.file);
    let source = fs::read_to_string(&file)?;
    let places = source.matches(&mutant.find).count();
    if places != 1 {
        return Err(format!("{} has {places} places for it", mutant.file.display()).into());
    }
    let before = test(&tree, &mutant)?;
    if !before.contains("test result: ok. 1 passed") {
        return Err(format!(
            "{} does not pass without the fault:\n{before}",
            mutant.caught_by
        )
        .into());
    }
    fs::write(&file, source.replace(&mutant.find, &mutant.replace))?;
    let after = test(&tree, &mutant)?;
    if after.contains(&format!("test {} ... FAILED", mutant.caught_by)) {
        Ok(())
    } else {
        Err(format!("{} does not notice:\n{after}", mutant.caught_by).into())
    }
}

/// Lays the source out as it is, under `target`. Files that did not change are left alone,
/// so that only what a fault touches is built again.
fn copy_of_the_source() -> io::Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("a workspace");
    let tree = root.join("target/mutants/tree");
    for part in ["crates", "backends", "tests", "Cargo.toml", "Cargo.lock"] {
        copy(&root.join(part), &tree.join(part))?;
    }
    // The end-to-end tests look for Codex there, and shall not fetch it again.
    let [ours, theirs] = [root, &tree].map(|root| root.join("target/codex"));
    fs::create_dir_all(&ours)?;
    fs::create_dir_all(tree.join("target"))?;
    if !theirs.exists() {
        symlink(&ours, &theirs)?;
    }
    Ok(tree)
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    if from.is_dir() {
        for entry in fs::read_dir(from)? {
            let name = entry?.file_name();
            copy(&from.join(&name), &to.join(&name))?;
        }
        Ok(())
    } else {
        write(to, &fs::read(from)?)
    }
}

fn write(to: &Path, bytes: &[u8]) -> io::Result<()> {
    if fs::read(to).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    fs::create_dir_all(to.parent().expect("a folder"))?;
    fs::write(to, bytes)
}

/// Runs the one test, and returns what cargo said.
fn test(tree: &Path, mutant: &Mutant) -> io::Result<String> {
    let mut program = vec!["--lib"];
    if let Some(name) = &mutant.program {
        program = vec!["--test", name];
    }
    let output = Command::new(env!("CARGO"))
        .args(["test", "--color", "never", "--package", &mutant.package])
        .args(program)
        .args(["--", "--exact", &mutant.caught_by])
        .current_dir(tree)
        .env("CARGO_TARGET_DIR", tree.with_file_name("target"))
        .output()?;
    let said = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&said).into_owned())
}
