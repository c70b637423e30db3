//! The main scenario: a login is carried from runner to runner, even if jobs fail.

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use rig::{Endpoint, Login, What, finish};

use crate::any_store::{AnyStore, on_each_version};
use crate::ferry::{
    Ferry, assert_code, assert_silent, names, script, start, successor, wait_until,
};

on_each_version![
    the_second_runner_uses_the_login_that_the_first_rotated,
    without_authferry_the_second_runner_fails,
    restore_and_persist_match_run,
    a_rotation_is_in_the_store_before_the_run_ends,
    a_rotation_by_a_failed_run_is_persisted,
    a_fresh_login_needs_no_write,
];

fn the_second_runner_uses_the_login_that_the_first_rotated(version: &str) {
    let stale = Login::stale();
    let ferry = Ferry::holding(version, &stale);

    let first = ferry.runner();
    let run = finish(&mut ferry.run(&first));
    assert_code(&run, 0);
    assert!(ferry.is_live(), "{run:?}");
    assert!(!first.auth_file().exists(), "the login was left behind");
    assert_silent(&run, &[stale.auth_json().as_bytes(), &ferry.stored()]);
    assert_eq!(ferry.status()["generation"], 2);

    let second = ferry.runner();
    let run = finish(&mut ferry.run(&second));
    assert_code(&run, 0);
    assert_eq!(
        ferry.stub.count(What::is_rotation),
        1,
        "the token was spent once"
    );
    assert!(ferry.is_live());
    assert_eq!(
        ferry.status()["generation"],
        2,
        "the second run wrote to the store"
    );
}

/// Shows that the previous test can fail.
fn without_authferry_the_second_runner_fails(version: &str) {
    let stale = Login::stale();
    let ferry = Ferry::holding(version, &stale);
    for (runner, code) in [(ferry.runner(), 0), (ferry.runner(), 1)] {
        runner.place(&stale.auth_json()).expect("disk space");
        assert_code(&finish(&mut runner.exec()), code);
    }
}

fn restore_and_persist_match_run(version: &str) {
    let stale = Login::stale();
    let ferry = Ferry::holding(version, &stale);
    let runner = ferry.runner();
    let home = names(&runner.codex_home());

    let restored =
        finish(&mut ferry.authferry(&runner, &["restore", "--no-watch", "--no-rotate-first"]));
    assert_code(&restored, 0);
    let mode = fs::metadata(runner.auth_file())
        .expect("placed")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(
        fs::read(runner.auth_file()).expect("placed"),
        ferry.stored()
    );
    assert_code(&finish(&mut runner.exec()), 0);
    assert!(!ferry.is_live(), "not persisted yet");
    let rotated = fs::read(runner.auth_file()).expect("rotated");

    let persisted = finish(&mut ferry.authferry(&runner, &["persist"]));
    assert_code(&persisted, 0);
    assert_eq!(ferry.stored(), rotated, "byte for byte");
    assert!(ferry.is_live());
    for output in [restored, persisted] {
        assert_silent(&output, &[stale.auth_json().as_bytes(), &rotated]);
    }
    let left = names(&runner.codex_home());
    let ours = |name: &&String| name.starts_with("auth.json") || name.contains("authferry");
    assert_eq!(
        left.iter()
            .filter(ours)
            .filter(|name| !name.ends_with("lock"))
            .count(),
        0,
        "{left:?} {home:?}"
    );
}

fn a_rotation_is_in_the_store_before_the_run_ends(version: &str) {
    let ferry = Ferry::holding(version, &Login::stale());
    let model = ferry.stub.hold(Endpoint::Model);
    let runner = ferry.runner();
    let mut run = start(&mut ferry.run(&runner));
    ferry
        .stub
        .wait_for(Duration::from_mins(3), What::is_rotation);
    ferry.wait_until_live();
    assert!(
        run.try_wait().expect("our child").is_none(),
        "the run is still active"
    );
    drop(model);
    assert!(run.wait().expect("our child").success());
    assert_eq!(ferry.status()["generation"], 2, "written more than once");
}

fn a_rotation_by_a_failed_run_is_persisted(version: &str) {
    let ferry = Ferry::holding(version, &Login::stale());
    ferry.stub.rules(|rules| rules.model_failure = Some(500));
    let runner = ferry.runner();
    assert_code(&finish(&mut ferry.run(&runner)), 1);
    assert!(ferry.is_live());
}

fn a_fresh_login_needs_no_write(version: &str) {
    let ferry = Ferry::holding(version, &Login::fresh());
    let before = ferry.status();
    let runner = ferry.runner();
    assert_code(&finish(&mut ferry.run(&runner)), 0);
    assert_eq!(ferry.status(), before);
    assert_eq!(ferry.stub.count(What::is_refresh), 0);
}

#[test]
fn arguments_and_streams_reach_the_command_untouched() {
    let ferry = Ferry::holding(rig::V0_169, &Login::fresh());
    let runner = ferry.runner();
    let echo = script(
        &runner,
        r#"cat; printf '%s|' "$@"; echo to stderr >&2; exit 7"#,
    );
    let mut command = ferry.authferry(&runner, &["-q", "run", "--"]);
    command.arg(echo).args(["--json", "-v", "a b", ""]);
    let input = runner.work().join("input");
    fs::write(&input, "from stdin\n").expect("disk space");
    command.stdin(fs::File::open(&input).expect("just written"));
    let run = finish(&mut command);
    assert_code(&run, 7);
    assert_eq!(
        String::from_utf8_lossy(&run.stdout),
        "from stdin\n--json|-v|a b||"
    );
    assert_eq!(String::from_utf8_lossy(&run.stderr), "to stderr\n");
}

#[test]
fn seed_from_env_fills_an_empty_store_and_is_hidden_from_the_command() {
    let login = Login::fresh();
    let ferry = Ferry::holding(rig::V0_169, &login);
    for (file, filled) in [(ferry.store_file(), false), (ferry.store_file(), true)] {
        if !filled {
            fs::remove_file(file).expect("seeded");
        }
        let runner = ferry.runner();
        let job = script(
            &runner,
            r#"cmp -s "$CODEX_HOME/auth.json" "$1" && env >seen"#,
        );
        let mut run = ferry.authferry(&runner, &["run", "--seed-from-env", "LOGIN", "--"]);
        run.env("LOGIN", login.auth_json())
            .arg(job)
            .arg(ferry.store_file());
        assert_code(&finish(&mut run), 0);
        let seen = fs::read_to_string(runner.work().join("seen")).expect("written");
        assert!(seen.contains("CODEX_HOME="), "{seen}");
        for secret in rig::secrets_in(&login.auth_json()) {
            assert!(
                !seen.contains(&secret),
                "the command was given the login: {seen}"
            );
        }
        assert_eq!(ferry.stored(), login.auth_json().as_bytes());
    }
}

#[test]
fn touching_the_store_file_is_not_a_reseed() {
    let login = Login::fresh();
    let next = successor(&login);
    let ferry = Ferry::holding(rig::V0_169, &login);
    let runner = ferry.runner();
    fs::write(runner.work().join("next"), next.auth_json()).expect("disk space");
    let job = script(&runner, r#"touch "$1"; cp next "$CODEX_HOME/auth.json""#);
    let run = finish(
        ferry
            .authferry(&runner, &["run", "--"])
            .arg(job)
            .arg(ferry.store_file()),
    );
    assert_code(&run, 0);
    assert_eq!(ferry.stored(), next.auth_json().as_bytes());
}

#[test]
fn a_running_job_keeps_its_home_from_other_commands() {
    let ferry = Ferry::holding(rig::V0_169, &Login::fresh());
    let runner = ferry.runner();
    let job = script(
        &runner,
        "touch ready; until [ -e enough ]; do sleep 0.01; done; test -e $CODEX_HOME/auth.json",
    );
    let mut run = start(ferry.authferry(&runner, &["run", "--"]).arg(job));
    wait_until("ready", || runner.work().join("ready").exists());
    for (arguments, code) in [
        (&["persist", "--exit-grace", "0s"][..], 119),
        (&["restore", "--no-watch"], 124),
        (&["run", "--", "true"], 124),
    ] {
        let other = finish(&mut ferry.authferry(&runner, arguments));
        assert_code(&other, code);
        let stderr = String::from_utf8_lossy(&other.stderr).into_owned();
        let by = format!("authferry-under (process {})", run.id());
        assert!(stderr.contains(&by), "{stderr}");
    }
    fs::write(runner.work().join("enough"), "").expect("disk space");
    assert_eq!(run.wait().expect("our child").code(), Some(0));
}

#[test]
fn a_home_replaced_during_the_run_is_still_watched() {
    let login = Login::fresh();
    let next = successor(&login);
    let ferry = Ferry::holding(rig::V0_169, &login);
    let runner = ferry.runner();
    fs::write(runner.work().join("next"), next.auth_json()).expect("disk space");
    let job = script(
        &runner,
        "mv $CODEX_HOME $CODEX_HOME.old; mkdir -m 700 $CODEX_HOME; (umask 077; cp next $CODEX_HOME/auth.json); \
         until [ -e enough ]; do sleep 0.01; done",
    );
    let mut run = start(ferry.authferry(&runner, &["run", "--"]).arg(job));
    wait_until("the new login is in the store", || {
        ferry.stored() == next.auth_json().as_bytes()
    });
    fs::write(runner.work().join("enough"), "").expect("disk space");
    assert_eq!(run.wait().expect("our child").code(), Some(0));
}
