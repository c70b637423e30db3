//! Every signal that ends a process by default is the command's to act on.

use std::{fs, process::Child, thread, time::Duration};

use rig::{Login, Runner, finish};

use crate::any_store::AnyStore;
use crate::ferry::{Ferry, assert_code, script, start, successor, under_test, wait_until};

/// Those that ask for the end, those of timers and limits, and some of the real-time ones.
const ENDING: [i32; 18] = [
    1, 2, 3, 6, 10, 12, 14, 15, 16, 24, 26, 27, 29, 30, 35, 37, 50, 64,
];

/// Job control, news of children and windows, urgent data, a pipe that nobody reads, and a file
/// that is too long.
const OTHERS: [i32; 6] = [13, 17, 18, 23, 25, 28];

/// The command gets it, and what it writes then is in the store afterwards.
#[test]
fn a_signal_that_ends_a_process_goes_to_the_command() {
    let mut last = Login::fresh();
    let ferry = Ferry::holding(rig::V0_169, &last);
    for signal in ENDING {
        last = successor(&last);
        let runner = ferry.runner();
        fs::write(runner.work().join("next"), last.auth_json()).expect("room");
        let mut run = start_job(
            &ferry,
            &runner,
            &format!(
                "ulimit -c 0
                trap 'cp next \"$CODEX_HOME/auth.json\"; trap - {signal}; kill -{signal} $$' {signal}
                touch ready; while :; do sleep 0.01; done"
            ),
        );
        tell(&run, signal);
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

/// The command goes on if it does not mind, and is not ended by a second one.
#[test]
fn a_signal_that_the_command_heeds_does_not_end_the_job() {
    let ferry = Ferry::holding(rig::V0_169, &Login::fresh());
    for signal in [10, 14, 37] {
        let runner = ferry.runner();
        let mut run = start_job(
            &ferry,
            &runner,
            &format!(
                "trap 'echo x >>heard' {signal}; touch ready
                until [ -e enough ]; do sleep 0.01; done; exit 9"
            ),
        );
        let heard = || fs::read_to_string(runner.work().join("heard")).unwrap_or_default();
        for times in 1..=2 {
            tell(&run, signal);
            wait_until("heard", || heard().len() == 2 * times);
            // Signals that come at once would count as one.
            thread::sleep(Duration::from_millis(600));
        }
        fs::write(runner.work().join("enough"), "").expect("room");
        assert_eq!(run.wait().expect("our child").code(), Some(9), "{signal}");
    }
}

#[test]
fn a_signal_that_ends_no_process_changes_nothing() {
    let ferry = Ferry::holding(rig::V0_169, &Login::fresh());
    for signal in OTHERS {
        let runner = ferry.runner();
        let job = "touch ready; until [ -e enough ]; do sleep 0.01; done; exit 9";
        let mut run = start_job(&ferry, &runner, job);
        tell(&run, signal);
        thread::sleep(Duration::from_millis(50));
        fs::write(runner.work().join("enough"), "").expect("room");
        assert_eq!(run.wait().expect("our child").code(), Some(9), "{signal}");
    }
}

#[test]
fn what_was_ignored_from_the_start_is_ignored_by_the_command_as_well() {
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

/// As any other signal before the command.
#[test]
fn a_signal_before_the_command_ends_the_job() {
    let ferry = Ferry::holding(rig::V0_169, &Login::fresh());
    let lock = fs::File::open(ferry.store_file().with_extension("json.lock")).expect("a lock file");
    lock.lock().expect("nobody else holds it");
    for rotation in [None, Some("--no-rotate-first")] {
        let runner = ferry.runner();
        let job = script(&runner, "touch started");
        let mut command = ferry.authferry(&runner, &["run"]);
        let mut run = start(command.args(rotation).arg("--").arg(job));
        wait_for_handlers(&run);
        tell(&run, 10);
        assert_eq!(run.wait().expect("our child").code(), Some(138));
        assert!(!runner.work().join("started").exists());
        assert!(!runner.auth_file().exists());
    }
}

/// There is no command left that could act on it, and the login comes first.
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
    fs::write(runner.auth_file(), next.auth_json()).expect("room");
    let lock = fs::File::open(ferry.store_file().with_extension("json.lock")).expect("a lock file");
    lock.lock().expect("nobody else holds it");
    let mut persist = start(&mut ferry.authferry(&runner, &["persist"]));
    wait_for_handlers(&persist);
    tell(&persist, 14);
    thread::sleep(Duration::from_millis(100));
    drop(lock);
    assert_eq!(persist.wait().expect("our child").code(), Some(0));
    assert_eq!(ferry.stored(), next.auth_json().as_bytes());
}

/// Starts a job, and waits until it is ready.
fn start_job(ferry: &Ferry, runner: &Runner, job: &str) -> Child {
    let job = script(runner, job);
    let run = start(ferry.authferry(runner, &["run", "--"]).arg(job));
    wait_until("ready", || runner.work().join("ready").exists());
    run
}

/// By the shell: it knows every number.
fn tell(run: &Child, signal: i32) {
    let line = format!("kill -{signal} {}", run.id());
    let told = std::process::Command::new("sh")
        .args(["-c", &line])
        .status();
    assert!(told.expect("a shell").success(), "signal {signal}");
}

/// Waits until a process catches the last of its signals.
fn wait_for_handlers(run: &Child) {
    wait_until("SIGCHLD is caught", || {
        let status = fs::read_to_string(format!("/proc/{}/status", run.id())).expect("alive");
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = u64::from_str_radix(caught.expect("there").trim(), 16).expect("hex");
        caught & (1 << (17 - 1)) != 0
    });
}
