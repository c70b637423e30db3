//! What `doctor` reports about a secret, and that it leaves the secret unchanged.

use rig::{Login, Runner, What, finish};
use serde_json::Value;

use super::site::{Identity::GitHub, Site};
use crate::{
    doctor::check,
    ferry::{assert_code, assert_silent},
};

#[test]
fn a_job_with_the_policy_is_ready_and_a_rotation_costs_as_reported() {
    let stale = Login::stale();
    let site = Site::new(rig::V0_169, &stale).seeded(&stale);
    let runner = site.runner();
    let report = doctor(&site, &runner, 0);
    assert_eq!(report["outcome"], "ready");
    for name in ["store", "login", "lease", "codex"] {
        assert_eq!(check(&report, name)["state"], "ok", "{report:#}");
    }
    assert_eq!(report["guarantees"]["swap"], "atomic");
    assert_eq!(report["guarantees"]["reads"], "eventual");
    let note = "a rotation creates two versions of the secret, and two of the lease's";
    assert!(
        report["store_notes"].to_string().contains(note),
        "{report:#}"
    );
    let counts = || (site.versions(), site.versions_of_the_lease());
    // The lease was acquired and released.
    assert_eq!(counts(), (1, 2), "the login was written");

    assert_code(&finish(&mut site.run(&runner, GitHub)), 0);
    assert!(site.is_live(), "the lease blocked the rotation");
    assert_eq!(counts(), (1 + 2, 2 + 2));
    // A fresh login costs no version.
    assert_code(&finish(&mut site.run(&runner, GitHub)), 0);
    assert_eq!(counts(), (1 + 2, 2 + 2));
    assert_eq!(site.stub.count(What::is_rotation), 1);
}

#[test]
fn a_probe_reports_that_a_job_may_not_acquire_the_lease() {
    let stale = Login::stale();
    let site = Site::new(rig::V0_169, &stale).seeded(&stale);
    site.let_do(GitHub, &site.policy("runner"));
    let report = doctor(&site, &site.runner(), 125);
    let lease = check(&report, "lease");
    assert_eq!(lease["state"], "failed", "{report:#}");
    let hints = lease["hints"].to_string();
    assert!(
        hints.contains("its policy has to allow secretsmanager:GetSecretValue"),
        "{report:#}"
    );
    assert_eq!(check(&report, "login")["state"], "ok", "{report:#}");
}

/// Returns the report of `doctor --probe` in a job.
#[track_caller]
fn doctor(site: &Site, runner: &Runner, code: i32) -> Value {
    let mut doctor = site.in_job(runner, GitHub, &["doctor", "--probe", "--json"]);
    let doctor = finish(&mut doctor);
    assert_code(&doctor, code);
    assert_silent(&doctor, &[&site.stored()]);
    serde_json::from_slice(&doctor.stdout).expect("JSON")
}
