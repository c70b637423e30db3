//! Concurrent writers, failures of the service, and a slow service during a job.

use std::{
    fs,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use rig::{Call, Failure, KeyVaultFault as Fault, Login, Moment, Op, Runner, finish};
use serde_json::json;

use super::site::{Identity::GitHub, NAME, Site};
use crate::ferry::{assert_code, logins_kept, script, start, successor, wait_until};

/// Timeout for a job to reach a certain request.
const HOLD_TIMEOUT: Duration = Duration::from_secs(30);

#[test]
fn a_concurrent_reseed_is_not_overwritten() {
    let seeded = Login::stale();
    let login = successor(&seeded);
    let site = Site::new(rig::V0_169, &seeded).seeded(&seeded);
    site.stub.sign_in(&login);
    rotate(&site, &login);
    let reseed = Login {
        serial: 100,
        refresh_token: "made-up.refresh.account-1.0100".to_owned(),
        ..Login::fresh()
    };
    site.stub.sign_in(&reseed);
    let runner = site.runner();
    let job = script(
        &runner,
        &format!(
            "touch restored; until [ -e reseeded ]; do sleep 0.01; done; exec codex {}",
            rig::EXEC.map(|word| format!("'{word}'")).join(" ")
        ),
    );
    let rescue_dir = runner.work().join("rescue_dir");
    let mut run = site.in_job(&runner, GitHub, &["--rescue-dir"]);
    let run = run
        .arg(&rescue_dir)
        .args(["run", "--no-rotate-first", "--"]);
    let mut run = start(run.arg(job));
    wait_until("restored", || runner.work().join("restored").exists());
    site.by_hand().set(NAME, &reseed.auth_json());
    fs::write(runner.work().join("reseeded"), "").expect("disk space");

    let status = run.wait().expect("our child");
    assert_eq!(status.code(), Some(122));
    assert_eq!(
        site.newest(),
        reseed.auth_json(),
        "the reseed stays current"
    );
    assert_eq!(
        site.restored(),
        reseed.auth_json().as_bytes(),
        "a job restores the reseed"
    );
    let [kept] = logins_kept(&rescue_dir)
        .try_into()
        .expect("one rescued login");
    let kept = fs::read(rescue_dir.join(kept)).expect("a file");
    assert!(site.stub.is_live(&kept), "the rescued login is live");
    let values = site.vault.versions(NAME);
    assert!(
        values.iter().any(|it| it.value == login.auth_json()),
        "the previous login is kept too"
    );
}

/// Persists a login by a job, so that it is not a seed.
fn rotate(site: &Site, login: &Login) {
    let runner = site.runner();
    fs::write(runner.work().join("next"), login.auth_json()).expect("disk space");
    let job = script(&runner, r#"cp next "$CODEX_HOME/auth.json""#);
    let mut run = site.in_job(&runner, GitHub, &["run", "--no-rotate-first", "--"]);
    assert_code(&finish(run.arg(job)), 0);
}

/// A runner with a restored login and a newer auth file, ready for `persist`.
fn runner_ready_to_persist(site: &Site, next: &Login) -> Runner {
    let runner = site.runner();
    let restore = ["restore", "--no-watch", "--no-rotate-first"];
    assert_code(&finish(&mut site.in_job(&runner, GitHub, &restore)), 0);
    runner.place(&next.auth_json()).expect("disk space");
    runner
}

fn is_put_of_login(call: &Call) -> bool {
    call.op == Op::SetSecret && call.name == NAME
}

#[test]
fn a_write_applied_but_reported_as_failed_makes_one_generation() {
    for fault in [
        Fault::AppliedThen(Failure::server_error()),
        Fault::ReplyLost,
    ] {
        let login = Login::fresh();
        let next = successor(&login);
        let site = Site::new(rig::V0_169, &login).seeded(&login);
        let runner = runner_ready_to_persist(&site, &next);
        site.vault.fail(is_put_of_login, fault.clone());
        assert_code(&finish(&mut site.in_job(&runner, GitHub, &["persist"])), 0);
        assert_eq!(site.vault.faults_left(), 0);
        let of_next = site.vault.versions(NAME).into_iter();
        let of_next = of_next.filter(|it| it.value == next.auth_json());
        assert_eq!(of_next.count(), 1, "{fault:?}");
        assert_eq!(site.restored(), next.auth_json().as_bytes());
    }
}

#[test]
fn a_write_that_was_not_applied_is_retried() {
    for fault in [
        Fault::Refused(Failure::throttled(Some(1))),
        Fault::Refused(Failure::throttled(None)),
        Fault::Refused(Failure::overlap(NAME)),
        Fault::Refused(Failure::server_error()),
        Fault::RequestLost,
    ] {
        let login = Login::fresh();
        let next = successor(&login);
        let site = Site::new(rig::V0_169, &login).seeded(&login);
        let runner = runner_ready_to_persist(&site, &next);
        site.vault.fail(is_put_of_login, fault.clone());
        let persist = finish(&mut site.in_job(&runner, GitHub, &["-v", "persist"]));
        assert_code(&persist, 0);
        assert_eq!(site.vault.faults_left(), 0);
        assert_eq!(site.restored(), next.auth_json().as_bytes(), "{fault:?}");
        assert_eq!(site.versions(), 2, "{fault:?}");
    }
}

#[test]
fn a_blob_write_applied_but_reported_as_failed_makes_one_version() {
    // The first blob write is the intent, the second one completes the swap.
    for which in 0..2 {
        let login = Login::fresh();
        let next = successor(&login);
        let site = Site::new(rig::V0_169, &login).seeded(&login);
        let runner = runner_ready_to_persist(&site, &next);
        let seen = AtomicUsize::new(0);
        let failure = Failure::new(500, "InternalError", "The server encountered an error.");
        let is_due = move |call: &Call| {
            call.op == Op::WriteBlob
                && !call.name.contains("lease")
                && seen.fetch_add(1, Ordering::Relaxed) == which
        };
        site.vault.fail(is_due, Fault::AppliedThen(failure));
        assert_code(&finish(&mut site.in_job(&runner, GitHub, &["persist"])), 0);
        assert_eq!(site.vault.faults_left(), 0, "blob write {which}");
        assert_eq!(site.restored(), next.auth_json().as_bytes());
        assert_eq!(site.versions(), 2, "blob write {which}");
    }
}

#[test]
fn a_slow_vault_with_lagging_lists_gets_the_login_once() {
    let login = Login::fresh();
    let next = successor(&login);
    let site = Site::new(rig::V0_169, &login).seeded(&login);
    let runner = runner_ready_to_persist(&site, &next);
    site.vault.rules(|rules| {
        rules.put_latency = Duration::from_millis(700);
        rules.list_lag = Duration::from_millis(1500);
        rules.hidden_rows = 60;
    });
    assert_code(&finish(&mut site.in_job(&runner, GitHub, &["persist"])), 0);
    assert_eq!(site.restored(), next.auth_json().as_bytes());
    assert_eq!(site.versions(), 2);
}

/// A writer stalls until another writer has followed it, and then resumes.
#[test]
fn a_stalled_writer_overwrites_nothing() {
    let login = Login::fresh();
    let site = Site::new(rig::V0_169, &login).seeded(&login);
    let stalled = successor(&login);
    let other = Login {
        refresh_token: "made-up.refresh.account-1.0099".to_owned(),
        ..successor(&stalled)
    };
    let stalled_runner = runner_ready_to_persist(&site, &stalled);
    let other_runner = runner_ready_to_persist(&site, &other);
    let rescue_dir = stalled_runner.work().join("rescue_dir");
    let is_over = AtomicBool::new(false);
    let is_first =
        move |call: &Call| is_put_of_login(call) && !is_over.swap(true, Ordering::Relaxed);
    let hold = site.vault.hold(Moment::Before, is_first);
    let mut persist = site.in_job(&stalled_runner, GitHub, &["--rescue-dir"]);
    let mut persist = start(persist.arg(&rescue_dir).arg("persist"));
    hold.wait_until_held(HOLD_TIMEOUT);
    assert_code(
        &finish(&mut site.in_job(&other_runner, GitHub, &["-v", "persist"])),
        0,
    );
    drop(hold);
    assert_eq!(persist.wait().expect("our child").code(), Some(122));
    assert_eq!(
        site.newest(),
        stalled.auth_json(),
        "the stalled writer wrote last"
    );
    assert_eq!(
        site.restored(),
        other.auth_json().as_bytes(),
        "its version does not count"
    );
    let [kept] = logins_kept(&rescue_dir)
        .try_into()
        .expect("one rescued login");
    assert_eq!(
        fs::read_to_string(rescue_dir.join(kept)).expect("a file"),
        stalled.auth_json()
    );
}

/// Two writers read the same version and write concurrently.
#[test]
fn two_concurrent_writers_have_one_winner() {
    let login = Login::fresh();
    let site = Site::new(rig::V0_169, &login).seeded(&login);
    let logins = ["0098", "0099"].map(|number| Login {
        refresh_token: format!("made-up.refresh.account-1.{number}"),
        ..successor(&login)
    });
    let runners = logins
        .each_ref()
        .map(|next| runner_ready_to_persist(&site, next));
    site.vault.rules(|rules| rules.overlap_conflicts = false);
    let rescue_dir = runners
        .each_ref()
        .map(|runner| runner.work().join("rescue_dir"));
    let jobs: Vec<_> = runners
        .iter()
        .zip(&rescue_dir)
        .map(|(runner, rescue_dir)| {
            let mut persist = site.in_job(runner, GitHub, &["--rescue-dir"]);
            start(persist.arg(rescue_dir).arg("persist"))
        })
        .collect();
    let codes = jobs
        .into_iter()
        .map(|mut job| job.wait().expect("our child").code());
    let codes: Vec<_> = codes.map(Option::unwrap_or_default).collect();
    let current = site.restored();
    assert_eq!(
        site.newest().as_bytes(),
        current,
        "the current version is the newest"
    );
    for ((next, code), rescue_dir) in logins.iter().zip(&codes).zip(&rescue_dir) {
        let next = next.auth_json();
        let is_current = next.as_bytes() == current;
        assert_eq!(*code, if is_current { 0 } else { 122 }, "{codes:?}");
        if !is_current {
            let [kept] = logins_kept(rescue_dir)
                .try_into()
                .expect("one rescued login");
            assert_eq!(
                fs::read_to_string(rescue_dir.join(kept)).expect("a file"),
                next
            );
        }
    }
    assert!(codes.contains(&0), "{codes:?}");
}

#[test]
fn a_disabled_newest_version_loses_no_login() {
    let login = Login::fresh();
    let next = successor(&login);
    let site = Site::new(rig::V0_169, &login).seeded(&login);
    let runner = runner_ready_to_persist(&site, &next);
    let disable = json!({"op": "update", "name": NAME, "enabled": false});
    site.by_hand().ask(&disable).expect("a change");
    assert_code(&finish(&mut site.in_job(&runner, GitHub, &["persist"])), 0);
    // The pointer names the new version, which follows the disabled one like any other.
    assert_eq!(site.restored(), next.auth_json().as_bytes());
}

#[test]
fn a_deleted_secret_loses_no_login() {
    let login = Login::fresh();
    let next = successor(&login);
    let site = Site::new(rig::V0_169, &login).seeded(&login);
    let runner = runner_ready_to_persist(&site, &next);
    let mut by_hand = site.by_hand();
    by_hand
        .ask(&json!({"op": "delete", "name": NAME}))
        .expect("deleted");
    let rescue_dir = runner.work().join("rescue_dir");
    let mut persist = site.in_job(&runner, GitHub, &["-v", "--rescue-dir"]);
    persist
        .arg(&rescue_dir)
        .args(["persist", "--store-timeout", "3s"]);
    assert_code(&finish(&mut persist), 120);
    let [kept] = logins_kept(&rescue_dir)
        .try_into()
        .expect("one rescued login");
    assert_eq!(
        fs::read_to_string(rescue_dir.join(kept)).expect("a file"),
        next.auth_json()
    );
    by_hand
        .ask(&json!({"op": "recover", "name": NAME}))
        .expect("recovered");
    assert_eq!(
        by_hand.get(NAME).as_deref(),
        Some(login.auth_json().as_str())
    );
}
