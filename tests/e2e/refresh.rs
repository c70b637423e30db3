//! `authferry refresh` with the real Codex.

use std::fs;

use rig::{ACCESS_LIFETIME, Endpoint, Login, V0_169, What, finish};
use rustix::process::{Pid, Signal, kill_process};
use time::{Duration, OffsetDateTime};

use crate::any_store::{AnyStore, in_each_store};
use crate::ferry::{
    Ferry, assert_code, assert_silent, names, script, start, under_test, wait_until,
};

/// A login whose access token expires after `left`.
fn ending_in(left: Duration) -> Login {
    let issued = OffsetDateTime::now_utc() + left - ACCESS_LIFETIME;
    Login {
        last_refresh: OffsetDateTime::now_utc() - Duration::HOUR,
        ..Login::new("account-1", 1, issued, ACCESS_LIFETIME)
    }
}

#[test]
fn a_due_login_is_rotated_once_without_a_model_call() {
    for login in [Login::stale(), ending_in(Duration::HOUR)] {
        let ferry = Ferry::holding(V0_169, &login);
        let runner = ferry.runner();

        let refresh = finish(&mut ferry.authferry(&runner, &["refresh"]));

        assert_code(&refresh, 0);
        assert_eq!(ferry.stub.count(What::is_refresh), 1, "{refresh:?}");
        assert_eq!(ferry.stub.count(What::is_model_call), 0);
        assert!(ferry.is_live(), "{refresh:?}");
        assert_silent(&refresh, &[login.auth_json().as_bytes(), &ferry.stored()]);
        assert!(
            !runner.auth_file().exists(),
            "refresh must not use the home of jobs"
        );
        let temp = runner.work().with_file_name("tmp");
        assert!(names(&temp).is_empty(), "files were left behind");
    }
}

/// Codex would send a plain HTTP request, with its access token, to the proxy of `HTTP_PROXY`: a
/// rotation must cause no such request.
#[test]
fn a_plain_http_proxy_receives_no_token() {
    for login in [Login::stale(), ending_in(Duration::HOUR)] {
        let ferry = Ferry::holding(V0_169, &login);
        let address = ferry.stub.address();
        let port = address.port();
        let token = format!("http://localhost:{port}/oauth/token");
        let runner = ferry.runner();
        let mut refresh = ferry.authferry(&runner, &["refresh"]);
        refresh
            .env("HTTP_PROXY", format!("http://{address}"))
            .env("NO_PROXY", "localhost")
            .env("CODEX_REFRESH_TOKEN_URL_OVERRIDE", token);

        let refresh = finish(&mut refresh);

        assert_code(&refresh, 0);
        let in_the_clear = |what: &What| matches!(what, What::Other { request } if !request.starts_with("CONNECT "));
        let events = ferry.stub.events();
        assert_eq!(ferry.stub.count(in_the_clear), 0, "{events:#?}");
        assert_eq!(ferry.stub.count(What::is_refresh), 1, "{events:#?}");
        assert!(ferry.is_live());
    }
}

/// Codex starts to rotate a stale login at startup: a refresh request meanwhile would rotate twice.
#[test]
fn a_slow_provider_gets_one_refresh_request() {
    let ferry = Ferry::holding(V0_169, &Login::stale());
    let runner = ferry.runner();
    let token = ferry.stub.hold(Endpoint::Token);
    let mut refresh = start(&mut ferry.authferry(&runner, &["refresh"]));
    let asked = std::time::Duration::from_mins(1);
    ferry.stub.wait_for(asked, What::is_rotation);
    std::thread::sleep(std::time::Duration::from_secs(1));
    drop(token);
    assert!(refresh.wait().expect("our child").success());
    assert_eq!(ferry.stub.count(What::is_refresh), 1);
    assert!(ferry.is_live());
}

in_each_store![a_fresh_login_needs_no_request_and_no_write];

fn a_fresh_login_needs_no_request_and_no_write<S: AnyStore>(version: &str) {
    let scene = S::holding(version, &Login::fresh());
    let before = scene.traces();

    let refresh = finish(&mut scene.authferry(&scene.runner(), &["refresh"]));

    assert_code(&refresh, 0);
    let events = scene.stub().events();
    assert!(events.is_empty(), "{events:?}");
    assert_eq!(scene.traces(), before, "the store was written");
}

#[test]
fn refresh_reports_a_dead_login() {
    let login = Login::stale();
    let ferry = Ferry::holding(V0_169, &login);
    let elsewhere = ferry.runner();
    elsewhere.place(&login.auth_json()).expect("disk space");
    assert!(finish(&mut elsewhere.exec()).status.success());

    let refresh = finish(&mut ferry.authferry(&ferry.runner(), &["refresh"]));

    assert_code(&refresh, 125);
    let stderr = String::from_utf8_lossy(&refresh.stderr);
    assert!(
        stderr.contains("its refresh token was spent before"),
        "{stderr}"
    );
    assert_eq!(ferry.stored(), login.auth_json().as_bytes());
}

#[test]
fn access_only_jobs_share_a_login_that_none_of_them_can_spend() {
    let ferry = Ferry::holding(V0_169, &ending_in(Duration::minutes(10)));
    let before = ferry.stored();
    for _ in 0..2 {
        let runner = ferry.runner();
        let job = "cp $CODEX_HOME/auth.json access-only; exec codex exec --skip-git-repo-check 'Reply OK.'";
        let job = script(&runner, job);

        let mut run = ferry.authferry(&runner, &["run", "--access-only", "--"]);
        let run = finish(run.arg(job));

        assert_code(&run, 0);
        let placed = fs::read_to_string(runner.work().join("access-only")).expect("a copy");
        assert!(
            placed.contains("\"refresh_token\": \"\""),
            "the job got a refresh token"
        );
        assert!(
            !runner.auth_file().exists(),
            "{:?}",
            names(&runner.codex_home())
        );
        assert_eq!(
            names(&runner.codex_home())
                .iter()
                .filter(|n| n.contains("receipt"))
                .count(),
            0
        );
    }
    assert_eq!(
        ferry.stub.count(What::is_refresh),
        1,
        "rotated once, before the first job"
    );
    assert_ne!(ferry.stored(), before);
    assert!(ferry.is_live());
}

#[test]
fn an_access_only_login_is_never_persisted() {
    let login = Login::fresh();
    let ferry = Ferry::holding(V0_169, &login);
    let runner = ferry.runner();
    let next = crate::ferry::successor(&login).auth_json();
    fs::write(runner.work().join("next"), &next).expect("disk space");
    let job = script(&runner, "cp next $CODEX_HOME/auth.json");
    let run = finish(
        ferry
            .authferry(&runner, &["run", "--access-only", "--"])
            .arg(job),
    );
    assert_code(&run, 0);
    assert_eq!(ferry.stored(), login.auth_json().as_bytes());
    assert!(
        runner.auth_file().exists(),
        "authferry removed a login that it did not place"
    );
    let refused = finish(&mut ferry.authferry(&runner, &["restore", "--access-only"]));
    assert_code(&refused, 124);

    let runner = ferry.runner();
    assert_code(
        &finish(&mut ferry.authferry(&runner, &["restore", "--access-only"])),
        0,
    );
    // The second restore finds the file of the first, as after a killed runner.
    assert_code(
        &finish(&mut ferry.authferry(&runner, &["restore", "--access-only"])),
        0,
    );
    assert_code(&finish(&mut runner.exec()), 0);
    assert_code(&finish(&mut ferry.authferry(&runner, &["persist"])), 0);
    assert!(!runner.auth_file().exists());
    assert_eq!(ferry.stored(), login.auth_json().as_bytes());

    assert_code(
        &finish(&mut ferry.authferry(&runner, &["restore", "--access-only"])),
        0,
    );
    assert_code(
        &finish(&mut ferry.authferry(&runner, &["restore", "--no-watch"])),
        0,
    );
    let file = fs::read(runner.auth_file()).expect("a login");
    assert_eq!(
        file,
        login.auth_json().as_bytes(),
        "restore placed the whole login"
    );
}

/// The first job records the rejection in the store, independent of the words of Codex. Later
/// jobs fail without a request.
#[test]
fn a_dead_login_is_refreshed_once_and_never_again_until_a_reseed() {
    for version in [rig::V0_145, V0_169] {
        let login = Login::stale();
        let ferry = Ferry::holding(version, &login);
        let elsewhere = ferry.runner();
        elsewhere.place(&login.auth_json()).expect("disk space");
        assert!(finish(&mut elsewhere.exec()).status.success());

        let first = finish(&mut ferry.authferry(&ferry.runner(), &["refresh"]));
        assert_code(&first, 125);
        let requests = ferry.stub.count(What::is_refresh);
        assert!(requests > 1, "Codex sent no request");
        for arguments in [
            &["refresh"][..],
            &["run", "--", "true"],
            &["restore", "--no-watch"],
        ] {
            let runner = ferry.runner();
            let later = finish(&mut ferry.authferry(&runner, arguments));
            assert_code(&later, 125);
            let stderr = String::from_utf8_lossy(&later.stderr);
            assert!(
                stderr.contains("its refresh token was spent before"),
                "{stderr}"
            );
            assert!(!runner.auth_file().exists());
        }
        assert_eq!(
            ferry.stub.count(What::is_refresh),
            requests,
            "a later job sent a request"
        );

        let reseed = Login {
            serial: 7,
            refresh_token: "made-up.refresh.reseed.0007".to_owned(),
            ..Login::stale()
        };
        ferry.stub.sign_in(&reseed);
        assert_code(&ferry.seed(&reseed, &["--replace", "--allow-older"]), 0);
        let alive = finish(&mut ferry.authferry(&ferry.runner(), &["refresh"]));
        assert_code(&alive, 0);
        assert!(ferry.is_live());
        let lease = fs::read_to_string(ferry.store_file().with_extension("json.lease"));
        let lease = lease.expect("a record");
        let refused = lease.strip_prefix("released\nrefused ");
        let refused = refused.expect("the rejected token, and no note of a dead login");
        assert_eq!(refused.len(), 16, "{lease}");
    }
}

#[test]
fn a_lease_held_for_the_job_blocks_other_rotations_until_it_ends() {
    let ferry = Ferry::holding(V0_169, &Login::stale());
    let runner = ferry.runner();
    let job = "touch ready; until [ -e enough ]; do sleep 0.01; done";
    let job = script(&runner, job);
    let held = ["run", "--no-rotate-first", "--lease", "job", "--"];
    let mut run = start(ferry.authferry(&runner, &held).arg(job));
    wait_until("ready", || runner.work().join("ready").exists());

    let refused =
        finish(&mut ferry.authferry(&ferry.runner(), &["refresh", "--lease-timeout", "0s"]));
    assert_code(&refused, 123);
    assert_eq!(ferry.stub.count(What::is_refresh), 0);
    let waiting = ferry.runner();
    let mut refresh = start(&mut ferry.authferry(&waiting, &["refresh"]));
    fs::write(runner.work().join("enough"), "").expect("disk space");
    assert!(run.wait().expect("our child").success());
    assert!(refresh.wait().expect("our child").success());
    assert_eq!(ferry.stub.count(What::is_refresh), 1);
    assert!(ferry.is_live());
}

/// Another process rotates the login during the job: with `--retry-reused` the job runs again with
/// the rotated login.
#[test]
fn retry_reused_repeats_a_job_after_a_concurrent_rotation() {
    let login = Login::stale();
    for (more, code) in [(None, 1), (Some("--retry-reused"), 0)] {
        let ferry = Ferry::holding(V0_169, &login);
        let runner = ferry.runner();
        let job = format!(
            "[ -e twice ] || CODEX_HOME={} {program} refresh || exit 9; touch twice; \
             exec codex exec --skip-git-repo-check 'Reply OK.'",
            runner.work().display(),
            program = under_test(),
        );
        let job = script(&runner, &job);
        let mut run = ferry.authferry(&runner, &["run", "--no-rotate-first"]);
        let run = finish(run.args(more).arg("--").arg(job));
        assert_code(&run, code);
        let stderr = String::from_utf8_lossy(&run.stderr);
        assert!(stderr.contains("was spent by another job"), "{stderr}");
        assert_eq!(ferry.stub.count(What::is_rotation), 1);
        assert!(ferry.is_live());
    }
}

/// `--cancel-grace` protects the rotation, not the job after it.
#[test]
fn a_job_cancelled_during_its_rotation_does_not_start() {
    let ferry = Ferry::holding(V0_169, &Login::stale());
    let runner = ferry.runner();
    let token = ferry.stub.hold(Endpoint::Token);
    let mut run = start(&mut ferry.authferry(&runner, &["run", "--", "touch", "started"]));
    ferry
        .stub
        .wait_for(std::time::Duration::from_mins(3), What::is_rotation);
    let pid = Pid::from_child(&run);
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        kill_process(pid, signal).expect("our child");
        std::thread::sleep(std::time::Duration::from_millis(300));
    }
    assert!(
        run.try_wait().expect("our child").is_none(),
        "authferry did not wait"
    );
    drop(token);
    assert_eq!(run.wait().expect("our child").code(), Some(130));
    assert!(ferry.is_live());
    assert!(!runner.work().join("started").exists());
}

/// With npm's launcher, whose child process is the real Codex.
#[test]
fn a_rotation_outlives_the_authferry_that_started_it() {
    let ferry = Ferry::holding(V0_169, &Login::stale());
    let runner = ferry.runner();
    runner
        .link("codex", ferry.codex.launcher())
        .expect("disk space");
    let token = ferry.stub.hold(Endpoint::Token);
    let mut refresh = start(&mut ferry.authferry(&runner, &["refresh"]));
    let asked = std::time::Duration::from_mins(1);
    ferry.stub.wait_for(asked, What::is_rotation);
    let temp = runner.root().join("home/.local/state/authferry/rotations");
    let native = temp.display().to_string();

    refresh.kill().expect("our child");
    refresh.wait().expect("our child");
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(
        !processes_with_home_in(&native).is_empty(),
        "its Codex was killed"
    );

    drop(token);
    wait_until("its Codex has exited", || {
        processes_with_home_in(&native).is_empty()
    });
    wait_until("its home is deleted", || names(&temp).is_empty());
    assert!(ferry.is_live());
}

/// The environments of the processes with a `CODEX_HOME` in a folder.
fn processes_with_home_in(folder: &str) -> Vec<String> {
    let wanted = format!("CODEX_HOME={folder}/");
    let processes = fs::read_dir("/proc").expect("Linux").flatten();
    let environments = processes.map(|it| it.path().join("environ"));
    environments
        .filter_map(|path| fs::read_to_string(path).ok())
        .filter(|environment| environment.contains(&wanted))
        .collect()
}
