//! Authferry's assumptions about Codex, verified on Codex alone.
//!
//! When one fails on a new version of Codex, review the code that relies on it.

use std::{fs, os::unix::fs::MetadataExt, path::Path, process::Output};

use rig::{Codex, Login, Outcome, Runner, Stub, What, finish};

/// How a version of Codex writes the auth file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WriteMethod {
    /// Truncates the file: a reader can find it empty.
    InPlace,
    /// Renames a new file over it: a watch on the old inode gets no event.
    ByRename,
}

/// Generates a test of each fact on each version, so that the name of a failed test has both.
macro_rules! facts {
    ($($version:ident $writes:ident),+ : $facts:tt) => {
        $(facts!(@version $version $writes $facts);)+
    };
    (@version $version:ident $writes:ident [$($fact:ident),+ $(,)?]) => {
        #[expect(non_snake_case, reason = "named like the version")]
        mod $version {
            $(
                #[test]
                fn $fact() {
                    super::$fact(rig::$version, super::WriteMethod::$writes);
                }
            )+
        }
    };
}

facts! {
    V0_101 InPlace, V0_130 InPlace, V0_145 InPlace, V0_166 InPlace, V0_169 ByRename: [
        a_stale_login_is_rotated_once_before_the_first_model_call,
        the_auth_file_from_before_a_rotation_is_rejected,
        a_fresh_login_is_not_rotated,
        an_access_only_login_is_not_rotated,
        a_failed_run_still_rotates,
        a_model_call_without_a_login_is_refused,
    ]
}

fn a_stale_login_is_rotated_once_before_the_first_model_call(version: &str, writes: WriteMethod) {
    let stale = Login::stale();
    let stub = Stub::start(&stale);
    let runner = runner(&stub, version, Some(&stale));
    let inode = inode(&runner.auth_file());

    let run = finish(&mut runner.exec());

    assert!(run.status.success(), "{run:?}");
    let calls = calls(&stub);
    assert_matches_rotation(&calls[0], 1, 2);
    assert!(calls.len() > 1, "no model call");
    for call in &calls[1..] {
        let wanted = What::Model {
            serial: Some(2),
            status: 200,
        };
        assert_eq!(call, &wanted, "all calls: {calls:#?}");
    }

    let written = read(&runner);
    assert!(stub.is_live(written.as_bytes()), "{written}");
    let issued = stub.live().expect("a rotated login").auth_json();
    assert_eq!(
        without_last_refresh(&written),
        without_last_refresh(&issued),
        "the rig formats the auth file differently"
    );
    let found = if self::inode(&runner.auth_file()) == inode {
        WriteMethod::InPlace
    } else {
        WriteMethod::ByRename
    };
    assert_eq!(found, writes);
}

fn the_auth_file_from_before_a_rotation_is_rejected(version: &str, _: WriteMethod) {
    let stale = Login::stale();
    let stub = Stub::start(&stale);
    let first = runner(&stub, version, Some(&stale));
    let second = runner(&stub, version, Some(&stale));

    let run = finish(&mut first.exec());
    assert!(run.status.success(), "{run:?}");
    let before = calls(&stub).len();
    let run = finish(&mut second.exec());

    assert_eq!(run.status.code(), Some(1), "{run:?}");
    assert!(says(&run, "your refresh token was already used"), "{run:?}");
    let calls = calls(&stub);
    let refreshes: Vec<&What> = calls[before..].iter().filter(|c| c.is_refresh()).collect();
    assert!(!refreshes.is_empty(), "{calls:#?}");
    for refresh in refreshes {
        assert!(
            matches!(
                refresh,
                What::Refresh {
                    serial: Some(1),
                    outcome: Outcome::Reused,
                    ..
                }
            ),
            "{refresh:?}"
        );
    }
    assert_eq!(
        read(&second),
        stale.auth_json(),
        "a failed refresh must not rewrite the file"
    );
    assert!(
        stub.is_live(read(&first).as_bytes()),
        "the first runner holds the live login"
    );
}

fn a_fresh_login_is_not_rotated(version: &str, _: WriteMethod) {
    assert_not_rotated(version, &Login::fresh());
}

fn an_access_only_login_is_not_rotated(version: &str, _: WriteMethod) {
    let access_only = Login {
        refresh_token: String::new(),
        ..Login::fresh()
    };
    assert_not_rotated(version, &access_only);
}

#[track_caller]
fn assert_not_rotated(version: &str, login: &Login) {
    let stub = Stub::start(login);
    let runner = runner(&stub, version, Some(login));
    let stat = |path: &Path| {
        let found = fs::metadata(path).expect("an auth file");
        (found.ino(), found.modified().expect("a time"))
    };
    let before = stat(&runner.auth_file());

    let run = finish(&mut runner.exec());

    assert!(run.status.success(), "{run:?}");
    assert_eq!(stub.count(What::is_refresh), 0, "{:#?}", calls(&stub));
    assert_eq!(read(&runner), login.auth_json());
    assert_eq!(stat(&runner.auth_file()), before);
}

fn a_failed_run_still_rotates(version: &str, _: WriteMethod) {
    let stale = Login::stale();
    let stub = Stub::start(&stale);
    stub.rules(|rules| rules.model_failure = Some(500));
    let runner = runner(&stub, version, Some(&stale));

    let run = finish(&mut runner.exec());

    assert_eq!(run.status.code(), Some(1), "{run:?}");
    assert_eq!(stub.count(What::is_rotation), 1, "{:#?}", calls(&stub));
    assert!(stub.is_live(read(&runner).as_bytes()));
    assert!(!stub.is_live(stale.auth_json().as_bytes()));
}

/// Shows that the other facts can fail: the stub rejects a call without a login.
fn a_model_call_without_a_login_is_refused(version: &str, _: WriteMethod) {
    let stub = Stub::start(&Login::fresh());
    let runner = runner(&stub, version, None);

    let run = finish(&mut runner.exec());

    assert_eq!(run.status.code(), Some(1), "{run:?}");
    let calls = calls(&stub);
    assert!(!calls.is_empty(), "no model call");
    for call in &calls {
        let wanted = What::Model {
            serial: None,
            status: 401,
        };
        assert_eq!(call, &wanted);
    }
    assert!(!runner.auth_file().exists());
}

/// Sets up a runner with Codex and, optionally, a login.
#[track_caller]
pub(crate) fn runner(stub: &Stub, version: &str, login: Option<&Login>) -> Runner {
    let codex = Codex::install(version).expect("Codex from npm");
    let runner = Runner::new(stub, &codex).expect("room for a runner");
    if let Some(login) = login {
        runner.place(&login.auth_json()).expect("room for a login");
    }
    runner
}

/// Returns Codex's requests to the token and the model endpoint, in order.
pub(crate) fn calls(stub: &Stub) -> Vec<What> {
    stub.events()
        .into_iter()
        .map(|event| event.what)
        .filter(|what| what.is_refresh() || what.is_model_call())
        .collect()
}

#[track_caller]
fn assert_matches_rotation(call: &What, from: u32, to: u32) {
    assert!(
        matches!(
            call,
            What::Refresh { serial: Some(spent), outcome: Outcome::Rotated(issued), .. }
                if (*spent, *issued) == (from, to)
        ),
        "{call:?}"
    );
}

#[track_caller]
pub(crate) fn read(runner: &Runner) -> String {
    fs::read_to_string(runner.auth_file()).expect("an auth file")
}

#[track_caller]
fn inode(path: &Path) -> u64 {
    fs::metadata(path).expect("an auth file").ino()
}

/// Removes the one value that Codex sets itself, and keeps its member in the file.
fn without_last_refresh(auth_json: &str) -> String {
    let (rest, last_refresh) = auth_json
        .split_once(r#""last_refresh": ""#)
        .expect("a time of refresh");
    let (_, end) = last_refresh.split_once('"').expect("a string that ends");
    format!(r#"{rest}"last_refresh": "{end}"#)
}

fn says(run: &Output, text: &str) -> bool {
    String::from_utf8_lossy(&run.stdout).contains(text)
}
