//! `doctor` on a runner with the real Codex reports what a job then finds.

use std::fs;

use rig::{Login, finish};
use serde_json::Value;

use crate::{
    any_store::{AnyStore, on_each_version},
    ferry::{Ferry, assert_code, assert_silent, names},
};

on_each_version![doctor_reports_the_installed_codex_and_changes_nothing];

fn doctor_reports_the_installed_codex_and_changes_nothing(version: &str) {
    let stale = Login::stale();
    let ferry = Ferry::holding(version, &stale);
    let runner = ferry.runner();
    let before = (ferry.folder(), names(&runner.codex_home()));

    let doctor = finish(&mut ferry.authferry(&runner, &["doctor", "--json"]));
    assert_code(&doctor, 0);
    let report: Value = serde_json::from_slice(&doctor.stdout).expect("JSON");
    assert_eq!(report["outcome"], "ready");
    let program = runner.root().join("bin/codex");
    let codex = format!("{}: codex-cli {version}, tested", program.display());
    assert_eq!(check(&report, "codex")["message"], *codex);
    assert_eq!(check(&report, "lease")["state"], "not tried");
    let after = (ferry.folder(), names(&runner.codex_home()));
    assert_eq!(after, before, "doctor changed the store or the home");
    assert_eq!(names(&runner.root().join("tmp")), [""; 0], "left behind");
    assert_eq!(ferry.stub.count(|_| true), 0, "Codex sent a request");
    assert_silent(&doctor, &[stale.auth_json().as_bytes()]);

    assert_code(&finish(&mut ferry.run(&runner)), 0);
    assert!(ferry.is_live());
}

/// npm puts a script on `PATH` that needs Node.
#[test]
fn doctor_reports_that_the_npm_launcher_finds_no_node() {
    let login = Login::stale();
    let ferry = Ferry::holding(rig::V0_169, &login);
    let runner = ferry.runner();
    runner
        .link("codex", ferry.codex.launcher())
        .expect("disk space");
    let bin = runner.root().join("bin");
    let doctor = || {
        let mut doctor = ferry.authferry(&runner, &["doctor", "--json"]);
        finish(doctor.env("PATH", &bin))
    };
    assert_code(&doctor(), 0);

    fs::remove_file(bin.join("node")).expect("a link");
    let missing = doctor();
    assert_code(&missing, 127);
    let report: Value = serde_json::from_slice(&missing.stdout).expect("JSON");
    let cause = check(&report, "codex")["causes"][0].to_string();
    assert!(cause.contains("node"), "{report:#}");
}

/// Returns one check of a report.
pub(crate) fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    let checks = report["checks"].as_array().expect("checks");
    let check = checks.iter().find(|check| check["name"] == name);
    check.unwrap_or_else(|| panic!("{name} is not in {report:#}"))
}
