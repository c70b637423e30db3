//! Others write, the service fails, or it is slow, while a job is at it.

use std::{
    fs,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use rig::{Call, Failure, KeyVaultFault as Fault, Login, Moment, Op, Runner, finish};
use serde_json::json;

use super::site::{Identity::GitHub, NAME, Site};
use crate::ferry::{assert_code, logins_kept, script, start, successor, wait_until};

/// How long a test waits for a job to come to a certain point.
const SOON: Duration = Duration::from_secs(30);

#[test]
fn a_login_that_a_person_puts_there_meanwhile_is_not_overwritten() {
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
    let rescues = runner.work().join("rescues");
    let mut run = site.in_job(&runner, GitHub, &["--rescue-dir"]);
    let run = run.arg(&rescues).args(["run", "--no-rotate-first", "--"]);
    let mut run = start(run.arg(job));
    wait_until("restored", || runner.work().join("restored").exists());
    site.by_hand().set(NAME, &reseed.auth_json());
    fs::write(runner.work().join("reseeded"), "").expect("room");

    let status = run.wait().expect("our child");
    assert_eq!(status.code(), Some(122));
    assert_eq!(site.newest(), reseed.auth_json(), "theirs stays current");
    assert_eq!(
        site.restored(),
        reseed.auth_json().as_bytes(),
        "for a job too"
    );
    let [kept] = logins_kept(&rescues).try_into().expect("one rescued login");
    let kept = fs::read(rescues.join(kept)).expect("a file");
    assert!(site.stub.is_live(&kept), "what the job rotated is found");
    let values = site.vault.versions(NAME);
    assert!(
        values.iter().any(|it| it.value == login.auth_json()),
        "and so is what was before"
    );
}

/// Has a job of its own put a login there, so that it is no seed.
fn rotate(site: &Site, login: &Login) {
    let runner = site.runner();
    fs::write(runner.work().join("next"), login.auth_json()).expect("room");
    let job = script(&runner, r#"cp next "$CODEX_HOME/auth.json""#);
    let mut run = site.in_job(&runner, GitHub, &["run", "--no-rotate-first", "--"]);
    assert_code(&finish(run.arg(job)), 0);
}

/// A job whose login is to be persisted.
fn about_to_persist(site: &Site, next: &Login) -> Runner {
    let runner = site.runner();
    let restore = ["restore", "--no-watch", "--no-rotate-first"];
    assert_code(&finish(&mut site.in_job(&runner, GitHub, &restore)), 0);
    runner.place(&next.auth_json()).expect("room");
    runner
}

fn puts_the_login(call: &Call) -> bool {
    call.op == Op::SetSecret && call.name == NAME
}

#[test]
fn a_write_that_was_done_and_failed_makes_one_generation() {
    for fault in [
        Fault::AppliedThen(Failure::server_error()),
        Fault::ReplyLost,
    ] {
        let login = Login::fresh();
        let next = successor(&login);
        let site = Site::new(rig::V0_169, &login).seeded(&login);
        let runner = about_to_persist(&site, &next);
        site.vault.fail(puts_the_login, fault.clone());
        assert_code(&finish(&mut site.in_job(&runner, GitHub, &["persist"])), 0);
        assert_eq!(site.vault.faults_left(), 0);
        let of_next = site.vault.versions(NAME).into_iter();
        let of_next = of_next.filter(|it| it.value == next.auth_json());
        assert_eq!(of_next.count(), 1, "{fault:?}");
        assert_eq!(site.restored(), next.auth_json().as_bytes());
    }
}

#[test]
fn a_write_that_was_not_done_is_tried_again() {
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
        let runner = about_to_persist(&site, &next);
        site.vault.fail(puts_the_login, fault.clone());
        let persist = finish(&mut site.in_job(&runner, GitHub, &["-v", "persist"]));
        assert_code(&persist, 0);
        assert_eq!(site.vault.faults_left(), 0);
        assert_eq!(site.restored(), next.auth_json().as_bytes(), "{fault:?}");
        assert_eq!(site.versions(), 2, "{fault:?}");
    }
}

#[test]
fn a_blob_that_was_written_and_answered_as_a_failure_costs_nothing() {
    // The intent is the first one, what ends the write is the second.
    for which in 0..2 {
        let login = Login::fresh();
        let next = successor(&login);
        let site = Site::new(rig::V0_169, &login).seeded(&login);
        let runner = about_to_persist(&site, &next);
        let seen = AtomicUsize::new(0);
        let failure = Failure::new(500, "InternalError", "The server encountered an error.");
        let is_due = move |call: &Call| {
            call.op == Op::WriteBlob
                && !call.name.contains("claim")
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
fn a_slow_vault_whose_lists_lag_behind_gets_the_login_once() {
    let login = Login::fresh();
    let next = successor(&login);
    let site = Site::new(rig::V0_169, &login).seeded(&login);
    let runner = about_to_persist(&site, &next);
    site.vault.rules(|rules| {
        rules.put_latency = Duration::from_millis(700);
        rules.list_lag = Duration::from_millis(1500);
        rules.hidden_rows = 60;
    });
    assert_code(&finish(&mut site.in_job(&runner, GitHub, &["persist"])), 0);
    assert_eq!(site.restored(), next.auth_json().as_bytes());
    assert_eq!(site.versions(), 2);
}

/// One that was stopped so long that another one has followed it, and goes on then.
#[test]
fn a_writer_that_wakes_up_late_buries_nothing() {
    let login = Login::fresh();
    let site = Site::new(rig::V0_169, &login).seeded(&login);
    let sleeper = successor(&login);
    let quick = Login {
        refresh_token: "made-up.refresh.account-1.0099".to_owned(),
        ..successor(&sleeper)
    };
    let late = about_to_persist(&site, &sleeper);
    let early = about_to_persist(&site, &quick);
    let rescues = late.work().join("rescues");
    let is_over = AtomicBool::new(false);
    let is_first =
        move |call: &Call| puts_the_login(call) && !is_over.swap(true, Ordering::Relaxed);
    let hold = site.vault.hold(Moment::Before, is_first);
    let mut persist = site.in_job(&late, GitHub, &["--rescue-dir"]);
    let mut persist = start(persist.arg(&rescues).arg("persist"));
    hold.wait_until_held(SOON);
    assert_code(
        &finish(&mut site.in_job(&early, GitHub, &["-v", "persist"])),
        0,
    );
    drop(hold);
    assert_eq!(persist.wait().expect("our child").code(), Some(122));
    assert_eq!(site.newest(), sleeper.auth_json(), "it came last");
    assert_eq!(
        site.restored(),
        quick.auth_json().as_bytes(),
        "and counts for nothing"
    );
    let [kept] = logins_kept(&rescues).try_into().expect("one rescued login");
    assert_eq!(
        fs::read_to_string(rescues.join(kept)).expect("a file"),
        sleeper.auth_json()
    );
}

/// Two that have read the same and write at the same moment.
#[test]
fn two_that_write_at_once_have_one_winner() {
    let login = Login::fresh();
    let site = Site::new(rig::V0_169, &login).seeded(&login);
    let logins = ["0098", "0099"].map(|number| Login {
        refresh_token: format!("made-up.refresh.account-1.{number}"),
        ..successor(&login)
    });
    let runners = logins.each_ref().map(|next| about_to_persist(&site, next));
    site.vault.rules(|rules| rules.overlap_conflicts = false);
    let rescues = runners
        .each_ref()
        .map(|runner| runner.work().join("rescues"));
    let jobs: Vec<_> = runners
        .iter()
        .zip(&rescues)
        .map(|(runner, rescues)| {
            let mut persist = site.in_job(runner, GitHub, &["--rescue-dir"]);
            start(persist.arg(rescues).arg("persist"))
        })
        .collect();
    let codes = jobs
        .into_iter()
        .map(|mut job| job.wait().expect("our child").code());
    let codes: Vec<_> = codes.map(Option::unwrap_or_default).collect();
    let current = site.restored();
    assert_eq!(site.newest().as_bytes(), current, "in any case in the end");
    for ((next, code), rescues) in logins.iter().zip(&codes).zip(&rescues) {
        let next = next.auth_json();
        let is_current = next.as_bytes() == current;
        assert_eq!(*code, if is_current { 0 } else { 122 }, "{codes:?}");
        if !is_current {
            let [kept] = logins_kept(rescues).try_into().expect("one rescued login");
            assert_eq!(
                fs::read_to_string(rescues.join(kept)).expect("a file"),
                next
            );
        }
    }
    assert!(codes.contains(&0), "{codes:?}");
}

#[test]
fn a_newest_version_that_is_disabled_costs_no_login() {
    let login = Login::fresh();
    let next = successor(&login);
    let site = Site::new(rig::V0_169, &login).seeded(&login);
    let runner = about_to_persist(&site, &next);
    let disable = json!({"op": "update", "name": NAME, "enabled": false});
    site.by_hand().ask(&disable).expect("a change");
    assert_code(&finish(&mut site.in_job(&runner, GitHub, &["persist"])), 0);
    // The coordinator knows which version it is, and it is followed like any other.
    assert_eq!(site.restored(), next.auth_json().as_bytes());
}

#[test]
fn a_deleted_secret_costs_no_login() {
    let login = Login::fresh();
    let next = successor(&login);
    let site = Site::new(rig::V0_169, &login).seeded(&login);
    let runner = about_to_persist(&site, &next);
    let mut by_hand = site.by_hand();
    by_hand
        .ask(&json!({"op": "delete", "name": NAME}))
        .expect("deleted");
    let rescues = runner.work().join("rescues");
    let mut persist = site.in_job(&runner, GitHub, &["-v", "--rescue-dir"]);
    persist.arg(&rescues).args(["persist", "--patience", "3s"]);
    assert_code(&finish(&mut persist), 120);
    let [kept] = logins_kept(&rescues).try_into().expect("one rescued login");
    assert_eq!(
        fs::read_to_string(rescues.join(kept)).expect("a file"),
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
