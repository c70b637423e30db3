//! What is in `deploy/policies/aws` is enough, and nothing in it is too much.

use std::{fs, process::Command};

use rig::{Aws, Codex, Keys, Login, What, finish};
use serde_json::{Value, json};

use super::site::{
    Account,
    Identity::{self, GitHub, GitLab},
    Site, deployed,
};
use crate::ferry::{assert_code, script, successor};

/// Something that a role has to be able to do.
struct Deed {
    what: &'static str,
    works: fn(&Site, Keys) -> bool,
}

const PERSISTS: Deed = Deed {
    what: "a job persists its login",
    works: |site, keys| {
        let runner = site.runner();
        let next = successor(&Login::fresh()).auth_json();
        fs::write(runner.work().join("next"), next).expect("room");
        let job = script(&runner, r#"cp next "$CODEX_HOME/auth.json""#);
        let mut run = site.authferry(&runner, &site.place(), &["run", "--patience", "20s", "--"]);
        finish(run.envs(keys).arg(job)).status.code() == Some(0)
    },
};

const SEEDS: Deed = Deed {
    what: "a person seeds a login where there is none",
    works: |site, keys| {
        let delete = json!({"SecretId": site.name(), "ForceDeleteWithoutRecovery": true});
        site.hand
            .secrets("delete_secret", &delete)
            .expect("a secret");
        site.seed(&Login::fresh(), keys, &[]).status.code() == Some(0)
    },
};

const RESEEDS: Deed = Deed {
    what: "a person replaces it",
    works: |site, keys| {
        let next = successor(&Login::fresh());
        site.seed(&next, keys, &["--replace"]).status.code() == Some(0)
    },
};

#[test]
fn a_runner_needs_each_action() {
    each_action_is_needed("runner", &[PERSISTS]);
}

#[test]
fn a_seeder_needs_each_action() {
    each_action_is_needed("seeder", &[RESEEDS, SEEDS]);
}

#[test]
fn a_runner_is_told_which_action_is_missing() {
    let login = Login::fresh();
    let site = Site::new(rig::V0_169, &login).seeded(&login);
    for action in actions(&site.policy("runner")) {
        site.let_do(GitHub, &without(&site.policy("runner"), &action));
        let runner = site.runner();
        fs::write(runner.work().join("next"), successor(&login).auth_json()).expect("room");
        let job = script(&runner, r#"cp next "$CODEX_HOME/auth.json""#);
        let mut run = site.in_job(&runner, GitHub, &["run", "--"]);
        let output = finish(run.arg(job));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            said.contains(&format!("is not authorized to perform: {}", action.name)),
            "{said}"
        );
        assert!(
            said.contains(&format!("hint: its policy has to allow {}", action.name)),
            "{said}"
        );
    }
}

#[test]
fn a_seeder_that_may_not_create_is_told_who_else_can() {
    let login = Login::fresh();
    let site = Site::new(rig::V0_169, &login);
    let whole = site.policy("seeder");
    let create = actions(&whole).pop().expect("actions");
    let keys = site.user("seeder", &without(&whole, &create));
    let output = site.seed(&login, keys, &[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("hint: its policy has to allow secretsmanager:CreateSecret")
            && said.contains("or somebody else creates the secret"),
        "{said}"
    );
}

/// What keeps a login from being rotated first keeps no job from beginning.
#[test]
fn a_job_that_may_not_claim_begins_and_is_told_what_is_missing() {
    let login = Login::ending_in(time::Duration::minutes(30));
    let site = Site::new(rig::V0_169, &login).seeded(&login);
    let begins = |hint: &str| {
        let runner = site.runner();
        let run = finish(&mut site.in_job(&runner, GitHub, &["run", "--", "true"]));
        assert_code(&run, 0);
        let said = String::from_utf8_lossy(&run.stderr);
        assert!(said.contains(hint), "{said}");
        assert_eq!(site.stub.count(What::is_refresh), 0);
    };
    site.let_do(GitHub, &site.policy("runner"));
    begins("hint: its policy has to allow secretsmanager:GetSecretValue on this secret");

    site.let_do(GitHub, &site.policy("refresher"));
    let delete = json!({"SecretId": site.claim(), "ForceDeleteWithoutRecovery": true});
    site.hand
        .secrets("delete_secret", &delete)
        .expect("a secret");
    begins("AWS says the same of a secret that is not there");
}

#[test]
fn a_runner_sees_no_other_secret_and_creates_or_deletes_none() {
    let login = Login::fresh();
    let site = Site::new(rig::V0_169, &login).seeded(&login);
    let name = site.name();
    for other in [format!("{name}-other"), name.replace("/codex", "/other")] {
        site.hand.put(&other, "made-up");
    }
    let keys = site.user("refresher", &site.policy("refresher"));
    for (call, secret) in [
        ("get-secret-value", format!("{name}-other")),
        ("get-secret-value", name.replace("/codex", "/other")),
        ("delete-secret", name.clone()),
        ("describe-secret", name.clone()),
    ] {
        let mut aws = site
            .server
            .cli(&["secretsmanager", call, "--secret-id", &secret]);
        denied(aws.envs(keys.clone()));
    }
    let mut create = site
        .server
        .cli(&["secretsmanager", "create-secret", "--name", "made-up"]);
    denied(create.envs(keys));
}

#[test]
fn github_jobs_are_let_in_by_either_form_of_their_name() {
    let login = Login::fresh();
    let site = Site::new(rig::V0_169, &login).seeded(&login);
    for (subject, is_let_in) in [
        ("repo:acme/app:ref:refs/heads/main", true),
        ("repo:acme@1234567/app@7654321:ref:refs/heads/main", true),
        ("repo:acme/app:ref:refs/heads/other", false),
        ("repo:acme/app:pull_request", false),
        ("repo:acme/app2:ref:refs/heads/main", false),
        ("repo:another/app:ref:refs/heads/main", false),
        ("repo:acme@1234567/app@7654322:ref:refs/heads/main", false),
        ("repo:acme@1234568/app@7654321:ref:refs/heads/main", false),
    ] {
        is_judged(&site, GitHub, subject, is_let_in);
    }
}

#[test]
fn gitlab_jobs_are_let_in_by_project_and_branch() {
    let login = Login::fresh();
    let site = Site::new(rig::V0_169, &login).seeded(&login);
    for (subject, is_let_in) in [
        ("project_path:acme/app:ref_type:branch:ref:main", true),
        ("project_path:acme/app:ref_type:tag:ref:main", false),
        ("project_path:acme/app:ref_type:branch:ref:other", false),
        ("project_path:acme/other:ref_type:branch:ref:main", false),
    ] {
        is_judged(&site, GitLab, subject, is_let_in);
    }
    let mut claims = Site::claims(GitLab);
    claims["aud"] = json!("https://vault.example.com");
    let said = refused(&site, GitLab, claims);
    assert!(said.contains("allows another audience"), "{said}");
    assert!(
        said.contains("hint: add sts.amazonaws.com to the audiences"),
        "{said}"
    );
    let mut claims = Site::claims(GitLab);
    claims["exp"] = json!(1);
    let said = refused(&site, GitLab, claims);
    assert!(said.contains("the job's token has ended"), "{said}");
    let mut claims = Site::claims(GitLab);
    claims["iss"] = json!("https://elsewhere.example");
    let said = refused(&site, GitLab, claims);
    assert!(
        said.contains("no identity provider for the token's issuer"),
        "{said}"
    );
}

/// What the page says is done, to the letter but for whose tokens are trusted.
#[test]
fn the_page_sets_an_account_up() {
    let login = Login::stale();
    let codex = Codex::install(rig::V0_169).expect("Codex from npm");
    let site = Site::on(&Account::on(Aws::moto()), codex, &login);
    let page = deployed("README.md");
    let scratch = site.runner();
    for file in [
        "github-trust.json",
        "gitlab-trust.json",
        "refresher.json",
        "seeder.json",
    ] {
        let text = as_trusted_here(&site, &deployed(file));
        fs::write(scratch.work().join(file), text).expect("room");
    }
    // The site has the provider of its own issuer already; the two platforms are one here.
    let commands = page
        .lines()
        .filter_map(|line| line.strip_prefix("    aws "));
    let commands = commands.filter(|line| !line.contains("create-open-id-connect-provider"));
    let mut count = 0;
    for command in commands {
        let arguments: Vec<_> = command.split(' ').collect();
        assert_code(
            &finish(site.server.cli(&arguments).current_dir(scratch.work())),
            0,
        );
        count += 1;
    }
    assert_eq!(count, 6);
    let stores = page
        .lines()
        .filter_map(|line| line.strip_prefix("    AUTHFERRY_STORE: "));
    let stores: Vec<_> = stores.collect();
    let [github, gitlab, people] = stores.try_into().expect("three addresses");

    let policy: Value = serde_json::from_str(&deployed("seeder.json")).expect("JSON");
    let keys = site.user("person", &policy);
    let file = scratch.work().join("login.json");
    fs::write(&file, login.auth_json()).expect("room");
    let mut seed = site.authferry(&scratch, people, &["seed"]);
    assert_code(&finish(seed.arg(file).envs(keys)), 0);
    let held = || site.hand.look("ci/codex").expect("a value").into_bytes();
    for (store, identity) in [(github, GitHub), (gitlab, GitLab)] {
        let runner = site.runner();
        let mut run = site.authferry(&runner, store, &["run", "--", "true"]);
        site.identify(&mut run, identity, Site::claims(identity));
        assert_code(&finish(&mut run), 0);
    }
    // The first of them has claimed it and rotated it, and the second has found it fresh.
    assert_eq!(site.stub.count(What::is_rotation), 1);
    assert!(site.stub.is_live(&held()), "the store is behind");
}

fn as_trusted_here(site: &Site, text: &str) -> String {
    let host = site.issuer.url().replace("http://", "");
    text.replace("token.actions.githubusercontent.com", &host)
        .replace("gitlab.com", &host)
}

fn is_judged(site: &Site, identity: Identity, subject: &str, is_let_in: bool) {
    let mut claims = Site::claims(identity);
    claims["sub"] = json!(subject);
    if is_let_in {
        assert_code(&status(site, identity, claims), 0);
    } else {
        let said = refused(site, identity, claims);
        assert!(
            said.contains("its trust policy does not name this job"),
            "{subject}: {said}"
        );
        assert!(
            said.contains("hint: compare `sub` and `aud`"),
            "{subject}: {said}"
        );
    }
}

fn refused(site: &Site, identity: Identity, claims: Value) -> String {
    let output = status(site, identity, claims);
    assert_code(&output, 125);
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn status(site: &Site, identity: Identity, claims: Value) -> std::process::Output {
    let runner = site.runner();
    let mut status = site.authferry(&runner, &site.address(identity), &["status"]);
    site.identify(&mut status, identity, claims);
    finish(&mut status)
}

fn denied(aws: &mut Command) {
    let output = finish(aws);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("AccessDeniedException"), "{aws:?}: {said}");
}

fn each_action_is_needed(role: &str, deeds: &[Deed]) {
    let login = Login::fresh();
    let site = Site::new(rig::V0_169, &login).seeded(&login);
    let whole = site.policy(role);
    let undone = |name: &str, policy: &Value| -> Vec<&str> {
        site.hand.put(&site.name(), &login.auth_json());
        let keys = site.user(name, policy);
        let failing = deeds
            .iter()
            .filter(|deed| !(deed.works)(&site, keys.clone()));
        failing.map(|deed| deed.what).collect()
    };
    assert_eq!(undone("with-all", &whole), [""; 0], "with the whole policy");
    let actions = actions(&whole);
    assert!(actions.len() > 2, "the policy was not read: {whole}");
    for (number, action) in actions.iter().enumerate() {
        let left = undone(&format!("without-{number}"), &without(&whole, action));
        assert_ne!(
            left, [""; 0],
            "without {} of statement {}",
            action.name, action.statement
        );
    }
}

/// One action of a policy.
struct Action {
    statement: usize,
    name: String,
}

fn actions(policy: &Value) -> Vec<Action> {
    let statements = policy["Statement"].as_array().expect("statements");
    let of = |(statement, it): (usize, &Value)| {
        let actions = it["Action"].as_array().expect("actions").clone();
        actions.into_iter().map(move |name| Action {
            statement,
            name: name.as_str().expect("a name").to_owned(),
        })
    };
    statements.iter().enumerate().flat_map(of).collect()
}

fn without(policy: &Value, action: &Action) -> Value {
    let mut policy = policy.clone();
    let statements = policy["Statement"].as_array_mut().expect("statements");
    let actions = statements[action.statement]["Action"].as_array_mut();
    let actions = actions.expect("actions");
    actions.retain(|name| *name != action.name);
    if actions.is_empty() {
        statements.remove(action.statement);
    }
    policy
}
