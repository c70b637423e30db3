//! A reseed or an explicit permission by a person is never undone.

use super::*;

/// The rotated login is dead, and a person seeds the earlier generation again: a copy of the rotated
/// one is later in the same family, and must not win.
#[test]
fn a_seed_that_a_person_puts_back_survives_its_later_generations() {
    let good = Login::fresh();
    let dead = generation(&good, 2, Duration::minutes(30));
    let persist: &[&str] = &["persist"];
    for act in START_COMMANDS.into_iter().chain([persist]) {
        for in_home in [true, false] {
            let ferry = Ferry::holding(rig::V0_171, &good);
            let runner = ferry.runner();
            runner.place(&good.auth_json()).expect("disk space");
            assert_code(&finish(&mut run_that_writes(&ferry, &runner, &dead)), 0);
            assert_stored(&ferry, &dead);
            let seed = ["seed", "--replace", "--allow-older"];
            fs::write(runner.work().join("good.json"), good.auth_json()).expect("disk space");
            let mut seed = ferry.authferry(&runner, &seed);
            assert_code(&finish(seed.arg(runner.work().join("good.json"))), 0);
            assert_kept(&runner, &dead.auth_json());

            let mut command = ferry.authferry(&runner, act);
            let code = if act == persist {
                assert_code(&finish(&mut ferry.authferry(&runner, START_COMMANDS[0])), 0);
                // A CI cache restores the dead login.
                runner.place(&dead.auth_json()).expect("disk space");
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

/// A foreign login that a job persisted does not weaken the check of later logins.
#[test]
fn a_new_login_is_refused_even_after_a_foreign_one_was_persisted() {
    let stored = Login::fresh();
    for by_persist in [true, false] {
        let ferry = Ferry::holding(rig::V0_171, &stored);
        let runner = runner_after_lost_job(&ferry);
        let first =
            another_session(&stored.logged_in_again(9, stored.issued + Duration::minutes(30)));
        let done = if by_persist {
            runner.place(&first.auth_json()).expect("disk space");
            finish(&mut ferry.authferry(&runner, &["persist"]))
        } else {
            finish(&mut run_that_writes(&ferry, &runner, &first))
        };
        assert_code(&done, 0);
        assert_stored(&ferry, &first);
        assert_kept(&runner, &stored.auth_json());
        assert_code(&finish(&mut ferry.authferry(&runner, START_COMMANDS[0])), 0);
        let own =
            another_session(&stored.logged_in_again(20, stored.issued + Duration::minutes(40)));
        runner.place(&own.auth_json()).expect("disk space");
        for command in START_COMMANDS {
            assert_code(&finish(&mut ferry.authferry(&runner, command)), 124);
            assert_stored(&ferry, &first);
            assert_in_home(&runner, &own);
        }
    }
}

#[test]
fn an_allowed_account_change_keeps_the_overwritten_login() {
    let ours = Login::fresh();
    let theirs = Login {
        person: Person {
            chatgpt_user_id: Some("user-b".to_owned()),
            ..ours.person.clone()
        },
        session: None,
        ..generation(&ours, 7, Duration::minutes(30))
    };
    let ferry = Ferry::holding(rig::V0_171, &ours);
    let runner = ferry.runner();
    fs::write(runner.work().join("next.json"), theirs.auth_json()).expect("disk space");
    let job = script(&runner, "cp next.json $CODEX_HOME/auth.json");
    let run = ["run", "--no-rotate-first", "--allow-account-change", "--"];
    assert_code(&finish(ferry.authferry(&runner, &run).arg(job)), 0);
    assert_stored(&ferry, &theirs);
    assert_kept(&runner, &ours.auth_json());
    let listed = finish(&mut ferry.authferry(&runner, &["rescue", "list"]));
    let listed = text(&listed.stdout);
    assert!(
        !listed.contains("the next job puts it into the store"),
        "{listed}"
    );
}
