//! A login is carried from runner to runner, with the jobs' OIDC identity as the only credential.

use std::{fs, time::Duration};

use rig::{EXEC, Endpoint, Login, What, finish};

use super::site::{
    ID_TOKEN,
    Identity::{self, GitHub, GitLab},
    NAME, Site,
};
use crate::{
    any_store::on_each_version,
    ferry::{assert_code, assert_silent, script, start, successor, wait_until},
};

on_each_version![
    a_second_github_job_uses_the_login_that_the_first_rotated,
    restore_and_persist_match_run_on_gitlab,
];

fn a_second_github_job_uses_the_login_that_the_first_rotated(version: &str) {
    run_twice(version, GitHub);
}

fn restore_and_persist_match_run_on_gitlab(version: &str) {
    restore_and_persist(version, GitLab);
}

#[test]
fn a_second_gitlab_job_uses_the_login_that_the_first_rotated() {
    run_twice(rig::V0_169, GitLab);
}

#[test]
fn restore_and_persist_match_run_on_github() {
    restore_and_persist(rig::V0_169, GitHub);
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
        assert_silent(
            &run,
            &[stale.auth_json().as_bytes(), site.newest().as_bytes()],
        );
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
    assert_eq!(
        fs::read_to_string(runner.auth_file()).expect("placed"),
        site.newest()
    );
    assert_code(&finish(&mut runner.exec()), 0);
    assert!(!site.is_live(), "not persisted yet");
    let rotated = fs::read_to_string(runner.auth_file()).expect("rotated");

    let persisted = finish(&mut site.in_job(&runner, identity, &["-v", "persist"]));
    assert_code(&persisted, 0);
    assert_eq!(site.newest(), rotated, "byte for byte");
    assert!(site.is_live());
    for output in [restored, persisted] {
        assert_silent(&output, &[stale.auth_json().as_bytes(), rotated.as_bytes()]);
    }
}

#[test]
fn microsofts_client_seeds_a_login_and_reads_one_that_codex_accepts() {
    let stale = Login::stale();
    let site = Site::new(rig::V0_169, &stale);
    let mut by_hand = site.by_hand();
    by_hand.set(NAME, &stale.auth_json());
    assert_code(&finish(&mut site.run(&site.runner(), GitHub)), 0);

    let runner = site.runner();
    let read = by_hand.get(NAME).expect("a value");
    assert_ne!(read, stale.auth_json());
    runner.place(&read).expect("disk space");
    assert_code(&finish(&mut runner.exec()), 0);
    assert_eq!(
        site.stub.count(What::is_refresh),
        1,
        "the client read an old version"
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
    wait_until("the live generation is in the store", || site.is_live());
    assert!(
        run.try_wait().expect("our child").is_none(),
        "the run is still active"
    );
    drop(model);
    assert!(run.wait().expect("our child").success());
    assert_eq!(site.versions(), 2, "written more than once");
}

#[test]
fn no_token_is_left_on_disk_or_given_to_the_command() {
    let login = Login::fresh();
    let next = successor(&login);
    for identity in [GitHub, GitLab] {
        let site = Site::new(rig::V0_169, &login).seeded(&login);
        let runner = site.runner();
        fs::write(runner.work().join("next"), next.auth_json()).expect("disk space");
        // Also search the command line of authferry, the parent of the shell.
        let job = script(
            &runner,
            r#"env >seen; tr '\0' ' ' </proc/$PPID/cmdline >>seen; cp next "$CODEX_HOME/auth.json""#,
        );
        let report = runner.work().join("report.json");
        let mut run = site.in_job(&runner, identity, &["-v", "--report"]);
        run.arg(&report).args(["run", "--"]).arg(job);
        run.env("AZURE_CLIENT_SECRET", "made-up-secret");
        let credentials = [
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
            ID_TOKEN,
            "AZURE_CLIENT_SECRET",
        ];
        let own: Vec<String> = run
            .get_envs()
            .filter_map(|(name, value)| Some((name.to_str()?, value?.to_str()?.to_owned())))
            .filter(|(name, _)| credentials.contains(name))
            .map(|(_, value)| value)
            .collect();
        assert_eq!(own.len(), 2);

        let run = finish(&mut run);
        assert_code(&run, 0);
        assert_eq!(site.newest(), next.auth_json());
        let seen = fs::read_to_string(runner.work().join("seen")).expect("written");
        assert!(
            seen.contains("CODEX_HOME=") && seen.contains("authferry"),
            "{seen}"
        );
        assert!(
            seen.contains("AZURE_TENANT_ID="),
            "variables without secrets must stay: {seen}"
        );
        for secret in &own {
            assert!(
                !seen.contains(secret),
                "the command was given a credential: {seen}"
            );
        }
        let root = runner.work().parent().expect("a root").to_owned();
        let mut places = crate::ferry::files(&root);
        assert!(
            places.iter().any(|(path, _)| path.ends_with("report.json")),
            "{places:?}"
        );
        places.push(("the output".to_owned(), [run.stdout, run.stderr].concat()));
        let mut tokens = site.vault.tokens();
        assert!(tokens.len() >= 2, "one for the vault, one for the blob");
        tokens.extend(site.issuer.fetched());
        for (place, bytes) in places {
            let text = String::from_utf8_lossy(&bytes);
            for token in &tokens {
                assert!(!text.contains(token), "a token is in {place}");
            }
        }
    }
}
