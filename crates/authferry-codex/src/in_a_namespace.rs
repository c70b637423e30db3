//! Tests of the checks that need a mount, in a mount namespace.
//!
//! If the system does not let its users create namespaces, only the unit tests of the mount
//! list and of the permission bits remain.

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
    if ran_inside() {
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
    if ran_inside() {
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

/// Runs the script `mount` with the folder of `at` as `$1`, in a new mount namespace, and then
/// the calling `test` there.
#[expect(
    clippy::print_stderr,
    reason = "a skipped check must not look like a passed one"
)]
fn check(test: &str, at: &Home, mount: &str, home: &Home, expected: &str) {
    let unshare = || {
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--map-root-user", "--mount"]);
        unshare
    };
    if !unshare().arg("true").status().is_ok_and(|it| it.success()) {
        eprintln!("skipped: this system does not let its users create namespaces: {expected}");
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
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.contains("1 passed"), "{mount}: {output:?}");
}

/// In the namespace, checks the home that the outer run named; `false` in the outer run.
fn ran_inside() -> bool {
    let Some(home) = env::var_os(HOME) else {
        return false;
    };
    let home = Home::new(home.as_ref()).expect("a home");
    let (existing, resolved) = nearest(home.dir()).expect("a folder");
    let folder = fs::metadata(existing).expect("a folder");
    let us = rustix::process::geteuid().as_raw();
    let file = check_file(home.auth_file(), &resolved, &folder, us);
    let found = format!("{} {}", name(home.preflight()), name(file));
    assert_eq!(found, env::var(EXPECTED).expect("an outcome"));
    true
}
