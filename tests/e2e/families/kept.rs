//! What was kept is known to every command, and tried before anybody is asked for a fresh login.

use tempfile::TempDir;

use super::*;

/// A later step has nothing but the file and the second store.
#[test]
fn c_a_cache_that_brings_back_what_is_in_the_second_store_buries_no_reseed() {
    let first = Login::fresh();
    let ferry = Ferry::holding(rig::V0_171, &first);
    let volume = TempDir::with_prefix("second-").expect("a temporary folder");
    let second = format!("file://{}/rescued.json", volume.path().display());
    let with_second = |runner: &Runner, act: &[&str]| {
        let mut command = ferry.authferry(runner, act);
        command.env("AUTHFERRY_RESCUE_STORE", &second);
        finish(&mut command)
    };
    let going = ferry.runner();
    assert_code(&with_second(&going, BEGINS[0]), 0);
    let reseed = first.afresh(100, first.issued + Duration::minutes(10));
    assert_code(&ferry.put(&reseed, &["--replace"]), 0);
    let rotated = generation(&first, 2, Duration::minutes(30));
    going.place(&rotated.auth_json()).expect("room");
    assert_code(&with_second(&going, &["persist"]), 122);
    drop(going);

    let runner = ferry.runner();
    assert_code(&with_second(&runner, BEGINS[0]), 0);
    runner.place(&rotated.auth_json()).expect("room");
    assert_code(&with_second(&runner, &["persist"]), 120);
    assert_stored(&ferry, &reseed);
}

/// The persist takes an unclear older file for a rotation; the login that it replaced is live.
#[test]
fn a_what_a_persist_replaced_is_tried_when_the_provider_refuses_what_it_took() {
    let spent = Login::stale();
    let ferry = Ferry::holding(rig::V0_171, &spent);
    let refresh = || finish(&mut ferry.authferry(&ferry.runner(), &["refresh"]));
    assert_code(&refresh(), 0);
    let live = ferry.stored();
    let runner = job_lost_after_restore(&ferry);
    runner.place(&opaque(&spent)).expect("room");
    assert_code(&finish(&mut ferry.authferry(&runner, &["persist"])), 0);
    assert!(!ferry.is_live(), "the unclear one is in the store");

    let refresh = finish(&mut ferry.authferry(&runner, &["refresh"]));

    assert_code(&refresh, 0);
    assert_eq!(ferry.stored(), live, "{refresh:?}");
}

/// The clock of the machine where a person logged in was ahead.
#[test]
fn a_rotation_of_ours_is_no_older_file_whatever_the_clocks_say() {
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

/// Of two machines with the same login only one was heard of; the other one's chain goes further.
#[test]
fn a_the_last_of_a_chain_is_adopted_although_the_store_counts_more_than_its_receipt() {
    let first = Login::fresh();
    let ferry = Ferry::holding(rig::V0_171, &first);
    let stays = job_lost_after_restore(&ferry);
    let next = generation(&first, 2, Duration::minutes(10));
    let last = generation(&first, 3, Duration::minutes(20));
    stays.place(&last.auth_json()).expect("room");
    // A cache carries what the job wrote in the middle to another machine.
    let other = job_lost_after_restore(&ferry);
    other.place(&next.auth_json()).expect("room");
    assert_code(&finish(&mut ferry.authferry(&other, &["persist"])), 0);
    assert_stored(&ferry, &next);
    assert_code(&finish(&mut ferry.authferry(&stays, BEGINS[1])), 0);
    assert_stored(&ferry, &last);
    assert_kept(&stays, &next.auth_json());
}

/// Codex was killed between its write and its rename, with its job.
#[test]
fn i_what_codex_did_not_rename_in_the_home_of_a_job_is_the_next_login() {
    let first = Login::fresh();
    let next = generation(&first, 2, Duration::minutes(10));
    let persist: &[&str] = &["persist"];
    for act in BEGINS.into_iter().chain([persist]) {
        for in_place in [true, false] {
            let ferry = Ferry::holding(rig::V0_171, &first);
            let runner = job_lost_after_restore(&ferry);
            fs::write(runner.codex_home().join(".auth-made-up"), next.auth_json()).expect("room");
            if !in_place {
                fs::remove_file(runner.auth_file()).expect("placed");
            }
            assert_code(&finish(&mut ferry.authferry(&runner, act)), 0);
            assert_stored(&ferry, &next);
        }
    }
}
