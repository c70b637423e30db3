//! `run` forwards every signal that terminates a process by default to the command.

use std::{fs, process::Child, thread, time::Duration};

use rig::{Login, Runner, finish};

use crate::any_store::AnyStore;
use crate::ferry::{Ferry, assert_code, script, start, successor, under_test, wait_until};

/// Termination requests, timers and resource limits, and some real-time signals.
const FORWARDED: [i32; 18] = [
    1, 2, 3, 6, 10, 12, 14, 15, 16, 24, 26, 27, 29, 30, 35, 37, 50, 64,
];

/// SIGPIPE, SIGCHLD, SIGCONT, SIGURG, SIGXFSZ and SIGWINCH.
const NOT_FORWARDED: [i32; 6] = [13, 17, 18, 23, 25, 28];

/// The login that the command writes in its handler is persisted.
#[test]
fn every_terminating_signal_is_forwarded_to_the_command() {
    let mut last = Login::fresh();
    let ferry = Ferry::holding(rig::V0_169, &last);
    for signal in FORWARDED {
        last = successor(&last);
        let runner = ferry.runner();
        fs::write(runner.work().join("next"), last.auth_json()).expect("disk space");
        let mut run = start_job(
            &ferry,
            &runner,
            &format!(
                "ulimit -c 0
                trap 'cp next \"$CODEX_HOME/auth.json\"; trap - {signal}; kill -{signal} $$' {signal}
                touch ready; while :; do sleep 0.01; done"
            ),
        );
        send(&run, signal);
        let status = run.wait().expect("our child");
        assert_eq!(
            status.code(),
            Some(128 + signal),
            "signal {signal}: {status}"
        );
        assert_eq!(ferry.stored(), last.auth_json().as_bytes(), "{signal}");
        assert!(!runner.auth_file().exists(), "{signal}");
    }
}

/// A command that handles the signal keeps running, even after a second one.
#[test]
fn a_signal_that_the_command_handles_does_not_end_the_job() {
    let ferry = Ferry::holding(rig::V0_169, &Login::fresh());
    for signal in [10, 14, 37] {
        let runner = ferry.runner();
        let mut run = start_job(
            &ferry,
            &runner,
            &format!(
                "trap 'echo x >>received' {signal}; touch ready
                until [ -e enough ]; do sleep 0.01; done; exit 9"
            ),
        );
        let received = || fs::read_to_string(runner.work().join("received")).unwrap_or_default();
        for times in 1..=2 {
            send(&run, signal);
            wait_until("received", || received().len() == 2 * times);
            // authferry treats repeated signals within a short time as one.
            thread::sleep(Duration::from_millis(600));
        }
        fs::write(runner.work().join("enough"), "").expect("disk space");
        assert_eq!(run.wait().expect("our child").code(), Some(9), "{signal}");
    }
}

#[test]
fn a_signal_that_is_not_forwarded_has_no_effect() {
    let ferry = Ferry::holding(rig::V0_169, &Login::fresh());
    for signal in NOT_FORWARDED {
        let runner = ferry.runner();
        let job = "touch ready; until [ -e enough ]; do sleep 0.01; done; exit 9";
        let mut run = start_job(&ferry, &runner, job);
        send(&run, signal);
        thread::sleep(Duration::from_millis(50));
        fs::write(runner.work().join("enough"), "").expect("disk space");
        assert_eq!(run.wait().expect("our child").code(), Some(9), "{signal}");
    }
}

#[test]
fn the_command_inherits_ignored_signals() {
    let ferry = Ferry::holding(rig::V0_169, &Login::fresh());
    for signal in [10, 14, 25, 35] {
        let runner = ferry.runner();
        let job = script(&runner, &format!("kill -{signal} $$; exit 9"));
        let mut shell = runner.command("sh");
        shell.env("AUTHFERRY_STORE", ferry.address());
        shell.args(["-c", "trap '' $0; exec \"$@\"", &signal.to_string()]);
        shell.args([under_test(), "run", "--"]).arg(job);
        assert_code(&finish(&mut shell), 9);
    }
}

/// Like any other signal before the command starts.
#[test]
fn a_signal_before_the_command_ends_the_job() {
    let ferry = Ferry::holding(rig::V0_169, &Login::fresh());
    let lock = fs::File::open(ferry.store_file().with_extension("json.lock")).expect("a lock file");
    lock.lock().expect("no other holder");
    for rotation in [None, Some("--no-rotate-first")] {
        let runner = ferry.runner();
        let job = script(&runner, "touch started");
        let mut command = ferry.authferry(&runner, &["run"]);
        let mut run = start(command.args(rotation).arg("--").arg(job));
        wait_for_handlers(&run);
        send(&run, 10);
        assert_eq!(run.wait().expect("our child").code(), Some(138));
        assert!(!runner.work().join("started").exists());
        assert!(!runner.auth_file().exists());
    }
}

/// No command is left to receive the signal, and `persist` must finish.
#[test]
fn a_signal_does_not_end_a_persist() {
    let login = Login::fresh();
    let next = successor(&login);
    let ferry = Ferry::holding(rig::V0_169, &login);
    let runner = ferry.runner();
    assert_code(
        &finish(&mut ferry.authferry(&runner, &["restore", "--no-watch"])),
        0,
    );
    fs::write(runner.auth_file(), next.auth_json()).expect("disk space");
    let lock = fs::File::open(ferry.store_file().with_extension("json.lock")).expect("a lock file");
    lock.lock().expect("no other holder");
    let mut persist = start(&mut ferry.authferry(&runner, &["persist"]));
    wait_for_handlers(&persist);
    send(&persist, 14);
    thread::sleep(Duration::from_millis(100));
    drop(lock);
    assert_eq!(persist.wait().expect("our child").code(), Some(0));
    assert_eq!(ferry.stored(), next.auth_json().as_bytes());
}

/// Starts a job and waits until it is ready.
fn start_job(ferry: &Ferry, runner: &Runner, job: &str) -> Child {
    let job = script(runner, job);
    let run = start(ferry.authferry(runner, &["run", "--"]).arg(job));
    wait_until("ready", || runner.work().join("ready").exists());
    run
}

/// Sends the signal by the shell, which accepts every number.
fn send(run: &Child, signal: i32) {
    let line = format!("kill -{signal} {}", run.id());
    let sent = std::process::Command::new("sh")
        .args(["-c", &line])
        .status();
    assert!(sent.expect("a shell").success(), "signal {signal}");
}

/// Waits until a process has installed the last of its signal handlers.
fn wait_for_handlers(run: &Child) {
    wait_until("SIGCHLD is caught", || {
        let status = fs::read_to_string(format!("/proc/{}/status", run.id())).expect("alive");
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = u64::from_str_radix(caught.expect("there").trim(), 16).expect("hex");
        caught & (1 << (17 - 1)) != 0
    });
}
