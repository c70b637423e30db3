//! Leftovers of an earlier job in a home, under a paused test clock.

#![cfg(target_os = "linux")]

use std::{
    fs,
    os::unix::fs::DirBuilderExt,
    process::{Child, Command},
    time::Duration,
};

use authferry_codex::Home;
use authferry_conformance::MemoryStore;
use authferry_core::{Outcome, Secret};
use authferry_runner::rescue::Rescue;
use authferry_runner::{Job, Receipt, Replace, Signals, StartError, admit};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

const EXIT_GRACE: Duration = Duration::from_secs(30);
const MINUTE: Duration = Duration::from_mins(1);

#[tokio::test(start_paused = true)]
async fn a_codex_that_may_write_is_ended_after_fifteen_minutes_without_a_write() {
    let scene = Scene::new(DUE).await;
    let job = scene.job();
    let mut codex = scene.start_codex();
    let began = Instant::now();
    let held = admit(&job, MINUTE * 3).await.expect_err("it may write");
    assert!(matches!(held, StartError::LeftoverCodex(_, _)), "{held}");
    assert!(began.elapsed() >= MINUTE * 3 && began.elapsed() < MINUTE * 4);

    let began = Instant::now();
    let admitted = admit(&job, MINUTE * 20).await.expect("it has had its time");
    assert!(began.elapsed() >= MINUTE * 14 && began.elapsed() < MINUTE * 16);
    let ended = admitted.ended.expect("it was ended");
    assert!(ended.may_be_spent);
    assert!(codex.has_ended());
    let mut signals = Signals::install().expect("signals");
    let restored = authferry_runner::restore(&job, None, &mut signals).await;
    assert_eq!(restored.expect("a round trip").outcome, Outcome::Restored);
}

#[tokio::test(start_paused = true)]
async fn a_write_restarts_the_timeout_of_a_codex() {
    let scene = Scene::new(DUE).await;
    let job = scene.job();
    let mut codex = scene.start_codex();
    let began = Instant::now();
    let writes = async {
        tokio::time::sleep(MINUTE * 10).await;
        scene.write(&login(1, DUE));
    };
    let (admitted, ()) = tokio::join!(admit(&job, MINUTE * 40), writes);
    admitted.expect("it has had its time");
    assert!(began.elapsed() >= MINUTE * 24, "{:?}", began.elapsed());
    assert!(codex.has_ended());
}

#[tokio::test(start_paused = true)]
async fn a_codex_whose_login_is_not_due_gets_the_exit_grace() {
    let scene = Scene::new(NOT_DUE).await;
    let job = scene.job();
    let mut codex = scene.start_codex();
    let began = Instant::now();
    let admitted = admit(&job, Duration::ZERO).await.expect("it may go");
    assert!(began.elapsed() >= EXIT_GRACE && began.elapsed() < MINUTE);
    assert!(!admitted.ended.expect("it was ended").may_be_spent);
    assert!(codex.has_ended());
}

#[tokio::test(start_paused = true)]
async fn a_watch_ends_a_minute_after_its_job_and_leaves_file_and_receipt() {
    let scene = Scene::new(NOT_DUE).await;
    let job = scene.job();
    let receipt = Receipt::read(&scene.home)
        .expect("readable")
        .expect("there");
    let mut signals = Signals::install().expect("signals");
    let began = Instant::now();
    let watched = authferry_runner::watch(&job, &receipt, &mut signals, || ());
    let watched = watched.await.expect("a watch");
    assert!(watched.job_is_over);
    assert!(began.elapsed() >= MINUTE && began.elapsed() < MINUTE * 2);
    assert!(scene.home.auth_file().exists());
    assert!(Receipt::read(&scene.home).expect("readable").is_some());
    assert!(!scene.home.dir().join("authferry-watch").exists());
}

#[tokio::test(start_paused = true)]
async fn a_watch_runs_as_long_as_its_job() {
    let scene = Scene::new(NOT_DUE).await;
    let mut step = Command::new("sleep")
        .arg("1000")
        .env("CI_JOB_ID", &scene.job_name)
        .env_remove("RUNNER_TRACKING_ID")
        .spawn()
        .expect("a program");
    let job = scene.job();
    let receipt = Receipt::read(&scene.home)
        .expect("readable")
        .expect("there");
    let mut signals = Signals::install().expect("signals");
    let watched = authferry_runner::watch(&job, &receipt, &mut signals, || ());
    let in_time = tokio::time::timeout(MINUTE * 5, watched).await;
    step.kill().expect("our child");
    step.wait().expect("our child");
    assert!(in_time.is_err(), "it ended before its job");
}

/// A login refreshed long ago is due; one refreshed in the future is not.
const DUE: &str = "2020-01-01T00:00:00Z";
const NOT_DUE: &str = "2090-01-01T00:00:00Z";

/// A home in which a job that is over left its login.
struct Scene {
    folder: TempDir,
    store: MemoryStore,
    home: Home,
    rescue: Rescue,
    /// The value of the job's variable.
    job_name: String,
}

impl Scene {
    async fn new(refreshed: &str) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let dir = folder.path().join("home");
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&dir)
            .expect("a folder");
        let scene = Self {
            store: MemoryStore::new("owners"),
            home: Home::new(&dir).expect("a home"),
            rescue: Rescue::new(folder.path().join("rescue")),
            job_name: folder.path().display().to_string(),
            folder,
        };
        let first = Secret::new(login(0, refreshed).into_bytes());
        authferry_runner::seed(&authferry_runner::Seed {
            store: &scene.store,
            secret: &first,
            origins: None,
            replace: Replace::Nothing,
            refused: Vec::new(),
            writer: "a person",
            rescue: &scene.rescue,
            store_timeout: MINUTE,
        })
        .await
        .expect("an empty store");
        let mut signals = Signals::install().expect("signals");
        authferry_runner::restore(&scene.job(), None, &mut signals)
            .await
            .expect("a round trip");
        let receipt = scene.home.dir().join("authferry-receipt.json");
        let text = fs::read(&receipt).expect("a receipt");
        let mut receipt_value: Value = serde_json::from_slice(&text).expect("JSON");
        let job = format!("CI_JOB_ID={}", scene.job_name);
        receipt_value["owner"] = json!({"job": job, "caller": null});
        fs::write(&receipt, receipt_value.to_string()).expect("room");
        scene
    }

    fn job(&self) -> Job<'_> {
        Job {
            exit_grace: EXIT_GRACE,
            ..Job::new(&self.store, &self.home, &self.rescue, "a job", MINUTE)
        }
    }

    fn write(&self, login: &str) {
        fs::write(self.home.auth_file(), login).expect("room");
    }

    /// A Codex that hangs.
    fn start_codex(&self) -> LeftoverCodex {
        let codex = self.folder.path().join("codex");
        fs::copy("/bin/sleep", &codex).expect("room");
        let mut command = Command::new(codex);
        command
            .arg("1000")
            .env("CODEX_HOME", self.home.dir())
            .env("CI_JOB_ID", &self.job_name)
            .env_remove("RUNNER_TRACKING_ID");
        LeftoverCodex(command.spawn().expect("a program"))
    }
}

/// A leftover Codex, killed when dropped.
struct LeftoverCodex(Child);

impl LeftoverCodex {
    /// Whether it was ended by the job. The test clock does not wait for the kernel, so this does.
    fn has_ended(&mut self) -> bool {
        let limit = std::time::Instant::now() + MINUTE;
        while std::time::Instant::now() < limit {
            if self.0.try_wait().expect("our child").is_some() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }
}

impl Drop for LeftoverCodex {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// An auth file whose tokens are made up; a higher number was issued later.
fn login(number: usize, refreshed: &str) -> String {
    // {"iat":N} in base64url.
    let claims = ["eyJpYXQiOjEwMH0", "eyJpYXQiOjEwMX0"][number];
    format!(
        r#"{{"tokens":{{"id_token":"e30.e30.x","access_token":"e30.{claims}.x","refresh_token":"made-up-{number}","account_id":"account"}},"last_refresh":"{refreshed}"}}"#
    )
}
