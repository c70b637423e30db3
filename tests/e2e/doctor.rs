//! What `doctor` tells of a runner with the real Codex is what a job then meets.

use std::fs;

use rig::{Login, finish};
use serde_json::Value;

use crate::{
    any_store::{AnyStore, on_each_version},
    ferry::{Ferry, assert_code, assert_silent, names},
};

on_each_version![it_knows_the_codex_of_the_runner_and_touches_nothing];

fn it_knows_the_codex_of_the_runner_and_touches_nothing(version: &str) {
    let stale = Login::stale();
    let ferry = Ferry::holding(version, &stale);
    let runner = ferry.runner();
    let before = (ferry.folder(), names(&runner.codex_home()));

    let doctor = finish(&mut ferry.authferry(&runner, &["doctor", "--json"]));
    assert_code(&doctor, 0);
    let told: Value = serde_json::from_slice(&doctor.stdout).expect("JSON");
    assert_eq!(told["outcome"], "ready");
    let program = runner.root().join("bin/codex");
    let codex = format!("{}: codex-cli {version}", program.display());
    assert_eq!(check(&told, "codex")["message"], *codex);
    assert_eq!(check(&told, "claim")["state"], "not tried");
    let after = (ferry.folder(), names(&runner.codex_home()));
    assert_eq!(after, before, "it touched the store or the home");
    assert_eq!(names(&runner.root().join("tmp")), [""; 0], "left behind");
    assert_eq!(ferry.stub.count(|_| true), 0, "Codex called somebody");
    assert_silent(&doctor, &[stale.auth_json().as_bytes()]);

    assert_code(&finish(&mut ferry.run(&runner)), 0);
    assert!(ferry.is_live());
}

/// As npm puts it on `PATH`: a script that needs Node.
#[test]
fn it_tells_that_the_launcher_of_npm_finds_no_node() {
    let login = Login::stale();
    let ferry = Ferry::holding(rig::V0_169, &login);
    let runner = ferry.runner();
    runner.link("codex", ferry.codex.launcher()).expect("room");
    let bin = runner.root().join("bin");
    let doctor = || {
        let mut doctor = ferry.authferry(&runner, &["doctor", "--json"]);
        finish(doctor.env("PATH", &bin))
    };
    assert_code(&doctor(), 0);

    fs::remove_file(bin.join("node")).expect("a link");
    let missing = doctor();
    assert_code(&missing, 127);
    let told: Value = serde_json::from_slice(&missing.stdout).expect("JSON");
    let cause = check(&told, "codex")["causes"][0].to_string();
    assert!(cause.contains("node"), "{told:#}");
}

/// What was found of one thing.
pub(crate) fn check<'a>(told: &'a Value, name: &str) -> &'a Value {
    let checks = told["checks"].as_array().expect("checks");
    let check = checks.iter().find(|check| check["name"] == name);
    check.unwrap_or_else(|| panic!("{name} is not in {told:#}"))
}
