//! The copy of the source that the faults are compiled into.

use std::{
    collections::BTreeSet,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use toml::{Table, Value};

/// What is copied: everything that cargo builds.
const PARTS: [&str; 4] = ["crates", "backends", "tests", "Cargo.lock"];

/// The suffix of a package that contains the unit tests of another one.
const UNIT: &str = "-unit";

/// A package without dependencies and with one test target, which is empty.
pub(crate) const EMPTY: &str = "empty";

/// A copy of the source without any fault, when it is made.
pub(crate) struct Tree {
    root: PathBuf,
    hash: u64,
}

impl Tree {
    /// Brings the copy up to date. A file that did not change keeps its modification time, so
    /// that cargo rebuilds only what the previous fault and the next one touch.
    ///
    /// `units` are the packages of which the copy contains the unit tests as packages.
    pub(crate) fn sync(source: &Path, root: &Path, units: &[&str]) -> io::Result<Self> {
        let mut hasher = DefaultHasher::new();
        for part in PARTS {
            copy(&source.join(part), &root.join(part), &mut hasher)?;
        }
        let manifest = fs::read_to_string(source.join("Cargo.toml"))?;
        manifest.hash(&mut hasher);
        let manifest = with_units(parse(&manifest)?, units)?;
        write(&root.join("Cargo.toml"), manifest.to_string().as_bytes())?;
        for package in units {
            let folder = folder_of(source, package)?;
            let manifest = fs::read_to_string(source.join(&folder).join("Cargo.toml"))?;
            let manifest = unit_manifest(parse(&manifest)?, package, &folder);
            let path = root.join("units").join(package).join("Cargo.toml");
            write(&path, manifest.to_string().as_bytes())?;
        }
        let empty = root.join("units").join(EMPTY);
        let manifest = format!(
            "[package]\nname = \"{EMPTY}\"\nedition = \"2024\"\n\n\
             [[test]]\nname = \"{EMPTY}\"\npath = \"main.rs\"\nharness = false\n"
        );
        write(&empty.join("Cargo.toml"), manifest.as_bytes())?;
        write(&empty.join("main.rs"), b"fn main() {}\n")?;
        // The rig keeps what it has installed under `target`.
        let target = root.join("target");
        if target.symlink_metadata().is_err() {
            symlink(source.join("target"), target)?;
        }
        Ok(Self {
            root: root.to_owned(),
            hash: hasher.finish(),
        })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The hash of every copied file, without any fault.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }
}

/// The test target that contains the unit tests of a package. It has the crate's name, so that
/// paths of types stay as they are.
pub(crate) fn unit_target(package: &str) -> String {
    package.replace('-', "_")
}

/// The package that contains the unit tests of another one.
pub(crate) fn unit_package(package: &str) -> String {
    format!("{package}{UNIT}")
}

/// Adds the packages of the unit tests to the workspace, with the profiles of the originals.
fn with_units(mut manifest: Table, units: &[&str]) -> io::Result<Table> {
    let members = manifest.get_mut("workspace");
    let members = members.and_then(|workspace| workspace.get_mut("members"));
    let members = members.and_then(Value::as_array_mut);
    let members = members.ok_or_else(|| io::Error::other("the workspace has no members"))?;
    members.push("units/*".into());
    let profiles = manifest.get_mut("profile").and_then(Value::as_table_mut);
    for (_, profile) in profiles.into_iter().flatten() {
        let packages = profile.get_mut("package").and_then(Value::as_table_mut);
        let Some(packages) = packages else {
            continue;
        };
        for package in units {
            if let Some(options) = packages.get(*package).cloned() {
                packages.insert(unit_package(package), options);
            }
        }
    }
    Ok(manifest)
}

/// Returns the manifest of a package whose one target is the unit tests of another package.
///
/// cargo selects test targets of the whole workspace by name, but unit tests only by package. A
/// selection of packages has different features, which would rebuild every dependency.
fn unit_manifest(mut manifest: Table, package: &str, folder: &Path) -> Table {
    for target in ["lib", "bin", "test", "bench", "example"] {
        manifest.remove(target);
    }
    let path = Path::new("../..").join(folder).join("src/lib.rs");
    let mut target = Table::new();
    target.insert("name".to_owned(), unit_target(package).into());
    target.insert("path".to_owned(), path.display().to_string().into());
    let targets = vec![Value::Table(target)];
    manifest.insert("test".to_owned(), targets.into());
    if let Some(about) = manifest.get_mut("package").and_then(Value::as_table_mut) {
        about.insert("name".to_owned(), unit_package(package).into());
    }
    manifest
}

/// Returns the folder of a package, relative to the workspace root.
fn folder_of(source: &Path, package: &str) -> io::Result<PathBuf> {
    let folders = ["crates", "backends"].map(|parent| Path::new(parent).join(package));
    let mut folders = folders.into_iter();
    folders
        .find(|folder| source.join(folder).join("Cargo.toml").is_file())
        .ok_or_else(|| io::Error::other(format!("no such package: {package}")))
}

fn parse(manifest: &str) -> io::Result<Table> {
    manifest.parse().map_err(io::Error::other)
}

/// Copies a file or a folder, removes what the source no longer has, and hashes the content.
fn copy(from: &Path, to: &Path, hasher: &mut DefaultHasher) -> io::Result<()> {
    from.hash(hasher);
    if !from.is_dir() {
        let bytes = fs::read(from)?;
        bytes.hash(hasher);
        return write(to, &bytes);
    }
    let names = names(from)?;
    for name in &names {
        copy(&from.join(name), &to.join(name), hasher)?;
    }
    for name in self::names(to)?.difference(&names) {
        let stale = to.join(name);
        if stale.is_dir() {
            fs::remove_dir_all(stale)?;
        } else {
            fs::remove_file(stale)?;
        }
    }
    Ok(())
}

/// Returns the names in a folder, none if it does not exist.
fn names(folder: &Path) -> io::Result<BTreeSet<std::ffi::OsString>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry?.file_name())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(error) => Err(error),
    }
}

fn write(to: &Path, bytes: &[u8]) -> io::Result<()> {
    if fs::read(to).is_ok_and(|present| present == bytes) {
        return Ok(());
    }
    fs::create_dir_all(to.parent().expect("a folder"))?;
    fs::write(to, bytes)
}
