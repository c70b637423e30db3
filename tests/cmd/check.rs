//! Whether the world is afterwards as a case says.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::{
    case::{After, Place},
    logins,
    stage::World,
    text,
    tree::{Change, Kind, Node, Tree},
};

const LOGIN: &str = "login.json";
const META: &str = "login.json.meta";
const LOCK: &str = "login.json.lock";
const CLAIM: &str = "login.json.claim";
const AUTH_FILE: &str = "auth.json";
const RECEIPT: &str = "authferry-receipt.json";
/// What the name of a record ends in, beyond that of its login.
const RECORD: &str = ".record";

/// Returns what should not have happened between two looks at the world.
pub(crate) fn world(expected: &After, before: &World, after: &World) -> Vec<String> {
    let mut store = Folder::new("store", &before.store, &after.store);
    // The lock holds nothing and stays: the first who looks makes it.
    if store.is(LOCK, Change::Made) && store.private_file(LOCK) == Some(b"") {
        store.changes.remove(LOCK);
    }
    store.expect(LOGIN, &expected.store);
    // It tells of the login, so it changes with it.
    if expected.store != Place::Same && store.private_file(META).is_some() {
        store.changes.remove(META);
    }
    if !expected.claim.is_empty() {
        store.expect_text(CLAIM, &expected.claim);
        for beside in [".lock", ".meta"].map(|end| format!("{CLAIM}{end}")) {
            store.changes.remove(&beside);
        }
    }
    let mut home = Folder::new("home", &before.home, &after.home);
    home.expect(AUTH_FILE, &expected.auth_file);
    home.expect(RECEIPT, &expected.receipt);
    let mut rescue = Folder::new("rescue", &before.rescue, &after.rescue);
    rescue.expect_rescued(&expected.rescued);
    rescue.expect_dropped(&before.rescue, &expected.dropped);
    rescue.expect_encrypted(&expected.encrypted, &expected.decrypted);
    let mut second = Folder::new("second", &before.second, &after.second);
    second.expect_listed(expected.second.as_deref());
    let mut rotations = Folder::new("rotations", &before.rotations, &after.rotations);
    rotations.expect_rotation(&expected.rotation);
    [store, home, rescue, second, rotations]
        .into_iter()
        .flat_map(Folder::problems)
        .collect()
}

/// Returns a complaint if a text shows a piece of a login.
pub(crate) fn leak(what: &str, text: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(text);
    let mut secrets = logins::secrets().iter();
    let secret = secrets.find(|secret| text.contains(*secret))?;
    Some(format!("a piece of a login is in {what}: {secret}"))
}

/// Whether a file of a folder is a login's own.
fn may_hold_a_login(folder: &str, path: &str) -> bool {
    match folder {
        "rescue" => !path.ends_with(RECORD),
        "rotations" => path.ends_with(AUTH_FILE),
        _ => [LOGIN, AUTH_FILE].contains(&path),
    }
}

/// The logins of a document that have a record.
fn listed(document: &[u8]) -> Vec<Vec<u8>> {
    let document: Value = serde_json::from_slice(document).unwrap_or_default();
    let copies = document["copies"].as_array().cloned().unwrap_or_default();
    let copies = copies
        .iter()
        .filter(|copy| copy["record"]["store"].is_string());
    let logins = copies.filter_map(|copy| STANDARD.decode(copy["login"].as_str()?).ok());
    logins.collect()
}

/// What became of a folder, and what of that is wrong.
struct Folder<'a> {
    name: &'static str,
    after: &'a Tree,
    /// What nobody has expected so far.
    changes: BTreeMap<String, Change>,
    problems: Vec<String>,
}

impl<'a> Folder<'a> {
    /// Looks for leaks as well: what is not a login itself must not hold a piece of one.
    fn new(name: &'static str, before: &Tree, after: &'a Tree) -> Self {
        let changes = after.changes_since(before);
        let others = changes.keys().filter(|path| !may_hold_a_login(name, path));
        let problems = others
            .filter_map(|path| match &after.get(path)?.kind {
                Kind::File(bytes) => leak(&format!("{name}/{path}"), bytes),
                Kind::Sealed | Kind::Link(_) | Kind::Folder | Kind::Other => None,
            })
            .collect();
        Self {
            name,
            after,
            changes,
            problems,
        }
    }

    fn is(&self, path: &str, change: Change) -> bool {
        self.changes.get(path) == Some(&change)
    }

    fn private_file(&self, path: &str) -> Option<&'a [u8]> {
        self.after.get(path)?.private_file()
    }

    fn expect(&mut self, path: &str, place: &Place) {
        let file = self.private_file(path);
        let as_expected = match place {
            Place::Same => return,
            Place::Absent => self.after.get(path).is_none(),
            Place::Written => file.is_some() && self.changes.contains_key(path),
            Place::Holds(name) => file == Some(logins::content(name)),
        };
        if !as_expected {
            let problem = format!("{}/{path} is not {place:?}", self.name);
            self.problems.push(problem);
        }
        self.changes.remove(path);
    }

    fn expect_text(&mut self, path: &str, expected: &str) {
        let file = self.private_file(path).unwrap_or_default();
        let found = text::without_chance(&String::from_utf8_lossy(file));
        if !text::matches(expected, &found) {
            let problem = format!("{}/{path} says {found:?}", self.name);
            self.problems.push(problem);
        }
        self.changes.remove(path);
    }

    /// A folder that is made for its content, and is open to nobody else.
    fn may_be_made(&mut self) {
        let private = self.after.get(".").is_some_and(|it| it.mode == 0o700);
        if private && self.is(".", Change::Made) {
            self.changes.remove(".");
        }
    }

    /// Expects files with these contents, made or written anew, whatever their names are, and
    /// a record beside each.
    fn expect_rescued(&mut self, names: &[String]) {
        if !names.is_empty() {
            self.may_be_made();
        }
        for name in names {
            let bytes = Some(logins::content(name));
            let mut changes = self.changes.iter();
            let found = changes.find(|(path, change)| {
                **change != Change::Gone && self.private_file(path) == bytes
            });
            let Some(path) = found.map(|(path, _)| path.clone()) else {
                let problem = format!("{} has no new file with {name}", self.name);
                self.problems.push(problem);
                continue;
            };
            self.changes.remove(&path);
            let record = format!("{path}{RECORD}");
            if self.private_file(&record).is_none() || self.changes.remove(&record).is_none() {
                let problem = format!("{}/{record} was not written", self.name);
                self.problems.push(problem);
            }
        }
    }

    /// Expects that files with these contents are gone, and the records beside them.
    fn expect_dropped(&mut self, before: &Tree, names: &[String]) {
        for name in names {
            let bytes = Some(logins::content(name));
            let held = |path: &str| before.get(path).and_then(Node::private_file);
            let mut changes = self.changes.iter();
            let found =
                changes.find(|(path, change)| **change == Change::Gone && held(path) == bytes);
            if let Some(path) = found.map(|(path, _)| path.clone()) {
                self.changes.remove(&path);
                let record = format!("{path}{RECORD}");
                if self.is(&record, Change::Gone) {
                    self.changes.remove(&record);
                }
                if self.after.get(&record).is_some() {
                    let problem = format!("{}/{record} was left behind", self.name);
                    self.problems.push(problem);
                }
            } else {
                let problem = format!("{} still has {name}", self.name);
                self.problems.push(problem);
            }
        }
    }

    /// Expects encrypted files, and others gone.
    fn expect_encrypted(&mut self, made: &[String], gone: &[String]) {
        if !made.is_empty() {
            self.may_be_made();
        }
        for fingerprint in made {
            let path = format!("{fingerprint}.json.age");
            let file = self.private_file(&path).unwrap_or_default();
            if !file.starts_with(b"age-encryption.org/v1\n") || self.changes.remove(&path).is_none()
            {
                let problem = format!("{}/{path} was not encrypted", self.name);
                self.problems.push(problem);
            }
        }
        for fingerprint in gone {
            let path = format!("{fingerprint}.json.age");
            if !self.is(&path, Change::Gone) {
                self.problems.push(format!("{}/{path} is there", self.name));
            }
            self.changes.remove(&path);
        }
    }

    /// Expects that these logins are in the document of the second store, each with its record.
    fn expect_listed(&mut self, names: Option<&[String]>) {
        if self.is(LOCK, Change::Made) && self.private_file(LOCK) == Some(b"") {
            self.changes.remove(LOCK);
        }
        let Some(names) = names else {
            return;
        };
        let listed = self.private_file(LOGIN).map(listed).unwrap_or_default();
        let expected: Vec<_> = names.iter().map(|name| logins::content(name)).collect();
        if listed != expected {
            let problem = format!("{}/{LOGIN} has not {names:?}", self.name);
            self.problems.push(problem);
        }
        for path in [LOGIN, META] {
            self.changes.remove(path);
        }
    }

    /// Expects that nothing is left in a folder, or that nothing was changed in it.
    fn expect_rotation(&mut self, place: &Place) {
        self.may_be_made();
        if *place == Place::Same {
            return;
        }
        if *place != Place::Absent || !self.after.is_empty() {
            let problem = format!("{} is not {place:?}", self.name);
            self.problems.push(problem);
        }
        self.changes.clear();
    }

    fn problems(self) -> Vec<String> {
        let unexpected = self
            .changes
            .iter()
            .map(|(path, change)| format!("{}/{path} {change}", self.name));
        self.problems.into_iter().chain(unexpected).collect()
    }
}
