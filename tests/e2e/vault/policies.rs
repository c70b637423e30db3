//! The policies in `deploy/policies/vault` are sufficient and minimal.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use authferry_core::{LeaseRequest, SecretStore};
use authferry_http::{Net, Roots};
use authferry_vault::{Settings, VaultStore};
use rig::{Login, OpenBao, finish};
use serde_json::json;

use super::site::{
    Identity::{self, GitHub, GitLab},
    PATH, Site, deployed,
};
use crate::ferry::{assert_code, script, successor};
use crate::monitor::{dead_login_record, shows_dead_login};

/// Something that a role must be able to do.
struct Capability {
    what: &'static str,
    works: fn(&Site) -> bool,
}

const RUNNER: &[Capability] = &[
    Capability {
        what: "a job persists its login",
        works: |site| {
            let runner = site.runner();
            let next = successor(&Login::fresh()).auth_json();
            fs::write(runner.work().join("next"), next).expect("disk space");
            let job = script(&runner, r#"cp next "$CODEX_HOME/auth.json""#);
            let mut run = site.in_job(&runner, GitHub, &["run", "--store-timeout", "20s", "--"]);
            finish(run.arg(job)).status.code() == Some(0)
        },
    },
    Capability {
        what: "it acquires, renews and releases the lease",
        works: |site| lease_works(site, &site.token("runner")),
    },
    Capability {
        what: "it renews its token",
        works: |site| {
            let renew = site.admin().with_token(&site.token("runner"));
            let reply = renew.request("POST", "auth/token/renew-self", Some(&json!({})));
            reply.expect("a reply").status == 200
        },
    },
    Capability {
        what: "it revokes its token",
        works: |site| {
            let runner = site.runner();
            finish(&mut site.in_job(&runner, GitHub, &["status"]));
            site.tokens(GitHub) == 0
        },
    },
    Capability {
        what: "it can see that the server keeps old versions",
        works: |site| {
            let store = store(site, &site.token("runner"));
            runtime().block_on(store.keeps_history())
        },
    },
    Capability {
        what: "it gets an error that names the missing right",
        works: |site| reports_missing_right(site, &site.token("runner")),
    },
];

const SEEDER: &[Capability] = &[
    Capability {
        what: "a person sees that the provider refuses the login",
        works: |site| sees_refusal(site, "seeder"),
    },
    Capability {
        what: "a person seeds a login",
        works: |site| {
            let metadata = format!("{}/metadata/{PATH}", site.mount);
            site.admin().delete(&metadata);
            site.seed(&Login::fresh(), &[]).status.code() == Some(0)
        },
    },
    Capability {
        what: "a person replaces the login",
        works: |site| {
            let next = successor(&Login::fresh());
            site.seed(&next, &["--replace"]).status.code() == Some(0)
        },
    },
    Capability {
        what: "it revokes the token of its job",
        works: |site| revokes_its_token(site, "seeder"),
    },
    Capability {
        what: "a person can see that the server keeps old versions",
        works: |site| {
            let store = store(site, &site.token("seeder"));
            runtime().block_on(store.keeps_history())
        },
    },
    Capability {
        what: "a person gets an error that names the missing right",
        works: |site| reports_missing_right(site, &site.token("seeder")),
    },
];

const MONITOR: &[Capability] = &[
    Capability {
        what: "it sees that the provider refuses the login",
        works: |site| sees_refusal(site, "monitor"),
    },
    Capability {
        what: "it revokes the token of its job",
        works: |site| revokes_its_token(site, "monitor"),
    },
    Capability {
        what: "it gets an error that names the missing right",
        works: |site| reports_missing_right(site, &site.token("monitor")),
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

#[test]
fn a_monitor_needs_each_line() {
    each_line_is_needed("monitor", MONITOR);
}

/// The right to acquire the lease does not prove the right to write the login.
#[test]
fn a_job_with_the_lease_but_no_write_right_spends_nothing() {
    let login = Login::stale();
    let site = Site::new(rig::V0_169, &login).seeded(&login);
    let path = format!("{}/data/{PATH}", site.mount);
    let policy = without(&site.policy("runner"), &path, "update");
    site.admin().policy(&site.named("runner"), &policy);

    let refresh = finish(&mut site.in_job(&site.runner(), GitHub, &["refresh"]));

    assert_code(&refresh, 125);
    let stderr = String::from_utf8_lossy(&refresh.stderr);
    assert!(stderr.contains("permission denied"), "{stderr}");
    assert_eq!(site.stub.events(), [], "Codex sent a request");
    assert!(site.is_live());
    assert!(
        lease_works(&site, &site.token("runner")),
        "the lease was not released"
    );
}

#[test]
fn a_runner_reads_no_other_secret_and_creates_no_login() {
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
    assert_eq!(
        reply.expect("a reply").status,
        403,
        "the runner created a login"
    );
}

/// Runs the commands of the README unchanged, except for the trusted issuer.
#[test]
fn the_readme_commands_set_up_a_server() {
    let login = Login::fresh();
    let codex = rig::Codex::install(rig::V0_169).expect("Codex from npm");
    let site = Site::on(Arc::new(OpenBao::dev()), codex, &login);
    let readme = deployed("README.md");
    let mut printed = Vec::new();
    for command in readme
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
    let stores = readme
        .lines()
        .filter_map(|line| line.strip_prefix("    AUTHFERRY_STORE: "));
    let stores: Vec<_> = stores.collect();
    let [github, gitlab, approle, people] = stores.try_into().expect("four addresses");

    let runner = site.runner();
    let file = runner.work().join("login.json");
    fs::write(&file, login.auth_json()).expect("disk space");
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

/// Asserts that everything works with a policy, and something fails without each of its lines.
fn each_line_is_needed(role: &str, capabilities: &[Capability]) {
    let login = Login::fresh();
    let site = Site::new(rig::V0_169, &login);
    let whole = site.policy(role);
    let failing_with = |policy: &str| -> Vec<&str> {
        site.admin().policy(&site.named(role), policy);
        reset_store(&site, &login);
        let failing = capabilities
            .iter()
            .filter(|capability| !(capability.works)(&site));
        failing.map(|capability| capability.what).collect()
    };
    assert_eq!(failing_with(&whole), [""; 0], "with the whole policy");
    let mut lines = 0;
    for (path, right) in rights(&whole) {
        let without = without(&whole, path, right);
        assert_ne!(failing_with(&without), [""; 0], "without {right} on {path}");
        lines += 1;
    }
    assert!(lines > 3, "the policy was not read: {whole}");
}

/// Resets the store to the seeded login without a lease.
fn reset_store(site: &Site, login: &Login) {
    for path in [PATH.to_owned(), format!("{PATH}-lease")] {
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
            // Every second part is between quotation marks.
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
        .expect("a path of the policy");
    let (of_path, rest) = after.split_once('}').expect("an end");
    let of_path = of_path
        .replace(&format!("\"{right}\", "), "")
        .replace(&format!(", \"{right}\""), "")
        .replace(&format!("\"{right}\""), "\"deny\"");
    format!("{before}path \"{path}\"{of_path}}}{rest}")
}

/// Acquires, renews and releases the lease with a token.
fn lease_works(site: &Site, token: &str) -> bool {
    let store = store(site, token);
    let request = LeaseRequest {
        owner: "https://ci.example/acme/app/runs/1".to_owned(),
        holder: 1,
        now: 1000,
        until: 2000,
        expired: None,
    };
    runtime().block_on(async {
        let leases = store.leases().expect("leases");
        let Ok(lease) = leases.acquire(&request).await else {
            return false;
        };
        let Ok(lease) = leases.renew(&lease, 3000).await else {
            return false;
        };
        leases.release(&lease).await.is_ok()
    })
}

/// Whether `status` with this role shows a refusal that a job noted in the lease.
fn sees_refusal(site: &Site, role: &str) -> bool {
    let note = json!({"data": {"lease": dead_login_record(&site.stored())}});
    let lease = format!("{}/data/{PATH}-lease", site.mount);
    site.admin().write(&lease, &note);
    let runner = site.runner();
    let mut status = site.authferry(&runner, &site.place(), &["status", "--json"]);
    let output = finish(status.env("VAULT_TOKEN", site.token(role)));
    site.admin()
        .delete(&format!("{}/metadata/{PATH}-lease", site.mount));
    shows_dead_login(&output)
}

/// Whether a job with this role revokes its token at its end.
fn revokes_its_token(site: &Site, role: &str) -> bool {
    site.let_in(GitLab, |it| {
        it["token_policies"] = json!([site.named(role)]);
    });
    finish(&mut site.in_job(&site.runner(), GitLab, &["status"]));
    site.tokens(GitLab) == 0
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

/// Whether the error for a valid token without rights is a missing right, not a missing login.
fn reports_missing_right(site: &Site, token: &str) -> bool {
    let elsewhere = format!("vault://{}/ci/other", site.mount);
    let runner = site.runner();
    let mut status = site.authferry(&runner, &elsewhere, &["status"]);
    let output = finish(status.env("VAULT_TOKEN", token));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains("permission denied") || stderr.contains("not logged in"),
        "{stderr}"
    );
    stderr.contains("permission denied")
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/policies/vault")
}
