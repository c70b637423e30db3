//! A job is killed between the two calls of a swap, or a person reseeds during a job.

use std::fs;

use rig::{EXEC, Login, finish};

use super::site::{Identity::GitHub, Site};
use crate::ferry::{assert_code, logins_kept, script, start, successor, wait_until};

#[test]
fn a_concurrent_reseed_is_not_overwritten() {
    let login = Login::stale();
    let site = Site::new(rig::V0_169, &login).seeded(&login);
    let reseed = Login {
        serial: 100,
        refresh_token: "made-up.refresh.account-1.0100".to_owned(),
        ..Login::fresh()
    };
    site.stub.sign_in(&reseed);
    let runner = site.runner();
    let file = runner.work().join("reseed.json");
    fs::write(&file, reseed.auth_json()).expect("disk space");
    let job = script(
        &runner,
        &format!(
            "touch restored; until [ -e reseeded ]; do sleep 0.01; done; exec codex {}",
            EXEC.map(|word| format!("'{word}'")).join(" ")
        ),
    );
    let mut run = site.in_job(&runner, GitHub, &["--rescue-dir"]);
    let rescue_dir = runner.work().join("rescue_dir");
    let run = run
        .arg(&rescue_dir)
        .args(["run", "--no-rotate-first", "--"])
        .arg(job);
    let mut run = start(run);
    wait_until("restored", || runner.work().join("restored").exists());
    let (name, value) = (site.name(), format!("file://{}", file.display()));
    assert_code(
        &finish(&mut site.server.cli(&[
            "secretsmanager",
            "put-secret-value",
            "--secret-id",
            &name,
            "--secret-string",
            &value,
        ])),
        0,
    );
    fs::write(runner.work().join("reseeded"), "").expect("disk space");

    let status = run.wait().expect("our child");
    assert_eq!(status.code(), Some(122));
    assert_eq!(
        site.stored(),
        reseed.auth_json().as_bytes(),
        "the reseed stays current"
    );
    let [kept] = logins_kept(&rescue_dir)
        .try_into()
        .expect("one rescued login");
    let kept = fs::read(rescue_dir.join(kept)).expect("a file");
    assert!(site.stub.is_live(&kept), "the rescued login is live");
    assert!(site.is_live());
}

/// On a persistent machine, the next run finds the rotated login and persists it.
#[test]
fn a_swap_killed_between_its_two_calls_is_completed_by_the_next_run() {
    let login = Login::fresh();
    let next = successor(&login);
    let site = Site::new(rig::V0_169, &login).seeded(&login);
    let name = site.name();
    let runner = site.runner();
    fs::write(runner.work().join("next"), next.auth_json()).expect("disk space");
    let job = script(&runner, r#"cp next "$CODEX_HOME/auth.json"; exec sleep 60"#);

    site.hand
        .fault("UpdateSecretVersionStage", &name, "hold", 1);
    let mut run = start(site.in_job(&runner, GitHub, &["run", "--"]).arg(job));
    assert_eq!(
        site.hand.rig("held", &name)["held"],
        true,
        "the promotion was not reached"
    );
    run.kill().expect("our child");
    run.wait().expect("our child");
    site.hand.rig("let-go", &name);
    assert_eq!(
        site.stored(),
        login.auth_json().as_bytes(),
        "the login was promoted"
    );
    let [interrupted] = pending(&site).try_into().expect("one pending version");

    assert_code(
        &finish(&mut site.in_job(&runner, GitHub, &["run", "--", "true"])),
        0,
    );
    assert_eq!(site.stored(), next.auth_json().as_bytes());
    // The label moved to the current version, so nothing points to the interrupted one.
    let versions = site.hand.versions(&name);
    assert!(!versions.contains_key(&interrupted), "{versions:?}");
    let [waiting] = pending(&site).try_into().expect("one label");
    let current = versions
        .iter()
        .filter(|(_, labels)| has(labels, "AWSCURRENT"));
    let current: Vec<_> = current.map(|(version, _)| version.clone()).collect();
    assert_eq!(current, [waiting]);

    // A later job does not promote it either.
    let later = site.runner();
    assert_code(
        &finish(&mut site.in_job(&later, GitHub, &["run", "--", "true"])),
        0,
    );
    assert_eq!(site.hand.versions(&name), versions);
}

fn pending(site: &Site) -> Vec<String> {
    let versions = site.hand.versions(&site.name());
    let waiting = versions
        .into_iter()
        .filter(|(_, labels)| has(labels, "AUTHFERRY_PENDING"));
    waiting.map(|(version, _)| version).collect()
}

fn has(labels: &serde_json::Value, label: &str) -> bool {
    labels
        .as_array()
        .is_some_and(|all| all.iter().any(|one| one == label))
}
