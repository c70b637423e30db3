//! Compares the state after a case with its expectation.

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
const LEASE: &str = "login.json.lease";
const AUTH_FILE: &str = "auth.json";
const RECEIPT: &str = "authferry-receipt.json";
/// The suffix of a record's name, after the name of its login.
const RECORD: &str = ".record";

/// Returns the unexpected differences between the states before and after a case.
pub(crate) fn world(expected: &After, before: &World, after: &World) -> Vec<String> {
    let mut store = Folder::new("store", &before.store, &after.store);
    // The lock file is empty and permanent: the first reader creates it.
    if store.is(LOCK, Change::Created) && store.private_file(LOCK) == Some(b"") {
        store.changes.remove(LOCK);
    }
    store.expect(LOGIN, &expected.store);
    // The metadata describe the login, so they change with it.
    if expected.store != Place::Same && store.private_file(META).is_some() {
        store.changes.remove(META);
    }
    if !expected.lease.is_empty() {
        store.expect_text(LEASE, &expected.lease);
        for companion in [".lock", ".meta"].map(|end| format!("{LEASE}{end}")) {
            store.changes.remove(&companion);
        }
    }
    let mut home = Folder::new("home", &before.home, &after.home);
    home.expect(AUTH_FILE, &expected.auth_file);
    home.expect(RECEIPT, &expected.receipt);
    if expected.closed {
        home.expect_closed();
    }
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

/// Returns an error if a text contains a part of a login.
pub(crate) fn leak(what: &str, text: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(text);
    let mut secrets = logins::secrets().iter();
    let secret = secrets.find(|secret| text.contains(*secret))?;
    Some(format!("a part of a login is in {what}: {secret}"))
}

/// Whether a file of a folder is allowed to hold a login.
fn may_hold_a_login(folder: &str, path: &str) -> bool {
    match folder {
        "rescue" => !path.ends_with(RECORD),
        "rotations" => path.ends_with(AUTH_FILE),
        _ => [LOGIN, AUTH_FILE].contains(&path),
    }
}

/// The logins with a record in a document of the second store.
fn listed(document: &[u8]) -> Vec<Vec<u8>> {
    let document: Value = serde_json::from_slice(document).unwrap_or_default();
    let copies = document["copies"].as_array().cloned().unwrap_or_default();
    let copies = copies
        .iter()
        .filter(|copy| copy["record"]["store"].is_string());
    let logins = copies.filter_map(|copy| STANDARD.decode(copy["login"].as_str()?).ok());
    logins.collect()
}

/// The folder itself, in a tree.
const ITSELF: &str = ".";

/// The changes in a folder, and the problems among them.
struct Folder<'a> {
    name: &'static str,
    after: &'a Tree,
    /// The changes that no expectation has matched so far.
    changes: BTreeMap<String, Change>,
    problems: Vec<String>,
}

impl<'a> Folder<'a> {
    /// Also checks for leaks: a file that is not a login must not contain a part of one.
    fn new(name: &'static str, before: &Tree, after: &'a Tree) -> Self {
        let changes = after.changes_since(before);
        let others = changes.keys().filter(|path| !may_hold_a_login(name, path));
        let problems = others
            .filter_map(|path| match &after.get(path)?.kind {
                Kind::File(bytes) => leak(&format!("{name}/{path}"), bytes),
                Kind::Unreadable | Kind::Link(_) | Kind::Folder | Kind::Other => None,
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

    /// Expects that the folder was closed to other users.
    fn expect_closed(&mut self) {
        let mode = self.after.get(ITSELF).map(|node| node.mode);
        if mode == Some(0o700) && self.is(ITSELF, Change::ModeChanged) {
            self.changes.remove(ITSELF);
        } else {
            self.problems.push(format!("{} was not closed", self.name));
        }
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
        let found = text::normalized(&String::from_utf8_lossy(file));
        if !text::matches(expected, &found) {
            let problem = format!("{}/{path} says {found:?}", self.name);
            self.problems.push(problem);
        }
        self.changes.remove(path);
    }

    /// Accepts the creation of the folder with mode 0700.
    fn accept_creation(&mut self) {
        let private = self.after.get(".").is_some_and(|it| it.mode == 0o700);
        if private && self.is(".", Change::Created) {
            self.changes.remove(".");
        }
    }

    /// Expects new or rewritten files with these contents, under any name, each with a record.
    fn expect_rescued(&mut self, names: &[String]) {
        if !names.is_empty() {
            self.accept_creation();
        }
        for name in names {
            let bytes = Some(logins::content(name));
            let mut changes = self.changes.iter();
            let found = changes.find(|(path, change)| {
                **change != Change::Removed && self.private_file(path) == bytes
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

    /// Expects that the files with these contents and their records were removed.
    fn expect_dropped(&mut self, before: &Tree, names: &[String]) {
        for name in names {
            let bytes = Some(logins::content(name));
            let held = |path: &str| before.get(path).and_then(Node::private_file);
            let mut changes = self.changes.iter();
            let found =
                changes.find(|(path, change)| **change == Change::Removed && held(path) == bytes);
            if let Some(path) = found.map(|(path, _)| path.clone()) {
                self.changes.remove(&path);
                let record = format!("{path}{RECORD}");
                if self.is(&record, Change::Removed) {
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

    /// Expects new encrypted files, and removed ones.
    fn expect_encrypted(&mut self, made: &[String], gone: &[String]) {
        if !made.is_empty() {
            self.accept_creation();
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
            if !self.is(&path, Change::Removed) {
                self.problems
                    .push(format!("{}/{path} still exists", self.name));
            }
            self.changes.remove(&path);
        }
    }

    /// Expects these logins in the document of the second store, each with its record.
    fn expect_listed(&mut self, names: Option<&[String]>) {
        if self.is(LOCK, Change::Created) && self.private_file(LOCK) == Some(b"") {
            self.changes.remove(LOCK);
        }
        let Some(names) = names else {
            return;
        };
        let listed = self.private_file(LOGIN).map(listed).unwrap_or_default();
        let expected: Vec<_> = names.iter().map(|name| logins::content(name)).collect();
        if listed != expected {
            let problem = format!("{}/{LOGIN} does not have {names:?}", self.name);
            self.problems.push(problem);
        }
        for path in [LOGIN, META] {
            self.changes.remove(path);
        }
    }

    /// Expects an empty or an unchanged folder.
    fn expect_rotation(&mut self, place: &Place) {
        self.accept_creation();
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
