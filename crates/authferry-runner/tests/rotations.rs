//! Rotations with a store that misbehaves at the worst moment, which no real store can be made to
//! do on demand.

use std::{
    fmt, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use authferry_conformance::MemoryStore;
use authferry_core::rotation::{Blocker, RotationOutcome};
use authferry_core::{
    CasError, ErrorKind, Guarantees, Lease, LeaseError, LeaseRequest, LeaseStatus, Leases, Policy,
    RecordState, Secret, SecretStore, Stamp, StoreError, Stored, Version,
};
use authferry_runner::{Codex, Rotated, Rotating, Signals, rotate};
use tempfile::TempDir;

/// Another job has rotated between our read of the store and our acquisition of the lease.
#[tokio::test]
async fn a_login_rotated_before_the_lease_is_not_rotated_again() {
    let scene = TempDir::new().expect("a temporary folder");
    let store = FaultyStore::new(Misbehavior::Rotates(ROTATED));
    let rotated = rotate_once(&store, scene.path(), A_DAY_IN_JANUARY).await;

    assert_eq!(rotated.outcome, RotationOutcome::Fresh);
    assert!(!scene.path().join("started").exists(), "Codex was started");
    assert_eq!(held(&store), [DUE, ROTATED]);
    assert_lease_released(&store).await;
}

/// A lagging replica may show the new lease holder the login that the previous holder has spent.
#[tokio::test]
async fn a_stale_read_spends_no_token() {
    let scene = TempDir::new().expect("a temporary folder");
    let store = FaultyStore::new(Misbehavior::StaleReads(ROTATED));
    let rotated = rotate_once(&store, scene.path(), A_DAY_IN_JANUARY).await;

    assert_eq!(rotated.outcome, RotationOutcome::Fresh);
    assert!(!scene.path().join("started").exists(), "Codex was started");
    assert_eq!(held(&store), [DUE, ROTATED]);
    assert_lease_released(&store).await;
}

/// For example, a policy that covers the lease but not the login.
#[tokio::test]
async fn a_store_that_rejects_writes_spends_no_token() {
    let scene = TempDir::new().expect("a temporary folder");
    let store = FaultyStore::new(Misbehavior::RejectsWrites);
    let rotated = rotate_once(&store, scene.path(), A_DAY_IN_JANUARY).await;

    assert_eq!(
        rotated.outcome,
        RotationOutcome::Blocked(Blocker::Unwritable)
    );
    assert!(!scene.path().join("started").exists(), "Codex was started");
    let error = rotated.store_error.expect("a store error");
    assert_eq!(error.kind, ErrorKind::PermissionDenied);
    assert_eq!(held(&store), [DUE]);
    assert_lease_released(&store).await;
}

/// The next write and Codex continue from what the first swap wrote.
#[tokio::test]
async fn a_proof_with_an_ambiguous_swap_is_retried() {
    let scene = TempDir::new().expect("a temporary folder");
    let store = FaultyStore::new(Misbehavior::LosesAnswer);
    let rotated = rotate_once(&store, scene.path(), A_DAY_IN_JANUARY).await;

    assert_eq!(rotated.outcome, RotationOutcome::Refreshed);
    assert!(
        scene.path().join("started").exists(),
        "Codex was not started"
    );
    assert_eq!(held(&store), [DUE, DUE, DUE]);
    assert_lease_released(&store).await;
}

/// This machine slept, or the store was slow: another job may be rotating already.
#[tokio::test]
async fn an_expired_lease_starts_no_refresh() {
    let scene = TempDir::new().expect("a temporary folder");
    let store = FaultyStore::new(Misbehavior::ExpiredLease);
    let rotated = rotate_once(&store, scene.path(), A_DAY_IN_JANUARY).await;

    assert_eq!(rotated.outcome, RotationOutcome::Refreshed);
    assert!(!scene.path().join("started").exists(), "Codex was started");
    assert!(held(&store).iter().all(|held| held == DUE));
}

/// Even if `due_by` makes every login due, as with a `--rotate-within` longer than a login's
/// lifetime.
#[tokio::test]
async fn a_login_that_the_lease_holder_rotated_is_not_rotated_again() {
    let scene = TempDir::new().expect("a temporary folder");
    let store = FaultyStore::new(Misbehavior::RotatesAndHolds(GOOD_FOR_LONG));
    let rotated = rotate_once(&store, scene.path(), i64::MAX).await;

    assert_eq!(rotated.outcome, RotationOutcome::Fresh);
    assert!(!scene.path().join("started").exists(), "Codex was started");
}

/// Rotates what the store holds, with a Codex that creates a file when it starts.
async fn rotate_once(store: &FaultyStore, scene: &Path, due_by: i64) -> Rotated {
    store.memory.put_by_hand(DUE.as_bytes());
    let codex = fake_codex(scene);
    let temp = scene.join("temp");
    fs::create_dir(&temp).expect("room");
    let rotating = Rotating {
        store,
        codex: &codex,
        rotations: &temp,
        rescue: &authferry_runner::rescue::Rescue::new(scene.join("rescue")),
        settings: None,
        policy: Policy::Newest,
        writer: "a job",
        due_by,
        only_after_half_life: false,
        store_timeout: STORE_TIMEOUT,
        lease_timeout: STORE_TIMEOUT,
        cancel_grace: STORE_TIMEOUT,
    };
    let mut signals = Signals::install().expect("signals");
    let rotated = rotate(&rotating, &mut signals).await.expect("a rotation");
    rotated.expect("nothing to be settled")
}

/// All values that the store has held.
fn held(store: &FaultyStore) -> Vec<String> {
    let history = store.memory.history().into_iter();
    let texts = history.map(|it| String::from_utf8_lossy(it.secret.expose()).into_owned());
    texts.collect()
}

async fn assert_lease_released(store: &FaultyStore) {
    let next = store.memory_leases().acquire(&lease_request()).await;
    assert!(next.is_ok(), "the lease was not released: {next:?}");
}

/// A store that misbehaves, mostly just before the lease is acquired.
#[derive(Debug)]
struct FaultyStore {
    memory: MemoryStore,
    misbehavior: Misbehavior,
    /// How often the fault has occurred, if it occurs more than once.
    times: AtomicU32,
}

#[derive(Clone, Copy, Debug)]
enum Misbehavior {
    /// Another job rotates the login to this one.
    Rotates(&'static str),
    /// Another job rotates the login to this one and still holds the lease.
    RotatesAndHolds(&'static str),
    /// Another job rotates the login to this one, and the next reads are stale.
    StaleReads(&'static str),
    /// The acquired lease has already expired.
    ExpiredLease,
    /// It grants the lease and rejects writes.
    RejectsWrites,
    /// The first answer to a write is lost.
    LosesAnswer,
}

#[async_trait]
impl SecretStore for FaultyStore {
    fn guarantees(&self) -> Guarantees {
        self.memory.guarantees()
    }

    async fn read(&self) -> Result<Option<Stored>, StoreError> {
        let history = self.memory.history();
        if matches!(self.misbehavior, Misbehavior::StaleReads(_))
            && history.len() > 1
            && self.occurs_again(2)
        {
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
        if matches!(self.misbehavior, Misbehavior::RejectsWrites) {
            return Err(CasError::Refused(error(ErrorKind::PermissionDenied)));
        }
        let swapped = self.memory.compare_and_swap(expected, new, stamp).await;
        if matches!(self.misbehavior, Misbehavior::LosesAnswer) && self.occurs_again(1) {
            return Err(CasError::Ambiguous(error(ErrorKind::Unavailable)));
        }
        swapped
    }

    fn leases(&self) -> Option<&dyn Leases> {
        Some(self)
    }
}

#[async_trait]
impl Leases for FaultyStore {
    async fn acquire(&self, request: &LeaseRequest) -> Result<Lease, LeaseError> {
        match self.misbehavior {
            Misbehavior::Rotates(to) | Misbehavior::StaleReads(to) => {
                self.memory.put_by_hand(to.as_bytes());
                self.memory_leases().acquire(request).await
            }
            Misbehavior::RotatesAndHolds(to) => {
                self.memory.put_by_hand(to.as_bytes());
                let owner = "another job".to_owned();
                let state = RecordState::new(Version::new("1"), b"held until 0");
                Err(LeaseError::Held {
                    owner,
                    until: 0,
                    state,
                })
            }
            Misbehavior::ExpiredLease => {
                let lease = self.memory_leases().acquire(request).await?;
                Ok(Lease { until: 1, ..lease })
            }
            Misbehavior::RejectsWrites | Misbehavior::LosesAnswer => {
                self.memory_leases().acquire(request).await
            }
        }
    }

    async fn renew(&self, lease: &Lease, until: u64) -> Result<Lease, LeaseError> {
        self.memory_leases().renew(lease, until).await
    }

    async fn release(&self, lease: &Lease) -> Result<(), LeaseError> {
        self.memory_leases().release(lease).await
    }

    async fn look(&self) -> Result<Option<LeaseStatus>, LeaseError> {
        self.memory_leases().look().await
    }
}

impl FaultyStore {
    fn new(misbehavior: Misbehavior) -> Self {
        let memory = MemoryStore::new("faulty");
        Self {
            memory,
            misbehavior,
            times: AtomicU32::new(0),
        }
    }

    /// Whether the fault occurs once more, of `of` times in all.
    fn occurs_again(&self, of: u32) -> bool {
        self.times.fetch_add(1, Ordering::Relaxed) < of
    }

    fn memory_leases(&self) -> &dyn Leases {
        self.memory.leases().expect("memory has leases")
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.memory.fmt(f)
    }
}

/// A Codex that only creates a file when it starts.
fn fake_codex(folder: &Path) -> Codex {
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

/// A request of another job, which fails while the lease is held.
fn lease_request() -> LeaseRequest {
    LeaseRequest {
        owner: "another job".to_owned(),
        holder: 2,
        now: 1,
        until: 2,
        expired: None,
    }
}

const STORE_TIMEOUT: Duration = Duration::from_secs(30);

/// 2001-01-20, in Unix seconds.
const A_DAY_IN_JANUARY: i64 = 979_948_800;

const DUE: &str = r#"{"tokens":{"id_token":"e30.e30.x","access_token":"e30.e30.x","refresh_token":"made-up-1","account_id":"account"},"last_refresh":"2001-01-01T00:00:00Z"}"#;

const ROTATED: &str = r#"{"tokens":{"id_token":"e30.e30.x","access_token":"e30.e30.x","refresh_token":"made-up-2","account_id":"account"},"last_refresh":"2001-01-19T00:00:00Z"}"#;

const GOOD_FOR_LONG: &str = r#"{"tokens":{"id_token":"e30.e30.x","access_token":"e30.e30.x","refresh_token":"made-up-2","account_id":"account"},"last_refresh":"2999-01-01T00:00:00Z"}"#;
