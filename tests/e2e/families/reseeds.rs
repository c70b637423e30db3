//! What a person says stays, also where no table of cases names the way in which it could be undone.

use super::*;

/// A rotation of the login is dead, and the person puts the login itself back: a copy of the rotation
/// is later in the same family wherever it is.
#[test]
fn d_the_login_that_a_family_begins_with_stays_when_a_person_puts_it_back() {
    let good = Login::fresh();
    let dead = generation(&good, 2, Duration::minutes(30));
    let persist: &[&str] = &["persist"];
    for act in BEGINS.into_iter().chain([persist]) {
        for in_home in [true, false] {
            let ferry = Ferry::holding(rig::V0_171, &good);
            let runner = ferry.runner();
            runner.place(&good.auth_json()).expect("room");
            assert_code(&finish(&mut writing(&ferry, &runner, &dead)), 0);
            assert_stored(&ferry, &dead);
            let seed = ["seed", "--replace", "--allow-older"];
            fs::write(runner.work().join("good.json"), good.auth_json()).expect("room");
            let mut seed = ferry.authferry(&runner, &seed);
            assert_code(&finish(seed.arg(runner.work().join("good.json"))), 0);
            assert_kept(&runner, &dead.auth_json());

            let mut command = ferry.authferry(&runner, act);
            let code = if act == persist {
                assert_code(&finish(&mut ferry.authferry(&runner, BEGINS[0])), 0);
                // A cache brings it back.
                runner.place(&dead.auth_json()).expect("room");
                120
            } else {
                if !in_home {
                    command.env("CODEX_HOME", new_home(&runner));
                }
                0
            };
            assert_code(&finish(&mut command), code);
            assert_stored(&ferry, &good);
        }
    }
}

/// A foreign login that a job persisted does not weaken the check of later ones.
#[test]
fn n_a_fresh_login_is_refused_also_after_one_that_was_persisted() {
    let stored = Login::fresh();
    for by_persist in [true, false] {
        let ferry = Ferry::holding(rig::V0_171, &stored);
        let runner = job_lost_after_restore(&ferry);
        let first = another_session(&stored.afresh(9, stored.issued + Duration::minutes(30)));
        let done = if by_persist {
            runner.place(&first.auth_json()).expect("room");
            finish(&mut ferry.authferry(&runner, &["persist"]))
        } else {
            finish(&mut writing(&ferry, &runner, &first))
        };
        assert_code(&done, 0);
        assert_stored(&ferry, &first);
        assert_kept(&runner, &stored.auth_json());
        assert_code(&finish(&mut ferry.authferry(&runner, BEGINS[0])), 0);
        let own = another_session(&stored.afresh(20, stored.issued + Duration::minutes(40)));
        runner.place(&own.auth_json()).expect("room");
        for begin in BEGINS {
            assert_code(&finish(&mut ferry.authferry(&runner, begin)), 124);
            assert_stored(&ferry, &first);
            assert_in_home(&runner, &own);
        }
    }
}

#[test]
fn f_another_persons_login_that_was_allowed_replaces_nothing_that_is_not_kept() {
    let ours = Login::fresh();
    let hers = Login {
        person: Person {
            chatgpt_user_id: Some("user-b".to_owned()),
            ..ours.person.clone()
        },
        session: None,
        ..generation(&ours, 7, Duration::minutes(30))
    };
    let ferry = Ferry::holding(rig::V0_171, &ours);
    let runner = ferry.runner();
    fs::write(runner.work().join("next.json"), hers.auth_json()).expect("room");
    let job = script(&runner, "cp next.json $CODEX_HOME/auth.json");
    let run = ["run", "--no-rotate-first", "--allow-account-change", "--"];
    assert_code(&finish(ferry.authferry(&runner, &run).arg(job)), 0);
    assert_stored(&ferry, &hers);
    assert_kept(&runner, &ours.auth_json());
    let listed = finish(&mut ferry.authferry(&runner, &["rescue", "list"]));
    let listed = text(&listed.stdout);
    assert!(!listed.contains("the next job puts it there"), "{listed}");
}
