//! The invariants of `crates/README.md` that neither the compiler nor a lint holds.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

mod language;

/// Each of our packages, with those that it depends on at run time. A backend depends only on the
/// core and the HTTP client; only the binary depends on a backend.
const DIRECTIONS: &[(&str, &[&str])] = &[
    ("authferry-core", &[]),
    ("authferry-codex", &["authferry-core"]),
    ("authferry-runner", &["authferry-codex", "authferry-core"]),
    ("authferry-conformance", &["authferry-core"]),
    ("authferry-file", &["authferry-core"]),
    ("authferry-http", &[]),
    ("authferry-aws", &["authferry-core", "authferry-http"]),
    ("authferry-azure", &["authferry-core", "authferry-http"]),
    ("authferry-vault", &["authferry-core", "authferry-http"]),
    (
        "authferry",
        &[
            "authferry-aws",
            "authferry-azure",
            "authferry-codex",
            "authferry-core",
            "authferry-file",
            "authferry-http",
            "authferry-runner",
            "authferry-vault",
        ],
    ),
    (
        "authferry-tests",
        &[
            "authferry",
            "authferry-codex",
            "authferry-core",
            "authferry-http",
        ],
    ),
];

#[test]
fn dependencies_point_one_way() {
    let found = packages().into_iter().map(|(name, dependencies)| {
        let ours = |name: &String| name.starts_with("authferry");
        (name, dependencies.into_iter().filter(ours).collect())
    });
    let wanted = DIRECTIONS.iter().map(|(name, dependencies)| {
        (
            (*name).to_owned(),
            dependencies.iter().map(ToString::to_string).collect(),
        )
    });
    let [found, wanted]: [BTreeMap<String, BTreeSet<String>>; 2] =
        [found.collect(), wanted.collect()];
    assert_eq!(found, wanted);
}

#[test]
fn the_core_has_no_way_to_reach_the_world() {
    let dependencies = &packages()["authferry-core"];
    let harmless = ["async-trait", "secrecy", "thiserror"].map(str::to_owned);
    assert_eq!(*dependencies, BTreeSet::from(harmless));
    let text =
        fs::read_to_string(root().join("crates/authferry-core/src/lib.rs")).expect("the core");
    assert!(text.contains("#![no_std]"));
    let without_tests = text.replace("#[cfg(test)]\nextern crate std;", "");
    assert!(
        !without_tests.contains("extern crate std"),
        "std came back in"
    );
}

#[test]
fn the_environment_is_read_in_one_place() {
    let place = Path::new("crates/authferry/src/env.rs");
    let reading = sources().into_iter().filter(|(_, text)| {
        ["env::var", "env::vars"]
            .iter()
            .any(|call| text.contains(call))
    });
    let places: Vec<_> = reading.map(|(path, _)| path).collect();
    assert_eq!(places, [place]);
}

#[test]
fn no_endpoint_of_the_provider_is_known() {
    for (path, text) in sources() {
        for word in ["openai.com", "chatgpt.com", "oauth/", "grant_type"] {
            assert!(!text.contains(word), "{word} in {}", path.display());
        }
    }
}

/// `Instant + Duration` panics if the sum overflows, and a person or a server may set a time limit
/// of any length.
#[test]
fn no_time_limit_can_overflow() {
    for (path, text) in sources() {
        for sum in [
            "now() + ",
            "now + ",
            "now_utc() + ",
            "UNIX_EPOCH + ",
            "began + ",
            "begin + ",
        ] {
            assert!(!text.contains(sum), "`{sum}` in {}", path.display());
        }
    }
}

#[test]
fn no_secret_is_exposed_but_where_bytes_are_moved() {
    // Each of these hands bytes to a file or to the parser, and to nothing else. The value that
    // leases.rs exposes is a lease record, not a login.
    let movers = [
        "backends/authferry-aws/src/leases.rs",
        "backends/authferry-aws/src/store.rs",
        "backends/authferry-azure/src/coordinated.rs",
        "backends/authferry-azure/src/record.rs",
        "backends/authferry-azure/src/store.rs",
        "backends/authferry-azure/src/tags.rs",
        "backends/authferry-file/src/meta.rs",
        "backends/authferry-file/src/place.rs",
        "backends/authferry-vault/src/fields.rs",
        "backends/authferry-vault/src/store.rs",
        "crates/authferry/src/seal.rs",
        "crates/authferry-codex/src/auth_file.rs",
        "crates/authferry-codex/src/home/aside.rs",
        "crates/authferry-codex/src/home.rs",
        "crates/authferry-codex/src/raw.rs",
        "crates/authferry-codex/src/settle.rs",
        "crates/authferry-core/src/leases.rs",
        "crates/authferry-core/src/secret.rs",
        "crates/authferry-runner/src/rescue/document.rs",
        "crates/authferry-runner/src/rescue/folder.rs",
        "crates/authferry-runner/src/rescue/second_store.rs",
        "crates/authferry-runner/src/rotations.rs",
    ];
    let exposing = sources()
        .into_iter()
        // The examples in docs are not part of the product.
        .filter(|(_, text)| {
            let mut code = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            code.any(|line| line.contains(".expose()"))
        });
    let places: Vec<_> = exposing
        .map(|(path, _)| path.display().to_string())
        .collect();
    assert_eq!(places, movers);
}

/// Each package of ours, with what it needs to run.
fn packages() -> BTreeMap<String, BTreeSet<String>> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root());
    let output = cargo.output().expect("cargo");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let list = |value: &Value| value.as_array().expect("a list").clone();
    let name = |value: &Value| value["name"].as_str().expect("a name").to_owned();
    let needs = |package: &Value| {
        let all = list(&package["dependencies"]).into_iter();
        all.filter(|dependency| dependency["kind"].is_null())
            .map(|d| name(&d))
            .collect()
    };
    list(&metadata["packages"])
        .iter()
        .map(|package| (name(package), needs(package)))
        .collect()
}

/// Every Rust source of the product and its tests, by path.
fn collect_all() -> BTreeMap<PathBuf, String> {
    let mut sources = BTreeMap::new();
    let mut folders = ["crates", "backends", "tests"]
        .map(|it| root().join(it))
        .to_vec();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source");
                let path = path.strip_prefix(root()).expect("below the root");
                sources.insert(path.to_owned(), text);
            }
        }
    }
    assert!(sources.len() > 300, "only {} sources", sources.len());
    sources
}

/// What is shipped: the source of each crate and backend up to its tests, by path.
fn sources() -> BTreeMap<PathBuf, String> {
    let mut sources = BTreeMap::new();
    for folder in ["crates", "backends"] {
        for package in fs::read_dir(root().join(folder)).expect("a folder") {
            let package = package.expect("an entry").path();
            // The conformance suite is never linked into the program.
            if !package.ends_with("authferry-conformance") {
                collect(&package.join("src"), &mut sources);
            }
        }
    }
    assert!(sources.len() > 30, "nothing was looked at: {sources:?}");
    sources
}

fn collect(folder: &Path, sources: &mut BTreeMap<PathBuf, String>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return; // README.md among the packages.
    };
    for entry in entries {
        let path = entry.expect("an entry").path();
        let name = path
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        if path.is_dir() && !is_test(folder, &name) {
            collect(&path, sources);
        }
        if path.extension().is_some_and(|extension| extension == "rs") && !is_test(folder, &name) {
            let text = fs::read_to_string(&path).expect("a source");
            let shipped = text
                .split("#[cfg(test)]\nmod tests")
                .next()
                .expect("a first part");
            let path = path
                .strip_prefix(root())
                .expect("below the root")
                .to_owned();
            sources.insert(path, shipped.to_owned());
        }
    }
}

/// Whether this module, or one above it, is built for tests alone.
fn is_test(folder: &Path, name: &str) -> bool {
    let above = ["lib.rs".into(), "mod.rs".into()].map(|file: PathBuf| folder.join(file));
    let declared = above
        .into_iter()
        .chain([folder.with_extension("rs")])
        .any(|file| {
            let text = fs::read_to_string(file).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            lines.windows(2).any(|two| {
                two[0].starts_with("#[cfg(")
                    && two[0].contains("test")
                    && two[1] == format!("mod {name};")
            })
        });
    let below = folder.strip_prefix(root()).unwrap_or(folder);
    declared || below.components().any(|part| part.as_os_str() == "tests")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("a workspace")
}
