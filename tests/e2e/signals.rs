//! A signal can end the command, but never the persist.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    process::Child,
    time::{Duration, Instant},
};

use rig::{Endpoint, Login, What, finish};
use rustix::process::{Pid, Signal, kill_process};

use crate::any_store::{AnyStore, on_each_version};
use crate::ferry::{Ferry, assert_code, script, start, successor, wait_until};

on_each_version![
    a_signal_during_the_model_call_keeps_the_rotation,
    a_kill_after_the_write_through_keeps_the_rotation,
];

fn a_signal_during_the_model_call_keeps_the_rotation(version: &str) {
    for (signal, codes) in [
        (Signal::TERM, [143, 143]),
        (Signal::INT, [1, 130]),
        (Signal::HUP, [129, 129]),
    ] {
        let ferry = Ferry::holding(version, &Login::stale());
        let _model = ferry.stub.hold(Endpoint::Model);
        let runner = ferry.runner();
        let mut run = start(&mut ferry.run(&runner));
        ferry
            .stub
            .wait_for(Duration::from_mins(3), What::is_model_call);
        send(&run, signal);
        let status = run.wait().expect("our child");
        let code = status
            .code()
            .unwrap_or_else(|| panic!("{signal:?} killed authferry: {status}"));
        assert!(codes.contains(&code), "{signal:?} gave {code}");
        assert!(ferry.is_live(), "{signal:?} lost the login");
        assert!(
            !runner.auth_file().exists(),
            "{signal:?} left the login behind"
        );
    }
}

fn a_kill_after_the_write_through_keeps_the_rotation(version: &str) {
    let ferry = Ferry::holding(version, &Login::stale());
    let model = ferry.stub.hold(Endpoint::Model);
    let runner = ferry.runner();
    let mut run = start(&mut ferry.run(&runner));
    ferry.wait_until_live();
    run.kill().expect("our child");
    assert_eq!(run.wait().expect("our child").signal(), Some(9));
    assert!(ferry.is_live());

    let next = ferry.runner();
    drop(model);
    assert_code(&finish(&mut ferry.run(&next)), 0);
    assert_eq!(ferry.stub.count(What::is_rotation), 1);
}

/// Codex up to 0.169.0 does not exit when its npm launcher is killed.
#[test]
fn an_orphaned_codex_is_waited_for() {
    let ferry = Ferry::holding(rig::V0_169, &Login::stale());
    let runner = ferry.runner();
    runner
        .link("codex", ferry.codex.launcher())
        .expect("disk space");
    let token = ferry.stub.hold(Endpoint::Token);
    let job = "codex exec --skip-git-repo-check 'Reply OK.' & until [ -e spent ]; do sleep 0.01; done; kill -9 $!";
    let job = script(&runner, job);
    let mut command = ferry.authferry(&runner, &["run", "--no-rotate-first", "--"]);
    let mut run = start(command.arg(job));
    ferry
        .stub
        .wait_for(Duration::from_mins(3), What::is_rotation);
    fs::write(runner.work().join("spent"), "").expect("disk space");
    // Long enough for the job to exit while Codex waits for the reply.
    std::thread::sleep(Duration::from_millis(300));
    assert!(
        run.try_wait().expect("our child").is_none(),
        "authferry did not wait"
    );
    drop(token);
    assert!(run.wait().expect("our child").success());
    assert!(ferry.is_live());
}

/// A daemon starts a new session, and a shell with job control a process group per job.
#[test]
fn a_descendant_in_any_process_group_is_waited_for() {
    let mut last = Login::fresh();
    let ferry = Ferry::holding(rig::V0_169, &last);
    for background in [
        "setsid sh -c '(sleep 0.5; ./rotate) &' &",
        "set -m; (sleep 0.5; ./rotate) &",
        "setsid sh -c 'sleep 0.5; ./rotate' & wait",
    ] {
        last = successor(&last);
        let runner = ferry.runner();
        fs::write(runner.work().join("next"), last.auth_json()).expect("disk space");
        fs::rename(
            script(
                &runner,
                "cp next \"$CODEX_HOME/next\"; mv \"$CODEX_HOME/next\" \"$CODEX_HOME/auth.json\"",
            ),
            runner.work().join("rotate"),
        )
        .expect("disk space");
        let job = script(&runner, &format!("{background}\nexit 3"));
        let run = finish(ferry.authferry(&runner, &["run", "--"]).arg(job));
        assert_code(&run, 3);
        assert_eq!(ferry.stored(), last.auth_json().as_bytes(), "{background}");
    }
}

/// As when GitHub cancels a job: the process tree has exited and the login is persisted before the
/// SIGKILL.
#[test]
fn a_process_tree_that_ignores_signals_is_killed_after_the_second() {
    let ferry = Ferry::holding(rig::V0_169, &Login::fresh());
    // Load only makes authferry slower, so one run within the limit is proof.
    let mut times = (0..5).map(|_| time_from_the_second_signal_to_the_end(&ferry));
    assert!(times.any(|time| time < Duration::from_millis(2500)));
}

fn time_from_the_second_signal_to_the_end(ferry: &Ferry) -> Duration {
    let runner = ferry.runner();
    let job = script(
        &runner,
        "trap '' INT TERM; sh -c \"trap '' INT TERM; touch ready; sleep 60 & wait\"; true",
    );
    let mut run = start(ferry.authferry(&runner, &["run", "--"]).arg(job));
    wait_until("ready", || runner.work().join("ready").exists());
    send(&run, Signal::INT);
    std::thread::sleep(Duration::from_secs(1));
    assert!(run.try_wait().expect("our child").is_none());
    let began = Instant::now();
    send(&run, Signal::TERM);
    assert_eq!(run.wait().expect("our child").code(), Some(137));
    let time = began.elapsed();
    assert!(!runner.auth_file().exists());
    time
}

/// The store hangs during the write-through, and the job is cancelled: authferry rescues the login
/// before the platform kills it.
#[test]
fn a_hung_store_does_not_delay_the_end_of_a_cancelled_job() {
    let login = Login::fresh();
    let next = successor(&login);
    let ferry = Ferry::holding(rig::V0_169, &login);
    let runner = ferry.runner();
    fs::write(runner.work().join("next"), next.auth_json()).expect("disk space");
    let job = "touch ready; until [ -e go ]; do sleep 0.01; done; cp next \"$CODEX_HOME/auth.json\"; exec sleep 60";
    let job = script(&runner, job);
    let rescue = runner.work().join("rescue");
    let mut command = ferry.authferry(&runner, &["run", "--rescue-dir"]);
    let mut run = start(command.arg(&rescue).arg("--").arg(job));
    wait_until("ready", || runner.work().join("ready").exists());
    let lock = fs::File::open(ferry.store_file().with_extension("json.lock")).expect("a lock file");
    lock.lock().expect("no other holder");
    fs::write(runner.work().join("go"), "").expect("disk space");
    std::thread::sleep(Duration::from_millis(500));
    let began = Instant::now();
    send(&run, Signal::INT);
    assert_eq!(run.wait().expect("our child").code(), Some(120));
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    let names = crate::ferry::names(&rescue);
    let (logins, records): (Vec<_>, Vec<_>) =
        names.iter().partition(|name| !name.ends_with(".record"));
    assert_eq!(records, [&format!("{}.record", logins[0])]);
    assert_eq!(logins.len(), 1, "{names:?}");
    let kept = fs::read(rescue.join(logins[0])).expect("rescued");
    assert_eq!(kept, next.auth_json().as_bytes());
}

#[test]
fn processes_that_outlive_the_command_are_ended() {
    let ferry = Ferry::holding(rig::V0_169, &Login::fresh());
    for (stay, min_seconds) in [
        ("sleep 1000 &", 0),
        (
            "(trap '' TERM; touch ignoring; while :; do sleep 0.1; done) & until [ -e ignoring ]; do :; done",
            2,
        ),
    ] {
        let runner = ferry.runner();
        let job = script(&runner, &format!("{stay}\nexit 5"));
        let began = Instant::now();
        let run = finish(
            ferry
                .authferry(&runner, &["run", "--exit-grace", "0s", "--"])
                .arg(job),
        );
        assert_code(&run, 5);
        let stderr = String::from_utf8_lossy(&run.stderr).into_owned();
        assert!(
            stderr.contains("terminated 1 process that the command left running"),
            "{stderr}"
        );
        assert!(
            began.elapsed() >= Duration::from_secs(min_seconds),
            "SIGTERM was not sent first"
        );
    }
}

#[test]
fn a_second_signal_kills_a_command_that_ignores_the_first() {
    let ferry = Ferry::holding(rig::V0_169, &Login::fresh());
    let runner = ferry.runner();
    let job = script(
        &runner,
        "trap 'touch received' TERM; touch ready; while :; do sleep 0.01; done",
    );
    let mut run = start(ferry.authferry(&runner, &["run", "--"]).arg(job));
    for marker in ["ready", "received"] {
        wait_until(marker, || runner.work().join(marker).exists());
        assert!(run.try_wait().expect("our child").is_none());
        // authferry treats repeated signals within a short time as one.
        std::thread::sleep(Duration::from_millis(600));
        send(&run, Signal::TERM);
    }
    assert_eq!(run.wait().expect("our child").code(), Some(137));
    assert!(!runner.auth_file().exists());
}

#[test]
fn a_signal_before_the_command_prevents_its_start() {
    let ferry = Ferry::holding(rig::V0_169, &Login::fresh());
    let lock = fs::File::open(ferry.store_file().with_extension("json.lock")).expect("a lock file");
    lock.lock().expect("no other holder");
    let runner = ferry.runner();
    let job = script(&runner, "touch started");
    let mut run = start(ferry.authferry(&runner, &["run", "--"]).arg(job));
    wait_for_handlers(&run);
    send(&run, Signal::TERM);
    assert_eq!(run.wait().expect("our child").code(), Some(143));
    assert!(!runner.work().join("started").exists());
    assert!(!runner.auth_file().exists());
}

/// After a kill, the login is in the store or in the home, and the next run in that home persists it.
#[test]
fn a_kill_at_any_moment_loses_no_login() {
    let mut last = Login::fresh();
    let ferry = Ferry::holding(rig::V0_169, &last);
    let runner = ferry.runner();
    for round in 0..40 {
        last = successor(&last);
        fs::write(runner.work().join("next"), last.auth_json()).expect("disk space");
        let job = "cp next \"$CODEX_HOME/next\"; mv \"$CODEX_HOME/next\" \"$CODEX_HOME/auth.json\"";
        let job = script(&runner, &format!("touch started; {job}; touch done"));
        let mut run = start(ferry.authferry(&runner, &["run", "--"]).arg(job));
        // From before the restore to after the persist: a run takes about 20 ms.
        std::thread::sleep(Duration::from_millis(round * 7919 % 30));
        run.kill().expect("our child");
        let killed = run.wait().expect("our child").signal() == Some(9);
        wait_until("the orphan has exited", || {
            runner.processes().expect("Linux").is_empty()
        });
        let has = |marker: &str| runner.work().join(marker).exists();
        assert_eq!(has("started"), has("done"), "the orphan was killed too");
        assert!(
            killed || has("started"),
            "run exited without starting the command"
        );
        let next = finish(&mut ferry.authferry(&runner, &["run", "--", "true"]));
        assert_code(&next, 0);
        if has("started") {
            assert_eq!(
                ferry.stored(),
                last.auth_json().as_bytes(),
                "round {round}: {next:?}"
            );
        }
        for marker in ["started", "done"] {
            fs::remove_file(runner.work().join(marker)).ok();
        }
    }
}

/// As with `nohup`: the job must outlive the terminal.
#[test]
fn an_inherited_ignored_signal_stays_ignored() {
    let ferry = Ferry::holding(rig::V0_169, &Login::fresh());
    let runner = ferry.runner();
    let job = script(
        &runner,
        "touch ready; until [ -e enough ]; do sleep 0.01; done; exit 9",
    );
    let mut shell = runner.command("sh");
    shell.env("AUTHFERRY_STORE", ferry.address());
    shell.args([
        "-c",
        "trap '' HUP; exec \"$@\"",
        "sh",
        crate::ferry::under_test(),
        "run",
        "--",
    ]);
    let mut run = start(shell.arg(job));
    wait_until("ready", || runner.work().join("ready").exists());
    send(&run, Signal::HUP);
    std::thread::sleep(Duration::from_millis(200));
    assert!(
        run.try_wait().expect("our child").is_none(),
        "SIGHUP ended the run"
    );
    fs::write(runner.work().join("enough"), "").expect("disk space");
    assert_eq!(run.wait().expect("our child").code(), Some(9));
}

/// Runs on a pseudo-terminal, by `script` of util-linux, and types Ctrl-C: the terminal also sends
/// the signal to the command, which must not get it twice.
#[test]
fn ctrl_c_reaches_the_command_once() {
    let ferry = Ferry::holding(rig::V0_169, &Login::fresh());
    let runner = ferry.runner();
    let job = script(
        &runner,
        "trap 'echo x >>received' INT; touch ready; until [ -e enough ]; do sleep 0.01; done; exit 9",
    );
    let line = format!(
        "exec '{}' run -- '{}'",
        crate::ferry::under_test(),
        job.display()
    );
    let mut terminal = runner.command("script");
    terminal.env("AUTHFERRY_STORE", ferry.address());
    terminal
        .args(["-qec", &line, "/dev/null"])
        .stdin(std::process::Stdio::piped());
    let mut run = start(&mut terminal);
    wait_until("ready", || runner.work().join("ready").exists());
    let mut keyboard = run.stdin.take().expect("piped");
    std::io::Write::write_all(&mut keyboard, b"\x03").expect("a terminal");
    wait_until("received", || runner.work().join("received").exists());
    std::thread::sleep(Duration::from_millis(300));
    fs::write(runner.work().join("enough"), "").expect("disk space");
    assert_eq!(run.wait().expect("our child").code(), Some(9));
    assert_eq!(
        fs::read_to_string(runner.work().join("received")).expect("written"),
        "x\n"
    );
}

fn send(run: &Child, signal: Signal) {
    let pid = i32::try_from(run.id())
        .ok()
        .and_then(Pid::from_raw)
        .expect("a process id");
    kill_process(pid, signal).expect("our child");
}

/// Waits until a process catches SIGTERM.
fn wait_for_handlers(run: &Child) {
    wait_until("SIGTERM is caught", || {
        let status = fs::read_to_string(format!("/proc/{}/status", run.id())).expect("alive");
        let caught = status
            .lines()
            .find_map(|line| line.strip_prefix("SigCgt:"))
            .expect("there");
        let caught = u64::from_str_radix(caught.trim(), 16).expect("hex");
        caught & (1 << (Signal::TERM.as_raw() - 1)) != 0
    });
}
