//! A Codex that may have spent the refresh token when authferry wants to end: it is waited for, or
//! left alone, and never ended.
//!
//! The stub spends the token when the request arrives, and holds its answer back. After each story
//! the live login is in the store, or in a home that the next job of the machine adopts.

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
    a_rotation_goes_on_when_its_process_is_killed,
    a_rotation_is_adopted_when_all_of_authferry_is_killed,
    a_rotation_that_is_told_to_end_goes_on_in_the_background,
    a_rotation_that_the_platform_would_end_is_waited_for,
    a_codex_that_was_left_behind_is_waited_for,
    a_codex_that_was_left_behind_is_left_alone_at_the_second_signal,
    the_first_signal_waits_for_the_answer,
    a_signal_that_does_not_wait_leaves_doubt,
];

/// How long a request may take to arrive.
const ASKED: Duration = Duration::from_mins(1);

/// Ends the scene of a refresh that is under way.
struct Asked {
    ferry: Ferry,
    runner: Runner,
    process: Child,
    answer: Option<Hold>,
}

impl Asked {
    /// Starts authferry, and waits until its Codex has spent the token.
    fn by(version: &str, login: &Login, make: impl FnOnce(&Ferry, &Runner) -> Command) -> Self {
        let ferry = Ferry::holding(version, login);
        let runner = ferry.runner();
        let answer = ferry.stub.hold(Endpoint::Token);
        let mut command = make(&ferry, &runner);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let process = command.spawn().expect("a program to start");
        ferry.stub.wait_for(ASKED, What::is_rotation);
        Self {
            ferry,
            runner,
            process,
            answer: Some(answer),
        }
    }

    fn refresh(version: &str, login: &Login, more: &[&str]) -> Self {
        Self::by(version, login, |ferry, runner| {
            let mut refresh = ferry.authferry(runner, &["refresh"]);
            refresh.args(more);
            refresh
        })
    }

    fn tell(&self, signal: Signal) {
        kill_process(pid(self.process.id()), signal).expect("our child");
    }

    fn is_running(&mut self) -> bool {
        self.process.try_wait().expect("our child").is_none()
    }

    /// Lets the provider answer.
    fn answer(&mut self) {
        self.answer = None;
    }

    /// What it said, with nothing that is untrue of a login that may be spent.
    fn end(&mut self) -> Output {
        let mut said = Vec::new();
        let mut stderr = self.process.stderr.take().expect("piped");
        std::io::Read::read_to_end(&mut stderr, &mut said).expect("a pipe");
        Output {
            status: self.process.wait().expect("our child"),
            stdout: Vec::new(),
            stderr: said,
        }
    }

    fn wait_until_all_is_over(&self) {
        wait_until("Codex and all of authferry have ended", || {
            self.runner.processes().expect("Linux").is_empty()
        });
    }

    /// The processes of this program but for the one that was started.
    fn supervisors(&self) -> Vec<u32> {
        let mut supervisors = self.processes("authferry");
        supervisors.retain(|process| *process != self.process.id());
        supervisors
    }

    fn codexes(&self) -> Vec<u32> {
        self.processes("codex")
    }

    /// The processes of a program whose name has this in it.
    fn processes(&self, name: &str) -> Vec<u32> {
        let is_of_it = |process: &u32| {
            let program = fs::read_link(format!("/proc/{process}/exe")).unwrap_or_default();
            let program = program.file_name().unwrap_or_default();
            program.to_string_lossy().contains(name)
        };
        let processes = self.runner.processes().expect("Linux");
        processes.into_iter().filter(is_of_it).collect()
    }

    fn rotations(&self) -> Vec<String> {
        names(&rotations(&self.runner))
    }

    /// The next job of this machine finds the live login.
    fn assert_that_the_next_job_has_it(&self) {
        let next = self.ferry.authferry(&self.runner, &["run", "--", "true"]);
        assert_code(&finish(&mut { next }), 0);
        assert!(self.ferry.is_live());
        assert_eq!(self.ferry.stub.count(What::is_rotation), 1);
        assert_eq!(self.rotations(), [] as [String; 0], "nothing stays behind");
    }
}

fn rotations(runner: &Runner) -> PathBuf {
    runner.root().join("home/.local/state/authferry/rotations")
}

fn pid(process: u32) -> Pid {
    let raw = i32::try_from(process).expect("a small number");
    Pid::from_raw(raw).expect("not zero")
}

/// It says that the login may be spent, and nothing else.
#[track_caller]
fn assert_in_doubt(output: &Output) {
    assert_code(output, 119);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("may be spent"), "{said}");
    for untrue in ["unchanged", "as it was", "nothing was touched"] {
        assert!(!said.contains(untrue), "{said}");
    }
}

/// Whether this machine ends the processes of a job with it, as a container does.
fn is_in_a_container() -> bool {
    let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    namespace != Path::new("pid:[4026531836]")
}

/// Codex rotates a stale login by itself, and the other one on request.
fn logins() -> [Login; 2] {
    [
        Login::stale(),
        Login::ending_in(time::Duration::minutes(10)),
    ]
}

fn a_rotation_goes_on_when_its_process_is_killed(version: &str) {
    for login in logins() {
        let mut refresh = Asked::refresh(version, &login, &[]);
        refresh.tell(Signal::KILL);
        refresh.process.wait().expect("our child");
        thread::sleep(Duration::from_millis(300));
        refresh.answer();
        refresh.wait_until_all_is_over();
        assert!(refresh.ferry.is_live());
        assert_eq!(refresh.rotations(), [] as [String; 0]);
        refresh.assert_that_the_next_job_has_it();
    }
}

fn a_rotation_is_adopted_when_all_of_authferry_is_killed(version: &str) {
    for login in logins() {
        let mut refresh = Asked::refresh(version, &login, &[]);
        let supervisors = refresh.supervisors();
        assert_eq!(supervisors.len(), 1);
        for process in supervisors.into_iter().chain([refresh.process.id()]) {
            kill_process(pid(process), Signal::KILL).expect("ours");
        }
        refresh.process.wait().expect("our child");
        thread::sleep(Duration::from_millis(300));
        refresh.answer();
        refresh.wait_until_all_is_over();
        assert!(!refresh.ferry.is_live(), "nobody was left to write it");
        refresh.assert_that_the_next_job_has_it();
    }
}

fn a_rotation_that_is_told_to_end_goes_on_in_the_background(version: &str) {
    if is_in_a_container() {
        return;
    }
    let mut run = Asked::by(version, &Login::stale(), |ferry, runner| {
        let run = ["run", "--cancel-grace", "1s", "--", "touch", "begun"];
        ferry.authferry(runner, &run)
    });
    run.tell(Signal::TERM);
    assert_in_doubt(&run.end());
    assert!(!run.runner.work().join("begun").exists());

    // The next job waits for it.
    let next = ["refresh", "--wait", "1s"];
    let held = finish(&mut run.ferry.authferry(&run.runner, &next));
    assert_code(&held, 123);
    run.answer();
    run.wait_until_all_is_over();
    assert!(run.ferry.is_live());
    run.assert_that_the_next_job_has_it();
}

fn a_rotation_that_the_platform_would_end_is_waited_for(version: &str) {
    let mut run = Asked::by(version, &Login::stale(), |ferry, runner| {
        let run = ["run", "--cancel-grace", "1s", "--", "touch", "begun"];
        let mut run = ferry.authferry(runner, &run);
        run.env("RUNNER_TRACKING_ID", "github_made-up");
        run
    });
    run.tell(Signal::TERM);
    thread::sleep(Duration::from_secs(3));
    assert!(run.is_running(), "it did not wait");
    run.answer();
    assert_code(&run.end(), 143);
    assert!(!run.runner.work().join("begun").exists());
    assert!(run.ferry.is_live());
    run.wait_until_all_is_over();
    run.assert_that_the_next_job_has_it();
}

/// A job that leaves a Codex behind as soon as that has spent the token.
fn leaves_codex(ferry: &Ferry, runner: &Runner) -> Command {
    let job = "codex exec --skip-git-repo-check 'Reply OK.' >/dev/null 2>&1 </dev/null & \
               until [ -e spent ]; do sleep 0.01; done; exit 3";
    let job = script(runner, job);
    let run = ["run", "--no-rotate-first", "--linger", "0s", "--"];
    let mut run = ferry.authferry(runner, &run);
    run.arg(job);
    run
}

fn a_codex_that_was_left_behind_is_waited_for(version: &str) {
    let mut run = Asked::by(version, &Login::stale(), leaves_codex);
    fs::write(run.runner.work().join("spent"), "").expect("room");
    thread::sleep(Duration::from_secs(3));
    assert!(run.is_running(), "it did not wait");
    run.answer();
    let ended = run.end();
    assert_code(&ended, 3);
    assert!(run.ferry.is_live(), "{ended:?}");
    run.wait_until_all_is_over();
    assert!(!run.runner.auth_file().exists());
}

fn a_codex_that_was_left_behind_is_left_alone_at_the_second_signal(version: &str) {
    let mut run = Asked::by(version, &Login::stale(), leaves_codex);
    fs::write(run.runner.work().join("spent"), "").expect("room");
    thread::sleep(Duration::from_millis(500));
    run.tell(Signal::INT);
    thread::sleep(Duration::from_secs(1));
    assert!(run.is_running(), "the first signal ended it");
    run.tell(Signal::TERM);
    assert_in_doubt(&run.end());
    assert!(run.runner.auth_file().exists(), "Codex writes there");
    run.answer();
    wait_until("Codex has written", || {
        let file = fs::read(run.runner.auth_file()).unwrap_or_default();
        run.ferry.stub.is_live(&file)
    });
    wait_until("Codex has ended", || codexes(&run.runner).is_empty());
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

fn the_first_signal_waits_for_the_answer(version: &str) {
    for signal in [Signal::TERM, Signal::USR1] {
        let mut run = Asked::by(version, &Login::stale(), Ferry::run);
        run.tell(signal);
        thread::sleep(Duration::from_secs(2));
        assert!(run.is_running(), "it did not wait");
        // Codex gets the signal as soon as it has written.
        let _model = run.ferry.stub.hold(Endpoint::Model);
        run.answer();
        let ended = run.end();
        assert_code(&ended, 128 + signal.as_raw());
        assert!(run.ferry.is_live(), "{ended:?}");
        assert!(!run.runner.auth_file().exists());
    }
}

fn a_signal_that_does_not_wait_leaves_doubt(version: &str) {
    let github: fn(&mut Command) = |run| {
        run.env("GITHUB_ACTIONS", "true");
    };
    let none: fn(&mut Command) = |_| {};
    for (grace, environment) in [(Some("--cancel-grace=0s"), none), (None, github)] {
        let mut run = Asked::by(version, &Login::stale(), |ferry, runner| {
            let mut run = ferry.authferry(runner, &["run", "--no-rotate-first"]);
            run.args(grace).args(["--", "codex"]).args(rig::EXEC);
            environment(&mut run);
            run
        });
        run.tell(Signal::TERM);
        // Nothing answers: it ends by its own time limit, on GitHub after three seconds.
        assert_in_doubt(&run.end());
        run.answer();
        run.wait_until_all_is_over();
    }
}

/// The time limit of a rotation is a minute: it is not ended, but left to its supervisor, or waited
/// for where the platform would end it.
#[test]
fn an_answer_after_more_than_a_minute_is_not_lost() {
    // From 0.167 on, Codex drops a requested refresh after half a minute.
    for version in slow(&[rig::V0_145, rig::V0_166]) {
        thread::scope(|scope| {
            for tracked in [false, true] {
                scope.spawn(move || answer_after_more_than_a_minute(version, tracked));
            }
        });
    }
}

fn answer_after_more_than_a_minute(version: &str, tracked: bool) {
    let login = Login::ending_in(time::Duration::minutes(10));
    let mut refresh = Asked::by(version, &login, |ferry, runner| {
        let mut refresh = ferry.authferry(runner, &["refresh"]);
        if tracked {
            refresh.env("RUNNER_TRACKING_ID", "github_made-up");
        }
        refresh
    });
    let ended = if tracked || is_in_a_container() {
        thread::sleep(Duration::from_secs(63));
        refresh.answer();
        let ended = refresh.end();
        assert_code(&ended, 0);
        ended
    } else {
        // It counts the time that it has run, which is less than a minute on a busy machine.
        let ended = refresh.end();
        assert_in_doubt(&ended);
        refresh.answer();
        ended
    };
    refresh.wait_until_all_is_over();
    assert!(refresh.ferry.is_live(), "{ended:?}");
    refresh.assert_that_the_next_job_has_it();
}

/// As `docker pause` does to every process of a container.
#[test]
fn a_pause_is_no_time_that_codex_had() {
    for version in slow(&[rig::V0_145, rig::V0_166]) {
        let login = Login::ending_in(time::Duration::minutes(10));
        let mut refresh = Asked::refresh(version, &login, &[]);
        let all = refresh.runner.processes().expect("Linux");
        for process in &all {
            kill_process(pid(*process), Signal::STOP).expect("ours");
        }
        refresh.answer();
        thread::sleep(Duration::from_secs(62));
        for process in &all {
            kill_process(pid(*process), Signal::CONT).expect("ours");
        }
        let ended = refresh.end();
        assert_code(&ended, 0);
        assert!(refresh.ferry.is_live(), "{ended:?}");
        refresh.assert_that_the_next_job_has_it();
    }
}

/// Codex gives up without a message, so it is unknown whether the login is spent.
#[test]
fn a_codex_that_ends_without_an_answer_leaves_doubt() {
    let login = Login::ending_in(time::Duration::minutes(10));
    let ferry = Ferry::holding(rig::V0_171, &login);
    let runner = ferry.runner();
    let _answer = ferry.stub.hold(Endpoint::Token);
    let mut refresh = ferry.authferry(&runner, &["refresh"]);
    refresh.env("RUNNER_TRACKING_ID", "github_made-up");
    assert_in_doubt(&finish_within(Duration::from_mins(2), &mut refresh));
}

/// A Codex ends without the answer of a provider that has spent the token, as one does that gives up,
/// and the job fails.
#[test]
fn a_job_whose_codex_gave_up_does_not_call_the_login_unchanged() {
    let mut run = Asked::by(rig::V0_145, &Login::stale(), |ferry, runner| {
        let mut run = ferry.authferry(runner, &["run", "--no-rotate-first", "--"]);
        run.args(["codex", "exec", "--skip-git-repo-check", "Reply OK."]);
        run
    });
    for process in run.codexes() {
        kill_process(pid(process), Signal::KILL).expect("it runs");
    }
    let ended = run.end();
    assert!(!ended.status.success(), "{ended:?}");
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(said.contains("may be spent"), "{said}");
    assert!(!said.contains("unchanged"), "{said}");
}

/// A Codex that stays behind without an answer is waited for ninety seconds.
#[test]
fn a_codex_that_stays_behind_is_left_alone_after_its_time() {
    if env::var_os("AUTHFERRY_TEST_ALL").is_none() {
        return;
    }
    let mut run = Asked::by(rig::V0_145, &Login::stale(), leaves_codex);
    // By itself it gives up after a quarter of a minute.
    for process in run.codexes() {
        kill_process(pid(process), Signal::STOP).expect("it runs");
    }
    fs::write(run.runner.work().join("spent"), "").expect("room");
    assert_in_doubt(&run.end());
    assert!(run.runner.auth_file().exists());
    for process in run.runner.processes().expect("Linux") {
        kill_process(pid(process), Signal::KILL).ok();
    }
}

/// All versions of a story that takes a minute, or the first one in the gate.
fn slow(versions: &'static [&'static str]) -> &'static [&'static str] {
    if env::var_os("AUTHFERRY_TEST_ALL").is_some() {
        versions
    } else {
        &versions[..1]
    }
}
