//! The watch: writes the login through between `restore` and `persist`.

use std::{fs, path::PathBuf, process::Child, sync::mpsc::channel, thread, time::Duration};

use rig::{Endpoint, Login, Runner, What, finish};
use rustix::process::{Pid, Signal, kill_process};

use crate::any_store::{AnyStore, on_each_version};
use crate::ferry::{Ferry, assert_code, assert_silent, names, start, successor, wait_until};

on_each_version![the_watch_writes_a_rotation_through];

fn the_watch_writes_a_rotation_through(version: &str) {
    let stale = Login::stale();
    let ferry = Ferry::holding(version, &stale);
    let runner = restored(&ferry);
    let process = start_detached_watch(&ferry, &runner);

    let model = ferry.stub.hold(Endpoint::Model);
    let mut codex = start(&mut runner.exec());
    ferry
        .stub
        .wait_for(Duration::from_mins(3), What::is_rotation);
    ferry.wait_until_live();
    drop(model);
    assert_eq!(codex.wait().expect("our child").code(), Some(0));

    let persisted = finish(&mut ferry.authferry(&runner, &["persist", "--json"]));
    assert_code(&persisted, 0);
    let report: serde_json::Value = serde_json::from_slice(&persisted.stdout).expect("JSON");
    assert_eq!(
        report["outcome"], "unchanged",
        "the watch did not persist it: {report}"
    );
    assert_eq!(report["rotated"], true, "since the job began");
    assert_clean(&runner);
    wait_until("the watch has exited", || !is_running(process));
    let log = fs::read(log(&runner)).expect("a log");
    let text = String::from_utf8_lossy(&log);
    assert!(text.contains("authferry: 1 write to file://"), "{text}");
    assert_silent(&persisted, &[stale.auth_json().as_bytes(), &ferry.stored()]);
}

#[test]
fn a_login_written_before_the_watch_started_is_persisted() {
    let login = Login::fresh();
    let next = successor(&login);
    let ferry = Ferry::holding(rig::V0_169, &login);
    let runner = restored(&ferry);
    runner.place(&next.auth_json()).expect("disk space");
    start_detached_watch(&ferry, &runner);
    wait_until("the store has the login", || {
        ferry.stored() == next.auth_json().as_bytes()
    });
    assert_code(&finish(&mut ferry.authferry(&runner, &["persist"])), 0);
}

#[test]
fn a_detached_watch_closes_its_streams_and_starts_its_own_session() {
    let ferry = Ferry::holding(rig::V0_169, &Login::fresh());
    let runner = restored(&ferry);
    let mut watch = ferry.authferry(&runner, &["watch", "--detach"]);
    watch.arg(log(&runner));
    let (sender, receiver) = channel();
    // Unlike `finish`, `output` waits until no process holds the streams.
    thread::spawn(move || sender.send(watch.output().expect("a program")));
    let output = receiver.recv_timeout(Duration::from_mins(1));
    assert_code(&output.expect("no process holds the streams"), 0);
    let [process] = runner.processes().expect("/proc")[..] else {
        panic!("expected one process");
    };
    let process = pid(process);
    assert_eq!(
        rustix::process::getsid(Some(process)).expect("a running process"),
        process
    );
    assert_code(&finish(&mut ferry.authferry(&runner, &["persist"])), 0);
}

#[test]
fn a_signalled_watch_reads_the_auth_file_once_more_and_exits() {
    let login = Login::fresh();
    let next = successor(&login);
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let ferry = Ferry::holding(rig::V0_169, &login);
        let runner = restored(&ferry);
        let mut watch = start(&mut ferry.authferry(&runner, &["watch"]));
        wait_until("the watch runs", || watch_marker(&runner).exists());
        // Written through a hard link, in a folder without a watch, so that no event arrives.
        let other = runner.root().join("tmp/other-name");
        fs::hard_link(runner.auth_file(), &other).expect("one file system");
        fs::write(&other, next.auth_json()).expect("disk space");
        fs::remove_file(&other).expect("ours");
        assert_eq!(ferry.stored(), login.auth_json().as_bytes());
        kill_process(pid(watch.id()), signal).expect("our child");
        assert_eq!(wait_for_exit(&mut watch), Some(0));
        assert_eq!(ferry.stored(), next.auth_json().as_bytes());
        assert!(!watch_marker(&runner).exists());
        assert!(
            runner.auth_file().exists(),
            "the watch must not remove the login"
        );
        assert_code(&finish(&mut ferry.authferry(&runner, &["persist"])), 0);
        assert_clean(&runner);
    }
}

#[test]
fn a_killed_watch_does_not_block_persist() {
    let login = Login::fresh();
    let next = successor(&login);
    let ferry = Ferry::holding(rig::V0_169, &login);
    let runner = restored(&ferry);
    let mut watch = start(&mut ferry.authferry(&runner, &["watch"]));
    wait_until("the watch runs", || watch_marker(&runner).exists());
    watch.kill().expect("our child");
    watch.wait().expect("our child");
    runner.place(&next.auth_json()).expect("disk space");
    assert!(
        watch_marker(&runner).exists(),
        "a killed watch leaves its marker"
    );
    assert_code(&finish(&mut ferry.authferry(&runner, &["persist"])), 0);
    assert_eq!(ferry.stored(), next.auth_json().as_bytes());
    assert_clean(&runner);
}

#[test]
fn a_hung_watch_does_not_block_persist() {
    let login = Login::fresh();
    let next = successor(&login);
    let ferry = Ferry::holding(rig::V0_169, &login);
    let runner = restored(&ferry);
    let mut watch = start(&mut ferry.authferry(&runner, &["watch"]));
    wait_until("the watch runs", || watch_marker(&runner).exists());
    kill_process(pid(watch.id()), Signal::STOP).expect("our child");
    runner.place(&next.auth_json()).expect("disk space");
    // authferry refuses a new job: unlike `persist`, that job has no login to lose.
    let other = finish(&mut ferry.authferry(&runner, &["restore", "--no-watch"]));
    assert_code(&other, 124);
    assert_code(&finish(&mut ferry.authferry(&runner, &["persist"])), 0);
    assert_eq!(ferry.stored(), next.auth_json().as_bytes());
    assert_clean(&runner);
    // After it resumes, the watch changes nothing.
    kill_process(pid(watch.id()), Signal::CONT).expect("our child");
    assert_eq!(wait_for_exit(&mut watch), Some(0));
    assert_eq!(ferry.stored(), next.auth_json().as_bytes());
    assert_clean(&runner);
}

#[test]
fn a_watch_hands_over_to_the_next_job() {
    let login = Login::fresh();
    let next = successor(&login);
    let ferry = Ferry::holding(rig::V0_169, &login);
    let runner = restored(&ferry);
    let process = start_detached_watch(&ferry, &runner);
    // The job died before its `persist`, on a persistent runner.
    let second = finish(&mut ferry.authferry(&runner, &["restore", "--no-watch"]));
    assert_code(&second, 0);
    wait_until("the first watch has exited", || !is_running(process));
    let process = start_detached_watch(&ferry, &runner);
    runner.place(&next.auth_json()).expect("disk space");
    wait_until("the store has the login", || {
        ferry.stored() == next.auth_json().as_bytes()
    });
    assert_code(&finish(&mut ferry.authferry(&runner, &["persist"])), 0);
    wait_until("the second watch has exited", || !is_running(process));
}

#[test]
fn watch_detach_reports_a_failed_start() {
    let ferry = Ferry::holding(rig::V0_169, &Login::fresh());
    let runner = ferry.runner();
    let mut watch = ferry.authferry(&runner, &["watch", "--detach"]);
    let output = finish(watch.arg(log(&runner)));
    assert_code(&output, 124);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("holds no receipt"), "{stderr}");
    assert!(!log(&runner).exists(), "no watch was started");
}

fn restored(ferry: &Ferry) -> Runner {
    let runner = ferry.runner();
    let restored =
        finish(&mut ferry.authferry(&runner, &["restore", "--no-watch", "--no-rotate-first"]));
    assert_code(&restored, 0);
    runner
}

/// Starts a watch in the background and returns its process ID.
fn start_detached_watch(ferry: &Ferry, runner: &Runner) -> u32 {
    let mut watch = ferry.authferry(runner, &["watch", "--detach"]);
    assert_code(&finish(watch.arg(log(runner))), 0);
    let [process] = runner.processes().expect("/proc")[..] else {
        panic!("expected one process");
    };
    process
}

fn is_running(process: u32) -> bool {
    fs::read(format!("/proc/{process}/environ")).is_ok_and(|it| !it.is_empty())
}

/// Waits for a watch to exit, and returns its exit code.
fn wait_for_exit(watch: &mut Child) -> Option<i32> {
    let mut status = None;
    wait_until("the watch has exited", || {
        status = watch.try_wait().expect("our child");
        status.is_some()
    });
    status.and_then(|status| status.code())
}

fn pid(process: u32) -> Pid {
    let raw = i32::try_from(process).expect("a small number");
    Pid::from_raw(raw).expect("not zero")
}

fn log(runner: &Runner) -> PathBuf {
    runner.root().join("tmp/watch.log")
}

fn watch_marker(runner: &Runner) -> PathBuf {
    runner.codex_home().join("authferry-watch")
}

#[track_caller]
fn assert_clean(runner: &Runner) {
    let left = names(&runner.codex_home());
    let ours = |name: &&String| *name == "auth.json" || name.contains("authferry");
    assert_eq!(left.iter().filter(ours).count(), 0, "{left:?}");
}
