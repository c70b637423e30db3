//! Panics during a job: what the command wrote is rescued.

use std::{
    fmt, fs,
    os::unix::fs::DirBuilderExt,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use authferry_codex::Home;
use authferry_conformance::MemoryStore;
use authferry_core::{
    CasError, Cause, Guarantees, Outcome, Refusal, Secret, SecretStore, Stamp, StoreError, Stored,
    Version,
};
use authferry_runner::rescue::Rescue;
use authferry_runner::{CommandEnd, Job, LoginObserver, Replace, Report, Signals};
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};

/// One process makes one round trip at a time.
static TURN: Mutex<()> = Mutex::const_new(());

/// A store whose library panics after `max_requests` requests.
#[derive(Debug)]
struct Panicking {
    store: MemoryStore,
    requests: AtomicUsize,
    max_requests: usize,
}

impl Panicking {
    fn count(&self) {
        let requests = self.requests.fetch_add(1, Ordering::Relaxed);
        assert!(requests < self.max_requests, "the library panics");
    }
}

impl fmt::Display for Panicking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

#[async_trait]
impl SecretStore for Panicking {
    fn guarantees(&self) -> Guarantees {
        self.store.guarantees()
    }

    async fn read(&self) -> Result<Option<Stored>, StoreError> {
        self.count();
        self.store.read().await
    }

    async fn compare_and_swap(
        &self,
        expected: Option<&Version>,
        new: &Secret,
        stamp: &Stamp,
    ) -> Result<Version, CasError> {
        self.count();
        self.store.compare_and_swap(expected, new, stamp).await
    }
}

/// An observer that panics on the nth login.
#[derive(Debug, Default)]
struct PanickingObserver {
    seen: AtomicUsize,
    on: usize,
}

impl LoginObserver for PanickingObserver {
    fn on_login(&self, _: &Secret) {
        let seen = self.seen.fetch_add(1, Ordering::Relaxed);
        assert!(seen + 1 != self.on, "the observer panics");
    }

    fn on_command_start(&self) {}
}

/// A home, and a store with login 1.
struct Scene {
    above: TempDir,
    home: Home,
    store: MemoryStore,
    _turn: MutexGuard<'static, ()>,
}

impl Scene {
    async fn new() -> Self {
        let turn = TURN.lock().await;
        let above = TempDir::new().expect("a temporary folder");
        let dir = above.path().join("home");
        let made = fs::DirBuilder::new().mode(0o700).create(&dir);
        made.expect("a folder");
        let store = MemoryStore::new("panics");
        authferry_runner::seed(&authferry_runner::Seed {
            store: &store,
            secret: &Secret::new(login(1).into_bytes()),
            origins: None,
            replace: Replace::Nothing,
            refused: Vec::new(),
            writer: "a person",
            rescue: &Rescue::new(above.path().join("rescue")),
            store_timeout: STORE_TIMEOUT,
        })
        .await
        .expect("an empty store");
        Self {
            home: Home::new(&dir).expect("a home"),
            above,
            store,
            _turn: turn,
        }
    }

    /// Runs a command that rotates to login 2 and ends 0.5 s later.
    async fn run(&self, max_requests: usize, observer: Option<&dyn LoginObserver>) -> Report {
        let next = self.above.path().join("next.json");
        fs::write(&next, login(2)).expect("room");
        let mut command = Command::new("sh");
        let script = format!(
            "cp '{}' \"$0/auth.json\"; sleep 0.5; touch \"$0/../done\"; exit 7",
            next.display()
        );
        command.arg("-c").arg(script).arg(self.home.dir());
        let store = Panicking {
            store: self.store.clone(),
            requests: AtomicUsize::new(0),
            max_requests,
        };
        let rescue = Rescue::new(self.above.path().join("rescue"));
        let job = Job {
            observer,
            ..job(&store, &self.home, &rescue)
        };
        let mut signals = Signals::install().expect("signals");
        authferry_runner::run(&job, command, None, None, &mut signals)
            .await
            .expect("a round trip")
    }

    fn rescued(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.above.path().join("rescue"));
        let entries = entries.into_iter().flatten().flatten();
        let logins = entries.map(|entry| entry.path());
        logins
            .filter(|path| path.extension().is_some_and(|end| end == "json"))
            .collect()
    }

    fn assert_rescued(&self, report: &Report) {
        let is_rescued = matches!(
            report.outcome,
            Outcome::NotPersisted {
                cause: Cause::Store,
                rescued: true
            }
        );
        assert!(is_rescued, "{report:?}");
        assert!(matches!(report.command, Some(CommandEnd::Exited(7))));
        assert!(
            self.above.path().join("done").exists(),
            "the job did not wait for the command"
        );
        let rescued: Vec<_> = report
            .rescued
            .iter()
            .map(|it| PathBuf::from(it.place()))
            .collect();
        assert_eq!(rescued, self.rescued());
        let kept = fs::read(&rescued[0]).expect("rescued");
        assert_eq!(kept, login(2).as_bytes());
    }
}

#[tokio::test]
async fn a_panicking_swap_counts_as_ambiguous() {
    let scene = Scene::new().await;
    let report = scene.run(1, None).await;
    scene.assert_rescued(&report);
    assert!(report.doubtful, "the swap may have landed");
    let error = report.store_error.expect("a reason");
    let why = std::error::Error::source(&error).expect("a cause");
    assert!(why.to_string().contains("panicked"), "{why}");
}

#[tokio::test]
async fn a_panicking_read_before_the_command_refuses_the_job() {
    let scene = Scene::new().await;
    let report = scene.run(0, None).await;
    assert_eq!(report.outcome, Outcome::Refused(Refusal::Unreadable));
    assert!(!scene.home.auth_file().exists());
    assert!(!scene.above.path().join("done").exists());
}

/// The observer is called with the placed login first, then with the one that Codex wrote.
#[tokio::test]
async fn an_internal_panic_rescues_what_the_command_wrote() {
    let scene = Scene::new().await;
    let observer = PanickingObserver {
        on: 2,
        ..PanickingObserver::default()
    };
    let report = scene.run(usize::MAX, Some(&observer)).await;
    scene.assert_rescued(&report);
    // File and receipt stay, so the next job adopts the login.
    assert!(scene.home.auth_file().exists());
    assert!(scene.home.dir().join("authferry-receipt.json").exists());
}

const STORE_TIMEOUT: Duration = Duration::from_secs(5);

fn job<'a>(store: &'a dyn SecretStore, home: &'a Home, rescue: &'a Rescue) -> Job<'a> {
    Job::new(store, home, rescue, "a job", STORE_TIMEOUT)
}

/// An auth file whose tokens are made up; a higher number was issued later.
fn login(number: usize) -> String {
    // {"iat":N} in base64url.
    let claims = ["eyJpYXQiOjEwMH0", "eyJpYXQiOjEwMX0", "eyJpYXQiOjEwMn0"][number];
    format!(
        r#"{{"tokens":{{"id_token":"e30.e30.x","access_token":"e30.{claims}.x","refresh_token":"made-up-{number}","account_id":"account"}}}}"#
    )
}
