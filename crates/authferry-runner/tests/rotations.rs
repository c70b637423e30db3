//! Rotations of a login that moves at the worst moment: what no real store can be made to do
//! at will.

use std::{
    fmt, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use authferry_conformance::MemoryStore;
use authferry_core::rotation::{Hindrance, Outcome};
use authferry_core::{
    Bid, CasError, Claim, ClaimError, Claims, ErrorKind, Guarantees, Policy, RecordState, Secret,
    SecretStore, Stamp, Standing, StoreError, Stored, Version,
};
use authferry_runner::{Codex, Rotated, Rotating, Signals, rotate};
use tempfile::TempDir;

/// Somebody else has rotated between our look at the store and the moment we got the claim.
#[tokio::test]
async fn a_claim_on_a_login_that_moved_is_worth_nothing() {
    let scene = TempDir::new().expect("a temporary folder");
    let store = Odd::new(Happens::Moves(ROTATED));
    let rotated = rotated(&store, scene.path(), A_DAY_IN_JANUARY).await;

    assert_eq!(rotated.outcome, Outcome::Fresh);
    assert!(!scene.path().join("started").exists(), "Codex was asked");
    assert_eq!(held(&store), [DUE, ROTATED]);
    assert_given_back(&store).await;
}

/// A server that lags behind may show the login, to whoever has just got the claim, that its
/// last holder has spent.
#[tokio::test]
async fn a_look_that_shows_what_was_there_before_spends_nothing() {
    let scene = TempDir::new().expect("a temporary folder");
    let store = Odd::new(Happens::LagsBehind(ROTATED));
    let rotated = rotated(&store, scene.path(), A_DAY_IN_JANUARY).await;

    assert_eq!(rotated.outcome, Outcome::Fresh);
    assert!(!scene.path().join("started").exists(), "Codex was asked");
    assert_eq!(held(&store), [DUE, ROTATED]);
    assert_given_back(&store).await;
}

/// As with a policy that names the claim, and not the login.
#[tokio::test]
async fn a_store_that_takes_no_login_has_none_spent() {
    let scene = TempDir::new().expect("a temporary folder");
    let store = Odd::new(Happens::IsClosed);
    let rotated = rotated(&store, scene.path(), A_DAY_IN_JANUARY).await;

    assert_eq!(rotated.outcome, Outcome::Hindered(Hindrance::Unwritable));
    assert!(!scene.path().join("started").exists(), "Codex was asked");
    let error = rotated.store_error.expect("the store's words");
    assert_eq!(error.kind, ErrorKind::PermissionDenied);
    assert_eq!(held(&store), [DUE]);
    assert_given_back(&store).await;
}

/// What it has written is what the next one rests on, and Codex begins with.
#[tokio::test]
async fn a_proof_whose_answer_was_lost_is_asked_for_again() {
    let scene = TempDir::new().expect("a temporary folder");
    let store = Odd::new(Happens::Mumbles);
    let rotated = rotated(&store, scene.path(), A_DAY_IN_JANUARY).await;

    assert_eq!(rotated.outcome, Outcome::Turned);
    assert!(scene.path().join("started").exists(), "Codex was not asked");
    assert_eq!(held(&store), [DUE, DUE, DUE]);
    assert_given_back(&store).await;
}

/// This machine slept, or the store took its time: somebody else may be at it already.
#[tokio::test]
async fn a_claim_that_has_ended_is_worth_nothing() {
    let scene = TempDir::new().expect("a temporary folder");
    let store = Odd::new(Happens::Ends);
    let rotated = rotated(&store, scene.path(), A_DAY_IN_JANUARY).await;

    assert_eq!(rotated.outcome, Outcome::Turned);
    assert!(!scene.path().join("started").exists(), "Codex was asked");
    assert!(held(&store).iter().all(|held| held == DUE));
}

/// Where we would rotate any login whatever, as with a horizon that is longer than one lives.
#[tokio::test]
async fn what_the_holder_of_a_claim_has_rotated_is_not_rotated_again() {
    let scene = TempDir::new().expect("a temporary folder");
    let store = Odd::new(Happens::IsTurned(GOOD_FOR_LONG));
    let rotated = rotated(&store, scene.path(), i64::MAX).await;

    assert_eq!(rotated.outcome, Outcome::Fresh);
    assert!(!scene.path().join("started").exists(), "Codex was asked");
}

/// Rotates what the store holds, with a Codex that tells by a file that it was started.
async fn rotated(store: &Odd, scene: &Path, due_by: i64) -> Rotated {
    store.memory.put_by_hand(DUE.as_bytes());
    let codex = tripwire(scene);
    let temp = scene.join("temp");
    fs::create_dir(&temp).expect("room");
    let rotating = Rotating {
        store,
        codex: &codex,
        rotations: &temp,
        rescue: &authferry_runner::rescue::Rescue::new(scene.join("rescue")),
        policy: Policy::Newest,
        writer: "a job",
        due_by,
        sparing: false,
        patience: PATIENCE,
        wait: PATIENCE,
        shield: PATIENCE,
    };
    let mut signals = Signals::install().expect("signals");
    let rotated = rotate(&rotating, &mut signals).await.expect("a rotation");
    rotated.expect("nothing to be settled")
}

/// Everything that the store ever held.
fn held(store: &Odd) -> Vec<String> {
    let history = store.memory.history().into_iter();
    let texts = history.map(|it| String::from_utf8_lossy(it.secret.expose()).into_owned());
    texts.collect()
}

async fn assert_given_back(store: &Odd) {
    let next = store.claims_of_memory().acquire(&bid()).await;
    assert!(next.is_ok(), "the claim was not given back: {next:?}");
}

/// A store at which something happens, most often as we are about to get the claim.
#[derive(Debug)]
struct Odd {
    memory: MemoryStore,
    happens: Happens,
    /// How often it has happened, where it happens more than once.
    times: AtomicU32,
}

#[derive(Clone, Copy, Debug)]
enum Happens {
    /// Somebody rotates the login to this one.
    Moves(&'static str),
    /// The same, and they still hold the claim.
    IsTurned(&'static str),
    /// The same, and the next looks show what was there before.
    LagsBehind(&'static str),
    /// So much time passes that the claim has ended.
    Ends,
    /// It gives the claim, and takes no login.
    IsClosed,
    /// The first answer to a write is lost.
    Mumbles,
}

#[async_trait]
impl SecretStore for Odd {
    fn guarantees(&self) -> Guarantees {
        self.memory.guarantees()
    }

    async fn read(&self) -> Result<Option<Stored>, StoreError> {
        let history = self.memory.history();
        if matches!(self.happens, Happens::LagsBehind(_)) && history.len() > 1 && self.again(2) {
            return Ok(history.into_iter().next());
        }
        self.memory.read().await
    }

    async fn compare_and_swap(
        &self,
        expected: Option<&Version>,
        new: &Secret,
        stamp: &Stamp,
    ) -> Result<Version, CasError> {
        let error = |kind| StoreError {
            kind,
            operation: "write",
            store: self.to_string(),
            source: None,
        };
        if matches!(self.happens, Happens::IsClosed) {
            return Err(CasError::Refused(error(ErrorKind::PermissionDenied)));
        }
        let swapped = self.memory.compare_and_swap(expected, new, stamp).await;
        if matches!(self.happens, Happens::Mumbles) && self.again(1) {
            return Err(CasError::Ambiguous(error(ErrorKind::Unavailable)));
        }
        swapped
    }

    fn claims(&self) -> Option<&dyn Claims> {
        Some(self)
    }
}

#[async_trait]
impl Claims for Odd {
    async fn acquire(&self, bid: &Bid) -> Result<Claim, ClaimError> {
        match self.happens {
            Happens::Moves(to) | Happens::LagsBehind(to) => {
                self.memory.put_by_hand(to.as_bytes());
                self.claims_of_memory().acquire(bid).await
            }
            Happens::IsTurned(to) => {
                self.memory.put_by_hand(to.as_bytes());
                let owner = "another job".to_owned();
                let state = RecordState::new(Version::new("1"), b"held until 0");
                Err(ClaimError::Held {
                    owner,
                    until: 0,
                    state,
                })
            }
            Happens::Ends => {
                let claim = self.claims_of_memory().acquire(bid).await?;
                Ok(Claim { until: 1, ..claim })
            }
            Happens::IsClosed | Happens::Mumbles => self.claims_of_memory().acquire(bid).await,
        }
    }

    async fn renew(&self, claim: &Claim, until: u64) -> Result<Claim, ClaimError> {
        self.claims_of_memory().renew(claim, until).await
    }

    async fn release(&self, claim: &Claim) -> Result<(), ClaimError> {
        self.claims_of_memory().release(claim).await
    }

    async fn look(&self) -> Result<Option<Standing>, ClaimError> {
        self.claims_of_memory().look().await
    }
}

impl Odd {
    fn new(happens: Happens) -> Self {
        let memory = MemoryStore::new("odd");
        Self {
            memory,
            happens,
            times: AtomicU32::new(0),
        }
    }

    /// Whether it happens once more, of so many times in all.
    fn again(&self, of: u32) -> bool {
        self.times.fetch_add(1, Ordering::Relaxed) < of
    }

    fn claims_of_memory(&self) -> &dyn Claims {
        self.memory.claims().expect("memory has claims")
    }
}

impl fmt::Display for Odd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.memory.fmt(f)
    }
}

/// A program that does nothing but tell that it was started.
fn tripwire(folder: &Path) -> Codex {
    let program: PathBuf = folder.join("codex");
    let text = format!("#!/bin/sh\ntouch '{}'\n", folder.join("started").display());
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

/// Somebody else, who is too early for a claim that is still held.
fn bid() -> Bid {
    Bid {
        owner: "another job".to_owned(),
        holder: 2,
        now: 1,
        until: 2,
        expired: None,
    }
}

const PATIENCE: Duration = Duration::from_secs(30);

/// 2001-01-20, in Unix seconds.
const A_DAY_IN_JANUARY: i64 = 979_948_800;

const DUE: &str = r#"{"tokens":{"id_token":"e30.e30.x","access_token":"e30.e30.x","refresh_token":"made-up-1","account_id":"account"},"last_refresh":"2001-01-01T00:00:00Z"}"#;

const ROTATED: &str = r#"{"tokens":{"id_token":"e30.e30.x","access_token":"e30.e30.x","refresh_token":"made-up-2","account_id":"account"},"last_refresh":"2001-01-19T00:00:00Z"}"#;

const GOOD_FOR_LONG: &str = r#"{"tokens":{"id_token":"e30.e30.x","access_token":"e30.e30.x","refresh_token":"made-up-2","account_id":"account"},"last_refresh":"2999-01-01T00:00:00Z"}"#;
