//! A login is carried from runner to runner, with the jobs' OIDC identity as the only credential.

use std::{fs, time::Duration};

use rig::{EXEC, Endpoint, Login, What, finish};

use super::site::{
    Identity::{self, GitHub, GitLab},
    Site,
};
use crate::{
    any_store::on_each_version,
    ferry::{assert_code, assert_silent, script, start, successor},
};

on_each_version![
    a_second_github_job_uses_the_login_that_the_first_rotated,
    a_second_gitlab_job_uses_the_login_that_the_first_rotated,
    restore_and_persist_match_run_on_github,
    restore_and_persist_match_run_on_gitlab,
    codex_accepts_the_secret_that_the_aws_cli_prints,
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
    // The seed, the swap that proves the right to write, and the rotation; the lease was acquired
    // and released. The second job had nothing to do.
    assert_eq!((site.versions(), site.versions_of_the_lease()), (3, 2));
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
}

fn codex_accepts_the_secret_that_the_aws_cli_prints(version: &str) {
    let stale = Login::stale();
    let site = Site::new(version, &stale).seeded(&stale);
    assert_code(&finish(&mut site.run(&site.runner(), GitHub)), 0);

    let runner = site.runner();
    let name = site.name();
    let get = finish(&mut site.server.cli(&[
        "secretsmanager",
        "get-secret-value",
        "--secret-id",
        &name,
        "--query",
        "SecretString",
        "--output",
        "text",
    ]));
    assert_code(&get, 0);
    runner
        .place(std::str::from_utf8(&get.stdout).expect("JSON"))
        .expect("disk space");
    assert_code(&finish(&mut runner.exec()), 0);
    assert_eq!(
        site.stub.count(What::is_refresh),
        1,
        "the CLI printed an old version"
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
    drop(model);
    assert!(run.wait().expect("our child").success());
    assert_eq!(site.versions(), 2, "written more than once");
}

/// A long lease makes no more versions: it is renewed every 20 seconds by a tag.
#[test]
fn a_lease_held_for_the_job_makes_two_versions() {
    let login = Login::fresh();
    let site = Site::new(rig::V0_169, &login).seeded(&login);
    let runner = site.runner();
    let mut run = site.in_job(&runner, GitHub, &["run", "--lease", "job", "--"]);
    assert_code(&finish(run.args(["sleep", "25"])), 0);
    assert_eq!(site.versions_of_the_lease(), 2);
    let renewals = site.hand.rig("counts", &site.lease())["TagResource"].as_u64();
    assert!(renewals >= Some(1), "the lease was not renewed");
}

#[test]
fn credentials_are_hidden_from_the_command_and_the_output() {
    let login = Login::fresh();
    let next = successor(&login);
    let site = Site::new(rig::V0_169, &login).seeded(&login);
    let keys = site.user("runner", &site.policy("runner"));
    let runner = site.runner();
    fs::write(runner.work().join("next"), next.auth_json()).expect("disk space");
    let job = script(
        &runner,
        r#"env >seen; tr '\0' ' ' </proc/$PPID/cmdline >>seen; cp next "$CODEX_HOME/auth.json""#,
    );
    // A job with its OIDC identity, and a job with access keys.
    for (by_role, variables) in [(true, Vec::from(keys.clone())), (false, Vec::from(keys))] {
        let mut run = if by_role {
            site.in_job(&runner, GitLab, &["-v", "run", "--"])
        } else {
            site.authferry(&runner, &site.place(), &["-v", "run", "--"])
        };
        run.arg(&job)
            .envs(variables.clone())
            .env("AWS_SESSION_TOKEN", "");
        let mut secrets: Vec<_> = variables.into_iter().map(|(_, value)| value).collect();
        let id_token = run.get_envs().filter(|(name, _)| *name == "AWS_ID_TOKEN");
        secrets.extend(id_token.filter_map(|(_, value)| Some(value?.to_str()?.to_owned())));
        assert_eq!(secrets.len(), if by_role { 3 } else { 2 });
        let run = finish(&mut run);
        assert_code(&run, 0);
        assert_eq!(site.stored(), next.auth_json().as_bytes());

        let seen = fs::read_to_string(runner.work().join("seen")).expect("written");
        assert!(
            seen.contains("CODEX_HOME=") && seen.contains("authferry"),
            "{seen}"
        );
        assert!(
            seen.contains("AWS_REGION="),
            "variables without secrets must stay: {seen}"
        );
        let printed = [run.stdout, run.stderr].concat();
        let printed = String::from_utf8_lossy(&printed);
        for secret in &secrets {
            assert!(
                !seen.contains(secret),
                "the command was given a credential: {seen}"
            );
            assert!(
                !printed.contains(secret),
                "a credential was shown: {printed}"
            );
        }
    }
}

#[test]
fn seed_from_env_fills_an_empty_secret() {
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
    let printed = String::from_utf8_lossy(&refused.stderr);
    assert!(
        printed.contains("AWS returns the same error for a missing secret"),
        "{printed}"
    );
    assert_eq!(site.hand.look(&site.name()), None);
    site.hand
        .secrets("create_secret", &serde_json::json!({"Name": site.name()}))
        .expect("a new secret");
    assert_code(&run(), 0);
    assert_eq!(site.stored(), login.auth_json().as_bytes());
}
