//! A Codex whose refresh request is pending when authferry has to end: authferry waits for it or
//! leaves it running, and never kills it.
//!
//! The stub spends the token when the request arrives, and holds its reply. After each scenario the
//! live login is in the store, or in a home that the next job of the machine adopts.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::Duration,
};

use rig::{Endpoint, Hold, Login, Runner, What, finish, finish_within};
use rustix::process::{Pid, Signal, kill_process};

use crate::any_store::{AnyStore, on_each_version};
use crate::ferry::{Ferry, assert_code, names, script, wait_until};

on_each_version![V0_145 V0_166 V0_171:
    a_rotation_completes_after_its_process_is_killed,
    the_next_job_adopts_a_rotation_whose_supervisor_is_killed,
    a_cancelled_rotation_completes_in_the_background,
    a_cancelled_rotation_is_awaited_where_the_platform_kills_leftovers,
    run_waits_for_a_codex_left_in_the_background,
    the_second_signal_stops_waiting_and_does_not_kill_codex,
    the_first_signal_waits_for_the_reply,
    an_expired_cancel_grace_leaves_the_login_in_doubt,
];

/// Timeout for the refresh request to arrive.
const REQUEST_TIMEOUT: Duration = Duration::from_mins(1);

/// An authferry process whose Codex waits for the reply to its refresh request.
struct PendingRefresh {
    ferry: Ferry,
    runner: Runner,
    process: Child,
    reply: Option<Hold>,
}

impl PendingRefresh {
    /// Starts authferry and waits until its Codex has spent the token.
    fn start(version: &str, login: &Login, make: impl FnOnce(&Ferry, &Runner) -> Command) -> Self {
        let ferry = Ferry::holding(version, login);
        let runner = ferry.runner();
        let reply = ferry.stub.hold(Endpoint::Token);
        let mut command = make(&ferry, &runner);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let process = command.spawn().expect("a program to start");
        ferry.stub.wait_for(REQUEST_TIMEOUT, What::is_rotation);
        Self {
            ferry,
            runner,
            process,
            reply: Some(reply),
        }
    }

    fn refresh(version: &str, login: &Login, more: &[&str]) -> Self {
        Self::start(version, login, |ferry, runner| {
            let mut refresh = ferry.authferry(runner, &["refresh"]);
            refresh.args(more);
            refresh
        })
    }

    fn send(&self, signal: Signal) {
        kill_process(pid(self.process.id()), signal).expect("our child");
    }

    fn is_running(&mut self) -> bool {
        self.process.try_wait().expect("our child").is_none()
    }

    /// Releases the provider's reply.
    fn release_reply(&mut self) {
        self.reply = None;
    }

    /// Waits for the exit of authferry, and returns its exit code and stderr.
    fn wait_with_output(&mut self) -> Output {
        let mut bytes = Vec::new();
        let mut stderr = self.process.stderr.take().expect("piped");
        std::io::Read::read_to_end(&mut stderr, &mut bytes).expect("a pipe");
        Output {
            status: self.process.wait().expect("our child"),
            stdout: Vec::new(),
            stderr: bytes,
        }
    }

    fn wait_until_all_exited(&self) {
        wait_until("Codex and authferry have exited", || {
            self.runner.processes().expect("Linux").is_empty()
        });
    }

    /// The processes of this program, except the started one.
    fn supervisors(&self) -> Vec<u32> {
        let mut supervisors = self.processes("authferry");
        supervisors.retain(|process| *process != self.process.id());
        supervisors
    }

    fn codexes(&self) -> Vec<u32> {
        self.processes("codex")
    }

    /// The processes whose program name contains `name`.
    fn processes(&self, name: &str) -> Vec<u32> {
        let is_match = |process: &u32| {
            let program = fs::read_link(format!("/proc/{process}/exe")).unwrap_or_default();
            let program = program.file_name().unwrap_or_default();
            program.to_string_lossy().contains(name)
        };
        let processes = self.runner.processes().expect("Linux");
        processes.into_iter().filter(is_match).collect()
    }

    fn rotations(&self) -> Vec<String> {
        names(&rotations(&self.runner))
    }

    /// Asserts that the next job of this machine has the live login.
    fn assert_next_job_has_live_login(&self) {
        let next = self.ferry.authferry(&self.runner, &["run", "--", "true"]);
        assert_code(&finish(&mut { next }), 0);
        assert!(self.ferry.is_live());
        assert_eq!(self.ferry.stub.count(What::is_rotation), 1);
        assert_eq!(
            self.rotations(),
            [] as [String; 0],
            "a private home was left behind"
        );
    }
}

fn rotations(runner: &Runner) -> PathBuf {
    runner.root().join("home/.local/state/authferry/rotations")
}

fn pid(process: u32) -> Pid {
    let raw = i32::try_from(process).expect("a small number");
    Pid::from_raw(raw).expect("not zero")
}

/// Asserts that the output says that the login may be spent, and claims nothing else.
#[track_caller]
fn assert_in_doubt(output: &Output) {
    assert_code(output, 119);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("may be spent"), "{stderr}");
    for untrue in ["unchanged", "as it was", "nothing was touched"] {
        assert!(!stderr.contains(untrue), "{stderr}");
    }
}

/// Whether this is a container, which kills all processes when its first one exits.
fn is_in_a_container() -> bool {
    let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    namespace != Path::new("pid:[4026531836]")
}

/// Codex rotates the stale login by itself, and the other one on request.
fn logins() -> [Login; 2] {
    [
        Login::stale(),
        Login::ending_in(time::Duration::minutes(10)),
    ]
}

fn a_rotation_completes_after_its_process_is_killed(version: &str) {
    for login in logins() {
        let mut refresh = PendingRefresh::refresh(version, &login, &[]);
        refresh.send(Signal::KILL);
        refresh.process.wait().expect("our child");
        thread::sleep(Duration::from_millis(300));
        refresh.release_reply();
        refresh.wait_until_all_exited();
        assert!(refresh.ferry.is_live());
        assert_eq!(refresh.rotations(), [] as [String; 0]);
        refresh.assert_next_job_has_live_login();
    }
}

fn the_next_job_adopts_a_rotation_whose_supervisor_is_killed(version: &str) {
    for login in logins() {
        let mut refresh = PendingRefresh::refresh(version, &login, &[]);
        let supervisors = refresh.supervisors();
        assert_eq!(supervisors.len(), 1);
        for process in supervisors.into_iter().chain([refresh.process.id()]) {
            kill_process(pid(process), Signal::KILL).expect("ours");
        }
        refresh.process.wait().expect("our child");
        thread::sleep(Duration::from_millis(300));
        refresh.release_reply();
        refresh.wait_until_all_exited();
        assert!(!refresh.ferry.is_live(), "no process was left to write it");
        refresh.assert_next_job_has_live_login();
    }
}

fn a_cancelled_rotation_completes_in_the_background(version: &str) {
    if is_in_a_container() {
        return;
    }
    let mut run = PendingRefresh::start(version, &Login::stale(), |ferry, runner| {
        let run = ["run", "--cancel-grace", "1s", "--", "touch", "begun"];
        ferry.authferry(runner, &run)
    });
    run.send(Signal::TERM);
    assert_in_doubt(&run.wait_with_output());
    assert!(!run.runner.work().join("begun").exists());

    // The next job waits for that Codex.
    let next = ["refresh", "--lease-timeout", "1s"];
    let held = finish(&mut run.ferry.authferry(&run.runner, &next));
    assert_code(&held, 123);
    run.release_reply();
    run.wait_until_all_exited();
    assert!(run.ferry.is_live());
    run.assert_next_job_has_live_login();
}

fn a_cancelled_rotation_is_awaited_where_the_platform_kills_leftovers(version: &str) {
    let mut run = PendingRefresh::start(version, &Login::stale(), |ferry, runner| {
        let run = ["run", "--cancel-grace", "1s", "--", "touch", "begun"];
        let mut run = ferry.authferry(runner, &run);
        run.env("RUNNER_TRACKING_ID", "github_made-up");
        run
    });
    run.send(Signal::TERM);
    thread::sleep(Duration::from_secs(3));
    assert!(run.is_running(), "authferry did not wait");
    run.release_reply();
    assert_code(&run.wait_with_output(), 143);
    assert!(!run.runner.work().join("begun").exists());
    assert!(run.ferry.is_live());
    run.wait_until_all_exited();
    run.assert_next_job_has_live_login();
}

/// A job that leaves Codex in the background once Codex has spent the token.
fn leave_codex_behind(ferry: &Ferry, runner: &Runner) -> Command {
    let job = "codex exec --skip-git-repo-check 'Reply OK.' >/dev/null 2>&1 </dev/null & \
               until [ -e spent ]; do sleep 0.01; done; exit 3";
    let job = script(runner, job);
    let run = ["run", "--no-rotate-first", "--exit-grace", "0s", "--"];
    let mut run = ferry.authferry(runner, &run);
    run.arg(job);
    run
}

fn run_waits_for_a_codex_left_in_the_background(version: &str) {
    let mut run = PendingRefresh::start(version, &Login::stale(), leave_codex_behind);
    fs::write(run.runner.work().join("spent"), "").expect("disk space");
    thread::sleep(Duration::from_secs(3));
    assert!(run.is_running(), "authferry did not wait");
    run.release_reply();
    let ended = run.wait_with_output();
    assert_code(&ended, 3);
    assert!(run.ferry.is_live(), "{ended:?}");
    run.wait_until_all_exited();
    assert!(!run.runner.auth_file().exists());
}

fn the_second_signal_stops_waiting_and_does_not_kill_codex(version: &str) {
    let mut run = PendingRefresh::start(version, &Login::stale(), leave_codex_behind);
    fs::write(run.runner.work().join("spent"), "").expect("disk space");
    thread::sleep(Duration::from_millis(500));
    run.send(Signal::INT);
    thread::sleep(Duration::from_secs(1));
    assert!(run.is_running(), "authferry exited on the first signal");
    run.send(Signal::TERM);
    assert_in_doubt(&run.wait_with_output());
    assert!(run.runner.auth_file().exists(), "Codex still writes to it");
    run.release_reply();
    wait_until("Codex has written", || {
        let file = fs::read(run.runner.auth_file()).unwrap_or_default();
        run.ferry.stub.is_live(&file)
    });
    wait_until("Codex has exited", || codexes(&run.runner).is_empty());
    let next = run.ferry.authferry(&run.runner, &["run", "--", "true"]);
    assert_code(&finish(&mut { next }), 0);
    assert!(run.ferry.is_live());
}

fn codexes(runner: &Runner) -> Vec<u32> {
    let processes = runner.processes().expect("Linux").into_iter();
    let is_codex = |process: &u32| {
        let program = fs::read_link(format!("/proc/{process}/exe")).unwrap_or_default();
        program.file_name().is_some_and(|name| name == "codex")
    };
    processes.filter(is_codex).collect()
}

fn the_first_signal_waits_for_the_reply(version: &str) {
    for signal in [Signal::TERM, Signal::USR1] {
        let mut run = PendingRefresh::start(version, &Login::stale(), Ferry::run);
        run.send(signal);
        thread::sleep(Duration::from_secs(2));
        assert!(run.is_running(), "authferry did not wait");
        // Codex receives the signal once it has written the login.
        let _model = run.ferry.stub.hold(Endpoint::Model);
        run.release_reply();
        let ended = run.wait_with_output();
        assert_code(&ended, 128 + signal.as_raw());
        assert!(run.ferry.is_live(), "{ended:?}");
        assert!(!run.runner.auth_file().exists());
    }
}

fn an_expired_cancel_grace_leaves_the_login_in_doubt(version: &str) {
    let github: fn(&mut Command) = |run| {
        run.env("GITHUB_ACTIONS", "true");
    };
    let none: fn(&mut Command) = |_| {};
    for (grace, environment) in [(Some("--cancel-grace=0s"), none), (None, github)] {
        let mut run = PendingRefresh::start(version, &Login::stale(), |ferry, runner| {
            let mut run = ferry.authferry(runner, &["run", "--no-rotate-first"]);
            run.args(grace).args(["--", "codex"]).args(rig::EXEC);
            environment(&mut run);
            run
        });
        run.send(Signal::TERM);
        // The provider never replies: authferry exits after its cancel grace, on GitHub 3 seconds.
        assert_in_doubt(&run.wait_with_output());
        run.release_reply();
        run.wait_until_all_exited();
    }
}

/// The timeout of a rotation is one minute. Then authferry leaves it to the supervisor, or waits for
/// it where the platform kills leftover processes.
#[test]
fn a_reply_after_more_than_a_minute_is_not_lost() {
    // Since 0.167, Codex drops a requested refresh after 30 seconds.
    for version in sampled(&[rig::V0_145, rig::V0_166]) {
        thread::scope(|scope| {
            for is_tracked in [false, true] {
                scope.spawn(move || rotate_with_a_reply_after_a_minute(version, is_tracked));
            }
        });
    }
}

fn rotate_with_a_reply_after_a_minute(version: &str, is_tracked: bool) {
    let login = Login::ending_in(time::Duration::minutes(10));
    let mut refresh = PendingRefresh::start(version, &login, |ferry, runner| {
        let mut refresh = ferry.authferry(runner, &["refresh"]);
        if is_tracked {
            refresh.env("RUNNER_TRACKING_ID", "github_made-up");
        }
        refresh
    });
    let ended = if is_tracked || is_in_a_container() {
        thread::sleep(Duration::from_secs(63));
        refresh.release_reply();
        let ended = refresh.wait_with_output();
        assert_code(&ended, 0);
        ended
    } else {
        // The timeout counts run time, which is less than wall time on a busy machine.
        let ended = refresh.wait_with_output();
        assert_in_doubt(&ended);
        refresh.release_reply();
        ended
    };
    refresh.wait_until_all_exited();
    assert!(refresh.ferry.is_live(), "{ended:?}");
    refresh.assert_next_job_has_live_login();
}

/// `docker pause` stops every process of a container like this.
#[test]
fn a_pause_does_not_count_towards_the_rotation_timeout() {
    for version in sampled(&[rig::V0_145, rig::V0_166]) {
        let login = Login::ending_in(time::Duration::minutes(10));
        let mut refresh = PendingRefresh::refresh(version, &login, &[]);
        let all = refresh.runner.processes().expect("Linux");
        for process in &all {
            kill_process(pid(*process), Signal::STOP).expect("ours");
        }
        refresh.release_reply();
        thread::sleep(Duration::from_secs(62));
        for process in &all {
            kill_process(pid(*process), Signal::CONT).expect("ours");
        }
        let ended = refresh.wait_with_output();
        assert_code(&ended, 0);
        assert!(refresh.ferry.is_live(), "{ended:?}");
        refresh.assert_next_job_has_live_login();
    }
}

/// Codex exits without a message, so it is unknown whether the login is spent.
#[test]
fn a_codex_that_exits_without_a_reply_leaves_the_login_in_doubt() {
    let login = Login::ending_in(time::Duration::minutes(10));
    let ferry = Ferry::holding(rig::V0_171, &login);
    let runner = ferry.runner();
    let _reply = ferry.stub.hold(Endpoint::Token);
    let mut refresh = ferry.authferry(&runner, &["refresh"]);
    refresh.env("RUNNER_TRACKING_ID", "github_made-up");
    assert_in_doubt(&finish_within(Duration::from_mins(2), &mut refresh));
}

/// Codex ends before it has the reply of a provider that has spent the token, and the job fails.
#[test]
fn a_job_whose_codex_was_killed_does_not_report_an_unchanged_login() {
    let mut run = PendingRefresh::start(rig::V0_145, &Login::stale(), |ferry, runner| {
        let mut run = ferry.authferry(runner, &["run", "--no-rotate-first", "--"]);
        run.args(["codex", "exec", "--skip-git-repo-check", "Reply OK."]);
        run
    });
    for process in run.codexes() {
        kill_process(pid(process), Signal::KILL).expect("a running process");
    }
    let ended = run.wait_with_output();
    assert!(!ended.status.success(), "{ended:?}");
    let stderr = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(stderr.contains("may be spent"), "{stderr}");
    assert!(!stderr.contains("unchanged"), "{stderr}");
}

/// Authferry waits 90 seconds for a Codex in the background that gets no reply.
#[test]
fn a_hung_codex_is_left_running_after_the_timeout() {
    if env::var_os("AUTHFERRY_TEST_ALL").is_none() {
        return;
    }
    let mut run = PendingRefresh::start(rig::V0_145, &Login::stale(), leave_codex_behind);
    // Codex itself times out after 15 seconds.
    for process in run.codexes() {
        kill_process(pid(process), Signal::STOP).expect("a running process");
    }
    fs::write(run.runner.work().join("spent"), "").expect("disk space");
    assert_in_doubt(&run.wait_with_output());
    assert!(run.runner.auth_file().exists());
    for process in run.runner.processes().expect("Linux") {
        kill_process(pid(process), Signal::KILL).ok();
    }
}

/// All versions for a scenario that takes a minute; only the first one in the gate, `tests/run`.
fn sampled(versions: &'static [&'static str]) -> &'static [&'static str] {
    if env::var_os("AUTHFERRY_TEST_ALL").is_some() {
        versions
    } else {
        &versions[..1]
    }
}
