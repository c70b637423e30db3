//! The names and the comments of the code, held to the rules of `crates/README.md`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use super::{collect_all, root, sources};

/// Words that name neither the actor nor the act.
const VAGUE: [&str; 18] = [
    "all the same",
    "at work",
    "beside",
    "come to",
    "comes to",
    "nobody",
    "of its own",
    "of our own",
    "of their own",
    "somebody",
    "tell",
    "telling",
    "tells",
    "told",
    "what is there",
    "what was there",
    "whoever",
    "whosoever",
];

/// How many of them may stand in 1,000 comment lines.
const MAX_VAGUE: usize = 5;

/// How long the README may be.
const MAX_README_WORDS: usize = 1200;

/// Type names of two crates or more that mean the same thing in each of them.
const SHARED_NAMES: [(&str, &str); 10] = [
    ("Address", "the address of a store, in each store's crate"),
    (
        "AddressOptions",
        "the options of an address, in each store's crate",
    ),
    ("Auth", "how an address says to log in"),
    (
        "BadAddress",
        "why a text is no address, in each store's crate",
    ),
    (
        "ConfigError",
        "why a store cannot be opened, in each store's crate",
    ),
    (
        "ErrorResponse",
        "a server's error as it answered, in each store's crate",
    ),
    ("IdToken", "where the ID token of a job comes from"),
    (
        "Rejection",
        "why a server rejects a request, in each store's crate",
    ),
    (
        "Settings",
        "what a store reads from the environment, in each store's crate",
    ),
    (
        "SwapError",
        "why a swap did not land, in each store's crate",
    ),
];

#[test]
fn comments_name_the_actor_and_the_act() {
    let (mut lines, mut found) = (0, Vec::new());
    for (path, text) in collect_all() {
        let (count, words) = vague_words(&text);
        lines += count;
        found.extend(
            words
                .iter()
                .map(|(line, word)| format!("{}:{line}: {word}", path.display())),
        );
    }
    let limit = lines * MAX_VAGUE / 1000;
    assert!(
        found.len() <= limit,
        "{} vague words in {lines} comment lines, of at most {limit}:\n{}",
        found.len(),
        found.join("\n")
    );
}

#[test]
fn a_vague_word_is_found_in_a_comment_alone() {
    let text = "//! Whoever told it\nlet told = 1; // the store tells\n// retold at works\n";
    let (lines, words) = vague_words(text);
    assert_eq!(lines, 3);
    assert_eq!(words, [(1, "told"), (1, "whoever"), (2, "tells")]);
}

#[test]
fn a_type_name_is_defined_once_in_a_crate() {
    let sources = collect_all();
    let definitions = definitions(&sources);
    assert!(definitions.len() > 200, "only {} types", definitions.len());
    let repeated = repeated_in_a_package(&definitions);
    assert!(repeated.is_empty(), "{repeated:#?}");
}

#[test]
fn one_name_means_one_thing_in_all_crates() {
    let definitions = definitions(&sources());
    let found = shared_by_packages(&definitions);
    let shared: BTreeSet<&str> = SHARED_NAMES.iter().map(|(name, _)| *name).collect();
    assert!(shared.len() <= 10, "{shared:?}");
    assert_eq!(found, shared, "{definitions:#?}");
}

#[test]
fn a_repeated_type_name_is_found() {
    let sources = [
        (
            "crates/one/src/a.rs",
            "pub struct Login;\n    struct Local;\npub(crate) enum Reply {\n",
        ),
        (
            "crates/one/src/b/c.rs",
            "trait Reply {}\n    struct Local;\n",
        ),
        ("backends/two/src/a.rs", "type Login = ();\n"),
        ("tests/rig/a.rs", "struct Reply;\n"),
    ];
    let sources = sources.map(|(path, text)| (path.into(), text.to_owned()));
    let definitions = definitions(&sources.into());
    assert_eq!(repeated_in_a_package(&definitions), ["crates/one: Reply"]);
    assert_eq!(shared_by_packages(&definitions), ["Login"].into());
}

#[test]
fn the_readme_is_short() {
    let readme = fs::read_to_string(root().join("README.md")).expect("a README");
    let words = readme.split_whitespace().count();
    assert!(words <= MAX_README_WORDS, "{words} words");
}

/// Counts the comment lines of a source, and returns each vague word with its line, by line and word.
fn vague_words(text: &str) -> (usize, Vec<(usize, &'static str)>) {
    let (mut lines, mut found) = (0, Vec::new());
    for (number, line) in text.lines().enumerate() {
        let Some(comment) = comment(line) else {
            continue;
        };
        lines += 1;
        let comment = comment.to_lowercase();
        for word in VAGUE {
            let is_whole = |(at, _): (usize, &str)| {
                let before = comment[..at].chars().next_back();
                let after = comment[at + word.len()..].chars().next();
                ![before, after]
                    .into_iter()
                    .flatten()
                    .any(char::is_alphanumeric)
            };
            let times = comment
                .match_indices(word)
                .filter(|it| is_whole(*it))
                .count();
            found.extend((0..times).map(|_| (number + 1, word)));
        }
    }
    found.sort_unstable();
    (lines, found)
}

/// Returns what a line says as a comment.
fn comment(line: &str) -> Option<&str> {
    let at = if line.trim_start().starts_with("//") {
        line.find("//")
    } else {
        line.find(" // ")
    };
    let comment = line[at?..]
        .trim_start()
        .trim_start_matches(['/', '!'])
        .trim();
    (!comment.is_empty()).then_some(comment)
}

/// Returns the names of the types that a source defines at its top level.
fn types(text: &str) -> Vec<String> {
    let name = |line: &str| {
        let line = match line.strip_prefix("pub") {
            Some(rest) => rest.split_once(' ')?.1,
            None => line,
        };
        let (kind, rest) = line.split_once(' ')?;
        let is_type = ["struct", "enum", "trait", "type", "union"].contains(&kind);
        let end = rest.find(|it: char| !it.is_alphanumeric() && it != '_');
        is_type.then(|| rest[..end.unwrap_or(rest.len())].to_owned())
    };
    text.lines().filter_map(name).collect()
}

/// Returns the packages of each type name, once for each definition below a `src`.
fn definitions(sources: &BTreeMap<PathBuf, String>) -> BTreeMap<String, Vec<PathBuf>> {
    let mut definitions: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for (path, text) in sources {
        let Some(package) = package_of(path) else {
            continue;
        };
        for name in types(text) {
            definitions.entry(name).or_default().push(package.clone());
        }
    }
    definitions
}

fn repeated_in_a_package(definitions: &BTreeMap<String, Vec<PathBuf>>) -> Vec<String> {
    let mut repeated = Vec::new();
    for (name, packages) in definitions {
        let mut seen = BTreeSet::new();
        let again = packages.iter().filter(|package| !seen.insert(*package));
        repeated.extend(again.map(|package| format!("{}: {name}", package.display())));
    }
    repeated
}

fn shared_by_packages(definitions: &BTreeMap<String, Vec<PathBuf>>) -> BTreeSet<&str> {
    let is_shared = |packages: &[PathBuf]| packages.iter().any(|it| *it != packages[0]);
    let shared = definitions
        .iter()
        .filter(|(_, packages)| is_shared(packages));
    shared.map(|(name, _)| name.as_str()).collect()
}

/// Returns the folder of the package that a source below `src` belongs to.
fn package_of(path: &Path) -> Option<PathBuf> {
    let src = path.ancestors().find(|it| it.ends_with("src"))?;
    src.parent().map(Path::to_owned)
}
