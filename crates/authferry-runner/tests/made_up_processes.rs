//! How a job treats a Codex in its home that cannot be staged with a real one: one that has been
//! running for long, or that is in the middle of a refresh. The processes are made up, in a folder
//! that is read instead of `/proc`.

#![cfg(target_os = "linux")]

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, symlink},
    path::{Path, PathBuf},
    sync::OnceLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use authferry_codex::Home;
use authferry_conformance::MemoryStore;
use authferry_core::{Outcome, Refusal};
use authferry_runner::rescue::Rescue;
use authferry_runner::{Job, Receipt, Signals, StartError, admit, make_up_processes};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use tempfile::TempDir;
use tokio::time::Instant;

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

/// A refresh cannot have begun before the login was due, however long the Codex has been idle.
#[tokio::test(start_paused = true)]
async fn a_codex_with_a_newly_due_login_gets_fifteen_minutes() {
    let scene = Scene::new().await;
    let job = scene.job();
    // A login is due five minutes before its expiry.
    scene.write(0, 240);
    let file = fs::File::open(scene.home.auth_file()).expect("there");
    file.set_modified(SystemTime::now() - HOUR).expect("ours");
    scene.start_codex(5_000_001);

    let held = admit(&job, MINUTE * 3).await.expect_err("it may write");
    assert!(matches!(held, StartError::LeftoverCodex(_, _)), "{held}");
    scene.write(0, -7200);
    let file = fs::File::open(scene.home.auth_file()).expect("there");
    file.set_modified(SystemTime::now() - HOUR).expect("ours");
    let began = Instant::now();
    let admitted = admit(&job, MINUTE * 3).await.expect("it has had its time");
    assert!(admitted.ended.is_some());
    assert!(began.elapsed() < MINUTE * 2, "{:?}", began.elapsed());
}

/// An unreadable file says nothing about the login that Codex has in memory.
#[tokio::test(start_paused = true)]
async fn a_codex_with_a_torn_auth_file_gets_fifteen_minutes() {
    let scene = Scene::new().await;
    let job = scene.job();
    scene.write(0, 7200);
    fs::write(scene.home.auth_file(), r#"{"tokens":"#).expect("room");
    scene.start_codex(5_000_003);

    let held = admit(&job, MINUTE * 3).await.expect_err("it may write");
    assert!(matches!(held, StartError::LeftoverCodex(_, _)), "{held}");
}

/// Codex drops the login that it received if its file has changed meanwhile.
#[tokio::test(start_paused = true)]
async fn a_login_that_a_codex_may_have_spent_is_not_overwritten() {
    let scene = Scene::new().await;
    let job = scene.job();
    scene.write(0, -60);
    scene.start_codex(5_000_002);
    scene.store.put_by_hand(login(1, 7200).as_bytes());

    let mut signals = Signals::install().expect("signals");
    let refused = authferry_runner::restore(&job, None, &mut signals).await;
    let refused = refused.expect("a round trip").outcome;
    assert_eq!(refused, Outcome::Refused(Refusal::ConcurrentWrite));
    assert_eq!(scene.read(), login(0, -60));

    fs::remove_dir_all(processes().join("5000002")).expect("there");
    let restored = authferry_runner::restore(&job, None, &mut signals).await;
    assert_eq!(restored.expect("a round trip").outcome, Outcome::Restored);
    assert_eq!(scene.read(), login(1, 7200));
}

/// The kernel takes the program of an exiting process before it closes the process's files.
#[tokio::test(start_paused = true)]
async fn an_exiting_process_does_not_use_the_home() {
    let scene = Scene::new().await;
    scene.write(0, 7200);
    scene.start_writer(5_000_004);
    assert!(scene.persist().await, "a running process uses the home");

    let exe = processes().join("5000004/exe");
    fs::remove_file(exe).expect("there");
    assert!(!scene.persist().await, "an exiting process writes nothing");
}

/// The folder that is read instead of `/proc`: this process, and the machine's first process.
fn processes() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = TempDir::new().expect("a temporary folder").keep();
        let us = std::process::id();
        symlink(us.to_string(), folder.join("self")).expect("room");
        fs::write(folder.join("uptime"), "7200.00 0.00\n").expect("room");
        add(&folder, 1, 0, "init", "");
        add(
            &folder,
            us.try_into().expect("small"),
            1,
            "authferry",
            "CI_JOB_ID=made-up-2\0",
        );
        make_up_processes(folder.clone());
        folder
    })
}

fn add(folder: &Path, id: i32, parent: i32, name: &str, environ: &str) {
    let folder = folder.join(id.to_string());
    fs::create_dir(&folder).expect("room");
    let rest = "0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 0 0";
    fs::write(
        folder.join("stat"),
        format!("{id} ({name}) S {parent} 1 1 {rest}\n"),
    )
    .expect("room");
    fs::write(folder.join("environ"), environ).expect("room");
    symlink(format!("/made-up/bin/{name}"), folder.join("exe")).expect("room");
}

/// A home in which a job that is over left its login.
struct Scene {
    _folder: TempDir,
    store: MemoryStore,
    home: Home,
    rescue: Rescue,
}

impl Scene {
    async fn new() -> Self {
        processes();
        let folder = TempDir::new().expect("a temporary folder");
        let dir = folder.path().join("home");
        let mut make = fs::DirBuilder::new();
        make.mode(0o700).create(&dir).expect("room");
        let scene = Self {
            store: MemoryStore::new("made-up"),
            home: Home::new(&dir).expect("a home"),
            rescue: Rescue::new(folder.path().join("rescue")),
            _folder: folder,
        };
        scene.store.put_by_hand(login(0, -60).as_bytes());
        let mut signals = Signals::install().expect("signals");
        let restored = authferry_runner::restore(&scene.job(), None, &mut signals).await;
        assert_eq!(restored.expect("a round trip").outcome, Outcome::Restored);
        // The receipt belongs to another job.
        let receipt = dir.join("authferry-receipt.json");
        let text = fs::read_to_string(&receipt).expect("there");
        fs::write(receipt, text.replace("made-up-2", "made-up-1")).expect("room");
        scene
    }

    fn job(&self) -> Job<'_> {
        Job {
            exit_grace: Duration::from_secs(5),
            ..Job::new(&self.store, &self.home, &self.rescue, "a job", MINUTE)
        }
    }

    fn write(&self, number: usize, ends_in: i64) {
        fs::write(self.home.auth_file(), login(number, ends_in)).expect("room");
    }

    fn read(&self) -> String {
        fs::read_to_string(self.home.auth_file()).expect("there")
    }

    /// Persists as the job of the receipt; returns whether the login stays because the home is in
    /// use.
    async fn persist(&self) -> bool {
        let receipt = self.home.dir().join("authferry-receipt.json");
        let text = fs::read_to_string(&receipt).expect("there");
        fs::write(&receipt, text.replace("made-up-1", "made-up-2")).expect("room");
        let receipt = Receipt::read(&self.home).expect("readable").expect("there");
        let mut signals = Signals::install().expect("signals");
        let report = authferry_runner::persist(&self.job(), &receipt, &mut signals).await;
        report.expect("a round trip").in_use.is_some()
    }

    /// A process that has a file in the home open for writing.
    fn start_writer(&self, id: i32) {
        add(processes(), id, 1, "logger", "CI_JOB_ID=made-up-2\0");
        let process = processes().join(id.to_string());
        for name in ["fd", "fdinfo"] {
            fs::create_dir(process.join(name)).expect("room");
        }
        let log = self.home.dir().canonicalize().expect("there").join("log");
        symlink(log, process.join("fd/3")).expect("room");
        fs::write(process.join("fdinfo/3"), "flags:\t0100001\n").expect("room");
    }

    /// A Codex that was started at boot.
    fn start_codex(&self, id: i32) {
        let home = self.home.dir().display();
        let environ = format!("CODEX_HOME={home}\0CI_JOB_ID=made-up-1\0");
        add(processes(), id, 1, "codex", &environ);
    }
}

/// An auth file whose tokens are made up, and whose access token expires in `ends_in` seconds.
fn login(number: usize, ends_in: i64) -> String {
    let begin = *BEGIN.get_or_init(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        i64::try_from(now.expect("after 1970").as_secs()).expect("a small number")
    });
    let (iat, exp) = (number * 1000, begin + ends_in);
    let claims = URL_SAFE_NO_PAD.encode(format!(r#"{{"iat":{iat},"exp":{exp}}}"#));
    format!(
        r#"{{"tokens":{{"id_token":"e30.e30.x","access_token":"e30.{claims}.x","refresh_token":"made-up-{number}","account_id":"account"}}}}"#
    )
}

static BEGIN: OnceLock<i64> = OnceLock::new();
