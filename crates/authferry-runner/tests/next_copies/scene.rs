//! A store, copies of logins, and a provider with made-up answers.

use std::{
    fs::{self, DirBuilder},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use authferry_codex::Home;
use authferry_conformance::MemoryStore;
use authferry_core::rotation::RotationOutcome;
use authferry_core::{Generation, LeaseRequest, Policy, Secret, SecretStore};
use authferry_runner::rescue::Rescue;
use authferry_runner::{Codex, Job, Rotated, Rotating, Signals, rotate, rotate_first};
use tempfile::TempDir;

/// How the provider answers a refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// With the next generation.
    Accepts,
    /// A refusal that names the reason.
    NamesTheReason,
    /// A refusal with the status alone, as from a gateway.
    Refuses,
    /// A refusal whose reason Codex names only once the access token has expired.
    NamesOnACopy,
    /// A refusal; the next generation once the access token has expired.
    AcceptsACopy,
    /// A refusal; a server error once the access token has expired.
    FailsOnACopy,
    /// A server error.
    Fails,
}
pub(crate) struct Scene {
    folder: TempDir,
    pub(crate) store: MemoryStore,
    codex: Codex,
}

impl Scene {
    /// A store that holds the first login, and a provider with these answers.
    pub(crate) fn new(answers: &[(&str, Answer)]) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let store = MemoryStore::new("next");
        store.put_by_hand(login(answers[0].0).as_bytes());
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

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn answers(&self, answers: &[(&str, Answer)]) {
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
            settings: None,
            policy: Policy::Newest,
            writer: "a job",
            due_by: A_DAY_IN_JANUARY,
            only_after_half_life: false,
            store_timeout: STORE_TIMEOUT,
            lease_timeout: STORE_TIMEOUT,
            cancel_grace: STORE_TIMEOUT,
        }
    }

    pub(crate) async fn rotate(&self) -> Rotated {
        let (rescue, rotations) = (Rescue::new(self.path("rescue")), self.path("rotations"));
        let rotating = self.rotating(&rescue, &rotations);
        let mut signals = Signals::install().expect("signals");
        let rotated = rotate(&rotating, &mut signals).await.expect("a rotation");
        let rotated = rotated.expect("nothing to be settled");
        assert_eq!(rotated.outcome, RotationOutcome::Refreshed);
        rotated
    }

    /// Rotates as `run` does before its command.
    pub(crate) async fn rotate_first(&self, replace: bool) {
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
    pub(crate) fn place(&self, name: &str) {
        private(&self.path("home").join("auth.json"), &login(name));
    }

    /// Leaves the receipt of a job that began with a login of this family.
    pub(crate) fn leave_receipt(&self, name: &str, family: &str, count: u64) {
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
    pub(crate) fn keep(&self, name: &str) {
        let file = self
            .path("rescue")
            .join(format!("{}.json", fingerprint(name)));
        fs::write(file.with_extension("json.record"), record(name)).expect("room");
        private(&file, &login(name));
    }

    /// Leaves the private home of a rotation whose receipt is of another family than the head.
    pub(crate) fn leave_unfinished(&self, name: &str) {
        let folder = self.path("rotations").join("authferry-rotation-made-up");
        make(&folder);
        let home = folder.join("home");
        make(&home);
        private(&home.join("auth.json"), &login(name));
        private(&home.join(RECEIPT), &receipt(&base("parent")));
    }

    /// The refresh tokens that the provider received, in order.
    pub(crate) fn tried(&self) -> Vec<String> {
        let tried = fs::read_to_string(self.path("tried")).unwrap_or_default();
        tried.lines().map(str::to_owned).collect()
    }

    pub(crate) async fn stored(&self) -> String {
        let stored = self.store.read().await.expect("memory").expect("a login");
        name_of(stored.secret.expose())
    }

    /// The logins in the rescue folder.
    pub(crate) fn kept(&self) -> Vec<String> {
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

    /// Makes the last attempt an hour older.
    pub(crate) async fn pass_an_hour(&self) {
        let leases = self.store.leases().expect("memory has leases");
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.expect("after 1970").as_secs();
        let request = LeaseRequest {
            owner: "a clock".to_owned(),
            holder: 7,
            now,
            until: now + 60,
            expired: None,
        };
        let mut lease = leases.acquire(&request).await.expect("a free lease");
        let note = lease.note.take().expect("a note");
        let (before, rest) = note
            .split_once(" tried ")
            .expect("a refusal without a reason");
        let (tried, after) = rest.split_once(' ').expect("a time");
        let tried: u64 = tried.parse().expect("a number");
        lease.note = Some(format!("{before} tried {} {after}", tried - 3600));
        leases.release(&lease).await.expect("memory");
    }

    /// The note in the lease record.
    pub(crate) async fn note(&self) -> Option<String> {
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
answer=$(cat "answer-$name")
case $(cat "$CODEX_HOME/auth.json") in
*authferry-ended-copy*) is_ended=1; echo "ended $name" >> tried ;;
*) is_ended=0; echo "$name" >> tried ;;
esac
case $answer$is_ended in
NamesOnACopy0|AcceptsACopy0|FailsOnACopy0) answer=Refuses ;;
NamesOnACopy1) answer=NamesTheReason ;;
AcceptsACopy1) answer=Accepts ;;
FailsOnACopy1) answer=Fails ;;
esac
case $answer in
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
/// ends with `next`. Its access token is opaque, or expires in the year 3000 if the name begins with
/// `living`.
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
    let claims = if name.starts_with("living") {
        "eyJleHAiOjMyNTAzNjgwMDAwfQ"
    } else {
        "e30"
    };
    format!(
        r#"{{"tokens":{{"id_token":"e30.e30.x","access_token":"e30.{claims}.x","refresh_token":"{name}","account_id":"{account}"}},"last_refresh":"{refreshed}"}}"#
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

pub(crate) fn fingerprint(name: &str) -> String {
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
