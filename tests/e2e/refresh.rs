//! `authferry refresh` with the real Codex.

use std::fs;

use rig::{ACCESS_LIFETIME, Login, V0_169, What, finish};
use time::{Duration, OffsetDateTime};

use crate::ferry::{Ferry, assert_code, assert_silent, names, script};

/// A login whose access token ends so soon.
fn ending_in(left: Duration) -> Login {
    let issued = OffsetDateTime::now_utc() + left - ACCESS_LIFETIME;
    Login {
        last_refresh: OffsetDateTime::now_utc() - Duration::HOUR,
        ..Login::new("account-1", 1, issued, ACCESS_LIFETIME)
    }
}

#[test]
fn a_login_that_is_due_is_rotated_once_and_no_model_is_asked() {
    for login in [Login::stale(), ending_in(Duration::HOUR)] {
        let ferry = Ferry::new(V0_169, &login);
        let runner = ferry.runner();

        let refresh = finish(&mut ferry.authferry(&runner, &["refresh"]));

        assert_code(&refresh, 0);
        assert_eq!(ferry.stub.count(What::is_refresh), 1, "{refresh:?}");
        assert_eq!(ferry.stub.count(What::is_model_call), 0);
        assert!(ferry.is_live(), "{refresh:?}");
        assert_silent(&refresh, &[login.auth_json().as_bytes(), &ferry.stored()]);
        assert!(!runner.auth_file().exists(), "the home of jobs is not used");
        let temp = runner.work().with_file_name("tmp");
        assert!(names(&temp).is_empty(), "nothing stays behind");
    }
}

#[test]
fn a_fresh_login_costs_no_request_and_no_write() {
    let login = Login::fresh();
    let ferry = Ferry::new(V0_169, &login);
    let before = ferry.folder();

    let refresh = finish(&mut ferry.authferry(&ferry.runner(), &["refresh"]));

    assert_code(&refresh, 0);
    assert!(ferry.stub.events().is_empty(), "{:?}", ferry.stub.events());
    assert_eq!(ferry.folder(), before, "bytes, times and all");
}

#[test]
fn a_dead_login_is_told_so() {
    let login = Login::stale();
    let ferry = Ferry::new(V0_169, &login);
    let elsewhere = ferry.runner();
    elsewhere.place(&login.auth_json()).expect("room");
    assert!(finish(&mut elsewhere.exec()).status.success());

    let refresh = finish(&mut ferry.authferry(&ferry.runner(), &["refresh"]));

    assert_code(&refresh, 125);
    let said = String::from_utf8_lossy(&refresh.stderr);
    assert!(
        said.contains("its refresh token was spent before"),
        "{said}"
    );
    assert_eq!(ferry.stored(), login.auth_json().as_bytes());
}

#[test]
fn access_only_jobs_share_a_login_that_none_of_them_can_spend() {
    let ferry = Ferry::new(V0_169, &ending_in(Duration::minutes(10)));
    let before = ferry.stored();
    for _ in 0..2 {
        let runner = ferry.runner();
        let job =
            "cp $CODEX_HOME/auth.json lent; exec codex exec --skip-git-repo-check 'Reply OK.'";
        let job = script(&runner, job);

        let mut run = ferry.authferry(&runner, &["run", "--access-only", "--"]);
        let run = finish(run.arg(job));

        assert_code(&run, 0);
        let lent = fs::read_to_string(runner.work().join("lent")).expect("a copy");
        assert!(lent.contains("\"refresh_token\": \"\""), "a token was lent");
        assert!(
            !runner.auth_file().exists(),
            "{:?}",
            names(&runner.codex_home())
        );
        assert_eq!(
            names(&runner.codex_home())
                .iter()
                .filter(|n| n.contains("receipt"))
                .count(),
            0
        );
    }
    assert_eq!(
        ferry.stub.count(What::is_refresh),
        1,
        "rotated before the first"
    );
    assert_ne!(ferry.stored(), before);
    assert!(ferry.is_live());
}

#[test]
fn what_was_lent_is_never_persisted() {
    let login = Login::fresh();
    let ferry = Ferry::new(V0_169, &login);
    let runner = ferry.runner();
    let next = crate::ferry::successor(&login).auth_json();
    fs::write(runner.work().join("next"), &next).expect("room");
    let job = script(&runner, "cp next $CODEX_HOME/auth.json");
    let run = finish(
        ferry
            .authferry(&runner, &["run", "--access-only", "--"])
            .arg(job),
    );
    assert_code(&run, 0);
    assert_eq!(ferry.stored(), login.auth_json().as_bytes());
    assert!(
        runner.auth_file().exists(),
        "a login of somebody else's is left alone"
    );
    let refused = finish(&mut ferry.authferry(&runner, &["restore", "--access-only"]));
    assert_code(&refused, 124);

    let runner = ferry.runner();
    assert_code(
        &finish(&mut ferry.authferry(&runner, &["restore", "--access-only"])),
        0,
    );
    // A second one finds what the first one left, as it would after a runner that died.
    assert_code(
        &finish(&mut ferry.authferry(&runner, &["restore", "--access-only"])),
        0,
    );
    assert_code(&finish(&mut runner.exec()), 0);
    assert_code(&finish(&mut ferry.authferry(&runner, &["persist"])), 0);
    assert!(!runner.auth_file().exists());
    assert_eq!(ferry.stored(), login.auth_json().as_bytes());

    assert_code(
        &finish(&mut ferry.authferry(&runner, &["restore", "--access-only"])),
        0,
    );
    assert_code(&finish(&mut ferry.authferry(&runner, &["restore"])), 0);
    let file = fs::read(runner.auth_file()).expect("a login");
    assert_eq!(file, login.auth_json().as_bytes(), "the whole login again");
}
