//! How a job gets its Azure tokens.

use std::{fs, thread, time::Duration};

use rig::{Account, IDENTITY, Login, Right, finish};
use serde_json::json;

use super::site::{
    Identity::{GitHub, GitLab},
    NAME, Role, Site,
};
use crate::ferry::{assert_code, script, successor};

#[test]
fn a_job_authenticates_by_secret_managed_identity_or_az() {
    let login = Login::fresh();
    let site = Site::new(rig::V0_169, &login).seeded(&login);
    let mut next = login.clone();
    for method in ["secret", "managed", "cli"] {
        next = successor(&next);
        let runner = site.runner();
        fs::write(runner.work().join("next"), next.auth_json()).expect("disk space");
        install_az(&site, &runner);
        let job = script(&runner, r#"env >seen; cp next "$CODEX_HOME/auth.json""#);
        let store = format!("{}&auth={method}", site.place());
        let mut run = match method {
            "secret" => site.with_secret(&runner, Role::Runner, &["run", "--"]),
            "managed" => {
                let rights = Role::Runner.actions();
                let rights = rights.iter().map(|action| Right::to(action)).collect();
                site.vault.account(
                    IDENTITY,
                    Account {
                        rights,
                        ..Account::default()
                    },
                );
                let mut run = site.authferry(&runner, &store, &["run", "--"]);
                run.envs(site.vault.identity());
                run
            }
            _ => site.authferry(&runner, &store, &["run", "--"]),
        };
        assert_code(&finish(run.arg(job)), 0);
        assert_eq!(site.newest(), next.auth_json(), "{method}");
        let seen = fs::read_to_string(runner.work().join("seen")).expect("written");
        for secret in ["made-up-secret", "made-up-identity-header"] {
            assert!(!seen.contains(secret), "{method}: {seen}");
        }
    }
}

/// Installs a fake `az` that is signed in to the runner's account.
fn install_az(site: &Site, runner: &rig::Runner) {
    let tokens = ["https://vault.azure.net", "https://storage.azure.com"].map(|resource| {
        let token = site.vault.token(Role::Runner.client(), resource);
        let answer = json!({
            "accessToken": token,
            "expiresOn": "2099-01-01 00:00:00.000000",
            "expires_on": 4_070_908_800_u32,
            "tenant": rig::TENANT,
            "tokenType": "Bearer",
        });
        format!("case \"$*\" in *{resource}*) echo '{answer}'; exit;; esac")
    });
    let program = script(runner, &format!("{}\nexit 1", tokens.join("\n")));
    let place = program.with_file_name("az");
    fs::rename(&program, &place).expect("our file");
    runner.link("az", &place).expect("disk space");
}

#[test]
fn a_jobs_token_may_come_from_another_variable_or_a_file() {
    let login = Login::fresh();
    let site = Site::new(rig::V0_169, &login).seeded(&login);
    let mut claims = Site::claims(GitLab);
    claims["aud"] = json!(rig::ENTRA_AUDIENCE);
    let token = site.issuer.sign(claims);
    let folder = tempfile::TempDir::with_prefix("token-").expect("a temporary folder");
    let file = folder.path().join("id-token");
    fs::write(&file, &token).expect("disk space");
    for (from, variable) in [
        ("id_token=OURS".to_owned(), Some(&token)),
        (format!("id_token_file={}", file.display()), None),
    ] {
        let store = format!("{}&auth=workload&{from}", site.place());
        let runner = site.runner();
        let job = script(&runner, "env >seen");
        let mut run = site.authferry(&runner, &store, &["run", "--"]);
        run.arg(job)
            .env("AZURE_CLIENT_ID", Role::Runner.client())
            .envs(variable.map(|token| ("OURS", token)));
        assert_code(&finish(&mut run), 0);
        let seen = fs::read_to_string(runner.work().join("seen")).expect("written");
        assert!(!seen.contains(&token), "{from}: {seen}");
    }
}

#[test]
fn a_job_of_another_branch_gets_a_hint() {
    let login = Login::fresh();
    let site = Site::new(rig::V0_169, &login).seeded(&login);
    let runner = site.runner();
    let mut claims = Site::claims(GitHub);
    claims["sub"] = json!("repo:acme/app:ref:refs/heads/other");
    let mut restore = site.authferry(&runner, &site.address(), &["-v", "restore", "--no-watch"]);
    site.identify(&mut restore, GitHub, claims);
    let output = finish(&mut restore);
    assert_code(&output, 125);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains("repo:acme/app:ref:refs/heads/other"),
        "{stderr}"
    );
    assert!(stderr.contains("hint: "), "{stderr}");
    assert!(!runner.auth_file().exists());
    assert_eq!(site.vault.versions(NAME).len(), 1);
}

/// Shorter than any token lifetime of Azure.
const LIFETIME: Duration = Duration::from_secs(5);

#[test]
fn a_job_outlives_its_token() {
    let login = Login::fresh();
    let next = successor(&login);
    let site = Site::new(rig::V0_169, &login).seeded(&login);
    site.vault.rules(|rules| rules.token_lifetime = LIFETIME);
    let runner = site.runner();
    fs::write(runner.work().join("next"), next.auth_json()).expect("disk space");
    let job = script(
        &runner,
        r#"touch restored; until [ -e enough ]; do sleep 0.01; done; cp next "$CODEX_HOME/auth.json""#,
    );
    let mut run = site.in_job(&runner, GitHub, &["run", "--"]);
    let mut run = crate::ferry::start(run.arg(job));
    crate::ferry::wait_until("restored", || runner.work().join("restored").exists());
    let first = site.vault.tokens().len();
    thread::sleep(LIFETIME);
    fs::write(runner.work().join("enough"), "").expect("disk space");
    assert_eq!(run.wait().expect("our child").code(), Some(0));
    assert_eq!(site.newest(), next.auth_json());
    assert!(
        site.vault.tokens().len() > first,
        "no second token was requested"
    );
}
