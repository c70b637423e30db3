//! The process is killed or the disk fails between any two steps.

use std::{
    env,
    fs::{self, Permissions},
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::Path,
    process::Command,
};

use rustix::io::Errno;

use super::*;
use crate::steps::script::{self, Fault};

/// A missing sync shows only after a power loss, so this test fixes the order of the steps.
#[test]
fn each_step_is_synced_before_the_next_one() {
    let site = InitialState::Ours.site();
    let base = site.version();
    let changes = script::changes(|| {
        site.swap_over(base.as_ref(), 2)
            .expect("the current version");
    });
    let clean_up = ["remove", "remove"];
    let draft = ["create", "set time"];
    let meta = ["create", "write", "sync", "rename", "sync folder"];
    let login = ["write", "set time", "sync"];
    let commit = ["rename", "sync folder"];
    assert_eq!(
        changes,
        [&clean_up[..], &draft, &meta, &login, &commit].concat()
    );
}

#[test]
fn a_conflict_writes_nothing() {
    let site = InitialState::Ours.site();
    let changes = script::changes(|| {
        let answer = site.swap_over(None, 2);
        assert!(matches!(answer, Err(SwapError::Conflict)), "{answer:?}");
    });
    assert_eq!(changes, ["remove", "remove"]);
}

#[test]
fn every_disk_error_is_reported_with_its_outcome() {
    for before in InitialState::ALL {
        let (mut refused, mut ambiguous) = (0, 0);
        for number in 0.. {
            let site = before.site();
            let base = site.version();
            let fault = Fault::Fail(Errno::NOSPC);
            let (answer, reached) =
                script::with(number, fault, || site.swap_over(base.as_ref(), 2));
            let what = format!("{before:?}, boundary {number}: {answer:?}");
            if !reached {
                answer.expect(&what);
                break;
            }
            match answer {
                Err(SwapError::NotWritten(cause)) => {
                    refused += 1;
                    assert_eq!(cause.kind(), ErrorKind::Full, "{what}");
                    assert_eq!(site.version(), base, "{what}");
                    assert!(site.leftovers().is_empty(), "{what}");
                }
                Err(SwapError::MaybeWritten(cause)) => {
                    ambiguous += 1;
                    assert_eq!(cause.kind(), ErrorKind::Full, "{what}");
                    site.expect_generation(2);
                }
                Ok(_) | Err(SwapError::Conflict) => panic!("{what}"),
            }
            // A retry of the same write resolves the outcome, and writes once.
            let version = site.swap_over(base.as_ref(), 2).expect(&what);
            assert_eq!(site.expect_generation(2), version, "{what}");
            assert!(site.leftovers().is_empty(), "{what}");
        }
        assert!(refused > 10, "{before:?}: {refused} refused");
        // After the rename, and before and after the sync of the folder.
        assert_eq!(ambiguous, 3, "{before:?}");
    }
}

#[test]
fn a_duplicate_write_returns_after_the_sync() {
    let site = InitialState::Ours.site();
    for number in 0.. {
        let fault = Fault::Fail(Errno::IO);
        let (answer, reached) = script::with(number, fault, || site.swap_over(None, 1));
        site.expect_generation(1);
        if !reached {
            answer.expect("the same write");
            assert_eq!(number, 6, "two removals, one sync");
            return;
        }
        match number {
            0..4 => assert!(
                matches!(answer, Err(SwapError::NotWritten(_))),
                "{answer:?}"
            ),
            _ => assert!(
                matches!(answer, Err(SwapError::MaybeWritten(_))),
                "{answer:?}"
            ),
        }
    }
}

type SiteChange = fn(&Site);

const KILL_AT: &str = "AUTHFERRY_TEST_KILL_AT";
const KILL_IN: &str = "AUTHFERRY_TEST_KILL_IN";

#[test]
fn a_writer_killed_between_any_two_steps_loses_no_login() {
    if ran_as_writer() {
        return;
    }
    let test = "place::tests::faults::a_writer_killed_between_any_two_steps_loses_no_login";
    for before in InitialState::ALL {
        let (mut old, mut new) = (0, 0);
        for number in 0_usize.. {
            let site = before.site();
            let base = site.version();
            let status = Command::new(env::current_exe().expect("this program"))
                .args(["--exact", test])
                .env(KILL_AT, number.to_string())
                .env(KILL_IN, site.path("login.json"))
                .output()
                .expect("a process")
                .status;
            let what = format!("{before:?}, killed at {number}: {status}");
            if status.success() {
                break;
            }
            assert_eq!(status.signal(), Some(9), "{what}");

            // The current login has its version and stamp. It is the new login if all of its bytes
            // are on the disk.
            let temp = fs::read(site.path("login.json.authferry-tmp"));
            let is_complete = temp.is_ok_and(|bytes| bytes == login(2));
            let version = site.version();
            if is_complete {
                assert!(!site.leftovers().contains(&TEMP_NAME.to_owned()), "{what}");
                site.expect_generation(2);
            }
            if version == base {
                old += 1;
            } else {
                new += 1;
                site.expect_generation(2);
            }
            // The lock is free, and the current login can be swapped.
            let next = site.swap_over(version.as_ref(), 3).expect(&what);
            assert_eq!(site.expect_generation(3), next, "{what}");
            assert!(Some(&next) != version.as_ref() && Some(&next) != base.as_ref());
            assert!(site.leftovers().is_empty(), "{what}");
        }
        assert!(old > 10, "{before:?}: killed {old} times before");
        // After the write, and before and after each of the four steps that follow.
        assert_eq!(new, 9, "{before:?}");
    }
}

const TEMP_NAME: &str = "login.json.authferry-tmp";

/// Leaves the files of a writer that is killed right before its rename.
fn leave_complete_temp(site: &Site) {
    let folder = Folder::open(&site.place.folder).expect("a folder");
    let held = site.place.held(&folder).expect("a place");
    site.place
        .prepare(&folder, held.as_ref(), &secret(2), &stamp(2))
        .expect("room on the disk");
}

#[test]
fn the_next_writer_rolls_a_complete_login_forward() {
    for before in InitialState::ALL {
        let site = before.site();
        let base = site.version();
        leave_complete_temp(&site);
        let answer = site.swap_over(base.as_ref(), 3);
        assert!(matches!(answer, Err(SwapError::Conflict)), "{answer:?}");
        site.expect_generation(2);
        assert!(site.leftovers().is_empty(), "{before:?}");
    }
}

/// The disk may fail during the roll-forward too.
#[test]
fn a_roll_forward_can_be_interrupted_anywhere() {
    let reader = || {
        let site = InitialState::Ours.site();
        leave_complete_temp(&site);
        site
    };
    let site = reader();
    let changes = script::changes(|| drop(site.read()));
    assert_eq!(changes, ["set time", "sync", "rename", "sync folder"]);
    for number in 0..8 {
        let site = reader();
        let fault = Fault::Fail(Errno::IO);
        let (answer, reached) = script::with(number, fault, || site.place.read());
        assert!(reached);
        answer.expect_err("a disk that fails");
        site.expect_generation(2);
        assert!(site.leftovers().is_empty());
    }
}

#[test]
fn a_later_change_is_kept_and_so_is_the_unfinished_login() {
    let changes: [SiteChange; 3] = [
        |site| site.put_by_hand(&login(7)),
        |site| fs::remove_file(site.path("login.json")).expect("removed by hand"),
        |site| fs::remove_file(site.path("login.json.meta")).expect("removed by hand"),
    ];
    for change in changes {
        let site = InitialState::Ours.site();
        leave_complete_temp(&site);
        change(&site);
        let current = site.read();
        let is_unfinished = current.is_some_and(|it| it.secret.expose() == login(2));
        assert!(!is_unfinished);
        site.swap(3).expect("the current version");
        site.expect_generation(3);
        let [kept] = &site.leftovers()[..] else {
            panic!("{:?}", site.leftovers());
        };
        assert!(kept.starts_with("login.json.unfinished-"), "{kept}");
        assert_eq!(fs::read(site.path(kept)).expect("ours"), login(2));
    }
}

/// A copied file has another inode, and a touched file another time.
#[test]
fn a_complete_login_is_rolled_forward_after_a_copy_or_a_touch() {
    let changes: [SiteChange; 3] = [
        |site| {
            for name in ["login.json", "login.json.meta", TEMP_NAME] {
                let copy = site.path("copy");
                fs::copy(site.path(name), &copy).expect("room");
                fs::rename(copy, site.path(name)).expect("room");
            }
        },
        |site| {
            let login = fs::File::options()
                .write(true)
                .open(site.path("login.json"));
            let touched = login.and_then(|it| it.set_modified(std::time::SystemTime::now()));
            touched.expect("our file");
        },
        |site| site.put_by_hand(&login(1)),
    ];
    for change in changes {
        let site = InitialState::Ours.site();
        leave_complete_temp(&site);
        change(&site);
        assert_eq!(site.read().expect("a login").secret.expose(), login(2));
        site.swap(3).expect("the current version");
        site.expect_generation(3);
        assert!(site.leftovers().is_empty());
    }
}

/// `cp -r` can leave such a file. The store refuses it and does not remove it.
#[test]
fn a_complete_login_open_to_other_users_is_refused_and_kept() {
    let site = InitialState::Ours.site();
    leave_complete_temp(&site);
    let temp = site.path(TEMP_NAME);
    let mode = |mode| fs::set_permissions(&temp, Permissions::from_mode(mode)).expect("ours");
    mode(0o644);
    let answer = site.place.swap(None, &secret(3), &stamp(3));
    assert!(
        matches!(&answer, Err(SwapError::NotWritten(cause)) if cause.kind() == ErrorKind::Unsafe),
        "{answer:?}"
    );
    mode(0o600);
    site.expect_generation(2);
}

/// A refused swap is not written later either.
#[test]
fn a_refused_swap_is_not_rolled_forward() {
    let site = InitialState::Ours.site();
    let base = site.version();
    let folder = Folder::open(&site.place.folder).expect("a folder");
    for number in 0.. {
        let fault = Fault::Fail(Errno::IO);
        let (answer, reached) = script::with(number, fault, || site.swap_over(base.as_ref(), 2));
        if !reached || matches!(answer, Err(SwapError::MaybeWritten(_))) {
            break;
        }
        assert!(
            matches!(answer, Err(SwapError::NotWritten(_))),
            "{answer:?}"
        );
        assert_eq!(site.version(), base, "{number}");
        assert!(!folder.has(TEMP_NAME).expect("a folder"), "{number}");
    }
}

/// A lease is expendable: the next holder writes a new record.
#[test]
fn a_lease_is_read_without_its_damaged_metadata() {
    let site = InitialState::Ours.site();
    fs::write(site.path("login.json.meta"), "made up").expect("room");
    site.place
        .read()
        .expect_err("a login whose metadata is damaged");
    let address = format!("file://{}", site.path("login.json").display());
    let lease = FilePlace::of_lease(&address.parse().expect("an address"));
    let stored = lease.read().expect("a lease").expect("a record");
    assert_eq!(stored.stamp, None);
    lease
        .swap(Some(&stored.version), &secret(2), &stamp(2))
        .expect("the current version");
    site.expect_generation(2);
}

/// Runs the writer in the child process that the test kills; `false` in the test's process.
fn ran_as_writer() -> bool {
    let (Ok(number), Ok(path)) = (env::var(KILL_AT), env::var(KILL_IN)) else {
        return false;
    };
    let place = place_at(Path::new(&path));
    let stored = place.read().expect("a place that can be read");
    let base = stored.map(|stored| stored.version);
    let number = number.parse().expect("a number");
    let (answer, _) = script::with(number, Fault::Kill, || {
        place.swap(base.as_ref(), &secret(2), &stamp(2))
    });
    answer.expect("no kill");
    true
}

#[test]
fn the_next_writer_removes_only_the_temporary_files_of_a_killed_one() {
    let site = InitialState::Ours.site();
    for name in ["login.json.authferry-tmp", "login.json.meta.authferry-tmp"] {
        site.put_private(name, b"half a log");
    }
    let other_files = [
        "login.json.tmp",
        "login.json~",
        "other.authferry-tmp",
        ".login.json.authferry-tmp",
    ];
    for name in other_files {
        fs::write(site.path(name), "mine").expect("another file");
    }
    site.swap(2).expect("the current version");
    let mut left = site.leftovers();
    left.sort();
    let mut other_files = other_files.map(String::from);
    other_files.sort();
    assert_eq!(left, other_files);
}

/// The lease is in the same folder, and its file names begin with those of the login.
#[test]
fn writers_of_login_and_lease_remove_only_their_own_temporary_files() {
    let site = InitialState::Ours.site();
    let address = format!("file://{}", site.path("login.json").display());
    let address: Address = address.parse().expect("an address");
    let lease = FilePlace::new(&address.of_lease());
    lease
        .swap(None, &secret(1), &stamp(1))
        .expect("an empty place");
    let temps = |name: &str| [TEMP, ".meta.authferry-tmp"].map(|end| format!("{name}{end}"));
    let (login_temps, lease_temps) = (temps("login.json"), temps("login.json.lease"));
    for name in login_temps.iter().chain(&lease_temps) {
        site.put_private(name, b"half a log");
    }

    site.swap(2).expect("the current version");
    let is_there = |name: &String| site.path(name).exists();
    assert!(!login_temps.iter().any(is_there));
    assert!(lease_temps.iter().all(is_there));

    for name in &login_temps {
        site.put_private(name, b"half a log");
    }
    let base = lease.read().expect("a place").map(|stored| stored.version);
    lease
        .swap(base.as_ref(), &secret(3), &stamp(3))
        .expect("the current version");
    assert!(login_temps.iter().all(is_there));
    assert!(!lease_temps.iter().any(is_there));
    site.expect_generation(2);
}

#[test]
fn a_write_creates_a_new_file() {
    let site = Site::new();
    let folder = Folder::open(&site.place.folder).expect("a folder");
    folder.write("new", b"made-up").expect("a free name");
    folder.write("new", b"made-up").expect_err("a used name");
}
