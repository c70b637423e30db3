//! What `doctor` tells of a real server, and what it leaves there.

use rig::{Login, Runner, What, finish};
use serde_json::Value;

use super::site::{Identity::GitHub, PATH, Site, assert_no_token};
use crate::{
    doctor::check,
    ferry::{assert_code, assert_silent},
};

#[test]
fn a_runner_by_the_policy_is_ready_and_a_probe_leaves_the_login_as_it_is() {
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
    assert_eq!(site.versions(), 1, "the login was written");
    assert_eq!(claim_versions(&site), 2, "taken and given back");
    assert_eq!(site.tokens(GitHub), 0, "a token outlived it");

    assert_code(&finish(&mut site.run(&runner, GitHub)), 0);
    assert!(site.is_live(), "the claim was in the way");
    assert_eq!(site.stub.count(What::is_rotation), 1);
    // What it notes of the price of a rotation.
    assert_eq!(site.versions() - 1, 2, "of the login");
    assert_eq!(claim_versions(&site) - 2, 2, "of the claim");
}

#[test]
fn a_probe_finds_out_that_a_runner_may_only_read() {
    let stale = Login::stale();
    let site = Site::new(rig::V0_169, &stale).seeded(&stale);
    let mount = &site.mount;
    let only_read = format!("path \"{mount}/data/{PATH}*\" {{ capabilities = [\"read\"] }}");
    site.admin().policy(&site.named("runner"), &only_read);
    let told = doctor(&site, &site.runner(), 125);
    let claim = check(&told, "claim");
    assert_eq!(claim["state"], "failed", "{told:#}");
    let hints = claim["hints"].to_string();
    assert!(hints.contains("policy"), "{told:#}");
    assert_eq!(check(&told, "login")["state"], "ok", "{told:#}");
}

/// What `doctor --probe` finds in a job.
#[track_caller]
fn doctor(site: &Site, runner: &Runner, code: i32) -> Value {
    let mut doctor = site.in_job(runner, GitHub, &["doctor", "--probe", "--json"]);
    let doctor = finish(&mut doctor);
    assert_code(&doctor, code);
    assert_silent(&doctor, &[&site.stored()]);
    assert_no_token(site, "the output", &doctor.stdout);
    serde_json::from_slice(&doctor.stdout).expect("JSON")
}

fn claim_versions(site: &Site) -> u64 {
    let claim = format!("{}/metadata/{PATH}-claim", site.mount);
    let claim = site.admin().read(&claim).expect("a claim");
    claim["data"]["current_version"].as_u64().expect("a number")
}
