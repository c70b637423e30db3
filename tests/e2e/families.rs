//! Which copy counts: each row of the table of cases in which a login was lost, buried or taken
//! for another one. The letter of the row stands before the name of its test.
//!
//! Where no Codex has to run, a shell command copies the next generation over the auth file.

mod kept;
mod reseeds;
mod same_copies;

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
    a_an_older_file_in_the_home_replaces_nothing,
    a_of_an_unclear_file_and_the_stored_login_both_are_kept,
    c_a_reseed_stays_beside_the_job_that_rotated_meanwhile,
    d_a_dead_login_in_a_home_does_not_come_back,
    e_a_rotated_reseed_stays_whatever_a_job_of_the_other_family_writes_last,
    f_a_login_of_another_person_in_the_workspace_is_refused,
    g_a_rescued_login_is_adopted_before_anything_is_spent,
    n_a_fresh_login_of_a_person_is_refused_with_both_ways_out,
];

on_each_version![V0_145 V0_166 V0_171:
    c_codex_rotates_while_a_person_reseeds,
    e_codex_rotates_last_of_all,
    g_what_codex_wrote_is_adopted_from_the_rescue_folder,
    i_what_a_killed_rotation_left_is_adopted_and_swept,
];

/// The commands that begin a job in a home.
const BEGINS: [&[&str]; 2] = [
    &["restore", "--no-watch", "--no-rotate-first"],
    &["run", "--no-rotate-first", "--", "true"],
];

const MINUTE: StdDuration = StdDuration::from_mins(1);

fn a_an_older_file_in_the_home_replaces_nothing<S: AnyStore>(version: &str) {
    let stored = Login::fresh();
    let scene = S::holding(version, &stored);
    for age in [Duration::days(9), Duration::seconds(200)] {
        let older = generation(&stored, 4, -age);
        for begin in BEGINS {
            let runner = job_lost_after_restore(&scene);
            runner.place(&older.auth_json()).expect("room");
            assert_code(&finish(&mut scene.authferry(&runner, begin)), 0);
            assert_stored(&scene, &stored);
            if begin[0] == "restore" {
                assert_in_home(&runner, &stored);
            }
            assert_kept(&runner, &older.auth_json());
        }
        let runner = job_lost_after_restore(&scene);
        runner.place(&older.auth_json()).expect("room");
        assert_code(&finish(&mut scene.authferry(&runner, &["persist"])), 120);
        assert_stored(&scene, &stored);
        assert_kept(&runner, &older.auth_json());
    }
}

/// An opaque access token has no time of issue, and a runner's clock alone decides nothing.
fn a_of_an_unclear_file_and_the_stored_login_both_are_kept<S: AnyStore>(version: &str) {
    let stored = Login::fresh();
    let unclear = opaque(&generation(&stored, 4, Duration::days(-2)));
    let persist: &[&str] = &["persist"];
    for act in BEGINS.into_iter().chain([persist]) {
        let scene = S::holding(version, &stored);
        let runner = job_lost_after_restore(&scene);
        runner.place(&unclear).expect("room");
        let done = finish(&mut scene.authferry(&runner, act));
        if act == persist && done.status.code() == Some(120) {
            assert_stored(&scene, &stored);
            assert_kept(&runner, &unclear);
            continue;
        }
        assert_code(&done, 0);
        assert_eq!(text(&scene.stored()), unclear);
        // What a begin replaces has a record, so that it is tried again: a version in the
        // store's history is not.
        if act != persist || !scene.has_history() {
            assert_kept(&runner, &stored.auth_json());
        }
    }
}

/// What a persist replaces is kept where the server keeps versions, and else in the rescue folder.
/// The job learns from the server which it is, with the rights of `deploy`.
#[cfg(feature = "vault")]
#[test]
fn p_what_persist_replaces_is_kept_also_where_vault_keeps_one_version() {
    use crate::vault::site::{PATH, Site};

    for (max_versions, in_the_folder) in [(1, true), (2, false)] {
        let stored = Login::fresh();
        let scene = Site::holding(rig::V0_171, &stored);
        let metadata = format!("{}/metadata/{PATH}", scene.mount);
        let setting = serde_json::json!({ "max_versions": max_versions });
        scene.admin().write(&metadata, &setting);
        let held = scene.versions();
        let runner = job_lost_after_restore(&scene);
        let unclear = opaque(&generation(&stored, 4, Duration::days(-2)));
        runner.place(&unclear).expect("room");

        assert_code(
            &finish(&mut AnyStore::authferry(&scene, &runner, &["persist"])),
            0,
        );

        assert_eq!(text(&scene.stored()), unclear);
        let by_the_server = scene.version(held);
        assert_eq!(by_the_server.is_none(), in_the_folder, "{max_versions}");
        if in_the_folder {
            assert_kept(&runner, &stored.auth_json());
        } else {
            assert_eq!(kept_names(&runner), [""; 0]);
            assert_eq!(by_the_server.as_deref(), Some(&*stored.auth_json()));
        }
    }
}

/// The refresh token of an unclear file is spent: the login that it replaced is the live one.
#[test]
fn a_the_replaced_login_is_tried_when_the_provider_refuses_the_unclear_one() {
    the_replaced_login_is_tried_again::<Ferry>(rig::V0_171);
}

/// In a store with history nobody would look for a version that is not the head.
#[cfg(feature = "vault")]
#[test]
fn a_the_replaced_login_is_tried_again_where_the_store_has_history() {
    the_replaced_login_is_tried_again::<crate::vault::site::Site>(rig::V0_171);
}

fn the_replaced_login_is_tried_again<S: AnyStore>(version: &str) {
    let spent = Login::stale();
    let scene = S::holding(version, &spent);
    assert_code(
        &finish(&mut scene.authferry(&scene.runner(), &["refresh"])),
        0,
    );
    assert!(scene.is_live());
    let live = scene.stored();
    let runner = job_lost_after_restore(&scene);
    runner.place(&opaque(&spent)).expect("room");
    let restore =
        finish(&mut scene.authferry(&runner, &["restore", "--no-watch", "--no-rotate-first"]));
    assert_code(&restore, 0);
    assert!(!scene.is_live(), "the unclear one is tried first");

    let refresh = finish(&mut scene.authferry(&runner, &["refresh"]));

    assert_code(&refresh, 0);
    assert_eq!(scene.stored(), live, "{refresh:?}");
    assert!(scene.is_live());
}

#[test]
fn b_an_older_file_that_a_command_writes_is_not_persisted() {
    let stored = Login::fresh();
    let ferry = Ferry::holding(V0_169, &stored);
    for age in [100, 299] {
        let older = generation(&stored, 4, Duration::seconds(-age));
        let runner = ferry.runner();
        let run = finish(&mut writing(&ferry, &runner, &older));
        assert_code(&run, 120);
        assert_stored(&ferry, &stored);
        assert_kept(&runner, &older.auth_json());
    }
}

fn c_a_reseed_stays_beside_the_job_that_rotated_meanwhile<S: AnyStore>(version: &str) {
    let first = Login::fresh();
    let scene = S::holding(version, &first);
    let runner = scene.runner();
    runner.place(&first.auth_json()).expect("room");
    let next = generation(&first, 6, Duration::minutes(30));
    let reseed = first.afresh(100, first.issued + Duration::minutes(10));
    let job = Job::writing(&scene, &runner, &next);
    assert_code(&scene.put(&reseed, &["--replace"]), 0);
    assert_eq!(job.go_on(), Some(122));

    let run = finish(&mut scene.authferry(&runner, BEGINS[1]));

    assert_code(&run, 0);
    assert_stored(&scene, &reseed);
    assert_in_home(&runner, &reseed);
    assert_kept(&runner, &next.auth_json());
}

fn d_a_dead_login_in_a_home_does_not_come_back<S: AnyStore>(version: &str) {
    let dead = Login::fresh();
    let good = dead.afresh(2, dead.issued - Duration::hours(5));
    let scene = S::holding(version, &dead);
    let homes = [job_lost_after_restore(&scene), scene.runner()];
    // One home is a job's own, the other one stays.
    homes[1].place(&dead.auth_json()).expect("room");
    assert_code(&finish(&mut scene.authferry(&homes[1], BEGINS[1])), 0);
    assert_code(&scene.put(&good, &["--replace", "--allow-older"]), 0);
    for (home, begin) in homes.iter().zip(BEGINS) {
        assert_code(&finish(&mut scene.authferry(home, begin)), 0);
        assert_stored(&scene, &good);
        assert_in_home(home, &good);
    }
}

/// A cache brings back what was set aside, or what was placed before a person reseeded.
#[test]
fn d_a_login_that_a_cache_brings_back_buries_no_reseed() {
    let first = Login::fresh();
    let next = generation(&first, 6, Duration::minutes(30));
    let reseed = first.afresh(2, first.issued - Duration::hours(5));
    let persist: &[&str] = &["persist"];
    for (rotated, brought_back) in [(true, &next), (false, &first)] {
        for act in BEGINS.into_iter().chain([persist, &["writing"]]) {
            let ferry = Ferry::holding(V0_169, &first);
            let runner = job_lost_after_restore(&ferry);
            if rotated {
                runner.place(&next.auth_json()).expect("room");
            }
            assert_code(&ferry.put(&reseed, &["--replace", "--allow-older"]), 0);
            assert_code(&finish(&mut ferry.authferry(&runner, BEGINS[0])), 0);
            assert_in_home(&runner, &reseed);
            assert_eq!(kept_names(&runner).len(), usize::from(rotated));

            let (done, code) = if act[0] == "writing" {
                (finish(&mut writing(&ferry, &runner, brought_back)), 120)
            } else {
                runner.place(&brought_back.auth_json()).expect("room");
                let code = if act == persist { 120 } else { 0 };
                (finish(&mut ferry.authferry(&runner, act)), code)
            };

            assert_code(&done, code);
            assert_stored(&ferry, &reseed);
            assert_kept(&runner, &brought_back.auth_json());
            // Nor is what is kept of it used later, here or in another home.
            let mut other = ferry.authferry(&runner, BEGINS[1]);
            for run in [
                &mut ferry.authferry(&runner, BEGINS[1]),
                other.env("CODEX_HOME", new_home(&runner)),
            ] {
                assert_code(&finish(run), 0);
                assert_stored(&ferry, &reseed);
            }
        }
    }
}

fn e_a_rotated_reseed_stays_whatever_a_job_of_the_other_family_writes_last<S: AnyStore>(
    version: &str,
) {
    let first = Login::fresh();
    let scene = S::holding(version, &first);
    let runner = scene.runner();
    let last = generation(&first, 6, Duration::minutes(40));
    let job = Job::writing(&scene, &runner, &last);
    let reseed = first.afresh(100, first.issued + Duration::minutes(10));
    assert_code(&scene.put(&reseed, &["--replace"]), 0);
    let rotated = generation(&reseed, 101, Duration::minutes(10));
    assert_code(&finish(&mut writing(&scene, &scene.runner(), &rotated)), 0);

    assert_eq!(job.go_on(), Some(122));

    assert_stored(&scene, &rotated);
    assert_kept(&runner, &last.auth_json());
}

fn f_a_login_of_another_person_in_the_workspace_is_refused<S: AnyStore>(version: &str) {
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
        let hers = Login {
            person,
            ..generation(&ours, 7, Duration::minutes(30))
        };
        // Once without a receipt, once in a home that stays.
        for begin in BEGINS {
            for stays in [false, true] {
                let runner = if stays {
                    job_lost_after_restore(&scene)
                } else {
                    scene.runner()
                };
                runner.place(&hers.auth_json()).expect("room");
                assert_code(&finish(&mut scene.authferry(&runner, begin)), 124);
                assert_stored(&scene, &ours);
                assert_in_home(&runner, &hers);
            }
        }
        let runner = scene.runner();
        assert_code(&finish(&mut writing(&scene, &runner, &hers)), 120);
        assert_stored(&scene, &ours);
        assert_kept(&runner, &hers.auth_json());
    }
}

fn g_a_rescued_login_is_adopted_before_anything_is_spent<S: AnyStore>(version: &str) {
    let first = Login::stale();
    let next = generation(&first, 6, Duration::days(9));
    let run: &[&str] = &["run", "--", "true"];
    for act in [run, &["restore", "--no-watch"], &["refresh"]] {
        let scene = S::holding(version, &first);
        let runner = with_a_rescued_login(&scene, &next);
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
fn g_an_emptied_store_is_not_filled_by_itself_and_the_copy_is_named() {
    let first = Login::stale();
    let next = generation(&first, 6, Duration::days(9));
    let ferry = Ferry::holding(V0_169, &first);
    let runner = with_a_rescued_login(&ferry, &next);
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
        let said = text(&done.stderr);
        let file = rescue_folder(&runner).join(kept_names(&runner)[0].as_str());
        assert!(said.contains("`authferry rescue put --store '"), "{said}");
        assert!(said.contains(&format!("' {}`", file.display())), "{said}");
        assert!(!ferry.store_file().exists(), "{said}");
    }
    assert_eq!(ferry.stub.count(What::is_refresh), 0);

    let put = finish(&mut ferry.authferry(&runner, &["rescue", "put"]));
    assert_code(&put, 0);
    assert_stored(&ferry, &next);
}

#[test]
fn h_a_login_rescued_for_one_store_is_no_word_of_another() {
    let [first, second] = [1, 50].map(|serial| Login {
        session: Some(Session::numbered("account-1", serial)),
        ..generation(&Login::fresh(), serial, Duration::ZERO)
    });
    let next = generation(&first, 6, Duration::minutes(30));
    let one = Ferry::holding(V0_169, &first);
    let other = Ferry::holding(V0_169, &second);
    let runner = with_a_rescued_login(&one, &next);

    let check = |store: &Ferry| finish(&mut store.authferry(&runner, &["status", "--check"]));

    let status = check(&other);
    assert_code(&status, 0);
    let said = [text(&status.stdout), text(&status.stderr)].concat();
    assert!(!said.contains("rescue") && !said.contains("copy"), "{said}");
    let mut run = other.authferry(&runner, BEGINS[1]);
    let run = finish(run.env("CODEX_HOME", new_home(&runner)));
    assert_code(&run, 0);
    assert_stored(&other, &second);

    // The store whose login it is has a word of it.
    let status = check(&one);
    assert_code(&status, 1);
    let said = [text(&status.stdout), text(&status.stderr)].concat();
    assert!(said.contains("rescue put"), "{said}");
}

#[test]
fn l_an_empty_auth_file_is_as_good_as_none() {
    let stored = Login::fresh();
    let ferry = Ferry::holding(V0_169, &stored);
    for begin in BEGINS {
        for has_receipt in [true, false] {
            let runner = ferry.runner();
            if has_receipt {
                runner.place(&stored.auth_json()).expect("room");
                assert_code(&finish(&mut ferry.authferry(&runner, BEGINS[1])), 0);
            }
            runner.place("").expect("room");

            let done = finish(&mut ferry.authferry(&runner, begin));

            assert_code(&done, 0);
            assert_stored(&ferry, &stored);
            if has_receipt || begin[0] == "restore" {
                assert_in_home(&runner, &stored);
            }
            let said = text(&done.stderr);
            assert_eq!(said.contains("may be spent"), has_receipt, "{said}");
        }
    }
}

fn n_a_fresh_login_of_a_person_is_refused_with_both_ways_out<S: AnyStore>(version: &str) {
    let stored = Login::fresh();
    let scene = S::holding(version, &stored);
    let runner = scene.runner();
    runner.place(&stored.auth_json()).expect("room");
    assert_code(&finish(&mut scene.authferry(&runner, BEGINS[1])), 0);
    let own = stored.afresh(9, stored.issued + Duration::minutes(30));
    runner.place(&own.auth_json()).expect("room");
    for begin in BEGINS {
        let refused = finish(&mut scene.authferry(&runner, begin));
        assert_code(&refused, 124);
        let said = text(&refused.stderr);
        let file = runner.auth_file();
        assert!(said.contains("`authferry seed --store '"), "{said}");
        let replaces = format!("' --replace {}`", file.display());
        assert!(said.contains(&replaces), "{said}");
        let home = runner.codex_home();
        let restore = format!("--codex-home {} --replace`", home.display());
        assert!(said.contains(&restore), "{said}");
        assert_stored(&scene, &stored);
        assert_in_home(&runner, &own);
    }
    let replace = ["restore", "--no-watch", "--no-rotate-first", "--replace"];
    assert_code(&finish(&mut scene.authferry(&runner, &replace)), 0);
    assert_in_home(&runner, &stored);
    assert_kept(&runner, &own.auth_json());
    // Her word stays: the next job does not use what she rejected.
    for begin in BEGINS {
        assert_code(&finish(&mut scene.authferry(&runner, begin)), 0);
        assert_stored(&scene, &stored);
        assert_in_home(&runner, &stored);
    }
}

/// A provider whose refresh changes the session marks: they are worth nothing from the first
/// rotation of our own on.
#[test]
fn n_marks_that_a_rotation_changed_refuse_no_rotation() {
    let ferry = Ferry::holding(V0_169, &Login::stale());
    ferry.stub.rules(|rules| rules.changes_session = true);
    let runner = ferry.runner();
    assert_code(&finish(&mut ferry.authferry(&runner, &["refresh"])), 0);
    let mut last = ferry.stub.live().expect("a live login");
    runner.place(&last.auth_json()).expect("room");
    for serial in 3..5 {
        last = another_session(&generation(&last, serial, Duration::minutes(5)));
        assert_code(&finish(&mut writing(&ferry, &runner, &last)), 0);
        assert_stored(&ferry, &last);
    }
    // A rotation by hand, between two jobs.
    let by_hand = another_session(&generation(&last, 5, Duration::minutes(5)));
    runner.place(&by_hand.auth_json()).expect("room");
    assert_code(&finish(&mut ferry.authferry(&runner, BEGINS[1])), 0);
    assert_stored(&ferry, &by_hand);
}

#[test]
fn o_a_reseed_beside_busy_jobs_is_done() {
    let first = Login::fresh();
    let ferry = Ferry::holding(V0_169, &first);
    let runner = ferry.runner();
    for round in 0..10_u32 {
        let reseed = first.afresh(
            1000 + round,
            first.issued + Duration::seconds(i64::from(round)),
        );
        let stored: Login = if round == 0 {
            first.clone()
        } else {
            first.afresh(
                999 + round,
                first.issued + Duration::seconds(i64::from(round) - 1),
            )
        };
        for number in 0..40_u32 {
            let age = Duration::minutes(1) + Duration::seconds(i64::from(number));
            let next = generation(&stored, 100 * round + number + 1, age);
            fs::write(runner.work().join(number.to_string()), next.auth_json()).expect("room");
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

/// A provider that is lenient with spent tokens: the later one counts within a family, which
/// stays the same through every rotation.
#[test]
fn e_a_job_of_the_same_family_goes_on_after_a_rotation_elsewhere() {
    let ferry = Ferry::holding(rig::V0_171, &Login::stale());
    ferry
        .stub
        .rules(|rules| rules.access_lifetime = Duration::HOUR);
    let refresh = || finish(&mut ferry.authferry(&ferry.runner(), &["refresh"]));
    assert_code(&refresh(), 0);
    let second = ferry.stub.live().expect("a live login");
    let runner = ferry.runner();
    let last = generation(&second, 6, Duration::minutes(30));
    let job = Job::writing(&ferry, &runner, &last);
    assert_code(&refresh(), 0);
    assert_eq!(ferry.stub.count(What::is_rotation), 2);
    let rotated = ferry.stored();

    assert_eq!(job.go_on(), Some(0));

    assert_stored(&ferry, &last);
    assert_kept(&runner, &text(&rotated));
}

fn c_codex_rotates_while_a_person_reseeds(version: &str) {
    let first = Login::stale();
    let ferry = Ferry::holding(version, &first);
    let runner = ferry.runner();
    runner.place(&first.auth_json()).expect("room");
    let job = Job::of_codex(&ferry, &runner);
    let fresh = Login::fresh();
    let reseed = first.afresh(100, fresh.issued);
    ferry.stub.sign_in(&reseed);
    assert_code(&ferry.put(&reseed, &["--replace"]), 0);
    assert_eq!(job.go_on(), Some(122));
    assert_eq!(ferry.stub.count(What::is_rotation), 1);

    let run = finish(&mut ferry.run(&runner));

    assert_code(&run, 0);
    assert_stored(&ferry, &reseed);
    assert!(ferry.is_live());
    assert_eq!(ferry.stub.count(What::is_refresh), 1);
}

fn e_codex_rotates_last_of_all(version: &str) {
    let first = Login::stale();
    let ferry = Ferry::holding(version, &first);
    let runner = ferry.runner();
    let job = Job::of_codex(&ferry, &runner);
    let reseed = first.afresh(100, first.issued + Duration::minutes(1));
    ferry.stub.sign_in(&reseed);
    assert_code(&ferry.put(&reseed, &["--replace"]), 0);
    assert_code(
        &finish(&mut ferry.authferry(&ferry.runner(), &["refresh"])),
        0,
    );
    let rotated = ferry.stored();
    assert_ne!(text(&rotated), reseed.auth_json());

    assert_eq!(job.go_on(), Some(122));

    assert_eq!(ferry.stub.count(What::is_rotation), 2);
    assert_eq!(ferry.stored(), rotated);
    assert!(ferry.is_live());
}

fn g_what_codex_wrote_is_adopted_from_the_rescue_folder(version: &str) {
    for act in ["run", "refresh"] {
        let ferry = Ferry::holding(version, &Login::stale());
        let runner = job_lost_after_restore(&ferry);
        assert_code(&finish(&mut runner.exec()), 0);
        assert_code(&persist_in_vain(&ferry, &runner), 120);
        assert!(!ferry.is_live());
        let home = new_home(&runner);
        fs::copy(
            runner.codex_home().join("config.toml"),
            home.join("config.toml"),
        )
        .expect("room");
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

fn i_what_a_killed_rotation_left_is_adopted_and_swept(version: &str) {
    for act in ["run", "restore", "refresh"] {
        let ferry = Ferry::holding(version, &Login::stale());
        let runner = ferry.runner();
        let token = ferry.stub.hold(Endpoint::Token);
        let mut refresh = start(&mut ferry.authferry(&runner, &["refresh"]));
        ferry.stub.wait_for(MINUTE, What::is_rotation);
        // Stopped, they cannot put into the store what Codex writes now.
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
        wait_until("its Codex is gone", || {
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

/// The process that supervises the Codex of a rotation.
fn supervisor(runner: &Runner, rotates: u32) -> u32 {
    let program = |process: u32| fs::read_link(format!("/proc/{process}/exe")).ok();
    let mut processes = runner.processes().expect("Linux").into_iter();
    let found = processes.find(|it| *it != rotates && program(*it) == program(rotates));
    found.expect("a supervisor")
}

/// The same login after a rotation, issued so much later.
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

/// The auth file of a login whose access token tells nothing.
fn opaque(login: &Login) -> String {
    let file = login.auth_json();
    file.replace(&login.access_token(), "made-up.opaque.access-token")
}

/// A runner whose job came no further than its restore.
#[track_caller]
fn job_lost_after_restore<S: AnyStore>(scene: &S) -> Runner {
    let runner = scene.runner();
    let restore = finish(&mut scene.authferry(&runner, BEGINS[0]));
    assert_code(&restore, 0);
    runner
}

/// A runner in whose rescue folder the only copy of a login is.
#[track_caller]
fn with_a_rescued_login<S: AnyStore>(scene: &S, next: &Login) -> Runner {
    let runner = job_lost_after_restore(scene);
    runner.place(&next.auth_json()).expect("room");
    assert_code(&persist_in_vain(scene, &runner), 120);
    assert_kept(&runner, &next.auth_json());
    runner
}

/// `authferry persist` while the store is out of reach.
fn persist_in_vain<S: AnyStore>(scene: &S, runner: &Runner) -> Output {
    let mut persist = scene.authferry(runner, &["persist", "--patience", "1s"]);
    let _out_of_reach = scene.cut_off(&mut persist);
    finish(&mut persist)
}

/// `authferry run` with a command that writes this auth file.
fn writing<S: AnyStore>(scene: &S, runner: &Runner, login: &Login) -> std::process::Command {
    fs::write(runner.work().join("next.json"), login.auth_json()).expect("room");
    let job = script(runner, "cp next.json $CODEX_HOME/auth.json");
    let mut run = scene.authferry(runner, &["run", "--no-rotate-first", "--"]);
    run.arg(job);
    run
}

/// A job that waits in the middle.
struct Job {
    run: Child,
    enough: PathBuf,
}

impl Job {
    /// One whose command writes this auth file.
    fn writing<S: AnyStore>(scene: &S, runner: &Runner, login: &Login) -> Self {
        fs::write(runner.work().join("next.json"), login.auth_json()).expect("room");
        Self::start(scene, runner, "cp next.json $CODEX_HOME/auth.json")
    }

    /// One whose command is Codex.
    fn of_codex<S: AnyStore>(scene: &S, runner: &Runner) -> Self {
        let exec = "exec codex exec --skip-git-repo-check --json 'Reply OK.'";
        Self::start(scene, runner, exec)
    }

    fn start<S: AnyStore>(scene: &S, runner: &Runner, then: &str) -> Self {
        let waits = "touch ready; until [ -e enough ]; do sleep 0.01; done";
        let job = script(runner, &format!("{waits}; {then}"));
        let mut run = scene.authferry(runner, &["run", "--no-rotate-first", "--"]);
        let run = start(run.arg(job));
        wait_until("ready", || runner.work().join("ready").exists());
        Self {
            run,
            enough: runner.work().join("enough"),
        }
    }

    /// Lets it go on, and returns its exit code.
    fn go_on(mut self) -> Option<i32> {
        fs::write(&self.enough, "").expect("room");
        self.run.wait().expect("our child").code()
    }
}

/// Another home of Codex on a runner.
fn new_home(runner: &Runner) -> PathBuf {
    let home = runner.root().join("home/other");
    make_private(&home);
    home
}

fn make_private(folder: &Path) {
    let mut private = fs::DirBuilder::new();
    private.recursive(true).mode(0o700);
    private.create(folder).expect("room");
}

fn state(runner: &Runner) -> PathBuf {
    runner.root().join("home/.local/state/authferry")
}

fn rescue_folder(runner: &Runner) -> PathBuf {
    state(runner).join("rescue")
}

/// The logins in the rescue folder, without their records.
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

/// The private homes of rotations.
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
