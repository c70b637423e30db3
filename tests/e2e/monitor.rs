//! What the owner of a login is told, and when: by the keep-alive's ping, by `status --check`, by
//! the metrics and by the jobs.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    process::{Command, Output},
    sync::{Arc, Mutex},
    thread,
};

use rig::{
    ACCESS_LIFETIME, Answer, Fault, Login, Runner, Sample, V0_171, finish, prometheus_samples,
};
use serde_json::Value;
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

use crate::any_store::AnyStore;
use crate::ferry::{Ferry, assert_code, assert_silent, script};

/// A monitor on a loopback port, which answers each ping with the same status. Its thread ends with
/// the test program.
struct Monitor {
    address: SocketAddr,
    pings: Arc<Mutex<Vec<String>>>,
}

impl Monitor {
    fn start(status: &'static str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free loopback port");
        let address = listener.local_addr().expect("a bound socket");
        let pings = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&pings);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = BufReader::new(stream.expect("a connection"));
                let mut lines = (&mut stream).lines().map_while(Result::ok);
                let request = lines.next().unwrap_or_default();
                let _head: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
                seen.lock().expect("no panic before").push(request);
                let reply = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
                stream.get_mut().write_all(reply.as_bytes()).ok();
            }
        });
        Self { address, pings }
    }

    /// The address of a check. Its path is a secret.
    fn url(&self) -> String {
        format!("http://{}/made-up-check", self.address)
    }

    /// The pings since the last call.
    fn pings(&self) -> Vec<String> {
        std::mem::take(&mut self.pings.lock().expect("no panic before"))
    }
}

const SUCCESS: &str = "GET /made-up-check HTTP/1.1";
const FAILURE: &str = "GET /made-up-check/fail HTTP/1.1";

/// The provider refuses every refresh for good.
fn revoke(ferry: &Ferry) {
    let refusals = [Fault::Answer(Answer::Invalidated); 40];
    ferry
        .stub
        .rules(|rules| rules.refresh_faults.extend(refusals));
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no JSON: {output:?}"))
}

/// The record of a released lease with the note that the provider rejects this auth file for good.
#[cfg(any(feature = "aws", feature = "vault"))]
pub(crate) fn dead_login_record(auth_json: &[u8]) -> String {
    let login = authferry_codex::parse(&authferry_core::Secret::new(auth_json.to_vec()));
    let login = login.expect("a login").fingerprint;
    format!("released\ndead {login} reused since 1767225600 by https://ci.example/jobs/1")
}

/// Whether `status --json` shows that the login is dead.
#[cfg(any(feature = "aws", feature = "vault"))]
pub(crate) fn shows_dead_login(status: &Output) -> bool {
    let report: Value = serde_json::from_slice(&status.stdout).unwrap_or_default();
    report["dead_since"] == "2026-01-01T00:00:00Z"
}

#[test]
fn a_keep_alive_pings_its_monitor() {
    let ferry = Ferry::holding(V0_171, &Login::ending_in(Duration::HOUR));
    let monitor = Monitor::start("200 OK");
    let refresh = |url: &str| {
        let runner = ferry.runner();
        let mut refresh = ferry.authferry(&runner, &["refresh"]);
        let refresh = finish(refresh.env("AUTHFERRY_PING_URL", url));
        let printed = [refresh.stdout.as_slice(), refresh.stderr.as_slice()].concat();
        let printed = String::from_utf8_lossy(&printed).into_owned();
        assert!(!printed.contains("made-up-check"), "{printed}");
        (refresh, printed)
    };

    let (rotated, _) = refresh(&monitor.url());
    assert_code(&rotated, 0);
    assert_eq!(monitor.pings(), [SUCCESS]);

    let reseed = Login {
        serial: 7,
        ..Login::ending_in(Duration::HOUR)
    };
    ferry.stub.sign_in(&reseed);
    assert_code(&ferry.seed(&reseed, &["--replace", "--allow-older"]), 0);
    revoke(&ferry);
    let (refused, _) = refresh(&monitor.url());
    assert_code(&refused, 125);
    assert_eq!(monitor.pings(), [FAILURE]);

    // A ping that is not delivered changes no exit code.
    let missing = Monitor::start("404 Not Found");
    let (refused, printed) = refresh(&missing.url());
    assert_code(&refused, 125);
    assert!(
        printed.contains("answered the ping with status 404"),
        "{printed}"
    );
    assert_code(&ferry.seed(&Login::fresh(), &["--replace"]), 0);
    let (fresh, printed) = refresh(&missing.url());
    assert_code(&fresh, 0);
    assert!(
        printed.contains("answered the ping with status 404"),
        "{printed}"
    );
    assert_eq!(missing.pings(), [FAILURE, SUCCESS]);
}

#[test]
fn no_command_gets_the_monitors_url() {
    let ferry = Ferry::holding(V0_171, &Login::ending_in(Duration::HOUR));
    let runner = ferry.runner();
    let codex = runner.root().join("bin/codex");
    let native = fs::read_link(&codex).expect("a link");
    fs::remove_file(&codex).expect("a link");
    // The Codex that rotates also shows its environment.
    let text = format!(
        "env > {}/of-codex; exec {} \"$@\"",
        runner.work().display(),
        native.display()
    );
    let wrapper = script(&runner, &text);
    fs::rename(wrapper, &codex).expect("one file system");
    let job = script(&runner, "env > of-the-job");
    let mut run = ferry.authferry(&runner, &["run", "--"]);
    run.arg(job).env("AUTHFERRY_PING_URL", "made-up-check");

    assert_code(&finish(&mut run), 0);

    for file in ["of-codex", "of-the-job"] {
        let environment = fs::read_to_string(runner.work().join(file)).expect(file);
        assert!(environment.contains("CODEX_HOME="), "{environment}");
        assert!(!environment.contains("PING"), "{environment}");
    }
}

#[test]
fn prometheus_accepts_the_metrics() {
    let login = Login::ending_in(Duration::HOUR);
    let ferry = Ferry::holding(V0_171, &login);
    let runner = ferry.runner();
    let metrics = |arguments: &[&str], code| {
        let mut status = ferry.authferry(&runner, arguments);
        let output = finish(status.args(["--prometheus", "-"]));
        assert_code(&output, code);
        assert_silent(&output, &[login.auth_json().as_bytes()]);
        prometheus_samples(&String::from_utf8(output.stdout).expect("text"))
    };
    let value = |samples: &[Sample], name: &str, label: (&str, &str)| {
        let (key, value) = label;
        let of = |it: &&Sample| it.0 == name && it.1.get(key).is_some_and(|it| it == value);
        samples.iter().find(of).map(|it| it.2)
    };
    let store = ferry.address();
    let here = ("store", store.as_str());

    let samples = metrics(&["status", "--check"], 1);
    assert_eq!(value(&samples, "authferry_up", here), Some(1.0));
    let expiry = "authferry_login_access_token_expiry_timestamp_seconds";
    #[expect(clippy::cast_precision_loss, reason = "a time in this century")]
    let ends = login.ends.unix_timestamp() as f64;
    assert_eq!(value(&samples, expiry, here), Some(ends));
    let attention = "authferry_login_attention";
    for (problem, expected) in [("expiring", 1.0), ("overdue", 1.0), ("dead", 0.0)] {
        assert_eq!(
            value(&samples, attention, ("problem", problem)),
            Some(expected)
        );
    }
    let refused = "authferry_login_refused";
    assert_eq!(value(&samples, refused, ("reason", "revoked")), Some(0.0));

    revoke(&ferry);
    assert_code(&finish(&mut ferry.authferry(&runner, &["refresh"])), 125);
    let samples = metrics(&["status"], 0);
    assert_eq!(value(&samples, refused, ("reason", "revoked")), Some(1.0));
    assert_eq!(value(&samples, attention, ("problem", "dead")), Some(1.0));

    // An address with a character that a label escapes.
    let odd = runner.work().join("a\"b");
    fs::create_dir(&odd).expect("disk space");
    let odd = format!("file://{}/login.json", odd.display());
    let samples = metrics(&["status", "--store", &odd], 125);
    assert_eq!(value(&samples, "authferry_up", ("store", &odd)), Some(0.0));
}

/// Moves the clock of authferry. The real Codex is linked statically, and follows the real clock.
struct MadeUpClock {
    library: PathBuf,
    _delete_on_drop: TempDir,
}

impl MadeUpClock {
    fn build() -> Self {
        let folder = TempDir::with_prefix("clock-").expect("a temporary folder");
        let library = folder.path().join("clock.so");
        let mut compiler = Command::new("cc");
        compiler
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(&library);
        compiler.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/e2e/made_up_clock.c"));
        assert_code(&finish(&mut compiler), 0);
        Self {
            library,
            _delete_on_drop: folder,
        }
    }

    fn move_by(&self, offset: Duration, command: &mut Command) {
        let seconds = offset.whole_seconds().to_string();
        command.env("LD_PRELOAD", &self.library);
        command.env("MADE_UP_CLOCK_OFFSET", seconds);
    }
}

/// The days on which something changes, for the gate.
const GATE_DAYS: [i64; 9] = [0, 2, 3, 4, 7, 8, 9, 10, 29];

/// The keep-alive runs daily for 30 days on ephemeral machines. The provider revokes the login on
/// day 3, on which the keep-alive is due to rotate it: its access token lives for 7 more days.
#[test]
fn the_owner_is_told_of_a_revoked_login_on_the_same_day_and_every_day_after() {
    // A static program does not follow the made-up clock.
    if std::env::var_os("AUTHFERRY_TEST_PROGRAM").is_some() {
        return;
    }
    let issued = OffsetDateTime::now_utc() - Duration::days(3);
    let login = Login::new("account-1", 1, issued, ACCESS_LIFETIME);
    let ferry = Ferry::holding(V0_171, &login);
    let monitor = Monitor::start("200 OK");
    let clock = MadeUpClock::build();
    let on_day = |day: i64, runner: &Runner, arguments: &[&str]| {
        let mut command = ferry.authferry(runner, arguments);
        clock.move_by(Duration::days(day - 3), &mut command);
        command.env("AUTHFERRY_PING_URL", monitor.url());
        command.env("GITHUB_STEP_SUMMARY", runner.work().join("summary"));
        command
    };
    let is_set = |name| std::env::var_os(name).is_some();
    let is_whole = !is_set("AUTHFERRY_TEST_SEED") || is_set("AUTHFERRY_TEST_ALL");
    let mut requests = 0;
    for day in (0..30).filter(|day| is_whole || GATE_DAYS.contains(day)) {
        if day == 3 {
            revoke(&ferry);
        }
        let runner = ferry.runner();
        let refresh = ["refresh", "--within", "5d", "--github"];
        let refresh = finish(&mut on_day(day, &runner, &refresh));
        let check = finish(&mut on_day(day, &runner, &["status", "--check", "--json"]));
        let summary = fs::read_to_string(runner.work().join("summary")).expect("a summary");
        let told = String::from_utf8_lossy(&refresh.stdout).into_owned();
        let seen = ferry.stub.count(|_| true);
        if day < 3 {
            assert_code(&refresh, 0);
            assert_code(&check, 0);
            assert_eq!(monitor.pings(), [SUCCESS], "day {day}");
            assert_eq!(json(&check)["severity"], Value::Null, "day {day}");
            assert_eq!(seen, 0, "day {day}");
            continue;
        }
        assert_code(&refresh, 125);
        assert_code(&check, 1);
        assert_eq!(monitor.pings(), [FAILURE], "day {day}");
        // Once: the first refusal is noted, and no later job asks the provider.
        if day == 3 {
            assert!(seen > 0, "the provider was not asked");
            requests = seen;
        }
        assert_eq!(seen, requests, "day {day}");
        let works = day < 10;
        for text in [&told, &summary] {
            assert!(
                text.contains("its refresh token was revoked"),
                "day {day}: {text}"
            );
            assert_eq!(text.contains("jobs work until"), works, "day {day}: {text}");
            assert!(text.contains("next: overwrite it"), "day {day}: {text}");
        }
        let check = json(&check);
        let severity = if works { "warning" } else { "critical" };
        assert_eq!(check["severity"], severity, "day {day}");
        assert_eq!(check["problems"][0]["problem"], "dead", "day {day}");
        // A job warns once its login is due, and works as long as the access token.
        if [8, 9, 10].contains(&day) {
            assert_job_tells(
                day,
                works,
                &mut on_day(day, &runner, &["--github", "run", "--", "true"]),
            );
            assert_eq!(ferry.stub.count(|_| true), requests, "day {day}");
        }
    }
    assert_eq!(ferry.stored(), login.auth_json().as_bytes());
}

/// A job whose login is dead and due starts while its access token lives, and says so.
#[track_caller]
fn assert_job_tells(day: i64, works: bool, run: &mut Command) {
    let run = finish(run);
    let told = String::from_utf8_lossy(&run.stdout).into_owned();
    assert_code(&run, if works { 0 } else { 125 });
    let level = if works { "::warning" } else { "::error" };
    let line = told.lines().find(|line| line.starts_with(level));
    let line = line.unwrap_or_else(|| panic!("day {day}: {told}"));
    assert!(line.contains("is dead since"), "day {day}: {line}");
    assert!(line.contains("next: overwrite it"), "day {day}: {line}");
    assert_eq!(line.contains("jobs work until"), works, "day {day}: {line}");
}
