//! The write-through alone: between `restore` and `persist`, while others run Codex.

use std::{fs, path::PathBuf, process::Child, sync::mpsc::channel, thread, time::Duration};

use rig::{Endpoint, Login, Runner, What, finish};
use rustix::process::{Pid, Signal, kill_process};

use crate::any_store::{AnyStore, on_each_version};
use crate::ferry::{Ferry, assert_code, assert_silent, names, start, successor, wait_until};

on_each_version![a_rotation_is_in_the_store_while_nobody_but_the_watch_is_there];

fn a_rotation_is_in_the_store_while_nobody_but_the_watch_is_there(version: &str) {
    let stale = Login::stale();
    let ferry = Ferry::holding(version, &stale);
    let runner = restored(&ferry);
    let process = detached(&ferry, &runner);

    let model = ferry.stub.hold(Endpoint::Model);
    let mut codex = start(&mut runner.exec());
    ferry
        .stub
        .wait_for(Duration::from_mins(1), What::is_rotation);
    ferry.wait_until_live();
    drop(model);
    assert_eq!(codex.wait().expect("our child").code(), Some(0));

    let persisted = finish(&mut ferry.authferry(&runner, &["persist", "--json"]));
    assert_code(&persisted, 0);
    let told: serde_json::Value = serde_json::from_slice(&persisted.stdout).expect("JSON");
    assert_eq!(
        told["outcome"], "unchanged",
        "the watch has done it: {told}"
    );
    assert_eq!(told["rotated"], true, "since the job began");
    assert_clean(&runner);
    wait_until("the watch is gone", || !is_there(process));
    let log = fs::read(log(&runner)).expect("a log");
    let said = String::from_utf8_lossy(&log);
    assert!(said.contains("authferry: 1 write to file://"), "{said}");
    assert_silent(&persisted, &[stale.auth_json().as_bytes(), &ferry.stored()]);
}

#[test]
fn what_was_written_before_the_watch_began_is_persisted_too() {
    let login = Login::fresh();
    let next = successor(&login);
    let ferry = Ferry::holding(rig::V0_169, &login);
    let runner = restored(&ferry);
    runner.place(&next.auth_json()).expect("room");
    detached(&ferry, &runner);
    wait_until("it is in the store", || {
        ferry.stored() == next.auth_json().as_bytes()
    });
    assert_code(&finish(&mut ferry.authferry(&runner, &["persist"])), 0);
}

#[test]
fn the_watch_holds_none_of_the_streams_and_has_a_session_of_its_own() {
    let ferry = Ferry::holding(rig::V0_169, &Login::fresh());
    let runner = restored(&ferry);
    let mut watch = ferry.authferry(&runner, &["watch", "--detach"]);
    watch.arg(log(&runner));
    let (tell, told) = channel();
    // Unlike `finish` it goes on until nobody holds the streams any more.
    thread::spawn(move || tell.send(watch.output().expect("a program")));
    let output = told.recv_timeout(Duration::from_mins(1));
    assert_code(&output.expect("nobody holds the streams"), 0);
    let [process] = runner.processes().expect("/proc")[..] else {
        panic!("one process is left");
    };
    let process = pid(process);
    assert_eq!(
        rustix::process::getsid(Some(process)).expect("there"),
        process
    );
    assert_code(&finish(&mut ferry.authferry(&runner, &["persist"])), 0);
}

#[test]
fn a_signal_lets_the_watch_look_once_more_and_go() {
    let login = Login::fresh();
    let next = successor(&login);
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let ferry = Ferry::holding(rig::V0_169, &login);
        let runner = restored(&ferry);
        let mut watch = start(&mut ferry.authferry(&runner, &["watch"]));
        wait_until("it is at work", || sign(&runner).exists());
        // Written by another name, in a folder that nobody watches.
        let other = runner.root().join("tmp/other-name");
        fs::hard_link(runner.auth_file(), &other).expect("one file system");
        fs::write(&other, next.auth_json()).expect("room");
        fs::remove_file(&other).expect("ours");
        assert_eq!(ferry.stored(), login.auth_json().as_bytes());
        kill_process(pid(watch.id()), signal).expect("our child");
        assert_eq!(end(&mut watch), Some(0));
        assert_eq!(ferry.stored(), next.auth_json().as_bytes());
        assert!(!sign(&runner).exists());
        assert!(runner.auth_file().exists(), "it cleans nothing up");
        assert_code(&finish(&mut ferry.authferry(&runner, &["persist"])), 0);
        assert_clean(&runner);
    }
}

#[test]
fn a_watch_that_was_killed_is_in_nobodys_way() {
    let login = Login::fresh();
    let next = successor(&login);
    let ferry = Ferry::holding(rig::V0_169, &login);
    let runner = restored(&ferry);
    let mut watch = start(&mut ferry.authferry(&runner, &["watch"]));
    wait_until("it is at work", || sign(&runner).exists());
    watch.kill().expect("our child");
    watch.wait().expect("our child");
    runner.place(&next.auth_json()).expect("room");
    assert!(sign(&runner).exists(), "it could not take it down");
    assert_code(&finish(&mut ferry.authferry(&runner, &["persist"])), 0);
    assert_eq!(ferry.stored(), next.auth_json().as_bytes());
    assert_clean(&runner);
}

#[test]
fn a_watch_that_hangs_keeps_no_login_from_the_store() {
    let login = Login::fresh();
    let next = successor(&login);
    let ferry = Ferry::holding(rig::V0_169, &login);
    let runner = restored(&ferry);
    let mut watch = start(&mut ferry.authferry(&runner, &["watch"]));
    wait_until("it is at work", || sign(&runner).exists());
    kill_process(pid(watch.id()), Signal::STOP).expect("our child");
    runner.place(&next.auth_json()).expect("room");
    // A job that begins is another matter: there is nothing to be lost yet.
    let other = finish(&mut ferry.authferry(&runner, &["restore", "--no-watch"]));
    assert_code(&other, 124);
    assert_code(&finish(&mut ferry.authferry(&runner, &["persist"])), 0);
    assert_eq!(ferry.stored(), next.auth_json().as_bytes());
    assert_clean(&runner);
    // What it does when it comes to itself is too late for everything.
    kill_process(pid(watch.id()), Signal::CONT).expect("our child");
    assert_eq!(end(&mut watch), Some(0));
    assert_eq!(ferry.stored(), next.auth_json().as_bytes());
    assert_clean(&runner);
}

#[test]
fn a_watch_makes_way_for_the_next_job() {
    let login = Login::fresh();
    let next = successor(&login);
    let ferry = Ferry::holding(rig::V0_169, &login);
    let runner = restored(&ferry);
    let process = detached(&ferry, &runner);
    // The job is lost, and with it its `persist`. The runner is one that stays.
    let second = finish(&mut ferry.authferry(&runner, &["restore", "--no-watch"]));
    assert_code(&second, 0);
    wait_until("the first watch is gone", || !is_there(process));
    let process = detached(&ferry, &runner);
    runner.place(&next.auth_json()).expect("room");
    wait_until("it is in the store", || {
        ferry.stored() == next.auth_json().as_bytes()
    });
    assert_code(&finish(&mut ferry.authferry(&runner, &["persist"])), 0);
    wait_until("the second watch is gone", || !is_there(process));
}

#[test]
fn a_watch_that_cannot_begin_says_so_in_front() {
    let ferry = Ferry::holding(rig::V0_169, &Login::fresh());
    let runner = ferry.runner();
    let mut watch = ferry.authferry(&runner, &["watch", "--detach"]);
    let output = finish(watch.arg(log(&runner)));
    assert_code(&output, 124);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("holds no receipt"), "{said}");
    assert!(!log(&runner).exists(), "nothing was started");
}

fn restored(ferry: &Ferry) -> Runner {
    let runner = ferry.runner();
    let restored =
        finish(&mut ferry.authferry(&runner, &["restore", "--no-watch", "--no-rotate-first"]));
    assert_code(&restored, 0);
    runner
}

/// Starts a watch in the background, and returns its process.
fn detached(ferry: &Ferry, runner: &Runner) -> u32 {
    let mut watch = ferry.authferry(runner, &["watch", "--detach"]);
    assert_code(&finish(watch.arg(log(runner))), 0);
    let [process] = runner.processes().expect("/proc")[..] else {
        panic!("one process is left");
    };
    process
}

fn is_there(process: u32) -> bool {
    fs::read(format!("/proc/{process}/environ")).is_ok_and(|it| !it.is_empty())
}

/// The exit code of a watch that ends by itself.
fn end(watch: &mut Child) -> Option<i32> {
    let mut end = None;
    wait_until("the watch has ended", || {
        end = watch.try_wait().expect("our child");
        end.is_some()
    });
    end.and_then(|end| end.code())
}

fn pid(process: u32) -> Pid {
    let raw = i32::try_from(process).expect("a small number");
    Pid::from_raw(raw).expect("not zero")
}

fn log(runner: &Runner) -> PathBuf {
    runner.root().join("tmp/watch.log")
}

fn sign(runner: &Runner) -> PathBuf {
    runner.codex_home().join("authferry-watch")
}

#[track_caller]
fn assert_clean(runner: &Runner) {
    let left = names(&runner.codex_home());
    let ours = |name: &&String| *name == "auth.json" || name.contains("authferry");
    assert_eq!(left.iter().filter(ours).count(), 0, "{left:?}");
}
