//! The roles in `deploy/policies/azure` are sufficient and minimal.

use std::{fs, process::Command};

use rig::{EXEC, Login, PythonClient, finish};
use serde_json::{Value, json};

use super::site::{
    Identity::{GitHub, GitLab},
    NAME, Role, Site, deployed, folder,
};
use crate::ferry::{assert_code, script, successor};

/// Something that a role must be able to do. The store starts with a stale login.
struct Capability {
    what: &'static str,
    works: fn(&Site) -> bool,
}

const RUNNER: &[Capability] = &[Capability {
    what: "a job persists its login",
    works: |site| {
        let runner = site.runner();
        let next = successor(&Login::fresh()).auth_json();
        fs::write(runner.work().join("next"), next).expect("disk space");
        let job = script(&runner, r#"cp next "$CODEX_HOME/auth.json""#);
        let run = ["run", "--no-rotate-first", "--store-timeout", "20s", "--"];
        succeeds(site.in_job(&runner, GitHub, &run).arg(job))
    },
}];

const REFRESHER: &[Capability] = &[Capability {
    what: "the scheduled job rotates the login, under the lease",
    works: |site| {
        let refresh = ["refresh", "--store-timeout", "20s"];
        let works = succeeds(&mut site.with_secret(&site.runner(), Role::Refresher, &refresh));
        works && site.is_live()
    },
}];

const READER: &[Capability] = &[
    Capability {
        what: "a job uses the login without its refresh token",
        works: |site| {
            let run = ["run", "--access-only", "--no-rotate-first", "--", "codex"];
            let runner = site.runner();
            let mut run = site.with_secret(&runner, Role::Reader, &run);
            run.args(EXEC);
            finish(&mut run)
                .status
                .code()
                .is_some_and(|code| code < 120)
        },
    },
    Capability {
        what: "a monitor knows whether the provider refuses the login",
        works: |site| {
            let status = ["status", "--json"];
            let status = site
                .with_secret(&site.runner(), Role::Reader, &status)
                .output();
            let status: Value =
                serde_json::from_slice(&status.expect("a program").stdout).unwrap_or_default();
            status["unknown"] == json!([])
        },
    },
];

const SEEDER: &[Capability] = &[
    Capability {
        what: "a person replaces the login",
        works: |site| {
            let reseed = successor(&Login::fresh());
            site.seed(&reseed, &["--replace"]).status.success()
        },
    },
    Capability {
        what: "a person enables a disabled version, and recovers a deleted secret",
        works: |site| {
            let mut admin = site.by_hand();
            let who = json!({"client": Role::Seeder.client(), "secret": Role::Seeder.secret()});
            let mut seeder = PythonClient::start(&site.vault, &who, 0);
            let enable = |enabled: bool| json!({"op": "update", "name": NAME, "enabled": enabled});
            admin.ask(&enable(false)).expect("an admin");
            let enabled = seeder.ask(&enable(true)).is_ok();
            admin
                .ask(&json!({"op": "delete", "name": NAME}))
                .expect("an admin");
            enabled
                && seeder
                    .ask(&json!({"op": "recovering", "name": NAME}))
                    .is_ok()
        },
    },
];

#[test]
fn a_runner_needs_each_action() {
    each_action_is_needed(Role::Runner, RUNNER);
}

#[test]
fn a_refresher_needs_each_action() {
    each_action_is_needed(Role::Refresher, REFRESHER);
}

#[test]
fn a_reader_needs_each_action() {
    each_action_is_needed(Role::Reader, READER);
}

#[test]
fn a_seeder_needs_each_action() {
    each_action_is_needed(Role::Seeder, SEEDER);
}

/// Asserts that everything works with a role, and something fails without each of its actions.
fn each_action_is_needed(role: Role, capabilities: &[Capability]) {
    let whole = role.actions();
    let failing_with = |actions: &[String]| -> Vec<&str> {
        let site = seeded_site();
        site.allow(role, actions);
        let failing = capabilities
            .iter()
            .filter(|capability| !(capability.works)(&site));
        failing.map(|capability| capability.what).collect()
    };
    assert_eq!(failing_with(&whole), [""; 0], "with the whole role");
    assert!(whole.len() >= 2, "the role was not read");
    for action in &whole {
        let rest: Vec<_> = whole.iter().filter(|it| *it != action).cloned().collect();
        assert_ne!(failing_with(&rest), [""; 0], "without {action}");
    }
}

fn seeded_site() -> Site {
    let login = Login::stale();
    Site::new(rig::V0_169, &login).seeded(&login)
}

#[test]
fn a_person_seeds_an_empty_vault() {
    let login = Login::fresh();
    let site = Site::new(rig::V0_169, &login);
    assert_code(&site.seed(&login, &[]), 0);
    assert_eq!(site.newest(), login.auth_json());
}

#[test]
fn a_reader_writes_nothing_and_a_runner_deletes_nothing() {
    let site = seeded_site();
    let ask = |role: Role, request: &Value| {
        let who = json!({"client": role.client(), "secret": role.secret()});
        PythonClient::start(&site.vault, &who, 0).ask(request)
    };
    let set = json!({"op": "set", "name": NAME, "value": "x"});
    for (role, request) in [
        (Role::Reader, set.clone()),
        (Role::Reader, json!({"op": "versions", "name": NAME})),
        (Role::Runner, json!({"op": "deleting", "name": NAME})),
        (
            Role::Runner,
            json!({"op": "update", "name": NAME, "enabled": false}),
        ),
        (Role::Runner, json!({"op": "get", "name": "another-secret"})),
        (Role::Seeder, json!({"op": "purge", "name": NAME})),
    ] {
        let no = ask(role, &request).expect_err("this should have been refused");
        assert_eq!(
            no.inner.as_deref(),
            Some("ForbiddenByRbac"),
            "{role:?} {request}"
        );
    }
    assert_eq!(site.versions(), 1);
    // The error names the missing right and where the login was kept.
    let runner = site.runner();
    let next = successor(&Login::fresh()).auth_json();
    fs::write(runner.work().join("next"), next).expect("disk space");
    let job = script(&runner, r#"cp next "$CODEX_HOME/auth.json""#);
    let run = ["run", "--no-rotate-first", "--store-timeout", "20s", "--"];
    let output = finish(site.with_secret(&runner, Role::Reader, &run).arg(job));
    assert_code(&output, 120);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains("permission denied") && stderr.contains("hint: "),
        "{stderr}"
    );
}

/// The commands name existing files and roles, and authferry accepts the addresses.
#[test]
fn the_readme_matches_the_files() {
    let readme = deployed("README.md");
    let commands: Vec<_> = readme
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .collect();
    let files: Vec<_> = fs::read_dir(folder())
        .expect("a folder")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("text")
        })
        .filter(|name| name != "README.md")
        .collect();
    for file in &files {
        let used = commands
            .iter()
            .any(|command| command.contains(&format!("@{file}")));
        assert!(
            used && readme.contains(&format!("[{file}]({file})")),
            "{file}"
        );
    }
    let named = commands.iter().filter_map(|command| {
        let (_, file) = command.split_once(" @")?;
        file.split(' ').next()
    });
    for file in named {
        assert!(files.iter().any(|it| it == file), "{file}");
    }
    let roles = Role::ALL.map(Role::name);
    let assigned = commands.iter().filter_map(|command| {
        let (_, role) = command.split_once("--role \"")?;
        role.split('"').next()
    });
    for role in assigned {
        assert!(roles.iter().any(|name| name == role), "{role}");
    }

    let stores: Vec<_> = commands
        .iter()
        .filter_map(|line| line.strip_prefix("AUTHFERRY_STORE: "))
        .collect();
    let [jobs, _people] = stores.try_into().expect("two addresses");
    let site = seeded_site();
    let host = site.vault.host();
    let store = jobs
        .replace("azure-kv://acme-codex", &format!("azure-kv://{host}"))
        .replace("blob://acmecodex/logins", &site.blobs());
    assert_eq!(store, site.address(), "the address of the README");
    for identity in [GitHub, GitLab] {
        let runner = site.runner();
        assert_code(&finish(&mut site.in_job(&runner, identity, &["status"])), 0);
    }
}

fn succeeds(command: &mut Command) -> bool {
    finish(command).status.success()
}
