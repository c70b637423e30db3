//! How a job gets a Vault token, renews it, and revokes it.

use std::{collections::BTreeSet, fs, process::Command};

use rig::{Login, Runner, finish};
use serde_json::{Value, json};

use super::site::{
    Identity::{GitHub, GitLab},
    Site, assert_no_token,
};
use crate::ferry::{assert_code, assert_silent, script, start, successor, wait_until};

#[test]
fn a_token_is_read_from_a_variable_or_the_token_file() {
    let login = Login::fresh();
    let site = Site::new(rig::V0_169, &login).seeded(&login);
    let token = site.token("runner");
    // Files and variables often end in a newline.
    for token in [token.clone(), format!("{token}\n")] {
        for name in ["VAULT_TOKEN", "BAO_TOKEN"] {
            let runner = site.runner();
            let mut run = site.authferry(&runner, &site.place(), &["run", "--", "true"]);
            assert_code(&finish(run.env(name, &token)), 0);
        }
        let runner = site.runner();
        let mut run = site.authferry(&runner, &site.place(), &["run", "--", "true"]);
        let home = runner.codex_home().parent().expect("a home").to_owned();
        fs::write(home.join(".vault-token"), &token).expect("disk space");
        assert_code(&finish(&mut run), 0);
    }
    assert!(
        site.admin().is_valid_token(&token),
        "authferry revoked a token that it did not create"
    );
}

#[test]
fn a_single_use_secret_id_lasts_for_a_whole_job() {
    let login = Login::fresh();
    let next = successor(&login);
    let site = Site::new(rig::V0_169, &login).seeded(&login);
    let request = json!({
        "token_policies": [site.named("runner")],
        "token_no_default_policy": true,
        "token_ttl": "10m",
        "secret_id_num_uses": 1,
    });
    let mount = site.named("approle");
    let (role_id, secret_id) = site.admin().app_role(&mount, "runner", &request);
    let store = format!("{}?auth=approle&auth_mount={mount}", site.place());
    let run = || {
        let runner = site.runner();
        let job = script(&runner, r#"env >seen; cp next "$CODEX_HOME/auth.json""#);
        fs::write(runner.work().join("next"), next.auth_json()).expect("disk space");
        let mut run = site.authferry(&runner, &store, &["run", "--"]);
        run.arg(job)
            .env("VAULT_ROLE_ID", &role_id)
            .env("VAULT_SECRET_ID", &secret_id);
        (finish(&mut run), runner)
    };
    let (output, runner) = run();
    assert_code(&output, 0);
    assert_eq!(site.stored(), next.auth_json().as_bytes());
    let seen = fs::read_to_string(runner.work().join("seen")).expect("written");
    assert!(
        !seen.contains(&secret_id) && !seen.contains(&role_id),
        "{seen}"
    );
    let login_path = format!("auth/{mount}/login");
    assert_eq!(
        site.admin().leases(&login_path).len(),
        0,
        "a token outlived the job"
    );

    let (output, _) = run();
    assert_code(&output, 125);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains("or used up") && stderr.contains("new secret ID"),
        "{stderr}"
    );
    assert!(!stderr.contains(&secret_id), "{stderr}");
}

#[test]
fn a_jobs_token_may_come_from_a_file() {
    let login = Login::fresh();
    let site = Site::new(rig::V0_169, &login).seeded(&login);
    let runner = site.runner();
    let file = runner.work().join("id-token");
    let mut claims = Site::claims(GitLab);
    claims["aud"] = json!(super::site::AUDIENCE);
    fs::write(&file, site.issuer.sign(claims)).expect("disk space");
    let store = format!(
        "{}?auth=jwt&auth_mount={}&role=codex-runner&id_token_file={}",
        site.place(),
        site.auth_mount(GitLab),
        file.display()
    );
    let run = finish(&mut site.authferry(&runner, &store, &["run", "--", "true"]));
    assert_code(&run, 0);
}

/// A job that lasts longer than the TTL of its token.
fn long_job(site: &Site, runner: &Runner, next: &Login) -> Command {
    fs::write(runner.work().join("next"), next.auth_json()).expect("disk space");
    let job = script(
        runner,
        r#"touch restored; until [ -e enough ]; do sleep 0.01; done; cp next "$CODEX_HOME/auth.json""#,
    );
    let mut run = site.in_job(runner, GitHub, &["run", "--"]);
    run.arg(job);
    run
}

#[test]
fn a_token_is_renewed_while_a_job_outlives_it() {
    let login = Login::fresh();
    let next = successor(&login);
    let site = Site::new(rig::V0_169, &login).seeded(&login);
    site.let_in(GitHub, |role| role["token_ttl"] = json!("4s"));
    let runner = site.runner();
    let mut run = start(&mut long_job(&site, &runner, &next));
    wait_until("restored", || runner.work().join("restored").exists());
    // At the second renewal, the first TTL has passed.
    let path = format!("auth/{}/login", site.auth_mount(GitHub));
    let mut renewals = BTreeSet::new();
    wait_until("the token is renewed twice", || {
        let leases = site.admin().leases(&path);
        let renewal = leases.first().and_then(|it| it["last_renewal"].as_str());
        renewals.extend(renewal.map(str::to_owned));
        renewals.len() == 2
    });
    fs::write(runner.work().join("enough"), "").expect("disk space");
    assert_eq!(run.wait().expect("our child").code(), Some(0));
    assert_eq!(site.stored(), next.auth_json().as_bytes());
    assert_eq!(
        site.issuer.fetched().len(),
        1,
        "the job logged in more than once"
    );
    assert_eq!(site.tokens(GitHub), 0, "a token outlived the job");
}

#[test]
fn a_job_logs_in_again_when_its_token_cannot_be_renewed() {
    let login = Login::fresh();
    let next = successor(&login);
    let site = Site::new(rig::V0_169, &login).seeded(&login);
    site.let_in(GitHub, |role| {
        role["token_ttl"] = json!("2s");
        role["token_explicit_max_ttl"] = json!("2s");
    });
    let runner = site.runner();
    let mut run = start(&mut long_job(&site, &runner, &next));
    wait_until("restored", || runner.work().join("restored").exists());
    wait_until("the token has expired", || site.tokens(GitHub) == 0);
    fs::write(runner.work().join("enough"), "").expect("disk space");
    assert_eq!(run.wait().expect("our child").code(), Some(0));
    assert_eq!(site.stored(), next.auth_json().as_bytes());
    assert_eq!(site.issuer.fetched().len(), 2);
    assert_eq!(site.tokens(GitHub), 0, "a token outlived the job");
}

#[test]
fn a_job_whose_token_was_revoked_logs_in_again() {
    let login = Login::fresh();
    let next = successor(&login);
    let site = Site::new(rig::V0_169, &login).seeded(&login);
    let runner = site.runner();
    let mut run = start(&mut long_job(&site, &runner, &next));
    wait_until("restored", || runner.work().join("restored").exists());
    let path = format!("auth/{}/login", site.auth_mount(GitHub));
    let revoke = format!("sys/leases/revoke-prefix/{path}");
    site.admin().write(&revoke, &json!({"sync": true}));
    assert_eq!(site.tokens(GitHub), 0);
    fs::write(runner.work().join("enough"), "").expect("disk space");
    assert_eq!(run.wait().expect("our child").code(), Some(0));
    assert_eq!(site.stored(), next.auth_json().as_bytes());
}

/// A rejected login, and the texts of its error and hint.
struct RejectedLogin {
    what: &'static str,
    role: fn(&mut Value),
    claims: fn(&mut Value),
    texts: [&'static str; 2],
}

const REJECTED_LOGINS: &[RejectedLogin] = &[
    RejectedLogin {
        what: "another audience",
        role: |role| role["bound_audiences"] = json!(["https://other.example.com"]),
        claims: |_| {},
        texts: ["does not allow the audience", "`bound_audiences`"],
    },
    RejectedLogin {
        what: "another repository",
        role: |_| {},
        claims: |claims| claims["repository"] = json!("acme/other"),
        texts: [
            "the role does not allow this job's token: claim \"repository\" does not match",
            "`bound_claims`",
        ],
    },
    RejectedLogin {
        what: "a claim that is missing",
        role: |role| role["bound_claims"]["environment"] = json!("production"),
        claims: |_| {},
        texts: [
            "the role does not allow this job's token: claim \"environment\" is missing",
            "`bound_claims`",
        ],
    },
    RejectedLogin {
        what: "another subject",
        role: |role| role["bound_subject"] = json!("repo:acme/app:environment:production"),
        claims: |_| {},
        texts: [
            "the role does not allow this job's token",
            "`bound_subject`",
        ],
    },
    RejectedLogin {
        what: "an expired token",
        role: |_| {},
        claims: |claims| {
            claims["iat"] = json!(1_000_000_000);
            claims["nbf"] = json!(1_000_000_000);
            claims["exp"] = json!(1_000_000_300);
        },
        texts: ["has expired or is not valid yet", "compare the clocks"],
    },
    RejectedLogin {
        what: "a token from the future",
        role: |_| {},
        claims: |claims| {
            claims["iat"] = json!(4_000_000_000_u32);
            claims["nbf"] = json!(4_000_000_000_u32);
            claims["exp"] = json!(4_000_000_300_u32);
        },
        texts: ["has expired or is not valid yet", "compare the clocks"],
    },
    RejectedLogin {
        what: "another issuer",
        role: |_| {},
        claims: |claims| claims["iss"] = json!("https://issuer.example.com"),
        texts: ["does not trust the issuer", "`bound_issuer`"],
    },
];

#[test]
fn a_rejected_job_gets_a_hint() {
    let login = Login::fresh();
    let site = Site::new(rig::V0_169, &login).seeded(&login);
    for RejectedLogin {
        what,
        role,
        claims: change,
        texts,
    } in REJECTED_LOGINS
    {
        site.let_in(GitHub, role);
        let runner = site.runner();
        let mut claims = Site::claims(GitHub);
        change(&mut claims);
        let mut restore = site.authferry(
            &runner,
            &site.address(GitHub),
            &["-v", "restore", "--no-watch"],
        );
        site.identify(&mut restore, GitHub, claims);
        assert_rejected(&site, what, &mut restore, texts);
    }
}

#[test]
fn a_job_with_a_wrong_address_gets_a_hint() {
    let login = Login::fresh();
    let site = Site::new(rig::V0_169, &login).seeded(&login);
    let address = site.address(GitHub);
    for (what, from, to, texts) in [
        (
            "no such role",
            "role=codex-runner",
            "role=nobody",
            ["the auth method has no such role", "bao list auth/"],
        ),
        (
            "no role",
            "&role=codex-runner",
            "",
            ["no role is given", "`role=ROLE`"],
        ),
        (
            "no such method",
            "auth_mount=github",
            "auth_mount=nowhere",
            ["the auth method does not exist", "`auth_mount=PATH`"],
        ),
        (
            "another path",
            "ci/codex",
            "ci/other",
            ["the token's policies deny access", "add to its policy"],
        ),
    ] {
        let runner = site.runner();
        let store = address.replace(from, to);
        let mut restore = site.authferry(&runner, &store, &["-v", "restore", "--no-watch"]);
        site.identify(&mut restore, GitHub, Site::claims(GitHub));
        assert_rejected(&site, what, &mut restore, &texts);
    }
}

#[test]
fn a_job_without_an_identity_gets_a_hint() {
    let login = Login::fresh();
    let site = Site::new(rig::V0_169, &login).seeded(&login);
    let runner = site.runner();
    let restore = |store: &str| site.authferry(&runner, store, &["-v", "restore", "--no-watch"]);

    let mut on_github = restore(&site.address(GitHub));
    on_github.env("GITHUB_ACTIONS", "true");
    let texts = ["permission", "`id-token: write`"];
    assert_rejected(&site, "no permission", &mut on_github, &texts);

    let texts = ["VAULT_ID_TOKEN", "`id_tokens: { VAULT_ID_TOKEN"];
    let mut on_gitlab = restore(&site.address(GitLab));
    assert_rejected(&site, "no variable", &mut on_gitlab, &texts);

    let texts = ["no Vault token is set", "VAULT_TOKEN"];
    assert_rejected(&site, "no token", &mut restore(&site.place()), &texts);

    let mut with_another = restore(&site.place());
    with_another.env("VAULT_TOKEN", "made-up-token");
    let texts = ["the Vault token is invalid", "create a new token"];
    assert_rejected(&site, "a wrong token", &mut with_another, &texts);

    site.issuer.fail(Some(403));
    let mut refused = restore(&site.address(GitHub));
    site.identify(&mut refused, GitHub, Site::claims(GitHub));
    let texts = ["403", "error: "];
    assert_rejected(&site, "an endpoint that refuses", &mut refused, &texts);
}

/// Asserts that a job is refused before its start, that stderr contains each of `words`, and that
/// the output contains neither the login nor a token.
#[track_caller]
fn assert_rejected(site: &Site, what: &str, command: &mut Command, words: &[&str]) {
    let output = finish(command);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(125), "{what}: {stderr}");
    for words in words {
        assert!(
            stderr.contains(words),
            "{what}: {words:?} is not in {stderr}"
        );
    }
    assert_silent(&output, &[Login::fresh().auth_json().as_bytes()]);
    assert_no_token(site, what, stderr.as_bytes());
}
