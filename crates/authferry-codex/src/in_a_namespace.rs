//! The checks that only a mount can trip, in a mount namespace.
//!
//! Where the system gives none to its users, what is left are the tests of the mount list
//! and of the permission bits.

use std::{env, fs, process::Command};

use crate::{
    Home,
    checks::{check_file, nearest},
    made_up::{home, name},
};

const HOME: &str = "AUTHFERRY_TEST_HOME";
const EXPECTED: &str = "AUTHFERRY_TEST_EXPECTED";

#[test]
fn a_bind_mounted_auth_file_is_refused() {
    if are_inside() {
        return;
    }
    let test = "in_a_namespace::a_bind_mounted_auth_file_is_refused";
    let (_above, home) = home();
    let mount = r#"cp -p "$1/auth.json" "$1/other"; mount --bind "$1/other" "$1/auth.json""#;
    check(test, &home, mount, &home, "MountPoint MountPoint");
    let mount = r#"mount -t tmpfs -o mode=0700 none "$1"; echo >"$1/auth.json""#;
    check(test, &home, mount, &home, "fine fine");
}

#[test]
fn a_read_only_file_system_is_refused() {
    if are_inside() {
        return;
    }
    let test = "in_a_namespace::a_read_only_file_system_is_refused";
    let (_above, home) = home();
    let mount = r#"mount -t tmpfs -o mode=0700 none "$1"; echo >"$1/auth.json"
        mount -o remount,bind,ro "$1""#;
    check(test, &home, mount, &home, "HomeNotWritable ReadOnlyFile");
    let missing = Home::new(&home.dir().join("a/b")).expect("a home");
    check(test, &home, mount, &missing, "HomeNotWritable fine");
}

/// Mounts something on `$1`, the folder of `at`, and runs the calling `test` once more where
/// that can be seen.
#[expect(
    clippy::print_stderr,
    reason = "nobody should take an untried check for a passed one"
)]
fn check(test: &str, at: &Home, mount: &str, home: &Home, expected: &str) {
    let unshare = || {
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--map-root-user", "--mount"]);
        unshare
    };
    if !unshare().arg("true").status().is_ok_and(|it| it.success()) {
        eprintln!("not tried, for this system gives its users no namespaces: {expected}");
        return;
    }
    let script = format!("{mount}\nexec \"$0\" --exact {test}");
    let output = unshare()
        .args(["sh", "-ec", &script])
        .arg(env::current_exe().expect("this program"))
        .arg(at.dir())
        .env(HOME, home.dir())
        .env(EXPECTED, expected)
        .output()
        .expect("a shell");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("1 passed"), "{mount}: {output:?}");
}

/// Examines the home that the outer run of this test names; `false` if this is that run.
fn are_inside() -> bool {
    let Some(home) = env::var_os(HOME) else {
        return false;
    };
    let home = Home::new(home.as_ref()).expect("a home");
    let (there, resolved) = nearest(home.dir()).expect("a folder");
    let folder = fs::metadata(there).expect("a folder");
    let us = rustix::process::geteuid().as_raw();
    let file = check_file(home.auth_file(), &resolved, &folder, us);
    let found = format!("{} {}", name(home.preflight()), name(file));
    assert_eq!(found, env::var(EXPECTED).expect("an outcome"));
    true
}
