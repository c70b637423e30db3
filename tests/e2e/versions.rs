//! What differs between versions of Codex: how long they wait for the provider, which requests they
//! know, and how npm's launcher ends.

use std::{fs, os::unix::fs::PermissionsExt, process::Output, thread, time::Duration};

use rig::{Endpoint, Login, Runner, V0_101, V0_130, V0_145, V0_171, What, finish};
use rustix::process::{Pid, Signal, kill_process};

use crate::any_store::AnyStore;
use crate::ferry::{Ferry, assert_code, start, wait_until};

/// Timeout for a request to arrive.
const REQUEST_TIMEOUT: Duration = Duration::from_mins(1);

/// A version whose launcher hides a signal.
const HIDING_LAUNCHER: &str = "0.163.0";

/// The provider takes 30 s for each answer, so Codex 0.171.0 sends the token of a due login three
/// times and drops the first answer. None of the answers names a reason before Codex ends.
#[test]
fn a_login_may_be_spent_after_an_answer_that_codex_drops() {
    let ferry = Ferry::holding(V0_171, &Login::stale());
    ferry
        .stub
        .rules(|rules| rules.latency = Duration::from_secs(15));
    let runner = ferry.runner();

    let refresh = finish(&mut ferry.authferry(&runner, &["refresh"]));

    assert_in_doubt_or_dead(&refresh);
    wait_until("Codex has exited", || {
        runner.processes().expect("Linux").is_empty()
    });
    assert!(!ferry.is_live(), "Codex kept the new login");
}

/// The provider holds each answer until 30 s after the first request. Codex 0.145.0 sends the token
/// again after 15 s, and learns that it is spent.
#[test]
fn authferry_sends_no_request_after_an_answer_that_codex_drops() {
    let ferry = Ferry::holding(V0_145, &Login::stale());
    let refresh = refresh_with_answer_after(&ferry, Duration::from_secs(30));

    assert_in_doubt_or_dead(&refresh);
    // The requests of Codex itself: at once, after 15 s, and after 30 s.
    let requests = ferry.stub.count(What::is_refresh);
    assert!((2..=3).contains(&requests), "{:#?}", ferry.stub.events());
    assert_eq!(ferry.stub.count(What::is_rotation), 1);
}

/// The first request hangs, and the provider answers the second one, which Codex sends after 15 s.
#[test]
fn the_answer_to_the_second_request_is_waited_for() {
    let ferry = Ferry::holding(V0_145, &Login::stale());
    // The provider reads this when a request arrives.
    let delay_answers = |latency| ferry.stub.rules(|rules| rules.latency = latency);
    delay_answers(Duration::from_secs(25));
    let runner = ferry.runner();
    let refresh = thread::scope(|scope| {
        let refresh = scope.spawn(|| finish(&mut ferry.authferry(&runner, &["refresh"])));
        thread::sleep(Duration::from_secs(8));
        // Long enough for Codex to exit before the answer, if its input ended.
        delay_answers(Duration::from_secs(1));
        refresh.join().expect("an output")
    });

    assert_code(&refresh, 0);
    assert!(ferry.is_live());
}

#[test]
fn an_answer_within_the_timeout_is_waited_for() {
    let ferry = Ferry::holding(V0_145, &Login::stale());
    let refresh = refresh_with_answer_after(&ferry, Duration::from_secs(12));

    assert_code(&refresh, 0);
    assert_eq!(ferry.stub.count(What::is_refresh), 1);
    assert!(ferry.is_live());
}

/// A login that is not due, and one that is: by the rule of every version.
fn logins() -> [Login; 2] {
    [
        Login {
            last_refresh: time::OffsetDateTime::now_utc() - time::Duration::HOUR,
            ..Login::ending_in(time::Duration::hours(1))
        },
        Login::stale(),
    ]
}

#[test]
fn old_versions_rotate_exactly_once() {
    for version in [V0_101, V0_130] {
        for login in logins() {
            let ferry = Ferry::holding(version, &login);
            let refresh = finish(&mut ferry.authferry(&ferry.runner(), &["refresh"]));
            assert_rotated_once(&ferry, &refresh);
        }
    }
}

/// The schema of 0.171.0 lacks `getAuthStatus` already.
#[test]
fn a_codex_without_getauthstatus_rotates_exactly_once() {
    for version in [V0_130, V0_171] {
        for login in logins() {
            let ferry = Ferry::holding(version, &login);
            let runner = ferry.runner();
            replace_codex(
                &runner,
                &format!(
                    "sed -u s/getAuthStatus/noSuchMethod/ | {} \"$@\"",
                    ferry.codex.native().display()
                ),
            );
            let refresh = finish(&mut ferry.authferry(&runner, &["refresh"]));
            assert_rotated_once(&ferry, &refresh);
        }
    }
}

/// npm's launcher of this version exits with 0 after SIGTERM has ended its Codex.
#[test]
fn a_launcher_does_not_hide_the_signal_that_ended_the_job() {
    let ferry = Ferry::holding(HIDING_LAUNCHER, &Login::fresh());
    let model = ferry.stub.hold(Endpoint::Model);
    let runner = ferry.runner();
    let launcher = ferry.codex.launcher();
    runner.link("codex", launcher).expect("disk space");
    let mut run = start(&mut ferry.run(&runner));
    ferry.stub.wait_for(REQUEST_TIMEOUT, What::is_model_call);
    let process = i32::try_from(run.id()).ok().and_then(Pid::from_raw);
    kill_process(process.expect("a process"), Signal::TERM).expect("our child");

    assert_eq!(run.wait().expect("our child").code(), Some(143));
    drop(model);
    assert!(ferry.is_live());
    assert!(!runner.auth_file().exists(), "the login was left behind");
}

/// Refreshes; the provider answers this long after the first request.
fn refresh_with_answer_after(ferry: &Ferry, delay: Duration) -> Output {
    let token = ferry.stub.hold(Endpoint::Token);
    let runner = ferry.runner();
    thread::scope(|scope| {
        let refresh = scope.spawn(|| finish(&mut ferry.authferry(&runner, &["refresh"])));
        ferry.stub.wait_for(REQUEST_TIMEOUT, What::is_rotation);
        thread::sleep(delay);
        drop(token);
        refresh.join().expect("an output")
    })
}

/// Asserts that the output claims nothing that is untrue of a login that Codex has spent. A reason
/// that the provider named is true as well.
#[track_caller]
fn assert_in_doubt_or_dead(output: &Output) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(119) => assert!(stderr.contains("may be spent: "), "{stderr}"),
        Some(125) => assert!(stderr.contains("its refresh token was spent"), "{stderr}"),
        code => panic!("{code:?}: {stderr}"),
    }
    for untrue in ["unchanged", "as it was", "was not rotated"] {
        assert!(!stderr.contains(untrue), "{stderr}");
    }
}

#[track_caller]
fn assert_rotated_once(ferry: &Ferry, refresh: &Output) {
    assert_code(refresh, 0);
    let events = ferry.stub.events();
    assert_eq!(ferry.stub.count(What::is_refresh), 1, "{events:#?}");
    assert!(ferry.is_live());
}

/// Puts a shell script in the place of `codex` on the `PATH`.
fn replace_codex(runner: &Runner, script: &str) {
    let path = runner.work().join("other-codex");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("disk space");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("our file");
    runner.link("codex", &path).expect("disk space");
}
