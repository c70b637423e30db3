//! Round trips over a failing store: faults that real stores cannot be made to show on demand.

use std::{
    fs::{self, File},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::PathBuf,
    process::Command,
    sync::Arc,
    time::Duration,
};

use authferry_codex::Home;
use authferry_conformance::{Fault, Faulty, MemoryStore};
use authferry_core::{
    Cause, ErrorKind, Family, Origin, Outcome, Policy, Refusal, Secret, SecretStore, Stamp, WriteId,
};
use authferry_runner::rescue::{Location, Rescue};
use authferry_runner::{
    CommandEnd, Job, Placement, Receipt, Replace, Report, Seed, SeedError, Signals, StartError,
};
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};

/// A home and a store, with faults between them.
struct Scene {
    store: MemoryStore,
    home: Home,
    above: TempDir,
    _turn: MutexGuard<'static, ()>,
}

/// One process makes one round trip at a time.
static TURN: Mutex<()> = Mutex::const_new(());

impl Scene {
    /// Login 1 is in the store; the home is empty.
    async fn new() -> Self {
        let above = TempDir::new().expect("a temporary folder");
        let dir = above.path().join("home");
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&dir)
            .expect("a folder");
        let scene = Self {
            store: MemoryStore::new("round-trips"),
            home: Home::new(&dir).expect("a home"),
            above,
            _turn: TURN.lock().await,
        };
        scene
            .seed(1, Replace::Nothing)
            .await
            .expect("an empty store");
        scene
    }

    async fn seed(&self, number: u32, replace: Replace) -> Result<(), SeedError> {
        let login = Secret::new(login(number).into_bytes());
        let rescue = self.rescue();
        let seed = Seed {
            store: &self.store,
            secret: &login,
            origins: None,
            replace,
            refused: Vec::new(),
            writer: "a person",
            rescue: &Rescue::new(rescue),
            store_timeout: STORE_TIMEOUT,
        };
        let seeded = authferry_runner::seed(&seed).await;
        seeded.map(drop).map_err(|not| not.why)
    }

    fn rescue(&self) -> PathBuf {
        self.above.path().join("rescue")
    }

    /// A command that runs `before` and then writes login `number`.
    fn rotates_to(&self, number: u32, before: &str) -> Command {
        let next = self.above.path().join("next.json");
        fs::write(&next, login(number)).expect("room");
        let mut command = Command::new("sh");
        let script = format!("{before}\ncp '{}' \"$0/auth.json\"", next.display());
        command.arg("-c").arg(script).arg(self.home.dir());
        command
    }

    async fn run(&self, faults: Vec<Fault>, command: Command) -> Report {
        self.run_with(faults, Policy::Newest, STORE_TIMEOUT, command)
            .await
    }

    async fn run_with(
        &self,
        faults: Vec<Fault>,
        policy: Policy,
        store_timeout: Duration,
        command: Command,
    ) -> Report {
        let store = Faulty::new(Box::new(self.store.clone()), faults);
        let rescue = Rescue::new(self.rescue());
        let job = Job {
            policy,
            store_timeout,
            ..job(&store, &self.home, &rescue)
        };
        let mut signals = Signals::install().expect("signals");
        authferry_runner::run(&job, command, None, None, &mut signals)
            .await
            .expect("a round trip")
    }

    /// Waits until the command of [`WAIT`] is running.
    async fn running(&self) {
        while !self.home.dir().join("running").exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn go(&self) {
        fs::write(self.home.dir().join("go"), "").expect("room");
    }

    /// Another job persists login `number`.
    async fn rotation_by_another(&self, number: u32) {
        let there = self.store.read().await.expect("memory").expect("a login");
        let stamp = Stamp {
            id: WriteId {
                nonce: 99,
                number: 1,
            },
            count: 2,
            origin: Origin::Rotation,
            family: family(),
            volatile_hints: false,
            writer: "another job".into(),
        };
        let login = Secret::new(login(number).into_bytes());
        let swap = self
            .store
            .compare_and_swap(Some(&there.version), &login, &stamp);
        swap.await.expect("no concurrent write");
    }

    async fn stored(&self) -> String {
        let stored = self.store.read().await.expect("memory").expect("a login");
        String::from_utf8(stored.secret.expose().to_vec()).expect("JSON")
    }
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_not_repeated() {
    let scene = Scene::new().await;
    let report = scene
        .run(vec![Fault::ReplyLost], scene.rotates_to(2, ""))
        .await;
    assert_eq!(
        report.outcome,
        Outcome::Persisted {
            overwritten: vec![]
        }
    );
    assert_eq!(scene.stored().await, login(2));
    assert_eq!(scene.store.history().len(), 2, "the seed and one write");
    assert_eq!(report.writes.len(), 1);
}

/// A process that is killed while it spawns a child leaves its lock with the child for a moment.
#[tokio::test]
async fn a_briefly_locked_home_is_waited_for() {
    let scene = Scene::new().await;
    let lock = File::open(scene.home.dir()).expect("a home");
    lock.lock().expect("a free lock");
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(lock);
    });
    let report = scene.run(vec![], scene.rotates_to(2, "")).await;
    assert_eq!(
        report.outcome,
        Outcome::Persisted {
            overwritten: vec![]
        }
    );
}

#[tokio::test]
async fn a_write_that_did_not_land_is_retried() {
    for fault in [
        Fault::Lost,
        Fault::Refused(ErrorKind::Throttled),
        Fault::Refused(ErrorKind::Unavailable),
    ] {
        let scene = Scene::new().await;
        let report = scene.run(vec![fault; 3], scene.rotates_to(2, "")).await;
        assert_eq!(
            report.outcome,
            Outcome::Persisted {
                overwritten: vec![]
            },
            "{fault:?}"
        );
        assert_eq!(scene.stored().await, login(2));
        assert_eq!(scene.store.history().len(), 2, "{fault:?}");
        assert!(
            !scene.home.auth_file().exists(),
            "the login stays in the home"
        );
    }
}

#[tokio::test]
async fn an_unlistable_rescue_folder_stops_the_job() {
    let scene = Scene::new().await;
    let rescue = scene.rescue();
    fs::DirBuilder::new()
        .mode(0o755)
        .create(&rescue)
        .expect("room");
    let rescue = Rescue::new(rescue);
    let job = job(&scene.store, &scene.home, &rescue);
    let mut signals = Signals::install().expect("signals");
    let command = scene.rotates_to(2, "");
    let run = authferry_runner::run(&job, command, None, None, &mut signals).await;
    let restore = authferry_runner::restore(&job, None, &mut signals).await;
    for begun in [run, restore] {
        assert!(
            matches!(begun, Err(StartError::RescueFolder(..))),
            "{begun:?}"
        );
    }
    assert!(!scene.home.auth_file().exists());
    assert_eq!(scene.stored().await, login(1));
}

#[tokio::test]
async fn an_unreachable_store_is_abandoned_at_the_deadline_and_the_login_rescued() {
    let scene = Scene::new().await;
    let faults = vec![Fault::Refused(ErrorKind::Unavailable); 10_000];
    let store_timeout = Duration::from_millis(400);
    let report = scene
        .run_with(
            faults,
            Policy::Newest,
            store_timeout,
            scene.rotates_to(2, ""),
        )
        .await;
    assert_eq!(
        report.outcome,
        Outcome::NotPersisted {
            cause: Cause::Store,
            rescued: true
        }
    );
    assert_eq!(scene.stored().await, login(1));
    let [Location::File(rescued)] = &report.rescued[..] else {
        panic!("{report:?}")
    };
    assert_eq!(fs::read_to_string(rescued).expect("rescued"), login(2));
    let mode = fs::metadata(rescued).expect("rescued").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(
        fs::read_to_string(scene.home.auth_file()).expect("left"),
        login(2)
    );

    let report = scene.run(vec![], Command::new("true")).await;
    assert_eq!(
        report.placement,
        Some(Placement::Adopted),
        "the next job adopts the file"
    );
    assert_eq!(scene.stored().await, login(2));
}

#[tokio::test]
async fn a_denied_write_is_tried_during_the_command_and_once_after_it() {
    let scene = Scene::new().await;
    let no = Fault::Refused(ErrorKind::PermissionDenied);
    let seen = scene.rotates_to(2, "");
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg("sh -c \"$1\" \"$0\"; sleep 0.5")
        .args(seen.get_args().skip(2))
        .arg(seen.get_args().nth(1).expect("a script"));
    let report = scene.run(vec![no, no], command).await;
    assert_eq!(
        report.outcome,
        Outcome::NotPersisted {
            cause: Cause::Store,
            rescued: true
        }
    );
    // The first call reads the note in the lease.
    let report = scene
        .run(vec![Fault::Pass, no], scene.rotates_to(3, ""))
        .await;
    assert_eq!(
        report.outcome,
        Outcome::Refused(Refusal::Unwritable),
        "login 2 is still to be adopted"
    );
    assert_eq!(scene.stored().await, login(1));
}

#[tokio::test]
async fn a_concurrent_reseed_wins_even_if_it_is_older() {
    for (policy, reseeded) in [
        (Policy::Newest, 0),
        (Policy::Newest, 3),
        (Policy::Theirs, 3),
    ] {
        let scene = Scene::new().await;
        let command = scene.rotates_to(2, WAIT);
        let meanwhile = async {
            scene.running().await;
            scene.store.put_by_hand(login(reseeded).as_bytes());
            scene.go();
        };
        let (report, ()) = tokio::join!(
            scene.run_with(vec![], policy, STORE_TIMEOUT, command),
            meanwhile
        );
        assert!(
            matches!(report.outcome, Outcome::Superseded { rescued: true, .. }),
            "{report:?}"
        );
        assert_eq!(scene.stored().await, login(reseeded));
        assert_eq!(
            fs::read_to_string(report.rescued[0].place()).expect("rescued"),
            login(2)
        );
        assert!(
            !scene.home.auth_file().exists(),
            "the next restore must not take it for the newer one"
        );
    }
}

#[tokio::test]
async fn of_two_rotations_the_later_issued_one_becomes_the_head() {
    for (theirs, current) in [(2, 3), (4, 4)] {
        let scene = Scene::new().await;
        let command = scene.rotates_to(3, WAIT);
        let meanwhile = async {
            scene.running().await;
            scene.rotation_by_another(theirs).await;
            scene.go();
        };
        let (report, ()) = tokio::join!(scene.run(vec![], command), meanwhile);
        assert_eq!(scene.stored().await, login(current), "{report:?}");
        assert_eq!(
            matches!(report.outcome, Outcome::Persisted { .. }),
            current == 3
        );
    }
}

#[tokio::test]
async fn an_emptied_or_foreign_store_is_not_overwritten() {
    let foreign = login_of("another account", 0);
    for (put, cause) in [
        (None, Cause::Emptied),
        (Some(&*foreign), Cause::ForeignLogin),
        (Some("{}"), Cause::ForeignLogin),
    ] {
        let scene = Scene::new().await;
        let command = scene.rotates_to(2, WAIT);
        let meanwhile = async {
            scene.running().await;
            match put {
                None => scene.store.empty(),
                Some(text) => scene.store.put_by_hand(text.as_bytes()),
            }
            scene.go();
        };
        let (report, ()) = tokio::join!(scene.run(vec![], command), meanwhile);
        assert_eq!(
            report.outcome,
            Outcome::NotPersisted {
                cause,
                rescued: true
            }
        );
        let held = scene
            .store
            .read()
            .await
            .expect("memory")
            .map(|stored| stored.secret.expose().to_vec());
        assert_eq!(held, put.map(|text| text.as_bytes().to_vec()));
        assert_eq!(
            fs::read_to_string(report.rescued[0].place()).expect("rescued"),
            login(2)
        );
    }
}

#[tokio::test]
async fn persist_resumes_from_the_receipt_of_restore() {
    let scene = Scene::new().await;
    let rescue = Rescue::new(scene.rescue());
    let job = job(&scene.store, &scene.home, &rescue);
    let mut signals = Signals::install().expect("signals");
    let report = authferry_runner::restore(&job, None, &mut signals)
        .await
        .expect("a round trip");
    assert_eq!(
        (report.outcome, report.placement),
        (Outcome::Restored, Some(Placement::Placed))
    );
    let receipt = Receipt::read(&scene.home)
        .expect("readable")
        .expect("a receipt");
    assert!(receipt.placed);
    let text =
        fs::read_to_string(scene.home.dir().join("authferry-receipt.json")).expect("a receipt");
    assert!(!text.contains("made-up"), "{text}");

    fs::write(scene.home.auth_file(), login(2)).expect("room");
    let report = authferry_runner::persist(&job, &receipt, &mut signals)
        .await
        .expect("a round trip");
    assert_eq!(
        report.outcome,
        Outcome::Persisted {
            overwritten: vec![]
        }
    );
    assert_eq!(scene.stored().await, login(2));
    assert!(
        fs::read_dir(scene.home.dir())
            .expect("the home")
            .next()
            .is_none(),
        "nothing is left"
    );
}

#[tokio::test]
async fn the_receipt_is_updated_after_every_write() {
    let scene = Scene::new().await;
    let command = scene.rotates_to(2, "");
    let look = format!(
        "{}; until grep -q '\"count\":2' \"$0/authferry-receipt.json\"; do sleep 0.01; done",
        command
            .get_args()
            .nth(1)
            .expect("a script")
            .to_string_lossy()
    );
    let mut waiting = Command::new("sh");
    waiting.arg("-c").arg(look).arg(scene.home.dir());
    let report = scene.run(vec![], waiting).await;
    assert_eq!(
        report.outcome,
        Outcome::Persisted {
            overwritten: vec![]
        }
    );
}

/// A failing second store delays the rescue by no more than its timeout.
#[tokio::test]
async fn a_hanging_second_store_falls_back_to_the_rescue_folder() {
    let scene = Scene::new().await;
    let store = Faulty::new(Box::new(scene.store.clone()), vec![DENIED; 50]);
    let hanging = Fault::Delay(Duration::from_hours(1));
    let second = Faulty::new(Box::new(MemoryStore::new("second")), vec![hanging]);
    let rescue = Rescue::new(scene.rescue()).with_second_store(Arc::new(second));
    let job = Job {
        store_timeout: Duration::from_secs(2),
        ..job(&store, &scene.home, &rescue)
    };
    let command = scene.rotates_to(2, "");
    let mut signals = Signals::install().expect("signals");
    let report = authferry_runner::run(&job, command, None, None, &mut signals).await;
    let report = report.expect("a round trip");
    let [Location::File(rescued)] = &report.rescued[..] else {
        panic!("{report:?}")
    };
    assert_eq!(fs::read_to_string(rescued).expect("rescued"), login(2));
    let why = report.not_in_second_store.expect("a reason");
    assert_eq!(why, "memory:second did not answer in time");
}

/// What one machine rescues to the second store, another machine adopts.
#[tokio::test]
async fn the_next_job_adopts_the_copy_in_the_second_store() {
    let scene = Scene::new().await;
    let second: Arc<MemoryStore> = Arc::new(MemoryStore::new("second"));
    let rescue = Rescue::new(scene.rescue()).with_second_store(second.clone());
    let store = Faulty::new(Box::new(scene.store.clone()), vec![DENIED; 50]);
    let failing = job(&store, &scene.home, &rescue);
    let mut signals = Signals::install().expect("signals");
    let command = scene.rotates_to(2, "");
    let report = authferry_runner::run(&failing, command, None, None, &mut signals).await;
    let report = report.expect("a round trip");
    assert!(
        matches!(&report.rescued[..], [Location::SecondStore { .. }]),
        "{report:?}"
    );
    assert!(!scene.rescue().exists());
    assert_eq!(scene.stored().await, login(1));

    let home = scene.above.path().join("another");
    let mut folder = fs::DirBuilder::new();
    folder.mode(0o700).create(&home).expect("room");
    let home = Home::new(&home).expect("a home");
    let rescue = Rescue::new(scene.above.path().join("other")).with_second_store(second);
    rescue
        .load_second_store(STORE_TIMEOUT)
        .await
        .expect("a document");
    let next = job(&scene.store, &home, &rescue);
    let report = authferry_runner::restore(&next, None, &mut signals).await;
    let report = report.expect("a round trip");
    assert_eq!(scene.stored().await, login(2), "{report:?}");
    assert_eq!(
        fs::read_to_string(home.auth_file()).expect("placed"),
        login(2)
    );
}

const DENIED: Fault = Fault::Refused(ErrorKind::PermissionDenied);

#[tokio::test]
async fn without_a_rescue_the_home_keeps_the_only_copy() {
    let scene = Scene::new().await;
    // A file is in the place of the rescue folder.
    let before = format!("touch '{}'", scene.rescue().display());
    let report = scene
        .run(
            vec![Fault::Refused(ErrorKind::Full); 2],
            scene.rotates_to(2, &before),
        )
        .await;
    assert_eq!(
        report.outcome,
        Outcome::NotPersisted {
            cause: Cause::Store,
            rescued: false
        }
    );
    assert!(report.rescue_error.is_some());
    assert_eq!(
        fs::read_to_string(scene.home.auth_file()).expect("left"),
        login(2)
    );
}

#[tokio::test]
async fn a_command_that_cannot_be_started_changes_nothing() {
    let scene = Scene::new().await;
    let report = scene.run(vec![], Command::new("/nowhere/codex")).await;
    assert_eq!(report.outcome, Outcome::Unchanged);
    assert!(matches!(report.command, Some(CommandEnd::NotStarted(_))));
    assert!(!scene.home.auth_file().exists());
}

#[tokio::test]
async fn a_seed_is_written_once_despite_network_faults() {
    for fault in [
        Fault::Pass,
        Fault::Lost,
        Fault::ReplyLost,
        Fault::Refused(ErrorKind::Throttled),
    ] {
        let store = MemoryStore::new("seed");
        let faulty = Faulty::new(Box::new(store.clone()), [fault; 2]);
        let dir = TempDir::new().expect("a temporary folder");
        let login = Secret::new(login(1).into_bytes());
        let seed = Seed {
            store: &faulty,
            secret: &login,
            origins: None,
            replace: Replace::Nothing,
            refused: Vec::new(),
            writer: "a person",
            rescue: &Rescue::new(dir.path()),
            store_timeout: STORE_TIMEOUT,
        };
        let seeded = authferry_runner::seed(&seed).await.expect("in the end");
        assert!(!seeded.unchanged, "{fault:?}");
        assert_eq!(store.history().len(), 1, "{fault:?}");
    }
}

#[tokio::test]
async fn a_seed_overwrites_a_login_only_with_replace() {
    let scene = Scene::new().await;
    assert!(matches!(
        scene.seed(2, Replace::Nothing).await,
        Err(SeedError::NotEmpty)
    ));
    assert!(matches!(
        scene.seed(0, Replace::NotNewer).await,
        Err(SeedError::Older(_))
    ));
    assert_eq!(scene.stored().await, login(1));
    scene.seed(2, Replace::NotNewer).await.expect("not newer");
    assert_eq!(scene.stored().await, login(2));
    let stamp = scene
        .store
        .read()
        .await
        .expect("memory")
        .expect("a login")
        .stamp
        .expect("a stamp");
    assert_eq!((stamp.origin, stamp.count), (Origin::Seed, 1));
    scene.seed(0, Replace::Anything).await.expect("anything");
    assert_eq!(scene.stored().await, login(0));
}

/// Reports that the command is running, and waits until the test has done its part.
const WAIT: &str = "touch \"$0/running\"; until [ -e \"$0/go\" ]; do sleep 0.01; done";

const STORE_TIMEOUT: Duration = Duration::from_secs(30);

fn job<'a>(store: &'a dyn SecretStore, home: &'a Home, rescue: &'a Rescue) -> Job<'a> {
    Job::new(store, home, rescue, "a job", STORE_TIMEOUT)
}

/// The family that begins with login 1.
fn family() -> Family {
    let first = authferry_codex::parse(&Secret::new(login(1).into_bytes()));
    Family(first.expect("a login").fingerprint)
}

/// An auth file whose tokens are made up; a higher number was issued later.
fn login(number: u32) -> String {
    login_of("account", number)
}

fn login_of(account: &str, number: u32) -> String {
    // {"iat":N} in base64url: the digits are such that no padding is needed.
    let claims = [
        "eyJpYXQiOjEwMH0",
        "eyJpYXQiOjEwMX0",
        "eyJpYXQiOjEwMn0",
        "eyJpYXQiOjEwM30",
        "eyJpYXQiOjEwNH0",
    ];
    let claims = claims[number as usize];
    format!(
        r#"{{"tokens":{{"id_token":"e30.e30.x","access_token":"e30.{claims}.x","refresh_token":"made-up-{number}","account_id":"{account}"}}}}"#
    )
}
