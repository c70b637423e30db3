//! The provider refuses a refresh token while the access token is valid, as a keep-alive and rotate
//! first meet it.

use std::{
    cell::RefCell,
    env, fs,
    path::PathBuf,
    process::{Child, Output},
    thread,
    time::Duration,
};

use rig::{Answer, Endpoint, Fault, Hold, Login, Runner, What, finish};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::any_store::AnyStore;
use crate::ferry::{Ferry, assert_code, assert_silent, names, start, wait_until};

/// The versions that report a refusal differently: quoted, with details, by its status alone. The
/// gate, `tests/run`, takes the first two.
const VERSIONS: [&str; 7] = [
    rig::V0_171,
    rig::V0_101,
    "0.163.0",
    rig::V0_166,
    rig::V0_169,
    rig::V0_145,
    rig::V0_130,
];

fn versions() -> &'static [&'static str] {
    if env::var_os("AUTHFERRY_TEST_ALL").is_some() {
        &VERSIONS
    } else {
        &VERSIONS[..2]
    }
}

/// From this version on, Codex hides the reason while the access token is valid.
fn hides_reasons(version: &str) -> bool {
    ![rig::V0_101, rig::V0_130, rig::V0_145, "0.163.0"].contains(&version)
}

#[test]
fn a_dead_login_is_named_and_noted_while_its_access_token_is_valid() {
    let answers = [
        (Answer::Reused, "its refresh token was spent before"),
        (Answer::Expired, "its refresh token has expired"),
        (Answer::Invalidated, "its refresh token was revoked"),
    ];
    for (at, version) in versions().iter().enumerate() {
        // The versions treat the three reasons alike: one of them is enough for most.
        let answers = if at == 0 {
            &answers[..]
        } else {
            &answers[at % 3..=at % 3]
        };
        for (answer, reason) in answers {
            let scene = Scene::refusing(version, *answer);
            let about = format!("{version}, {answer:?}");

            let refresh = scene.refresh();

            assert_code(&refresh, 125);
            let report = report(&refresh);
            assert_eq!(report["outcome"], "dead", "{about}: {report}");
            let message = report["message"].as_str().expect("a text");
            assert!(message.contains(reason), "{about}: {message}");
            assert!(message.contains("; jobs work until "), "{about}: {message}");
            assert_silent(&refresh, &[&scene.ferry.stored()]);
            // A startup of Codex on the ended copy shows the token twice.
            let expected = if hides_reasons(version) { 1..=3 } else { 1..=2 };
            let requests = scene.requests();
            assert!(expected.contains(&requests), "{about}: {requests} requests");
            scene.assert_noted("dead since");
            scene.assert_asks_nothing("dead");
            scene.assert_job_begins("is dead since");
        }
    }
}

#[test]
fn a_refusal_without_a_reason_is_noted_and_blocks_no_job() {
    let answers = [Answer::Unnamed, Answer::InvalidGrant, Answer::Ciphertext];
    for (at, version) in versions().iter().enumerate() {
        let answers = if at == 0 {
            &answers[..]
        } else {
            &answers[at % 3..=at % 3]
        };
        for answer in answers {
            let scene = Scene::refusing(version, *answer);
            let about = format!("{version}, {answer:?}");

            let refresh = scene.refresh();

            assert_code(&refresh, 125);
            let report = report(&refresh);
            assert_eq!(report["outcome"], "refused", "{about}: {report}");
            let message = report["message"].as_str().expect("a text");
            for part in [
                "without a reason",
                "; the next attempt is at ",
                "; jobs work until ",
            ] {
                assert!(message.contains(part), "{about}: {message}");
            }
            // Codex knows no reason of a 400 that it retries, so nothing is asked for.
            let is_hidden = hides_reasons(version) && *answer != Answer::Ciphertext;
            let expected = if is_hidden { 1..=3 } else { 1..=2 };
            let requests = scene.requests();
            assert!(expected.contains(&requests), "{about}: {requests} requests");
            scene.assert_noted("refused by the provider since");
            scene.assert_asks_nothing("refused");
            scene.assert_job_begins("is refused by the provider since");
        }
    }
}

#[test]
fn an_outage_is_no_refusal() {
    for version in versions() {
        let ferry = Ferry::holding(version, &live_login());
        let faults = [Fault::ServerError; 50];
        ferry
            .stub
            .rules(|rules| rules.refresh_faults.extend(faults));
        let scene = Scene::of(ferry);

        let refresh = scene.refresh();

        assert_code(&refresh, 125);
        assert_eq!(report(&refresh)["outcome"], "not-rotated", "{version}");
        scene.assert_not_noted();
        let requests = scene.requests();
        scene.refresh();
        assert!(
            scene.requests() > requests,
            "{version}: the provider is asked again"
        );
    }
}

/// The first refusal came from a gateway.
#[test]
fn a_login_that_is_accepted_on_the_ended_copy_is_persisted() {
    let ferry = Ferry::holding(rig::V0_171, &live_login());
    let before = ferry.stored();
    ferry.stub.rules(|rules| {
        rules
            .refresh_faults
            .push_back(Fault::Answer(Answer::Unnamed));
    });
    let scene = Scene::of(ferry);

    let refresh = scene.refresh();

    assert_code(&refresh, 0);
    assert_eq!(report(&refresh)["outcome"], "rotated");
    assert_ne!(scene.ferry.stored(), before);
    assert!(scene.ferry.is_live());
    assert_eq!(scene.ferry.stub.count(What::is_rotation), 1);
    scene.assert_not_noted();
    assert_eq!(scene.rotations(), [] as [String; 0]);
}

#[test]
fn an_outage_while_the_reason_is_asked_for_is_no_refusal() {
    let ferry = Ferry::holding(rig::V0_171, &live_login());
    let outage = [Fault::ServerError; 50];
    ferry.stub.rules(|rules| {
        let refusal = Fault::Answer(Answer::Reused);
        rules.refresh_faults.push_back(refusal);
        rules.refresh_faults.extend(outage);
    });
    let scene = Scene::of(ferry);

    let refresh = scene.refresh();

    assert_code(&refresh, 125);
    assert_eq!(report(&refresh)["outcome"], "not-rotated");
    scene.assert_not_noted();
}

/// The supervisor persists the login that Codex writes over the ended copy.
#[test]
fn the_supervisor_completes_a_rotation_of_the_ended_copy() {
    let scene = Scene::asking_why();
    kill(scene.asking.as_ref().expect("a process").id());
    scene.release();
    assert!(scene.ferry.is_live(), "the login is not in the store");
    assert_eq!(scene.rotations(), [] as [String; 0]);
}

#[test]
fn an_ended_copy_of_a_killed_rotation_is_never_adopted() {
    let scene = Scene::asking_why();
    let before = scene.ferry.stored();
    for process in scene.runner.processes().expect("Linux") {
        kill(process);
    }
    scene.release();
    let folder = scene.rotations();
    assert_eq!(folder.len(), 1, "{folder:?}");
    let left = scene.auth_file(&folder[0]).expect("an auth file");
    assert!(left.contains("authferry-ended-copy"), "{left}");

    let job = ["run", "--no-rotate-first", "--", "true"];
    let mut job = scene.ferry.authferry(&scene.runner, &job);
    let job = finish(&mut job);

    assert_code(&job, 0);
    let stderr = String::from_utf8_lossy(&job.stderr);
    assert!(stderr.contains("may be spent"), "{stderr}");
    assert_eq!(scene.ferry.stored(), before);
    assert_eq!(scene.rotations(), [] as [String; 0]);
    let rescue = scene
        .runner
        .root()
        .join("home/.local/state/authferry/rescue");
    assert!(!rescue.exists() || names(&rescue).is_empty());
    let status: Value = serde_json::from_slice(&scene.status(&["--json"]).stdout).expect("JSON");
    assert_eq!(status["copies"], serde_json::json!([]));
}

/// A store, a runner, and a provider that refuses the login.
struct Scene {
    ferry: Ferry,
    runner: Runner,
    /// A refresh whose Codex waits for the answer on the ended copy.
    asking: Option<Child>,
    hold: RefCell<Option<Hold>>,
}

impl Scene {
    fn of(ferry: Ferry) -> Self {
        let runner = ferry.runner();
        Self {
            ferry,
            runner,
            asking: None,
            hold: RefCell::default(),
        }
    }

    fn refusing(version: &str, answer: Answer) -> Self {
        let ferry = Ferry::holding(version, &live_login());
        let faults = [Fault::Answer(answer); 100];
        ferry
            .stub
            .rules(|rules| rules.refresh_faults.extend(faults));
        Self::of(ferry)
    }

    /// Starts a refresh that is refused once, and waits until its Codex has spent the token of the
    /// ended copy. The answer is held.
    fn asking_why() -> Self {
        let ferry = Ferry::holding(rig::V0_171, &live_login());
        ferry.stub.rules(|rules| {
            rules
                .refresh_faults
                .push_back(Fault::Answer(Answer::Unnamed));
        });
        let mut scene = Self::of(ferry);
        let mut refresh = scene.ferry.authferry(&scene.runner, &["refresh"]);
        scene.asking = Some(start(&mut refresh));
        wait_until("Codex gets the ended copy", || {
            let has_copy = |folder: &String| {
                let file = scene.auth_file(folder);
                file.is_some_and(|file| file.contains("authferry-ended-copy"))
            };
            scene.rotations().iter().any(has_copy)
        });
        let hold = scene.ferry.stub.hold(Endpoint::Token);
        scene.hold.replace(Some(hold));
        let limit = Duration::from_mins(1);
        scene.ferry.stub.wait_for(limit, What::is_rotation);
        scene
    }

    /// Releases the held answer, and waits until no process is left.
    fn release(&self) {
        thread::sleep(Duration::from_millis(300));
        self.hold.take();
        wait_until("Codex and authferry have ended", || {
            self.runner.processes().expect("Linux").is_empty()
        });
    }

    fn refresh(&self) -> Output {
        finish(&mut self.ferry.authferry(&self.runner, &["refresh", "--json"]))
    }

    fn status(&self, more: &[&str]) -> Output {
        let mut status = self.ferry.authferry(&self.runner, &["status"]);
        finish(status.args(more))
    }

    fn requests(&self) -> usize {
        self.ferry.stub.count(What::is_refresh)
    }

    /// `status` shows a refusal in these words, and `--check` fails.
    #[track_caller]
    fn assert_noted(&self, words: &str) {
        let status = self.status(&["--check"]);
        assert_code(&status, 1);
        let shown = String::from_utf8_lossy(&status.stdout);
        assert!(shown.contains(&format!("refresh token {words}")), "{shown}");
    }

    #[track_caller]
    fn assert_not_noted(&self) {
        let status = self.status(&[]);
        let shown = String::from_utf8_lossy(&status.stdout);
        assert!(shown.contains("access token"), "{status:?}");
        assert!(!shown.contains("refresh token"), "{shown}");
    }

    /// The next refresh has the same outcome, without a request.
    #[track_caller]
    fn assert_asks_nothing(&self, outcome: &str) {
        let requests = self.requests();
        let refresh = self.refresh();
        assert_code(&refresh, 125);
        assert_eq!(report(&refresh)["outcome"], outcome);
        assert_eq!(self.requests(), requests);
    }

    /// A job begins with this warning, and without a request.
    #[track_caller]
    fn assert_job_begins(&self, warning: &str) {
        let requests = self.requests();
        let mut run = self.ferry.authferry(&self.runner, &["run", "--", "true"]);
        let run = finish(&mut run);
        assert_code(&run, 0);
        let stderr = String::from_utf8_lossy(&run.stderr);
        assert!(stderr.contains(warning), "{stderr}");
        assert_eq!(self.requests(), requests);
    }

    /// The folders of the rotations on this machine.
    fn rotations(&self) -> Vec<String> {
        let folder = self.folder();
        if folder.exists() {
            names(&folder)
        } else {
            Vec::new()
        }
    }

    fn folder(&self) -> PathBuf {
        let state = "home/.local/state/authferry/rotations";
        self.runner.root().join(state)
    }

    fn auth_file(&self, rotation: &str) -> Option<String> {
        let home = self.folder().join(rotation).join("home");
        fs::read_to_string(home.join("auth.json")).ok()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if let Some(asking) = &mut self.asking {
            asking.kill().ok();
            asking.wait().ok();
        }
    }
}

/// A login that is due for `refresh`, with a valid access token. No version of Codex considers it
/// stale.
fn live_login() -> Login {
    let login = Login::ending_in(time::Duration::minutes(30));
    Login {
        last_refresh: time::OffsetDateTime::now_utc() - time::Duration::HOUR,
        ..login
    }
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

fn kill(process: u32) {
    let raw = i32::try_from(process).expect("a small number");
    let pid = Pid::from_raw(raw).expect("not zero");
    // It may have ended with its parent.
    kill_process(pid, Signal::KILL).ok();
}
