//! `authferry refresh` with the real Codex.

use std::fs;

use rig::{ACCESS_LIFETIME, Login, V0_169, What, finish};
use time::{Duration, OffsetDateTime};

use crate::ferry::{Ferry, assert_code, assert_silent, names};

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
    let stat = || {
        fs::metadata(ferry.store_file())
            .expect("a value")
            .modified()
    };
    let before = stat().expect("a time");

    let refresh = finish(&mut ferry.authferry(&ferry.runner(), &["refresh"]));

    assert_code(&refresh, 0);
    assert!(ferry.stub.events().is_empty(), "{:?}", ferry.stub.events());
    assert_eq!(stat().expect("a time"), before);
    assert_eq!(ferry.stored(), login.auth_json().as_bytes());
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
