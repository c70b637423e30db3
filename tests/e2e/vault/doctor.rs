//! What `doctor` reports about a real server, and that it leaves the login unchanged.

use rig::{Login, Runner, What, finish};
use serde_json::Value;

use super::site::{Identity::GitHub, PATH, Site, assert_no_token};
use crate::{
    doctor::check,
    ferry::{assert_code, assert_silent},
};

#[test]
fn a_runner_with_the_policy_is_ready_and_a_probe_keeps_the_login() {
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
    assert_eq!(site.versions(), 1, "the login was written");
    assert_eq!(lease_versions(&site), 2, "acquired and released");
    assert_eq!(site.tokens(GitHub), 0, "a token outlived doctor");

    assert_code(&finish(&mut site.run(&runner, GitHub)), 0);
    assert!(site.is_live(), "the lease blocked the rotation");
    assert_eq!(site.stub.count(What::is_rotation), 1);
    // The cost of a rotation, as in the notes of the report.
    assert_eq!(site.versions() - 1, 2, "of the login");
    assert_eq!(lease_versions(&site) - 2, 2, "of the lease");
}

#[test]
fn a_probe_reports_that_a_runner_may_only_read() {
    let stale = Login::stale();
    let site = Site::new(rig::V0_169, &stale).seeded(&stale);
    let mount = &site.mount;
    let only_read = format!("path \"{mount}/data/{PATH}*\" {{ capabilities = [\"read\"] }}");
    site.admin().policy(&site.named("runner"), &only_read);
    let report = doctor(&site, &site.runner(), 125);
    let lease = check(&report, "lease");
    assert_eq!(lease["state"], "failed", "{report:#}");
    let hints = lease["hints"].to_string();
    assert!(hints.contains("policy"), "{report:#}");
    assert_eq!(check(&report, "login")["state"], "ok", "{report:#}");
}

/// Returns the report of `doctor --probe` in a job.
#[track_caller]
fn doctor(site: &Site, runner: &Runner, code: i32) -> Value {
    let mut doctor = site.in_job(runner, GitHub, &["doctor", "--probe", "--json"]);
    let doctor = finish(&mut doctor);
    assert_code(&doctor, code);
    assert_silent(&doctor, &[&site.stored()]);
    assert_no_token(site, "the output", &doctor.stdout);
    serde_json::from_slice(&doctor.stdout).expect("JSON")
}

fn lease_versions(site: &Site) -> u64 {
    let lease = format!("{}/metadata/{PATH}-lease", site.mount);
    let lease = site.admin().read(&lease).expect("a lease");
    lease["data"]["current_version"].as_u64().expect("a number")
}
