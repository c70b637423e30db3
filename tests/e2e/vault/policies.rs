//! What is in `deploy/policies/vault` is enough, and nothing in it is too much.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use authferry_core::{Bid, SecretStore};
use authferry_http::{Net, Roots};
use authferry_vault::{Settings, VaultStore};
use rig::{Login, OpenBao, finish};
use serde_json::json;

use super::site::{
    Identity::{self, GitHub, GitLab},
    PATH, Site, deployed,
};
use crate::ferry::{assert_code, script, successor};

/// Something that a role has to be able to do.
struct Deed {
    what: &'static str,
    works: fn(&Site) -> bool,
}

const RUNNER: &[Deed] = &[
    Deed {
        what: "a job persists its login",
        works: |site| {
            let runner = site.runner();
            let next = successor(&Login::fresh()).auth_json();
            fs::write(runner.work().join("next"), next).expect("room");
            let job = script(&runner, r#"cp next "$CODEX_HOME/auth.json""#);
            let mut run = site.in_job(&runner, GitHub, &["run", "--patience", "20s", "--"]);
            finish(run.arg(job)).status.code() == Some(0)
        },
    },
    Deed {
        what: "it takes the claim, renews it, and gives it back",
        works: |site| claim(site, &site.token("runner")),
    },
    Deed {
        what: "it keeps its token alive",
        works: |site| {
            let renew = site.admin().with_token(&site.token("runner"));
            let reply = renew.request("POST", "auth/token/renew-self", Some(&json!({})));
            reply.expect("a reply").status == 200
        },
    },
    Deed {
        what: "it ends its token",
        works: |site| {
            let runner = site.runner();
            finish(&mut site.in_job(&runner, GitHub, &["status"]));
            site.tokens(GitHub) == 0
        },
    },
    Deed {
        what: "it is told that the server keeps what is replaced",
        works: |site| {
            let store = store(site, &site.token("runner"));
            runtime().block_on(store.keeps_history())
        },
    },
    Deed {
        what: "it is told what it may not do",
        works: |site| tells_rights(site, &site.token("runner")),
    },
];

const SEEDER: &[Deed] = &[
    Deed {
        what: "a person seeds a login",
        works: |site| {
            let metadata = format!("{}/metadata/{PATH}", site.mount);
            site.admin().delete(&metadata);
            site.seed(&Login::fresh(), &[]).status.code() == Some(0)
        },
    },
    Deed {
        what: "a person replaces it",
        works: |site| {
            let next = successor(&Login::fresh());
            site.seed(&next, &["--replace"]).status.code() == Some(0)
        },
    },
    Deed {
        what: "a token that was made for it ends with it",
        works: |site| {
            site.let_in(GitLab, |role| {
                role["token_policies"] = json!([site.named("seeder")]);
            });
            finish(&mut site.in_job(&site.runner(), GitLab, &["status"]));
            site.tokens(GitLab) == 0
        },
    },
    Deed {
        what: "a person is told that the server keeps what is replaced",
        works: |site| {
            let store = store(site, &site.token("seeder"));
            runtime().block_on(store.keeps_history())
        },
    },
    Deed {
        what: "a person is told what they may not do",
        works: |site| tells_rights(site, &site.token("seeder")),
    },
];

#[test]
fn a_runner_needs_each_line() {
    each_line_is_needed("runner", RUNNER);
}

#[test]
fn a_seeder_needs_each_line() {
    each_line_is_needed("seeder", SEEDER);
}

/// Who wins the claim has not shown yet that the login can be written.
#[test]
fn a_job_that_gets_the_claim_and_may_not_write_the_login_spends_nothing() {
    let login = Login::stale();
    let site = Site::new(rig::V0_169, &login).seeded(&login);
    let path = format!("{}/data/{PATH}", site.mount);
    let policy = without(&site.policy("runner"), &path, "update");
    site.admin().policy(&site.named("runner"), &policy);

    let refresh = finish(&mut site.in_job(&site.runner(), GitHub, &["refresh"]));

    assert_code(&refresh, 125);
    let said = String::from_utf8_lossy(&refresh.stderr);
    assert!(said.contains("permission denied"), "{said}");
    assert_eq!(site.stub.events(), [], "Codex was asked");
    assert!(site.is_live());
    assert!(claim(&site, &site.token("runner")), "it was not given back");
}

#[test]
fn a_runner_sees_no_other_secret_and_creates_no_login() {
    let login = Login::fresh();
    let site = Site::new(rig::V0_169, &login).seeded(&login);
    let data = json!({"data": {"auth_json": "made-up"}});
    let path = |name: &str| format!("{}/data/{name}", site.mount);
    site.admin().write(&path("ci/other"), &data);
    let runner = site.admin().with_token(&site.token("runner"));
    for (method, path) in [
        ("GET", path("ci/other")),
        ("POST", path("ci/other")),
        ("DELETE", path(PATH)),
        ("POST", format!("{}/metadata/{PATH}", site.mount)),
        ("POST", format!("{}/config", site.mount)),
        ("LIST", format!("{}/metadata/ci", site.mount)),
        ("DELETE", format!("{}/metadata/{PATH}", site.mount)),
        ("GET", "sys/mounts".to_owned()),
        ("POST", "auth/token/create".to_owned()),
    ] {
        let reply = runner.request(method, &path, Some(&data));
        assert_eq!(reply.expect("a reply").status, 403, "{method} {path}");
    }
    site.admin()
        .delete(&format!("{}/metadata/{PATH}", site.mount));
    let reply = runner.request("POST", &path(PATH), Some(&data));
    assert_eq!(reply.expect("a reply").status, 403, "it created a login");
}

/// What the page says is done, to the letter but for whose tokens are trusted.
#[test]
fn the_page_sets_a_server_up() {
    let login = Login::fresh();
    let codex = rig::Codex::install(rig::V0_169).expect("Codex from npm");
    let site = Site::on(Arc::new(OpenBao::dev()), codex, &login);
    let page = deployed("README.md");
    let mut printed = Vec::new();
    for command in page
        .lines()
        .filter_map(|line| line.strip_prefix("    bao "))
    {
        let command = [
            "https://token.actions.githubusercontent.com",
            "https://gitlab.com",
        ]
        .iter()
        .fold(command.to_owned(), |text, url| {
            text.replace(url, &site.issuer.url())
        });
        let arguments: Vec<_> = command.split(' ').collect();
        let mut bao = site.server.bao(&arguments);
        let output = finish(bao.current_dir(folder()));
        assert_code(&output, 0);
        if command.contains("-field=") {
            printed.push(String::from_utf8(output.stdout).expect("text"));
        }
    }
    let [role_id, secret_id, seeder] = printed.try_into().expect("three values");
    let stores = page
        .lines()
        .filter_map(|line| line.strip_prefix("    AUTHFERRY_STORE: "));
    let stores: Vec<_> = stores.collect();
    let [github, gitlab, approle, people] = stores.try_into().expect("four addresses");

    let runner = site.runner();
    let file = runner.work().join("login.json");
    fs::write(&file, login.auth_json()).expect("room");
    let mut seed = site.authferry(&runner, people, &["seed"]);
    assert_code(&finish(seed.arg(file).env("VAULT_TOKEN", seeder)), 0);
    let job = |store: &str, identify: &dyn Fn(&mut Command)| {
        let runner = site.runner();
        let mut run = site.authferry(&runner, store, &["run", "--", "true"]);
        identify(&mut run);
        assert_code(&finish(&mut run), 0);
    };
    let as_job = |identity: Identity| {
        let site = &site;
        move |run: &mut Command| site.identify(run, identity, Site::claims(identity))
    };
    job(github, &as_job(GitHub));
    job(gitlab, &as_job(GitLab));
    job(approle, &|run| {
        run.env("VAULT_ROLE_ID", &role_id)
            .env("VAULT_SECRET_ID", &secret_id);
    });
}

/// Sees that everything works with a policy, and something fails without each of its lines.
fn each_line_is_needed(role: &str, deeds: &[Deed]) {
    let login = Login::fresh();
    let site = Site::new(rig::V0_169, &login);
    let whole = site.policy(role);
    let undone = |policy: &str| -> Vec<&str> {
        site.admin().policy(&site.named(role), policy);
        put_back(&site, &login);
        let failing = deeds.iter().filter(|deed| !(deed.works)(&site));
        failing.map(|deed| deed.what).collect()
    };
    assert_eq!(undone(&whole), [""; 0], "with the whole policy");
    let mut lines = 0;
    for (path, right) in rights(&whole) {
        let without = without(&whole, path, right);
        assert_ne!(undone(&without), [""; 0], "without {right} on {path}");
        lines += 1;
    }
    assert!(lines > 4, "the policy was not read: {whole}");
}

/// Lays a login down as it was seeded, and forgets the claim beside it.
fn put_back(site: &Site, login: &Login) {
    for path in [PATH.to_owned(), format!("{PATH}-claim")] {
        site.admin()
            .delete(&format!("{}/metadata/{path}", site.mount));
    }
    let data = json!({"data": {"auth_json": login.auth_json()}});
    site.admin()
        .write(&format!("{}/data/{PATH}", site.mount), &data);
}

/// Each right of a policy, with its path.
fn rights(policy: &str) -> Vec<(&str, &str)> {
    let mut path = "";
    let mut rights = Vec::new();
    for line in policy.lines() {
        if let Some(rest) = line.strip_prefix("path \"") {
            path = rest.split('"').next().expect("an end");
        } else if line.trim_start().starts_with("capabilities") {
            // Every second piece stands between quotation marks.
            rights.extend(
                line.split('"')
                    .skip(1)
                    .step_by(2)
                    .map(|right| (path, right)),
            );
        }
    }
    rights
}

/// The policy without one right on one path.
fn without(policy: &str, path: &str, right: &str) -> String {
    let (before, after) = policy
        .split_once(&format!("path \"{path}\""))
        .expect("it is there");
    let (of_path, rest) = after.split_once('}').expect("an end");
    let of_path = of_path
        .replace(&format!("\"{right}\", "), "")
        .replace(&format!(", \"{right}\""), "")
        .replace(&format!("\"{right}\""), "\"deny\"");
    format!("{before}path \"{path}\"{of_path}}}{rest}")
}

/// Takes the claim with a token, renews it, and gives it back.
fn claim(site: &Site, token: &str) -> bool {
    let store = store(site, token);
    let bid = Bid {
        owner: "https://ci.example/acme/app/runs/1".to_owned(),
        holder: 1,
        now: 1000,
        until: 2000,
        expired: None,
    };
    runtime().block_on(async {
        let claims = store.claims().expect("claims");
        let Ok(claim) = claims.acquire(&bid).await else {
            return false;
        };
        let Ok(claim) = claims.renew(&claim, 3000).await else {
            return false;
        };
        claims.release(&claim).await.is_ok()
    })
}

/// The login's store, opened with this token.
fn store(site: &Site, token: &str) -> VaultStore {
    let settings = Settings {
        servers: Some(site.server.address()),
        net: Net {
            roots: Roots {
                file: site.server.authority().map(PathBuf::from),
                ..Roots::default()
            },
            ..Net::default()
        },
        token: Some(token.to_owned().into()),
        ..Settings::default()
    };
    let address = site.place().parse().expect("an address");
    authferry_vault::open(address, settings).expect("settings")
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// Whether somebody with a good token is told that it is their rights that are missing.
fn tells_rights(site: &Site, token: &str) -> bool {
    let elsewhere = format!("vault://{}/ci/other", site.mount);
    let runner = site.runner();
    let mut status = site.authferry(&runner, &elsewhere, &["status"]);
    let output = finish(status.env("VAULT_TOKEN", token));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("permission denied") || said.contains("not logged in"),
        "{said}"
    );
    said.contains("permission denied")
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/policies/vault")
}
