//! How a job comes by the tokens of Azure.

use std::{fs, thread, time::Duration};

use rig::{Account, IDENTITY, Login, Right, finish};
use serde_json::json;

use super::site::{
    Identity::{GitHub, GitLab},
    NAME, Role, Site,
};
use crate::ferry::{assert_code, script, successor};

#[test]
fn a_job_signs_in_with_a_secret_as_its_machine_or_by_az() {
    let login = Login::fresh();
    let site = Site::new(rig::V0_169, &login).seeded(&login);
    let mut next = login.clone();
    for way in ["secret", "managed", "cli"] {
        next = successor(&next);
        let runner = site.runner();
        fs::write(runner.work().join("next"), next.auth_json()).expect("room");
        az(&site, &runner);
        let job = script(&runner, r#"env >seen; cp next "$CODEX_HOME/auth.json""#);
        let store = format!("{}&auth={way}", site.place());
        let mut run = match way {
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
        assert_eq!(site.newest(), next.auth_json(), "{way}");
        let seen = fs::read_to_string(runner.work().join("seen")).expect("written");
        for secret in ["made-up-secret", "made-up-identity-header"] {
            assert!(!seen.contains(secret), "{way}: {seen}");
        }
    }
}

/// Puts a program in the place of Azure's own, which has signed the runner's account in.
fn az(site: &Site, runner: &rig::Runner) {
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
    runner.link("az", &place).expect("room");
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
    fs::write(&file, &token).expect("room");
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
fn a_job_of_another_branch_is_told_what_to_mend() {
    let login = Login::fresh();
    let site = Site::new(rig::V0_169, &login).seeded(&login);
    let runner = site.runner();
    let mut claims = Site::claims(GitHub);
    claims["sub"] = json!("repo:acme/app:ref:refs/heads/other");
    let mut restore = site.authferry(&runner, &site.address(), &["-v", "restore", "--no-watch"]);
    site.identify(&mut restore, GitHub, claims);
    let output = finish(&mut restore);
    assert_code(&output, 125);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("repo:acme/app:ref:refs/heads/other"),
        "{said}"
    );
    assert!(said.contains("hint: "), "{said}");
    assert!(!runner.auth_file().exists());
    assert_eq!(site.vault.versions(NAME).len(), 1);
}

/// Shorter than any that Azure gives out.
const LIFETIME: Duration = Duration::from_secs(5);

#[test]
fn a_job_outlives_its_token() {
    let login = Login::fresh();
    let next = successor(&login);
    let site = Site::new(rig::V0_169, &login).seeded(&login);
    site.vault.rules(|rules| rules.token_lifetime = LIFETIME);
    let runner = site.runner();
    fs::write(runner.work().join("next"), next.auth_json()).expect("room");
    let job = script(
        &runner,
        r#"touch restored; until [ -e enough ]; do sleep 0.01; done; cp next "$CODEX_HOME/auth.json""#,
    );
    let mut run = site.in_job(&runner, GitHub, &["run", "--"]);
    let mut run = crate::ferry::start(run.arg(job));
    crate::ferry::wait_until("restored", || runner.work().join("restored").exists());
    let first = site.vault.tokens().len();
    thread::sleep(LIFETIME);
    fs::write(runner.work().join("enough"), "").expect("room");
    assert_eq!(run.wait().expect("our child").code(), Some(0));
    assert_eq!(site.newest(), next.auth_json());
    assert!(site.vault.tokens().len() > first, "it needed another one");
}
