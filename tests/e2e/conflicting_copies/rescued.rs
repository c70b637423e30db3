//! Every command considers rescued copies, and tries them before it asks for a new login.

use tempfile::TempDir;

use super::*;

/// A later job has only the auth file and the second store.
#[test]
fn a_login_of_the_second_store_restored_from_a_cache_does_not_overwrite_a_reseed() {
    let first = Login::fresh();
    let ferry = Ferry::holding(rig::V0_171, &first);
    let volume = TempDir::with_prefix("second-").expect("a temporary folder");
    let second = format!("file://{}/rescued.json", volume.path().display());
    let with_second = |runner: &Runner, act: &[&str]| {
        let mut command = ferry.authferry(runner, act);
        command.env("AUTHFERRY_RESCUE_STORE", &second);
        finish(&mut command)
    };
    let ephemeral = ferry.runner();
    assert_code(&with_second(&ephemeral, START_COMMANDS[0]), 0);
    let reseed = first.logged_in_again(100, first.issued + Duration::minutes(10));
    assert_code(&ferry.put(&reseed, &["--replace"]), 0);
    let rotated = generation(&first, 2, Duration::minutes(30));
    ephemeral.place(&rotated.auth_json()).expect("disk space");
    assert_code(&with_second(&ephemeral, &["persist"]), 122);
    drop(ephemeral);

    let runner = ferry.runner();
    assert_code(&with_second(&runner, START_COMMANDS[0]), 0);
    runner.place(&rotated.auth_json()).expect("disk space");
    assert_code(&with_second(&runner, &["persist"]), 120);
    assert_stored(&ferry, &reseed);
}

/// `persist` takes an older file of unknown order for a rotation; the overwritten login is live.
#[test]
fn the_login_overwritten_by_persist_is_tried_when_the_provider_rejects_the_new_one() {
    let spent = Login::stale();
    let ferry = Ferry::holding(rig::V0_171, &spent);
    let refresh = || finish(&mut ferry.authferry(&ferry.runner(), &["refresh"]));
    assert_code(&refresh(), 0);
    let live = ferry.stored();
    let runner = runner_after_lost_job(&ferry);
    runner
        .place(&with_opaque_token(&spent))
        .expect("disk space");
    assert_code(&finish(&mut ferry.authferry(&runner, &["persist"])), 0);
    assert!(!ferry.is_live(), "the store has the login of unknown order");

    let refresh = finish(&mut ferry.authferry(&runner, &["refresh"]));

    assert_code(&refresh, 0);
    assert_eq!(ferry.stored(), live, "{refresh:?}");
}

/// The clock of the machine where a person logged in was fast.
#[test]
fn a_rotation_counts_as_newer_although_a_clock_was_ahead() {
    let mut ahead = Login::stale();
    ahead.issued += Duration::days(400);
    ahead.ends = ahead.issued + Duration::minutes(1);
    let ferry = Ferry::holding(rig::V0_171, &Login::stale());
    ferry.stub.sign_in(&ahead);
    assert_code(&ferry.put(&ahead, &["--replace"]), 0);
    let runner = ferry.runner();
    let refresh = finish(&mut ferry.authferry(&runner, &["refresh", "--within", "9999d"]));
    assert_code(&refresh, 0);
    assert!(ferry.is_live(), "{refresh:?}");
}

/// Two machines rotated one login: the first persisted an early generation, the second has a later one.
#[test]
fn the_latest_generation_is_adopted_although_the_store_is_ahead_of_its_receipt() {
    let first = Login::fresh();
    let ferry = Ferry::holding(rig::V0_171, &first);
    let persistent = runner_after_lost_job(&ferry);
    let next = generation(&first, 2, Duration::minutes(10));
    let last = generation(&first, 3, Duration::minutes(20));
    persistent.place(&last.auth_json()).expect("disk space");
    // A CI cache carries the earlier generation to another machine.
    let other = runner_after_lost_job(&ferry);
    other.place(&next.auth_json()).expect("disk space");
    assert_code(&finish(&mut ferry.authferry(&other, &["persist"])), 0);
    assert_stored(&ferry, &next);
    assert_code(
        &finish(&mut ferry.authferry(&persistent, START_COMMANDS[1])),
        0,
    );
    assert_stored(&ferry, &last);
    assert_kept(&persistent, &next.auth_json());
}

/// Codex was killed with its job, between its write and its rename.
#[test]
fn a_login_that_codex_wrote_but_did_not_rename_is_adopted() {
    let first = Login::fresh();
    let next = generation(&first, 2, Duration::minutes(10));
    let persist: &[&str] = &["persist"];
    for act in START_COMMANDS.into_iter().chain([persist]) {
        for in_place in [true, false] {
            let ferry = Ferry::holding(rig::V0_171, &first);
            let runner = runner_after_lost_job(&ferry);
            fs::write(runner.codex_home().join(".auth-made-up"), next.auth_json())
                .expect("disk space");
            if !in_place {
                fs::remove_file(runner.auth_file()).expect("placed");
            }
            assert_code(&finish(&mut ferry.authferry(&runner, act)), 0);
            assert_stored(&ferry, &next);
        }
    }
}
