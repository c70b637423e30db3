//! The policies in `deploy/policies/aws` are sufficient and minimal.

use std::{fs, process::Command};

use rig::{Aws, Codex, Keys, Login, What, finish};
use serde_json::{Value, json};

use super::site::{
    Account,
    Identity::{self, GitHub, GitLab},
    Site, deployed,
};
use crate::ferry::{assert_code, script, successor};
use crate::monitor::{dead_login_record, shows_dead_login};

/// Something that a role must be able to do.
struct Capability {
    what: &'static str,
    works: fn(&Site, Keys) -> bool,
}

const PERSISTS: Capability = Capability {
    what: "a job persists its login",
    works: |site, keys| {
        let runner = site.runner();
        let next = successor(&Login::fresh()).auth_json();
        fs::write(runner.work().join("next"), next).expect("disk space");
        let job = script(&runner, r#"cp next "$CODEX_HOME/auth.json""#);
        let mut run = site.authferry(
            &runner,
            &site.place(),
            &["run", "--store-timeout", "20s", "--"],
        );
        finish(run.envs(keys).arg(job)).status.code() == Some(0)
    },
};

const SEEDS: Capability = Capability {
    what: "a person seeds an empty store",
    works: |site, keys| {
        let delete = json!({"SecretId": site.name(), "ForceDeleteWithoutRecovery": true});
        site.hand
            .secrets("delete_secret", &delete)
            .expect("a secret");
        site.seed(&Login::fresh(), keys, &[]).status.code() == Some(0)
    },
};

const RESEEDS: Capability = Capability {
    what: "a person replaces the login",
    works: |site, keys| {
        let next = successor(&Login::fresh());
        site.seed(&next, keys, &["--replace"]).status.code() == Some(0)
    },
};

const SEES_REFUSAL: Capability = Capability {
    what: "it sees that the provider refuses the login",
    works: |site, keys| {
        let note = dead_login_record(&site.stored()) + "\nby https://ci.example/jobs/1";
        site.hand.put(&site.lease(), &note);
        let runner = site.runner();
        let mut status = site.authferry(&runner, &site.place(), &["status", "--json"]);
        shows_dead_login(&finish(status.envs(keys)))
    },
};

#[test]
fn a_runner_needs_each_action() {
    each_action_is_needed("runner", &[PERSISTS]);
}

#[test]
fn a_seeder_needs_each_action() {
    each_action_is_needed("seeder", &[SEES_REFUSAL, RESEEDS, SEEDS]);
}

#[test]
fn a_monitor_needs_each_action() {
    each_action_is_needed("monitor", &[SEES_REFUSAL]);
}

#[test]
fn the_error_names_the_missing_action() {
    let login = Login::fresh();
    let site = Site::new(rig::V0_169, &login).seeded(&login);
    for action in actions(&site.policy("runner")) {
        site.let_do(GitHub, &without(&site.policy("runner"), &action));
        let runner = site.runner();
        fs::write(runner.work().join("next"), successor(&login).auth_json()).expect("disk space");
        let job = script(&runner, r#"cp next "$CODEX_HOME/auth.json""#);
        let mut run = site.in_job(&runner, GitHub, &["run", "--"]);
        let output = finish(run.arg(job));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            stderr.contains(&format!("is not authorized to perform: {}", action.name)),
            "{stderr}"
        );
        assert!(
            stderr.contains(&format!("hint: its policy has to allow {}", action.name)),
            "{stderr}"
        );
    }
}

#[test]
fn a_seeder_without_the_create_right_gets_a_hint() {
    let login = Login::fresh();
    let site = Site::new(rig::V0_169, &login);
    let whole = site.policy("seeder");
    let create = actions(&whole).pop().expect("actions");
    let keys = site.user("seeder", &without(&whole, &create));
    let output = site.seed(&login, keys, &[]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains("hint: its policy has to allow secretsmanager:CreateSecret")
            && stderr.contains("or an administrator creates the secret"),
        "{stderr}"
    );
}

/// If the rotation fails, the job still starts.
#[test]
fn a_job_without_the_lease_right_starts_with_a_hint() {
    let login = Login::ending_in(time::Duration::minutes(30));
    let site = Site::new(rig::V0_169, &login).seeded(&login);
    let starts_with = |hint: &str| {
        let runner = site.runner();
        let run = finish(&mut site.in_job(&runner, GitHub, &["run", "--", "true"]));
        assert_code(&run, 0);
        let stderr = String::from_utf8_lossy(&run.stderr);
        assert!(stderr.contains(hint), "{stderr}");
        assert_eq!(site.stub.count(What::is_refresh), 0);
    };
    site.let_do(GitHub, &site.policy("runner"));
    starts_with("hint: its policy has to allow secretsmanager:GetSecretValue on this secret");

    site.let_do(GitHub, &site.policy("refresher"));
    let delete = json!({"SecretId": site.lease(), "ForceDeleteWithoutRecovery": true});
    site.hand
        .secrets("delete_secret", &delete)
        .expect("a secret");
    starts_with("AWS returns the same error for a missing secret");
}

#[test]
fn a_runner_reads_no_other_secret_and_creates_or_deletes_none() {
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
        assert_denied(aws.envs(keys.clone()));
    }
    let mut create = site
        .server
        .cli(&["secretsmanager", "create-secret", "--name", "made-up"]);
    assert_denied(create.envs(keys));
}

#[test]
fn github_jobs_are_trusted_by_either_form_of_their_subject() {
    let login = Login::fresh();
    let site = Site::new(rig::V0_169, &login).seeded(&login);
    for (subject, is_trusted) in [
        ("repo:acme/app:ref:refs/heads/main", true),
        ("repo:acme@1234567/app@7654321:ref:refs/heads/main", true),
        ("repo:acme/app:ref:refs/heads/other", false),
        ("repo:acme/app:pull_request", false),
        ("repo:acme/app2:ref:refs/heads/main", false),
        ("repo:another/app:ref:refs/heads/main", false),
        ("repo:acme@1234567/app@7654322:ref:refs/heads/main", false),
        ("repo:acme@1234568/app@7654321:ref:refs/heads/main", false),
    ] {
        assert_trust(&site, GitHub, subject, is_trusted);
    }
}

#[test]
fn gitlab_jobs_are_trusted_by_project_and_branch() {
    let login = Login::fresh();
    let site = Site::new(rig::V0_169, &login).seeded(&login);
    for (subject, is_trusted) in [
        ("project_path:acme/app:ref_type:branch:ref:main", true),
        ("project_path:acme/app:ref_type:tag:ref:main", false),
        ("project_path:acme/app:ref_type:branch:ref:other", false),
        ("project_path:acme/other:ref_type:branch:ref:main", false),
    ] {
        assert_trust(&site, GitLab, subject, is_trusted);
    }
    let mut claims = Site::claims(GitLab);
    claims["aud"] = json!("https://vault.example.com");
    let stderr = refused(&site, GitLab, claims);
    assert!(
        stderr.contains("does not allow the token's audience"),
        "{stderr}"
    );
    assert!(
        stderr.contains("hint: add sts.amazonaws.com to the audiences"),
        "{stderr}"
    );
    let mut claims = Site::claims(GitLab);
    claims["exp"] = json!(1);
    let stderr = refused(&site, GitLab, claims);
    assert!(stderr.contains("the job's token has expired"), "{stderr}");
    let mut claims = Site::claims(GitLab);
    claims["iss"] = json!("https://elsewhere.example");
    let stderr = refused(&site, GitLab, claims);
    assert!(
        stderr.contains("no identity provider for the token's issuer"),
        "{stderr}"
    );
}

/// Runs the commands of the README unchanged, except for the trusted issuer.
#[test]
fn the_readme_commands_set_up_an_account() {
    let login = Login::stale();
    let codex = Codex::install(rig::V0_169).expect("Codex from npm");
    let site = Site::on(&Account::on(Aws::moto()), codex, &login);
    let readme = deployed("README.md");
    let scratch = site.runner();
    for file in [
        "github-trust.json",
        "gitlab-trust.json",
        "refresher.json",
        "seeder.json",
    ] {
        let text = as_trusted_here(&site, &deployed(file));
        fs::write(scratch.work().join(file), text).expect("disk space");
    }
    // The site already has the provider of its issuer, which stands for both platforms.
    let commands = readme
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
    let stores = readme
        .lines()
        .filter_map(|line| line.strip_prefix("    AUTHFERRY_STORE: "));
    let stores: Vec<_> = stores.collect();
    let [github, gitlab, people] = stores.try_into().expect("three addresses");

    let policy: Value = serde_json::from_str(&deployed("seeder.json")).expect("JSON");
    let keys = site.user("person", &policy);
    let file = scratch.work().join("login.json");
    fs::write(&file, login.auth_json()).expect("disk space");
    let mut seed = site.authferry(&scratch, people, &["seed"]);
    assert_code(&finish(seed.arg(file).envs(keys)), 0);
    let held = || site.hand.look("ci/codex").expect("a value").into_bytes();
    for (store, identity) in [(github, GitHub), (gitlab, GitLab)] {
        let runner = site.runner();
        let mut run = site.authferry(&runner, store, &["run", "--", "true"]);
        site.identify(&mut run, identity, Site::claims(identity));
        assert_code(&finish(&mut run), 0);
    }
    // The first job acquired the lease and rotated; the second found a fresh login.
    assert_eq!(site.stub.count(What::is_rotation), 1);
    assert!(site.stub.is_live(&held()), "the store has an old login");
}

fn as_trusted_here(site: &Site, text: &str) -> String {
    let host = site.issuer.url().replace("http://", "");
    text.replace("token.actions.githubusercontent.com", &host)
        .replace("gitlab.com", &host)
}

fn assert_trust(site: &Site, identity: Identity, subject: &str, is_trusted: bool) {
    let mut claims = Site::claims(identity);
    claims["sub"] = json!(subject);
    if is_trusted {
        assert_code(&status(site, identity, claims), 0);
    } else {
        let stderr = refused(site, identity, claims);
        assert!(
            stderr.contains("its trust policy does not name this job"),
            "{subject}: {stderr}"
        );
        assert!(
            stderr.contains("hint: compare `sub` and `aud`"),
            "{subject}: {stderr}"
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

fn assert_denied(aws: &mut Command) {
    let output = finish(aws);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains("AccessDeniedException"),
        "{aws:?}: {stderr}"
    );
}

fn each_action_is_needed(role: &str, capabilities: &[Capability]) {
    let login = Login::fresh();
    let site = Site::new(rig::V0_169, &login).seeded(&login);
    let whole = site.policy(role);
    let failing_without = |name: &str, policy: &Value| -> Vec<&str> {
        site.hand.put(&site.name(), &login.auth_json());
        let keys = site.user(name, policy);
        let failing = capabilities
            .iter()
            .filter(|capability| !(capability.works)(&site, keys.clone()));
        failing.map(|capability| capability.what).collect()
    };
    assert_eq!(
        failing_without("with-all", &whole),
        [""; 0],
        "with the whole policy"
    );
    let actions = actions(&whole);
    assert!(actions.len() > 2, "the policy was not read: {whole}");
    for (number, action) in actions.iter().enumerate() {
        let left = failing_without(&format!("without-{number}"), &without(&whole, action));
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
