//! A login is carried from runner to runner, with the jobs' OIDC identity as the only credential.

use std::{fs, time::Duration};

use rig::{EXEC, Endpoint, Login, What, finish};

use super::site::{
    Identity::{self, GitHub, GitLab},
    PATH, Site, assert_no_token, server_token,
};
use crate::{
    any_store::on_each_version,
    ferry::{assert_code, assert_silent, files, script, start, successor},
};

on_each_version![
    a_second_github_job_uses_the_login_that_the_first_rotated,
    a_second_gitlab_job_uses_the_login_that_the_first_rotated,
    restore_and_persist_match_run_on_github,
    restore_and_persist_match_run_on_gitlab,
    codex_accepts_the_secret_that_bao_prints,
];

fn a_second_github_job_uses_the_login_that_the_first_rotated(version: &str) {
    run_twice(version, GitHub);
}

fn a_second_gitlab_job_uses_the_login_that_the_first_rotated(version: &str) {
    run_twice(version, GitLab);
}

fn restore_and_persist_match_run_on_github(version: &str) {
    restore_and_persist(version, GitHub);
}

fn restore_and_persist_match_run_on_gitlab(version: &str) {
    restore_and_persist(version, GitLab);
}

fn run_twice(version: &str, identity: Identity) {
    let stale = Login::stale();
    let site = Site::new(version, &stale).seeded(&stale);
    for _ in 0..2 {
        let runner = site.runner();
        let run = finish(&mut site.run(&runner, identity));
        assert_code(&run, 0);
        assert!(site.is_live(), "{run:?}");
        assert!(!runner.auth_file().exists(), "the login was left behind");
        assert_silent(&run, &[stale.auth_json().as_bytes(), &site.stored()]);
    }
    assert_eq!(
        site.stub.count(What::is_rotation),
        1,
        "the token was spent once"
    );
    assert_eq!(
        site.versions(),
        3,
        "the seed, the proof that it can be written, and the rotation"
    );
    assert_eq!(site.tokens(identity), 0, "a token outlived its job");
}

fn restore_and_persist(version: &str, identity: Identity) {
    let stale = Login::stale();
    let site = Site::new(version, &stale).seeded(&stale);
    let runner = site.runner();

    let restored = finish(&mut site.in_job(
        &runner,
        identity,
        &["-v", "restore", "--no-watch", "--no-rotate-first"],
    ));
    assert_code(&restored, 0);
    assert_eq!(fs::read(runner.auth_file()).expect("placed"), site.stored());
    assert_code(&finish(&mut runner.exec()), 0);
    assert!(!site.is_live(), "not persisted yet");
    let rotated = fs::read(runner.auth_file()).expect("rotated");

    let persisted = finish(&mut site.in_job(&runner, identity, &["-v", "persist"]));
    assert_code(&persisted, 0);
    assert_eq!(site.stored(), rotated, "byte for byte");
    assert!(site.is_live());
    for output in [restored, persisted] {
        assert_silent(&output, &[stale.auth_json().as_bytes(), &rotated]);
    }
    assert_eq!(site.tokens(identity), 0, "a token outlived its job");
}

fn codex_accepts_the_secret_that_bao_prints(version: &str) {
    let stale = Login::stale();
    let site = Site::new(version, &stale).seeded(&stale);
    assert_code(&finish(&mut site.run(&site.runner(), GitHub)), 0);

    let runner = site.runner();
    let mount = format!("-mount={}", site.mount);
    let get = finish(
        &mut site
            .server
            .bao(&["kv", "get", "-field=auth_json", &mount, PATH]),
    );
    assert_code(&get, 0);
    runner
        .place(std::str::from_utf8(&get.stdout).expect("JSON"))
        .expect("disk space");
    assert_code(&finish(&mut runner.exec()), 0);
    assert_eq!(
        site.stub.count(What::is_refresh),
        1,
        "bao printed an old version"
    );
}

#[test]
fn a_rotation_is_in_the_store_before_the_run_ends() {
    let stale = Login::stale();
    let site = Site::new(rig::V0_169, &stale).seeded(&stale);
    let model = site.stub.hold(Endpoint::Model);
    let runner = site.runner();
    let mut run = site.in_job(
        &runner,
        GitHub,
        &["run", "--no-rotate-first", "--", "codex"],
    );
    let mut run = start(run.args(EXEC));
    site.stub
        .wait_for(Duration::from_mins(3), What::is_rotation);
    site.wait_until_live();
    assert!(
        run.try_wait().expect("our child").is_none(),
        "the run is still active"
    );
    assert_eq!(site.tokens(GitHub), 1, "the token of the running job");
    drop(model);
    assert!(run.wait().expect("our child").success());
    assert_eq!(site.tokens(GitHub), 0, "a token outlived its job");
    assert_eq!(site.versions(), 2, "written more than once");
}

#[test]
fn no_token_is_left_on_disk_or_given_to_the_command() {
    let login = Login::fresh();
    let next = successor(&login);
    let site = Site::new(rig::V0_169, &login).seeded(&login);
    let runner = site.runner();
    fs::write(runner.work().join("next"), next.auth_json()).expect("disk space");
    // Also search the command line of authferry, the parent of the shell.
    let job = script(
        &runner,
        r#"env >seen; tr '\0' ' ' </proc/$PPID/cmdline >>seen; cp next "$CODEX_HOME/auth.json""#,
    );
    let report = runner.work().join("report.json");
    let mut run = site.in_job(&runner, GitHub, &["-v", "--report"]);
    run.arg(&report).args(["run", "--"]).arg(job);
    run.env("VAULT_TOKEN", site.token("runner"));
    let secrets: Vec<String> = run
        .get_envs()
        .filter_map(|(name, value)| Some((name.to_str()?, value?.to_str()?.to_owned())))
        .filter(|(name, _)| ["VAULT_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"].contains(name))
        .map(|(_, value)| value)
        .collect();
    assert_eq!(secrets.len(), 2);

    let run = finish(&mut run);
    assert_code(&run, 0);
    assert_eq!(site.stored(), next.auth_json().as_bytes());
    assert_eq!(site.issuer.fetched().len(), 1);

    let seen = fs::read_to_string(runner.work().join("seen")).expect("written");
    assert!(
        seen.contains("CODEX_HOME=") && seen.contains("authferry"),
        "{seen}"
    );
    assert!(
        seen.contains("VAULT_ADDR="),
        "variables without secrets must stay: {seen}"
    );
    for secret in &secrets {
        assert!(
            !seen.contains(secret),
            "the command was given a credential: {seen}"
        );
    }
    assert_silent(
        &run,
        &[login.auth_json().as_bytes(), next.auth_json().as_bytes()],
    );
    assert_no_token(&site, "the output", &[run.stdout, run.stderr].concat());
    let root = runner.work().parent().expect("a root").to_owned();
    let files = files(&root);
    assert!(
        files.iter().any(|(path, _)| path.ends_with("report.json")),
        "{files:?}"
    );
    for (path, bytes) in files {
        assert_no_token(&site, &path, &bytes);
    }
}

/// Shows that the token search of the previous test can find a token.
#[test]
fn the_token_detector_finds_a_server_token() {
    let login = Login::fresh();
    let site = Site::new(rig::V0_169, &login);
    for token in [site.server.root_token(), &site.token("runner")] {
        assert_eq!(server_token(&format!("a={token};")), Some(token));
    }
    assert_eq!(server_token(&site.place()), None);
}

#[test]
fn seed_from_env_fills_an_empty_store_if_the_policy_allows_it() {
    let login = Login::fresh();
    let site = Site::new(rig::V0_169, &login);
    let run = || {
        let runner = site.runner();
        let mut run = site.in_job(&runner, GitLab, &["run", "--seed-from-env", "LOGIN"]);
        run.env("LOGIN", login.auth_json()).args(["--", "true"]);
        finish(&mut run)
    };
    let refused = run();
    assert_code(&refused, 125);
    assert_eq!(site.versions(), 0);
    site.let_in(GitLab, |role| {
        role["token_policies"] = serde_json::json!([site.named("seeder")]);
    });
    assert_code(&run(), 0);
    assert_eq!(site.stored(), login.auth_json().as_bytes());
}
