//! What `doctor` tells of a secret, and what it leaves there.

use rig::{Login, Runner, What, finish};
use serde_json::Value;

use super::site::{Identity::GitHub, Site};
use crate::{
    doctor::check,
    ferry::{assert_code, assert_silent},
};

#[test]
fn a_job_by_the_policy_is_ready_and_a_rotation_costs_what_it_is_told() {
    let stale = Login::stale();
    let site = Site::new(rig::V0_169, &stale).seeded(&stale);
    let runner = site.runner();
    let told = doctor(&site, &runner, 0);
    assert_eq!(told["outcome"], "ready");
    for name in ["store", "login", "claim", "codex"] {
        assert_eq!(check(&told, name)["state"], "ok", "{told:#}");
    }
    assert_eq!(told["guarantees"]["swap"], "atomic");
    assert_eq!(told["guarantees"]["reads"], "eventual");
    let note = "a rotation makes two versions of the secret, and two of the claim's";
    assert!(told["store_notes"].to_string().contains(note), "{told:#}");
    let counts = || (site.versions(), site.versions_of_the_claim());
    // The claim was taken and given back.
    assert_eq!(counts(), (1, 2), "the login was written");

    assert_code(&finish(&mut site.run(&runner, GitHub)), 0);
    assert!(site.is_live(), "the claim was in the way");
    assert_eq!(counts(), (1 + 2, 2 + 2));
    // What is fresh costs nothing.
    assert_code(&finish(&mut site.run(&runner, GitHub)), 0);
    assert_eq!(counts(), (1 + 2, 2 + 2));
    assert_eq!(site.stub.count(What::is_rotation), 1);
}

#[test]
fn a_probe_finds_out_that_a_job_may_not_claim() {
    let stale = Login::stale();
    let site = Site::new(rig::V0_169, &stale).seeded(&stale);
    site.let_do(GitHub, &site.policy("runner"));
    let told = doctor(&site, &site.runner(), 125);
    let claim = check(&told, "claim");
    assert_eq!(claim["state"], "failed", "{told:#}");
    let hints = claim["hints"].to_string();
    assert!(
        hints.contains("its policy has to allow secretsmanager:GetSecretValue"),
        "{told:#}"
    );
    assert_eq!(check(&told, "login")["state"], "ok", "{told:#}");
}

/// What `doctor --probe` finds in a job.
#[track_caller]
fn doctor(site: &Site, runner: &Runner, code: i32) -> Value {
    let mut doctor = site.in_job(runner, GitHub, &["doctor", "--probe", "--json"]);
    let doctor = finish(&mut doctor);
    assert_code(&doctor, code);
    assert_silent(&doctor, &[&site.stored()]);
    serde_json::from_slice(&doctor.stdout).expect("JSON")
}
