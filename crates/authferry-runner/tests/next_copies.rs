//! Which copies are tried when the provider rejects the store's login.

use std::{
    fs::{self, DirBuilder},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use authferry_codex::Home;
use authferry_conformance::MemoryStore;
use authferry_core::rotation::RotationOutcome;
use authferry_core::{Generation, Policy, Secret, SecretStore};
use authferry_runner::rescue::Rescue;
use authferry_runner::{Codex, Job, Rotated, Rotating, Signals, rotate, rotate_first};
use tempfile::TempDir;

/// How the provider answers a refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// With the next generation.
    Accepts,
    /// A refusal that names the reason.
    NamesTheReason,
    /// A refusal with the status alone, as from a gateway.
    Refuses,
    /// A server error.
    Fails,
}
use Answer::{Accepts, Fails, NamesTheReason, Refuses};

#[tokio::test]
async fn after_an_unnamed_refusal_an_accepted_copy_becomes_the_head() {
    let scene = Scene::new(&[("head", Refuses), ("copy", Accepts)]);
    scene.keep("copy");
    let rotated = scene.rotate().await;

    assert_eq!(scene.tried(), ["head", "copy"]);
    assert_eq!(scene.stored().await, "copy-next");
    assert_eq!(scene.kept(), ["copy", "head"]);
    assert_eq!(scene.note().await, None);
    assert!(rotated.tried_copies.is_empty() && rotated.not_put_back.is_none());
}

/// Only the provider can show whether a copy is live.
#[tokio::test]
async fn a_copy_that_is_not_due_is_rotated_too() {
    let scene = Scene::new(&[("head", Refuses), ("fresh-copy", Accepts)]);
    scene.keep("fresh-copy");
    scene.rotate().await;
    assert_eq!(scene.tried(), ["head", "fresh-copy"]);
    assert_eq!(scene.stored().await, "fresh-copy-next");
}

#[tokio::test]
async fn a_gateway_that_refuses_every_login_marks_none_as_dead() {
    let scene = Scene::new(&[("head", Refuses), ("one", Refuses), ("two", Refuses)]);
    scene.keep("one");
    scene.keep("two");
    let rotated = scene.rotate().await;

    let mut tried = scene.tried();
    tried.sort_unstable();
    assert_eq!(tried, ["head", "one", "two"], "each once");
    assert_eq!(scene.stored().await, "head");
    assert_eq!(scene.kept(), ["head", "one", "two"]);
    assert_eq!(scene.note().await, None, "a gateway marks no login as dead");
    assert_eq!(rotated.tried_copies.len(), 2);
    assert_eq!(rotated.not_put_back, None);
    let report = rotated.round_trip.expect("a round trip was made");
    let base = report.base.expect("the store was read");
    assert_eq!(base.generation.fingerprint.to_string(), fingerprint("head"));

    scene.answers(&[("head", Accepts)]);
    scene.rotate().await;
    assert_eq!(scene.stored().await, "head-next");
}

/// The next rotation tries again what the gateway refused before.
#[tokio::test]
async fn an_unnamed_refusal_is_not_remembered() {
    let scene = Scene::new(&[("head", Refuses), ("copy", Refuses)]);
    scene.keep("copy");
    scene.rotate().await;
    scene.answers(&[("head", Refuses), ("copy", Accepts)]);
    scene.rotate().await;
    assert_eq!(scene.tried(), ["head", "copy", "head", "copy"]);
    assert_eq!(scene.stored().await, "copy-next");
}

#[tokio::test]
async fn a_copy_refused_by_name_is_marked_dead_and_the_head_put_back() {
    let scene = Scene::new(&[("head", Refuses), ("copy", NamesTheReason)]);
    scene.keep("copy");
    let rotated = scene.rotate().await;
    assert_eq!(scene.stored().await, "head");
    let note = scene.note().await.expect("a note");
    assert_eq!(note, format!("refused {}", fingerprint("copy")));
    assert_eq!(rotated.dead, None, "the store's login may be live");
    scene.rotate().await;
    assert_eq!(scene.tried(), ["head", "copy", "head"]);
}

#[tokio::test]
async fn an_outage_is_not_a_refusal() {
    let scene = Scene::new(&[("head", Fails), ("copy", Accepts)]);
    scene.keep("copy");
    scene.rotate().await;
    assert_eq!(scene.tried(), ["head"]);
    assert_eq!(scene.stored().await, "head");

    scene.answers(&[("head", Refuses), ("copy", Fails)]);
    scene.rotate().await;
    assert_eq!(scene.tried(), ["head", "head", "copy"]);
    assert_eq!(
        scene.stored().await,
        "head",
        "no answer shows that the copy is live"
    );
}

/// A head that is dead is not put back.
#[tokio::test]
async fn after_a_refusal_by_name_the_copy_stays_the_head() {
    let scene = Scene::new(&[("head", NamesTheReason), ("copy", Fails)]);
    scene.keep("copy");
    scene.rotate().await;
    assert_eq!(scene.tried(), ["head", "copy"]);
    assert_eq!(scene.stored().await, "copy");
    let note = scene.note().await.expect("a note");
    assert_eq!(note, format!("refused {}", fingerprint("head")));
}

/// The private home of the copy is removed when the copy is adopted.
#[tokio::test]
async fn a_copy_of_an_unfinished_rotation_is_rescued_before_the_head_is_put_back() {
    let scene = Scene::new(&[("head", Refuses), ("unfinished", Refuses)]);
    scene.leave_unfinished("unfinished");
    scene.rotate().await;
    assert_eq!(scene.tried(), ["head", "unfinished"]);
    assert_eq!(scene.stored().await, "head");
    assert_eq!(scene.kept(), ["head", "unfinished"]);
}

#[tokio::test]
async fn a_copy_of_another_account_is_not_tried() {
    let scene = Scene::new(&[("head", Refuses), ("other-account", Accepts)]);
    scene.keep("other-account");
    scene.rotate().await;
    assert_eq!(scene.tried(), ["head"]);
    assert_eq!(scene.stored().await, "head");
}

/// `--replace` for the home applies to the other copies as well.
#[tokio::test]
async fn replace_for_the_home_lets_other_copies_be_tried() {
    let scene = Scene::new(&[("head", NamesTheReason), ("copy", Accepts)]);
    scene.keep("copy");
    scene.place("of-unknown-family");
    scene.rotate_first(true).await;
    assert_eq!(scene.tried(), ["head", "copy"]);
    assert_eq!(scene.stored().await, "copy-next");
}

/// A tag or the file was edited by hand since the receipt was written.
#[tokio::test]
async fn the_proof_keeps_the_family_of_a_login_without_a_stamp() {
    let scene = Scene::new(&[("head", Fails)]);
    scene.leave_receipt("head", "parent", 7);
    scene.rotate_first(false).await;
    let proven = scene.store.history().pop().expect("a login");
    let stamp = proven.stamp.expect("the proof's");
    assert_eq!(stamp.family.to_string(), fingerprint("parent"));
    assert_eq!((stamp.count, stamp.volatile_hints), (7, true));
}

struct Scene {
    folder: TempDir,
    store: MemoryStore,
    codex: Codex,
}

impl Scene {
    /// A store that holds `head`, and a provider with these answers.
    fn new(answers: &[(&str, Answer)]) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let store = MemoryStore::new("next");
        store.put_by_hand(login("head").as_bytes());
        let codex = codex(folder.path());
        for name in ["rescue", "rotations", "home"] {
            make(&folder.path().join(name));
        }
        let scene = Self {
            folder,
            store,
            codex,
        };
        scene.answers(answers);
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn answers(&self, answers: &[(&str, Answer)]) {
        for (name, answer) in answers {
            fs::write(self.path(&format!("answer-{name}")), format!("{answer:?}")).expect("room");
            let next = login(&format!("{name}-next"));
            fs::write(self.path(&format!("next-{name}")), next).expect("room");
        }
    }

    fn rotating<'a>(&'a self, rescue: &'a Rescue, rotations: &'a Path) -> Rotating<'a> {
        Rotating {
            store: &self.store,
            codex: &self.codex,
            rotations,
            rescue,
            policy: Policy::Newest,
            writer: "a job",
            due_by: A_DAY_IN_JANUARY,
            only_after_half_life: false,
            store_timeout: STORE_TIMEOUT,
            lease_timeout: STORE_TIMEOUT,
            cancel_grace: STORE_TIMEOUT,
        }
    }

    async fn rotate(&self) -> Rotated {
        let (rescue, rotations) = (Rescue::new(self.path("rescue")), self.path("rotations"));
        let rotating = self.rotating(&rescue, &rotations);
        let mut signals = Signals::install().expect("signals");
        let rotated = rotate(&rotating, &mut signals).await.expect("a rotation");
        let rotated = rotated.expect("nothing to be settled");
        assert_eq!(rotated.outcome, RotationOutcome::Refreshed);
        rotated
    }

    /// Rotates as `run` does before its command.
    async fn rotate_first(&self, replace: bool) {
        let home = Home::new(&self.path("home")).expect("a home");
        let (rescue, rotations) = (Rescue::new(self.path("rescue")), self.path("rotations"));
        let job = Job {
            rotations: Some(&rotations),
            replace,
            ..Job::new(&self.store, &home, &rescue, "a job", STORE_TIMEOUT)
        };
        let mut signals = Signals::install().expect("signals");
        let rotating = self.rotating(&rescue, &rotations);
        let rotated = rotate_first(&rotating, &job, &mut signals).await;
        rotated.expect("begun").expect("settled");
    }

    /// Puts a login into the home.
    fn place(&self, name: &str) {
        private(&self.path("home").join("auth.json"), &login(name));
    }

    /// Leaves the receipt of a job that began with a login of this family.
    fn leave_receipt(&self, name: &str, family: &str, count: u64) {
        let (own, family) = (fingerprint(name), fingerprint(family));
        let base = base(name)
            .replace(
                &format!(r#""family":"{own}""#),
                &format!(r#""family":"{family}""#),
            )
            .replace(r#""count":1"#, &format!(r#""count":{count}"#))
            .replace(r#""volatile_hints":false"#, r#""volatile_hints":true"#);
        private(&self.path("home").join(RECEIPT), &receipt(&base));
    }

    /// Puts a login of another family into the rescue folder, with its record.
    fn keep(&self, name: &str) {
        let file = self
            .path("rescue")
            .join(format!("{}.json", fingerprint(name)));
        fs::write(file.with_extension("json.record"), record(name)).expect("room");
        private(&file, &login(name));
    }

    /// Leaves the private home of a rotation whose receipt is of another family than the head.
    fn leave_unfinished(&self, name: &str) {
        let folder = self.path("rotations").join("authferry-rotation-made-up");
        make(&folder);
        let home = folder.join("home");
        make(&home);
        private(&home.join("auth.json"), &login(name));
        private(&home.join(RECEIPT), &receipt(&base("parent")));
    }

    /// The refresh tokens that the provider received, in order.
    fn tried(&self) -> Vec<String> {
        let tried = fs::read_to_string(self.path("tried")).unwrap_or_default();
        tried.lines().map(str::to_owned).collect()
    }

    async fn stored(&self) -> String {
        let stored = self.store.read().await.expect("memory").expect("a login");
        name_of(stored.secret.expose())
    }

    /// The logins in the rescue folder.
    fn kept(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("rescue")).expect("a folder");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        let logins = paths.filter(|path| path.extension().is_some_and(|end| end == "json"));
        let mut names: Vec<String> = logins
            .map(|path| {
                assert!(
                    path.with_extension("json.record").exists(),
                    "{}",
                    path.display()
                );
                name_of(&fs::read(path).expect("a login"))
            })
            .collect();
        names.sort_unstable();
        names
    }

    /// The note in the lease record.
    async fn note(&self) -> Option<String> {
        let leases = self.store.leases().expect("memory has leases");
        leases.look().await.expect("memory").and_then(|it| it.note)
    }
}

/// A Codex that refreshes as the provider answers, and logs each refresh token.
fn codex(folder: &Path) -> Codex {
    let program = folder.join("codex");
    let text = format!(
        r#"#!/bin/sh
cd '{}' || exit 1
name=$(sed 's/.*refresh_token":"\([^"]*\)".*/\1/' "$CODEX_HOME/auth.json")
echo "$name" >> tried
case $(cat "answer-$name") in
Accepts) umask 077; cp "next-$name" "$CODEX_HOME/new" && mv "$CODEX_HOME/new" "$CODEX_HOME/auth.json" ;;
NamesTheReason) echo 'Failed to refresh token: 400: {{"code": "refresh_token_reused"}}' >&2 ;;
Refuses) echo 'Failed to refresh token status=401 Unauthorized' >&2 ;;
Fails) echo 'Failed to refresh token status=500 Internal Server Error' >&2 ;;
esac
"#,
        folder.display()
    );
    fs::write(&program, text).expect("room");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).expect("our file");
    Codex {
        program,
        withheld: vec![],
        path: None,
        supervisor: None,
        is_tracked: false,
    }
}

/// An auth file whose refresh token is the name; it is due unless the name begins with `fresh` or
/// ends with `next`.
fn login(name: &str) -> String {
    let account = if name.starts_with("other") {
        "other"
    } else {
        "account"
    };
    let refreshed = if name.starts_with("fresh") || name.ends_with("next") {
        "2999-01-01T00:00:00Z"
    } else {
        "2001-01-01T00:00:00Z"
    };
    format!(
        r#"{{"tokens":{{"id_token":"e30.e30.x","access_token":"e30.e30.x","refresh_token":"{name}","account_id":"{account}"}},"last_refresh":"{refreshed}"}}"#
    )
}

fn name_of(bytes: &[u8]) -> String {
    let text = std::str::from_utf8(bytes).expect("text");
    let (_, rest) = text.split_once(r#"refresh_token":""#).expect("a token");
    rest.split('"').next().expect("a name").to_owned()
}

fn generation(name: &str) -> Generation {
    let login = authferry_codex::parse(&Secret::new(login(name).into_bytes()));
    login.expect("a login")
}

fn fingerprint(name: &str) -> String {
    generation(name).fingerprint.to_string()
}

const RECEIPT: &str = "authferry-receipt.json";

fn receipt(base: &str) -> String {
    format!(
        r#"{{"format":3,"owner":{{}},"store":"memory:next","base":{base},"began":null,"placed":true,"access_only":false,"time":1}}"#
    )
}

fn record(name: &str) -> String {
    let base = base(name);
    format!(
        r#"{{"format":1,"store":"memory:next","reason":"set-aside","base":{base},"seen":1,"time":1,"job":"a job"}}"#
    )
}

/// A base in the store's past, of a family that begins with it.
fn base(name: &str) -> String {
    let Generation {
        fingerprint,
        identity,
        ..
    } = generation(name);
    let account = identity.account.expect("an account");
    format!(
        r#"{{"version":"gone","generation":{{"fingerprint":"{fingerprint}","account":"{account}","chatgpt_user":null,"user":null,"subject":null,"session":null,"password_time":null,"iat":null,"exp":null,"last_refresh":null}},"count":1,"family":"{fingerprint}","ancestors":[],"unrelated":[],"volatile_hints":false}}"#
    )
}

fn make(folder: &Path) {
    DirBuilder::new().mode(0o700).create(folder).expect("room");
}

fn private(path: &Path, text: &str) {
    fs::write(path, text).expect("room");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("our file");
}

const STORE_TIMEOUT: Duration = Duration::from_secs(30);

/// 2001-01-20, in Unix seconds.
const A_DAY_IN_JANUARY: i64 = 979_948_800;
