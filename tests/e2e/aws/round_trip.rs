//! A login goes from runner to runner by nothing but the jobs' own identity.

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
    a_job_of_github_goes_on_with_what_the_first_left_behind,
    a_job_of_gitlab_goes_on_with_what_the_first_left_behind,
    restore_and_persist_do_as_run_does_on_github,
    restore_and_persist_do_as_run_does_on_gitlab,
    what_aws_prints_is_a_file_that_codex_takes,
];

fn a_job_of_github_goes_on_with_what_the_first_left_behind(version: &str) {
    runs_go_on(version, GitHub);
}

fn a_job_of_gitlab_goes_on_with_what_the_first_left_behind(version: &str) {
    runs_go_on(version, GitLab);
}

fn restore_and_persist_do_as_run_does_on_github(version: &str) {
    restore_and_persist(version, GitHub);
}

fn restore_and_persist_do_as_run_does_on_gitlab(version: &str) {
    restore_and_persist(version, GitLab);
}

fn runs_go_on(version: &str, identity: Identity) {
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
    // The seed, the proof that it can be written, and what was rotated; the claim was taken and
    // given back. The second job found nothing to do.
    assert_eq!((site.versions(), site.versions_of_the_claim()), (3, 2));
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
    assert!(!site.is_live(), "nobody has persisted yet");
    let rotated = fs::read(runner.auth_file()).expect("rotated");

    let persisted = finish(&mut site.in_job(&runner, identity, &["-v", "persist"]));
    assert_code(&persisted, 0);
    assert_eq!(site.stored(), rotated, "byte for byte");
    assert!(site.is_live());
    for output in [restored, persisted] {
        assert_silent(&output, &[stale.auth_json().as_bytes(), &rotated]);
    }
}

fn what_aws_prints_is_a_file_that_codex_takes(version: &str) {
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
        .expect("room");
    assert_code(&finish(&mut runner.exec()), 0);
    assert_eq!(
        site.stub.count(What::is_refresh),
        1,
        "it was the newest one"
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
        .wait_for(Duration::from_mins(1), What::is_rotation);
    site.wait_until_live();
    assert!(
        run.try_wait().expect("our child").is_none(),
        "the run is not over"
    );
    drop(model);
    assert!(run.wait().expect("our child").success());
    assert_eq!(site.versions(), 2, "and it was written once");
}

/// However long a job holds the claim: it is renewed each 20 seconds.
#[test]
fn a_claim_that_is_held_to_the_jobs_end_makes_two_versions() {
    let login = Login::fresh();
    let site = Site::new(rig::V0_169, &login).seeded(&login);
    let runner = site.runner();
    let mut run = site.in_job(&runner, GitHub, &["run", "--lease", "job", "--"]);
    assert_code(&finish(run.args(["sleep", "25"])), 0);
    assert_eq!(site.versions_of_the_claim(), 2);
    let renewals = site.hand.rig("counts", &site.claim())["TagResource"].as_u64();
    assert!(renewals >= Some(1), "it was not renewed");
}

#[test]
fn no_credential_is_given_to_the_command_or_shown() {
    let login = Login::fresh();
    let next = successor(&login);
    let site = Site::new(rig::V0_169, &login).seeded(&login);
    let keys = site.user("runner", &site.policy("runner"));
    let runner = site.runner();
    fs::write(runner.work().join("next"), next.auth_json()).expect("room");
    let job = script(
        &runner,
        r#"env >seen; tr '\0' ' ' </proc/$PPID/cmdline >>seen; cp next "$CODEX_HOME/auth.json""#,
    );
    // Once as a job with an identity of its own, and once more as one that was given keys.
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
        let of_the_job = run.get_envs().filter(|(name, _)| *name == "AWS_ID_TOKEN");
        secrets.extend(of_the_job.filter_map(|(_, value)| Some(value?.to_str()?.to_owned())));
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
            "what is no secret stays: {seen}"
        );
        let said = [run.stdout, run.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        for secret in &secrets {
            assert!(
                !seen.contains(secret),
                "the command was given a credential: {seen}"
            );
            assert!(!said.contains(secret), "a credential was shown: {said}");
        }
    }
}

#[test]
fn a_login_in_a_variable_fills_an_empty_secret() {
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
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        said.contains("AWS says the same of a secret that is not there"),
        "{said}"
    );
    assert_eq!(site.hand.look(&site.name()), None);
    site.hand
        .secrets("create_secret", &serde_json::json!({"Name": site.name()}))
        .expect("a new secret");
    assert_code(&run(), 0);
    assert_eq!(site.stored(), login.auth_json().as_bytes());
}
