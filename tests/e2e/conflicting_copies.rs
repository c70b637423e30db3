//! Which copy of a login wins: cases in which a login could be lost, overwritten or confused with
//! another one.
//!
//! Tests that need no Codex use a shell command that copies the next generation over the auth file.

mod listings;
mod rescued;
mod reseeds;

use std::{
    fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::{Child, Output},
    time::Duration as StdDuration,
};

use rig::{Endpoint, Login, Person, Runner, Session, V0_169, What, finish};
use rustix::process::{Pid, Signal, kill_process};
use time::Duration;

use crate::any_store::{AnyStore, in_each_store, on_each_version};
use crate::ferry::{Ferry, assert_code, names, script, start, wait_until};

in_each_store![one:
    an_older_file_in_the_home_overwrites_nothing,
    a_file_of_unknown_order_and_the_stored_login_are_both_kept,
    a_reseed_survives_a_concurrent_rotation,
    a_dead_login_in_a_home_is_not_persisted_again,
    a_rotated_reseed_survives_a_late_write_of_the_old_family,
    another_persons_login_in_the_home_is_refused,
    a_rescued_login_is_adopted_before_any_refresh,
    a_new_login_in_the_home_is_refused_with_both_remedies,
];

on_each_version![V0_145 V0_166 V0_171:
    a_reseed_survives_a_concurrent_rotation_by_codex,
    a_rotated_reseed_survives_a_late_rotation_by_codex,
    a_rotation_by_codex_is_adopted_from_the_rescue_folder,
    a_login_left_by_a_killed_rotation_is_adopted_and_removed,
];

/// The commands that start a job in a home.
const START_COMMANDS: [&[&str]; 2] = [
    &["restore", "--no-watch", "--no-rotate-first"],
    &["run", "--no-rotate-first", "--", "true"],
];

const MINUTE: StdDuration = StdDuration::from_mins(1);

fn an_older_file_in_the_home_overwrites_nothing<S: AnyStore>(version: &str) {
    let stored = Login::fresh();
    let scene = S::holding(version, &stored);
    for age in [Duration::days(9), Duration::seconds(200)] {
        let older = generation(&stored, 4, -age);
        for command in START_COMMANDS {
            let runner = runner_after_lost_job(&scene);
            runner.place(&older.auth_json()).expect("disk space");
            assert_code(&finish(&mut scene.authferry(&runner, command)), 0);
            assert_stored(&scene, &stored);
            if command[0] == "restore" {
                assert_in_home(&runner, &stored);
            }
            assert_kept(&runner, &older.auth_json());
        }
        let runner = runner_after_lost_job(&scene);
        runner.place(&older.auth_json()).expect("disk space");
        assert_code(&finish(&mut scene.authferry(&runner, &["persist"])), 120);
        assert_stored(&scene, &stored);
        assert_kept(&runner, &older.auth_json());
    }
}

/// An opaque access token has no issue time, and a runner's clock alone does not decide the order.
fn a_file_of_unknown_order_and_the_stored_login_are_both_kept<S: AnyStore>(version: &str) {
    let stored = Login::fresh();
    let undated = with_opaque_token(&generation(&stored, 4, Duration::days(-2)));
    let persist: &[&str] = &["persist"];
    for act in START_COMMANDS.into_iter().chain([persist]) {
        let scene = S::holding(version, &stored);
        let runner = runner_after_lost_job(&scene);
        runner.place(&undated).expect("disk space");
        let done = finish(&mut scene.authferry(&runner, act));
        if act == persist && done.status.code() == Some(120) {
            assert_stored(&scene, &stored);
            assert_kept(&runner, &undated);
            continue;
        }
        assert_code(&done, 0);
        assert_eq!(text(&scene.stored()), undated);
        // A login that a starting job overwrites gets a record, so that it is tried later. A version
        // in the store's history is not.
        if act != persist || !scene.has_history() {
            assert_kept(&runner, &stored.auth_json());
        }
    }
}

/// The server's history keeps the login that `persist` overwrites; without history, the rescue folder
/// does. The job reads from the server which applies, with the rights of `deploy`.
#[cfg(feature = "vault")]
#[test]
fn persist_keeps_the_overwritten_login_even_if_vault_keeps_one_version() {
    use crate::vault::site::{PATH, Site};

    for (max_versions, in_folder) in [(1, true), (2, false)] {
        let stored = Login::fresh();
        let scene = Site::holding(rig::V0_171, &stored);
        let metadata = format!("{}/metadata/{PATH}", scene.mount);
        let setting = serde_json::json!({ "max_versions": max_versions });
        scene.admin().write(&metadata, &setting);
        let held = scene.versions();
        let runner = runner_after_lost_job(&scene);
        let undated = with_opaque_token(&generation(&stored, 4, Duration::days(-2)));
        runner.place(&undated).expect("disk space");

        assert_code(
            &finish(&mut AnyStore::authferry(&scene, &runner, &["persist"])),
            0,
        );

        assert_eq!(text(&scene.stored()), undated);
        let by_the_server = scene.version(held);
        assert_eq!(by_the_server.is_none(), in_folder, "{max_versions}");
        if in_folder {
            assert_kept(&runner, &stored.auth_json());
        } else {
            assert_eq!(kept_names(&runner), [""; 0]);
            assert_eq!(by_the_server.as_deref(), Some(&*stored.auth_json()));
        }
    }
}

/// The refresh token of the file of unknown order is spent: the overwritten login is the live one.
#[test]
fn the_overwritten_login_is_tried_when_the_provider_rejects_the_new_one() {
    assert_overwritten_login_is_tried::<Ferry>(rig::V0_171);
}

/// authferry does not search a store's history, so the rescue folder must hold the overwritten login.
#[cfg(feature = "vault")]
#[test]
fn the_overwritten_login_is_tried_in_a_store_with_history() {
    assert_overwritten_login_is_tried::<crate::vault::site::Site>(rig::V0_171);
}

fn assert_overwritten_login_is_tried<S: AnyStore>(version: &str) {
    let spent = Login::stale();
    let scene = S::holding(version, &spent);
    assert_code(
        &finish(&mut scene.authferry(&scene.runner(), &["refresh"])),
        0,
    );
    assert!(scene.is_live());
    let live = scene.stored();
    let runner = runner_after_lost_job(&scene);
    runner
        .place(&with_opaque_token(&spent))
        .expect("disk space");
    let restore =
        finish(&mut scene.authferry(&runner, &["restore", "--no-watch", "--no-rotate-first"]));
    assert_code(&restore, 0);
    assert!(
        !scene.is_live(),
        "the login of unknown order is tried first"
    );

    let refresh = finish(&mut scene.authferry(&runner, &["refresh"]));

    assert_code(&refresh, 0);
    assert_eq!(scene.stored(), live, "{refresh:?}");
    assert!(scene.is_live());
}

#[test]
fn an_older_file_written_by_the_command_is_not_persisted() {
    let stored = Login::fresh();
    let ferry = Ferry::holding(V0_169, &stored);
    for age in [100, 299] {
        let older = generation(&stored, 4, Duration::seconds(-age));
        let runner = ferry.runner();
        let run = finish(&mut run_that_writes(&ferry, &runner, &older));
        assert_code(&run, 120);
        assert_stored(&ferry, &stored);
        assert_kept(&runner, &older.auth_json());
    }
}

fn a_reseed_survives_a_concurrent_rotation<S: AnyStore>(version: &str) {
    let first = Login::fresh();
    let scene = S::holding(version, &first);
    let runner = scene.runner();
    runner.place(&first.auth_json()).expect("disk space");
    let next = generation(&first, 6, Duration::minutes(30));
    let reseed = first.logged_in_again(100, first.issued + Duration::minutes(10));
    let job = Job::with_write(&scene, &runner, &next);
    assert_code(&scene.put(&reseed, &["--replace"]), 0);
    assert_eq!(job.resume(), Some(122));

    let run = finish(&mut scene.authferry(&runner, START_COMMANDS[1]));

    assert_code(&run, 0);
    assert_stored(&scene, &reseed);
    assert_in_home(&runner, &reseed);
    assert_kept(&runner, &next.auth_json());
}

fn a_dead_login_in_a_home_is_not_persisted_again<S: AnyStore>(version: &str) {
    let dead = Login::fresh();
    let good = dead.logged_in_again(2, dead.issued - Duration::hours(5));
    let scene = S::holding(version, &dead);
    let homes = [runner_after_lost_job(&scene), scene.runner()];
    // The first home has a receipt, the second one is persistent.
    homes[1].place(&dead.auth_json()).expect("disk space");
    assert_code(
        &finish(&mut scene.authferry(&homes[1], START_COMMANDS[1])),
        0,
    );
    assert_code(&scene.put(&good, &["--replace", "--allow-older"]), 0);
    for (home, command) in homes.iter().zip(START_COMMANDS) {
        assert_code(&finish(&mut scene.authferry(home, command)), 0);
        assert_stored(&scene, &good);
        assert_in_home(home, &good);
    }
}

/// A CI cache restores a login that was set aside, or one that was placed before a reseed.
#[test]
fn a_login_restored_from_a_cache_does_not_overwrite_a_reseed() {
    let first = Login::fresh();
    let next = generation(&first, 6, Duration::minutes(30));
    let reseed = first.logged_in_again(2, first.issued - Duration::hours(5));
    let persist: &[&str] = &["persist"];
    for (rotated, brought_back) in [(true, &next), (false, &first)] {
        for act in START_COMMANDS.into_iter().chain([persist, &["writing"]]) {
            let ferry = Ferry::holding(V0_169, &first);
            let runner = runner_after_lost_job(&ferry);
            if rotated {
                runner.place(&next.auth_json()).expect("disk space");
            }
            assert_code(&ferry.put(&reseed, &["--replace", "--allow-older"]), 0);
            assert_code(&finish(&mut ferry.authferry(&runner, START_COMMANDS[0])), 0);
            assert_in_home(&runner, &reseed);
            assert_eq!(kept_names(&runner).len(), usize::from(rotated));

            let (done, code) = if act[0] == "writing" {
                (
                    finish(&mut run_that_writes(&ferry, &runner, brought_back)),
                    120,
                )
            } else {
                runner.place(&brought_back.auth_json()).expect("disk space");
                let code = if act == persist { 120 } else { 0 };
                (finish(&mut ferry.authferry(&runner, act)), code)
            };

            assert_code(&done, code);
            assert_stored(&ferry, &reseed);
            assert_kept(&runner, &brought_back.auth_json());
            // The rescued copy is not adopted later, in this home or in another one.
            let mut other = ferry.authferry(&runner, START_COMMANDS[1]);
            for run in [
                &mut ferry.authferry(&runner, START_COMMANDS[1]),
                other.env("CODEX_HOME", new_home(&runner)),
            ] {
                assert_code(&finish(run), 0);
                assert_stored(&ferry, &reseed);
            }
        }
    }
}

fn a_rotated_reseed_survives_a_late_write_of_the_old_family<S: AnyStore>(version: &str) {
    let first = Login::fresh();
    let scene = S::holding(version, &first);
    let runner = scene.runner();
    let last = generation(&first, 6, Duration::minutes(40));
    let job = Job::with_write(&scene, &runner, &last);
    let reseed = first.logged_in_again(100, first.issued + Duration::minutes(10));
    assert_code(&scene.put(&reseed, &["--replace"]), 0);
    let rotated = generation(&reseed, 101, Duration::minutes(10));
    assert_code(
        &finish(&mut run_that_writes(&scene, &scene.runner(), &rotated)),
        0,
    );

    assert_eq!(job.resume(), Some(122));

    assert_stored(&scene, &rotated);
    assert_kept(&runner, &last.auth_json());
}

fn another_persons_login_in_the_home_is_refused<S: AnyStore>(version: &str) {
    let ours = Login::fresh();
    let scene = S::holding(version, &ours);
    let other = Some("user-b".to_owned());
    for person in [
        Person {
            chatgpt_user_id: other.clone(),
            ..ours.person.clone()
        },
        Person {
            sub: other,
            ..ours.person.clone()
        },
    ] {
        let theirs = Login {
            person,
            ..generation(&ours, 7, Duration::minutes(30))
        };
        // Without a receipt, and in a persistent home.
        for command in START_COMMANDS {
            for stays in [false, true] {
                let runner = if stays {
                    runner_after_lost_job(&scene)
                } else {
                    scene.runner()
                };
                runner.place(&theirs.auth_json()).expect("disk space");
                assert_code(&finish(&mut scene.authferry(&runner, command)), 124);
                assert_stored(&scene, &ours);
                assert_in_home(&runner, &theirs);
            }
        }
        let runner = scene.runner();
        assert_code(&finish(&mut run_that_writes(&scene, &runner, &theirs)), 120);
        assert_stored(&scene, &ours);
        assert_kept(&runner, &theirs.auth_json());
    }
}

fn a_rescued_login_is_adopted_before_any_refresh<S: AnyStore>(version: &str) {
    let first = Login::stale();
    let next = generation(&first, 6, Duration::days(9));
    let run: &[&str] = &["run", "--", "true"];
    for act in [run, &["restore", "--no-watch"], &["refresh"]] {
        let scene = S::holding(version, &first);
        let runner = runner_with_rescue(&scene, &next);
        let done = finish(
            scene
                .authferry(&runner, act)
                .env("CODEX_HOME", new_home(&runner)),
        );
        assert_code(&done, 0);
        assert_stored(&scene, &next);
        assert_eq!(scene.stub().count(What::is_refresh), 0, "{done:?}");
    }
}

#[test]
fn an_emptied_store_is_not_refilled_and_the_error_names_the_copy() {
    let first = Login::stale();
    let next = generation(&first, 6, Duration::days(9));
    let ferry = Ferry::holding(V0_169, &first);
    let runner = runner_with_rescue(&ferry, &next);
    fs::remove_file(ferry.store_file()).expect("seeded");
    let from_env = ["run", "--seed-from-env", "LOGIN", "--", "true"];
    let run: &[&str] = &["run", "--", "true"];
    for act in [run, &["restore", "--no-watch"], &["refresh"], &from_env] {
        let mut command = ferry.authferry(&runner, act);
        command
            .env("CODEX_HOME", new_home(&runner))
            .env("LOGIN", first.auth_json());
        let done = finish(&mut command);
        assert_code(&done, 125);
        let message = text(&done.stderr);
        let file = rescue_folder(&runner).join(kept_names(&runner)[0].as_str());
        assert!(
            message.contains("`authferry rescue put --store '"),
            "{message}"
        );
        assert!(
            message.contains(&format!("' {}`", file.display())),
            "{message}"
        );
        assert!(!ferry.store_file().exists(), "{message}");
    }
    assert_eq!(ferry.stub.count(What::is_refresh), 0);

    let put = finish(&mut ferry.authferry(&runner, &["rescue", "put"]));
    assert_code(&put, 0);
    assert_stored(&ferry, &next);
}

#[test]
fn a_rescue_for_one_store_is_not_reported_for_another() {
    let [first, second] = [1, 50].map(|serial| Login {
        session: Some(Session::numbered("account-1", serial)),
        ..generation(&Login::fresh(), serial, Duration::ZERO)
    });
    let next = generation(&first, 6, Duration::minutes(30));
    let one = Ferry::holding(V0_169, &first);
    let other = Ferry::holding(V0_169, &second);
    let runner = runner_with_rescue(&one, &next);

    let check = |store: &Ferry| finish(&mut store.authferry(&runner, &["status", "--check"]));

    let status = check(&other);
    assert_code(&status, 0);
    let message = [text(&status.stdout), text(&status.stderr)].concat();
    assert!(
        !message.contains("rescue") && !message.contains("copy"),
        "{message}"
    );
    let mut run = other.authferry(&runner, START_COMMANDS[1]);
    let run = finish(run.env("CODEX_HOME", new_home(&runner)));
    assert_code(&run, 0);
    assert_stored(&other, &second);

    // The store of that login reports the rescue.
    let status = check(&one);
    assert_code(&status, 1);
    let message = [text(&status.stdout), text(&status.stderr)].concat();
    assert!(message.contains("rescue put"), "{message}");
}

#[test]
fn an_empty_auth_file_counts_as_missing() {
    let stored = Login::fresh();
    let ferry = Ferry::holding(V0_169, &stored);
    for command in START_COMMANDS {
        for has_receipt in [true, false] {
            let runner = ferry.runner();
            if has_receipt {
                runner.place(&stored.auth_json()).expect("disk space");
                assert_code(&finish(&mut ferry.authferry(&runner, START_COMMANDS[1])), 0);
            }
            runner.place("").expect("disk space");

            let done = finish(&mut ferry.authferry(&runner, command));

            assert_code(&done, 0);
            assert_stored(&ferry, &stored);
            if has_receipt || command[0] == "restore" {
                assert_in_home(&runner, &stored);
            }
            let message = text(&done.stderr);
            assert_eq!(message.contains("may be spent"), has_receipt, "{message}");
        }
    }
}

fn a_new_login_in_the_home_is_refused_with_both_remedies<S: AnyStore>(version: &str) {
    let stored = Login::fresh();
    let scene = S::holding(version, &stored);
    let runner = scene.runner();
    runner.place(&stored.auth_json()).expect("disk space");
    assert_code(&finish(&mut scene.authferry(&runner, START_COMMANDS[1])), 0);
    let own = stored.logged_in_again(9, stored.issued + Duration::minutes(30));
    runner.place(&own.auth_json()).expect("disk space");
    for command in START_COMMANDS {
        let refused = finish(&mut scene.authferry(&runner, command));
        assert_code(&refused, 124);
        let message = text(&refused.stderr);
        let file = runner.auth_file();
        assert!(message.contains("`authferry seed --store '"), "{message}");
        let replaces = format!("' --replace {}`", file.display());
        assert!(message.contains(&replaces), "{message}");
        let home = runner.codex_home();
        let restore = format!("--codex-home {} --replace`", home.display());
        assert!(message.contains(&restore), "{message}");
        assert_stored(&scene, &stored);
        assert_in_home(&runner, &own);
    }
    let replace = ["restore", "--no-watch", "--no-rotate-first", "--replace"];
    assert_code(&finish(&mut scene.authferry(&runner, &replace)), 0);
    assert_in_home(&runner, &stored);
    assert_kept(&runner, &own.auth_json());
    // The decision is final: the next job does not adopt the rejected login.
    for command in START_COMMANDS {
        assert_code(&finish(&mut scene.authferry(&runner, command)), 0);
        assert_stored(&scene, &stored);
        assert_in_home(&runner, &stored);
    }
}

/// A provider that changes the session claims at each refresh: authferry ignores them after its first
/// own rotation.
#[test]
fn changed_session_claims_do_not_block_a_rotation() {
    let ferry = Ferry::holding(V0_169, &Login::stale());
    ferry.stub.rules(|rules| rules.changes_session = true);
    let runner = ferry.runner();
    assert_code(&finish(&mut ferry.authferry(&runner, &["refresh"])), 0);
    let mut last = ferry.stub.live().expect("a live login");
    runner.place(&last.auth_json()).expect("disk space");
    for serial in 3..5 {
        last = another_session(&generation(&last, serial, Duration::minutes(5)));
        assert_code(&finish(&mut run_that_writes(&ferry, &runner, &last)), 0);
        assert_stored(&ferry, &last);
    }
    // A rotation outside of authferry, between two jobs.
    let manual = another_session(&generation(&last, 5, Duration::minutes(5)));
    runner.place(&manual.auth_json()).expect("disk space");
    assert_code(&finish(&mut ferry.authferry(&runner, START_COMMANDS[1])), 0);
    assert_stored(&ferry, &manual);
}

#[test]
fn a_reseed_succeeds_while_jobs_write() {
    let first = Login::fresh();
    let ferry = Ferry::holding(V0_169, &first);
    let runner = ferry.runner();
    for round in 0..10_u32 {
        let reseed = first.logged_in_again(
            1000 + round,
            first.issued + Duration::seconds(i64::from(round)),
        );
        let stored: Login = if round == 0 {
            first.clone()
        } else {
            first.logged_in_again(
                999 + round,
                first.issued + Duration::seconds(i64::from(round) - 1),
            )
        };
        for number in 0..40_u32 {
            let age = Duration::minutes(1) + Duration::seconds(i64::from(number));
            let next = generation(&stored, 100 * round + number + 1, age);
            fs::write(runner.work().join(number.to_string()), next.auth_json())
                .expect("disk space");
        }
        let job = script(
            &runner,
            "umask 077; touch ready; for it in $(seq 0 39); do cp $it $CODEX_HOME/new; \
             mv $CODEX_HOME/new $CODEX_HOME/auth.json; sleep 0.01; done",
        );
        fs::remove_file(runner.work().join("ready")).ok();
        let home = new_home(&runner).join(round.to_string());
        make_private(&home);
        let mut run = ferry.authferry(&runner, &["run", "--no-rotate-first", "--"]);
        let mut run = start(run.arg(job).env("CODEX_HOME", &home));
        wait_until("ready", || runner.work().join("ready").exists());
        let before = ferry.stored();
        wait_until("the job writes", || ferry.stored() != before);
        let seeded = ferry.put(&reseed, &["--replace", "--allow-older"]);
        assert_code(&seeded, 0);
        let code = run.wait().expect("our child").code();
        assert!(matches!(code, Some(0 | 122)), "{code:?}");
        assert_stored(&ferry, &reseed);
    }
}

/// A provider that accepts spent tokens: within a family the later generation wins, and rotations do
/// not change the family.
#[test]
fn a_later_generation_is_persisted_after_a_rotation_elsewhere() {
    let ferry = Ferry::holding(rig::V0_171, &Login::stale());
    ferry
        .stub
        .rules(|rules| rules.access_lifetime = Duration::HOUR);
    let refresh = || finish(&mut ferry.authferry(&ferry.runner(), &["refresh"]));
    assert_code(&refresh(), 0);
    let second = ferry.stub.live().expect("a live login");
    let runner = ferry.runner();
    let last = generation(&second, 6, Duration::minutes(30));
    let job = Job::with_write(&ferry, &runner, &last);
    assert_code(&refresh(), 0);
    assert_eq!(ferry.stub.count(What::is_rotation), 2);
    let rotated = ferry.stored();

    assert_eq!(job.resume(), Some(0));

    assert_stored(&ferry, &last);
    assert_kept(&runner, &text(&rotated));
}

fn a_reseed_survives_a_concurrent_rotation_by_codex(version: &str) {
    let first = Login::stale();
    let ferry = Ferry::holding(version, &first);
    let runner = ferry.runner();
    runner.place(&first.auth_json()).expect("disk space");
    let job = Job::with_codex(&ferry, &runner);
    let fresh = Login::fresh();
    let reseed = first.logged_in_again(100, fresh.issued);
    ferry.stub.sign_in(&reseed);
    assert_code(&ferry.put(&reseed, &["--replace"]), 0);
    assert_eq!(job.resume(), Some(122));
    assert_eq!(ferry.stub.count(What::is_rotation), 1);

    let run = finish(&mut ferry.run(&runner));

    assert_code(&run, 0);
    assert_stored(&ferry, &reseed);
    assert!(ferry.is_live());
    assert_eq!(ferry.stub.count(What::is_refresh), 1);
}

fn a_rotated_reseed_survives_a_late_rotation_by_codex(version: &str) {
    let first = Login::stale();
    let ferry = Ferry::holding(version, &first);
    let runner = ferry.runner();
    let job = Job::with_codex(&ferry, &runner);
    let reseed = first.logged_in_again(100, first.issued + Duration::minutes(1));
    ferry.stub.sign_in(&reseed);
    assert_code(&ferry.put(&reseed, &["--replace"]), 0);
    assert_code(
        &finish(&mut ferry.authferry(&ferry.runner(), &["refresh"])),
        0,
    );
    let rotated = ferry.stored();
    assert_ne!(text(&rotated), reseed.auth_json());

    assert_eq!(job.resume(), Some(122));

    assert_eq!(ferry.stub.count(What::is_rotation), 2);
    assert_eq!(ferry.stored(), rotated);
    assert!(ferry.is_live());
}

fn a_rotation_by_codex_is_adopted_from_the_rescue_folder(version: &str) {
    for act in ["run", "refresh"] {
        let ferry = Ferry::holding(version, &Login::stale());
        let runner = runner_after_lost_job(&ferry);
        assert_code(&finish(&mut runner.exec()), 0);
        assert_code(&persist_without_store(&ferry, &runner), 120);
        assert!(!ferry.is_live());
        let home = new_home(&runner);
        fs::copy(
            runner.codex_home().join("config.toml"),
            home.join("config.toml"),
        )
        .expect("disk space");
        let mut next = ferry.authferry(&runner, &[act]);
        if act == "run" {
            next.args(["--", "codex"]).args(rig::EXEC);
        }
        let done = finish(next.env("CODEX_HOME", home));
        assert_code(&done, 0);
        assert!(ferry.is_live(), "{done:?}");
        assert_eq!(ferry.stub.count(What::is_refresh), 1, "{done:?}");
    }
}

fn a_login_left_by_a_killed_rotation_is_adopted_and_removed(version: &str) {
    for act in ["run", "restore", "refresh"] {
        let ferry = Ferry::holding(version, &Login::stale());
        let runner = ferry.runner();
        let token = ferry.stub.hold(Endpoint::Token);
        let mut refresh = start(&mut ferry.authferry(&runner, &["refresh"]));
        ferry.stub.wait_for(MINUTE, What::is_rotation);
        // Stopped processes cannot write the login of Codex to the store.
        let ours = [refresh.id(), supervisor(&runner, refresh.id())];
        let ours = ours.map(|id| i32::try_from(id).ok().and_then(Pid::from_raw));
        for pid in ours {
            kill_process(pid.expect("a process"), Signal::STOP).expect("ours");
        }
        drop(token);
        wait_until("Codex has written", || {
            private_homes(&runner).iter().any(|home| {
                let written = fs::read(home.join("home/auth.json"));
                written.is_ok_and(|written| ferry.stub.is_live(&written))
            })
        });
        for pid in ours {
            kill_process(pid.expect("a process"), Signal::KILL).expect("ours");
        }
        refresh.wait().expect("our child");
        wait_until("its Codex has exited", || {
            runner.processes().is_ok_and(|it| it.is_empty())
        });
        assert!(!ferry.is_live());

        let mut next = ferry.authferry(&runner, &[act]);
        if act == "run" {
            next.args(["--", "codex"]).args(rig::EXEC);
        }
        let done = finish(&mut next);

        assert_code(&done, 0);
        assert!(ferry.is_live(), "{done:?}");
        assert_eq!(ferry.stub.count(What::is_refresh), 1, "{done:?}");
        assert_eq!(private_homes(&runner), [] as [PathBuf; 0]);
    }
}

/// The supervisor process of a rotation.
fn supervisor(runner: &Runner, rotates: u32) -> u32 {
    let program = |process: u32| fs::read_link(format!("/proc/{process}/exe")).ok();
    let mut processes = runner.processes().expect("Linux").into_iter();
    let found = processes.find(|it| *it != rotates && program(*it) == program(rotates));
    found.expect("a supervisor")
}

/// A later generation of a login, issued `later` after it.
fn generation(login: &Login, serial: u32, later: Duration) -> Login {
    let lifetime = login.ends - login.issued;
    Login {
        person: login.person.clone(),
        session: login.session.clone(),
        ..Login::new(&login.account, serial, login.issued + later, lifetime)
    }
}

fn another_session(login: &Login) -> Login {
    Login {
        session: Some(Session::numbered(&login.account, login.serial)),
        ..login.clone()
    }
}

/// The auth file of a login with an opaque access token.
fn with_opaque_token(login: &Login) -> String {
    let file = login.auth_json();
    file.replace(&login.access_token(), "made-up.opaque.access-token")
}

/// A runner whose job ended after its `restore`.
#[track_caller]
fn runner_after_lost_job<S: AnyStore>(scene: &S) -> Runner {
    let runner = scene.runner();
    let restore = finish(&mut scene.authferry(&runner, START_COMMANDS[0]));
    assert_code(&restore, 0);
    runner
}

/// A runner with the only copy of a login in its rescue folder.
#[track_caller]
fn runner_with_rescue<S: AnyStore>(scene: &S, next: &Login) -> Runner {
    let runner = runner_after_lost_job(scene);
    runner.place(&next.auth_json()).expect("disk space");
    assert_code(&persist_without_store(scene, &runner), 120);
    assert_kept(&runner, &next.auth_json());
    runner
}

/// `authferry persist` while the store is unreachable.
fn persist_without_store<S: AnyStore>(scene: &S, runner: &Runner) -> Output {
    let mut persist = scene.authferry(runner, &["persist", "--store-timeout", "1s"]);
    let _unreachable = scene.cut_off(&mut persist);
    finish(&mut persist)
}

/// `authferry run` with a command that writes this login to the auth file.
fn run_that_writes<S: AnyStore>(
    scene: &S,
    runner: &Runner,
    login: &Login,
) -> std::process::Command {
    fs::write(runner.work().join("next.json"), login.auth_json()).expect("disk space");
    let job = script(runner, "cp next.json $CODEX_HOME/auth.json");
    let mut run = scene.authferry(runner, &["run", "--no-rotate-first", "--"]);
    run.arg(job);
    run
}

/// A job that waits until the test resumes it.
struct Job {
    run: Child,
    enough: PathBuf,
}

impl Job {
    /// A job whose command then writes this login to the auth file.
    fn with_write<S: AnyStore>(scene: &S, runner: &Runner, login: &Login) -> Self {
        fs::write(runner.work().join("next.json"), login.auth_json()).expect("disk space");
        Self::start(scene, runner, "cp next.json $CODEX_HOME/auth.json")
    }

    /// A job whose command then runs Codex.
    fn with_codex<S: AnyStore>(scene: &S, runner: &Runner) -> Self {
        let exec = "exec codex exec --skip-git-repo-check --json 'Reply OK.'";
        Self::start(scene, runner, exec)
    }

    fn start<S: AnyStore>(scene: &S, runner: &Runner, then: &str) -> Self {
        let wait = "touch ready; until [ -e enough ]; do sleep 0.01; done";
        let job = script(runner, &format!("{wait}; {then}"));
        let mut run = scene.authferry(runner, &["run", "--no-rotate-first", "--"]);
        let run = start(run.arg(job));
        wait_until("ready", || runner.work().join("ready").exists());
        Self {
            run,
            enough: runner.work().join("enough"),
        }
    }

    /// Resumes the job, waits for its end, and returns its exit code.
    fn resume(mut self) -> Option<i32> {
        fs::write(&self.enough, "").expect("disk space");
        self.run.wait().expect("our child").code()
    }
}

/// Creates another `CODEX_HOME` on a runner.
fn new_home(runner: &Runner) -> PathBuf {
    let home = runner.root().join("home/other");
    make_private(&home);
    home
}

fn make_private(folder: &Path) {
    let mut private = fs::DirBuilder::new();
    private.recursive(true).mode(0o700);
    private.create(folder).expect("disk space");
}

fn state(runner: &Runner) -> PathBuf {
    runner.root().join("home/.local/state/authferry")
}

fn rescue_folder(runner: &Runner) -> PathBuf {
    state(runner).join("rescue")
}

/// The names of the logins in the rescue folder, without records.
fn kept_names(runner: &Runner) -> Vec<String> {
    let folder = rescue_folder(runner);
    let mut kept = if folder.exists() {
        names(&folder)
    } else {
        Vec::new()
    };
    kept.retain(|name| !name.ends_with(".record"));
    kept
}

/// The private homes of rotations on a runner.
fn private_homes(runner: &Runner) -> Vec<PathBuf> {
    let folder = state(runner).join("rotations");
    let homes = names(&folder).into_iter();
    homes.map(|name| folder.join(name)).collect()
}

#[track_caller]
fn assert_kept(runner: &Runner, auth_json: &str) {
    let folder = rescue_folder(runner);
    let kept = kept_names(runner);
    let is_kept = kept
        .iter()
        .any(|name| fs::read(folder.join(name)).is_ok_and(|it| it == auth_json.as_bytes()));
    assert!(is_kept, "not among {kept:?}");
}

#[track_caller]
fn assert_stored<S: AnyStore>(scene: &S, login: &Login) {
    assert_eq!(text(&scene.stored()), login.auth_json());
}

#[track_caller]
fn assert_in_home(runner: &Runner, login: &Login) {
    let found = fs::read(runner.auth_file()).expect("an auth file");
    assert_eq!(text(&found), login.auth_json());
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
