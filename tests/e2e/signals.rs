//! Signals may end the command, never the persist.

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
            .wait_for(Duration::from_mins(1), What::is_model_call);
        tell(&run, signal);
        let status = run.wait().expect("our child");
        let code = status
            .code()
            .unwrap_or_else(|| panic!("{signal:?} ended authferry itself: {status}"));
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

/// Codex up to 0.169.0 does not end with its npm launcher when that is killed.
#[test]
fn an_orphaned_codex_is_waited_for() {
    let ferry = Ferry::holding(rig::V0_169, &Login::stale());
    let runner = ferry.runner();
    runner.link("codex", ferry.codex.launcher()).expect("room");
    let token = ferry.stub.hold(Endpoint::Token);
    let job = "codex exec --skip-git-repo-check 'Reply OK.' & until [ -e spent ]; do sleep 0.01; done; kill -9 $!";
    let job = script(&runner, job);
    let mut command = ferry.authferry(&runner, &["run", "--no-rotate-first", "--"]);
    let mut run = start(command.arg(job));
    ferry
        .stub
        .wait_for(Duration::from_mins(1), What::is_rotation);
    fs::write(runner.work().join("spent"), "").expect("room");
    // Long enough for the job to end while its Codex still waits for the tokens.
    std::thread::sleep(Duration::from_millis(300));
    assert!(
        run.try_wait().expect("our child").is_none(),
        "authferry did not wait"
    );
    drop(token);
    assert!(run.wait().expect("our child").success());
    assert!(ferry.is_live());
}

/// A daemon makes a session of its own, a job shell a group for each job.
#[test]
fn a_descendant_is_waited_for_in_whatever_group_it_is() {
    let mut last = Login::fresh();
    let ferry = Ferry::holding(rig::V0_169, &last);
    for start_it in [
        "setsid sh -c '(sleep 0.5; ./rotate) &' &",
        "set -m; (sleep 0.5; ./rotate) &",
        "setsid sh -c 'sleep 0.5; ./rotate' & wait",
    ] {
        last = successor(&last);
        let runner = ferry.runner();
        fs::write(runner.work().join("next"), last.auth_json()).expect("room");
        fs::rename(
            script(
                &runner,
                "cp next \"$CODEX_HOME/next\"; mv \"$CODEX_HOME/next\" \"$CODEX_HOME/auth.json\"",
            ),
            runner.work().join("rotate"),
        )
        .expect("room");
        let job = script(&runner, &format!("{start_it}\nexit 3"));
        let run = finish(ferry.authferry(&runner, &["run", "--"]).arg(job));
        assert_code(&run, 3);
        assert_eq!(ferry.stored(), last.auth_json().as_bytes(), "{start_it}");
    }
}

/// As GitHub cancels a job: the whole tree is gone, and the login safe, before the SIGKILL.
#[test]
fn a_tree_that_heeds_nothing_is_gone_after_the_second_signal() {
    let ferry = Ferry::holding(rig::V0_169, &Login::fresh());
    // A busy machine makes it slower, and nothing makes it faster: one time in the limit proves it.
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
    tell(&run, Signal::INT);
    std::thread::sleep(Duration::from_secs(1));
    assert!(run.try_wait().expect("our child").is_none());
    let began = Instant::now();
    tell(&run, Signal::TERM);
    assert_eq!(run.wait().expect("our child").code(), Some(137));
    let time = began.elapsed();
    assert!(!runner.auth_file().exists());
    time
}

/// The store hangs while a rotation is written through, and the job is cancelled: the login
/// is rescued before the platform's patience is over.
#[test]
fn a_store_that_hangs_does_not_hold_up_the_end_of_a_cancelled_job() {
    let login = Login::fresh();
    let next = successor(&login);
    let ferry = Ferry::holding(rig::V0_169, &login);
    let runner = ferry.runner();
    fs::write(runner.work().join("next"), next.auth_json()).expect("room");
    let job = "touch ready; until [ -e go ]; do sleep 0.01; done; cp next \"$CODEX_HOME/auth.json\"; exec sleep 60";
    let job = script(&runner, job);
    let rescue = runner.work().join("rescue");
    let mut command = ferry.authferry(&runner, &["run", "--rescue-dir"]);
    let mut run = start(command.arg(&rescue).arg("--").arg(job));
    wait_until("ready", || runner.work().join("ready").exists());
    let lock = fs::File::open(ferry.store_file().with_extension("json.lock")).expect("a lock file");
    lock.lock().expect("nobody else holds it");
    fs::write(runner.work().join("go"), "").expect("room");
    std::thread::sleep(Duration::from_millis(500));
    let began = Instant::now();
    tell(&run, Signal::INT);
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
fn what_outstays_the_command_is_ended() {
    let ferry = Ferry::holding(rig::V0_169, &Login::fresh());
    for (stay, least) in [
        ("sleep 1000 &", 0),
        (
            "(trap '' TERM; touch deaf; while :; do sleep 0.1; done) & until [ -e deaf ]; do :; done",
            2,
        ),
    ] {
        let runner = ferry.runner();
        let job = script(&runner, &format!("{stay}\nexit 5"));
        let began = Instant::now();
        let run = finish(
            ferry
                .authferry(&runner, &["run", "--linger", "0s", "--"])
                .arg(job),
        );
        assert_code(&run, 5);
        let said = String::from_utf8_lossy(&run.stderr).into_owned();
        assert!(
            said.contains("left behind had to be ended (1 process)"),
            "{said}"
        );
        assert!(
            began.elapsed() >= Duration::from_secs(least),
            "it was not asked first"
        );
    }
}

#[test]
fn a_second_signal_kills_a_command_that_does_not_heed_the_first() {
    let ferry = Ferry::holding(rig::V0_169, &Login::fresh());
    let runner = ferry.runner();
    let job = script(
        &runner,
        "trap 'touch heard' TERM; touch ready; while :; do sleep 0.01; done",
    );
    let mut run = start(ferry.authferry(&runner, &["run", "--"]).arg(job));
    for sign in ["ready", "heard"] {
        wait_until(sign, || runner.work().join(sign).exists());
        assert!(run.try_wait().expect("our child").is_none());
        // Signals that come at once are one wish.
        std::thread::sleep(Duration::from_millis(600));
        tell(&run, Signal::TERM);
    }
    assert_eq!(run.wait().expect("our child").code(), Some(137));
    assert!(!runner.auth_file().exists());
}

#[test]
fn a_signal_before_the_command_starts_nothing() {
    let ferry = Ferry::holding(rig::V0_169, &Login::fresh());
    let lock = fs::File::open(ferry.store_file().with_extension("json.lock")).expect("a lock file");
    lock.lock().expect("nobody else holds it");
    let runner = ferry.runner();
    let job = script(&runner, "touch started");
    let mut run = start(ferry.authferry(&runner, &["run", "--"]).arg(job));
    wait_for_handlers(&run);
    tell(&run, Signal::TERM);
    assert_eq!(run.wait().expect("our child").code(), Some(143));
    assert!(!runner.work().join("started").exists());
    assert!(!runner.auth_file().exists());
}

/// Of a run that is killed at any moment the login is in the store or in the home, and the
/// next run there makes it good.
#[test]
fn a_kill_at_any_moment_loses_nothing() {
    let mut last = Login::fresh();
    let ferry = Ferry::holding(rig::V0_169, &last);
    let runner = ferry.runner();
    for round in 0..40 {
        last = successor(&last);
        fs::write(runner.work().join("next"), last.auth_json()).expect("room");
        let job = "cp next \"$CODEX_HOME/next\"; mv \"$CODEX_HOME/next\" \"$CODEX_HOME/auth.json\"";
        let job = script(&runner, &format!("touch started; {job}; touch done"));
        let mut run = start(ferry.authferry(&runner, &["run", "--"]).arg(job));
        // From before the restore to after the persist: a run takes some twenty.
        std::thread::sleep(Duration::from_millis(round * 7919 % 30));
        run.kill().expect("our child");
        let killed = run.wait().expect("our child").signal() == Some(9);
        wait_until("the orphan is done", || {
            runner.processes().expect("Linux").is_empty()
        });
        let has = |sign: &str| runner.work().join(sign).exists();
        assert_eq!(has("started"), has("done"), "the orphan was ended as well");
        assert!(killed || has("started"), "it was over without having begun");
        let next = finish(&mut ferry.authferry(&runner, &["run", "--", "true"]));
        assert_code(&next, 0);
        if has("started") {
            assert_eq!(
                ferry.stored(),
                last.auth_json().as_bytes(),
                "round {round}: {next:?}"
            );
        }
        for sign in ["started", "done"] {
            fs::remove_file(runner.work().join(sign)).ok();
        }
    }
}

/// As by `nohup`: whoever started the job wants it to outlive the terminal.
#[test]
fn a_signal_that_was_ignored_from_the_start_stays_ignored() {
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
    tell(&run, Signal::HUP);
    std::thread::sleep(Duration::from_millis(200));
    assert!(
        run.try_wait().expect("our child").is_none(),
        "the hangup ended it"
    );
    fs::write(runner.work().join("enough"), "").expect("room");
    assert_eq!(run.wait().expect("our child").code(), Some(9));
}

/// Runs on a terminal of its own, by `script` of util-linux, and presses Ctrl-C there: the
/// terminal sends the signal to the command as well, which must not get it twice.
#[test]
fn ctrl_c_reaches_the_command_once() {
    let ferry = Ferry::holding(rig::V0_169, &Login::fresh());
    let runner = ferry.runner();
    let job = script(
        &runner,
        "trap 'echo x >>heard' INT; touch ready; until [ -e enough ]; do sleep 0.01; done; exit 9",
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
    wait_until("heard", || runner.work().join("heard").exists());
    std::thread::sleep(Duration::from_millis(300));
    fs::write(runner.work().join("enough"), "").expect("room");
    assert_eq!(run.wait().expect("our child").code(), Some(9));
    assert_eq!(
        fs::read_to_string(runner.work().join("heard")).expect("written"),
        "x\n"
    );
}

fn tell(run: &Child, signal: Signal) {
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
