//! The process dies or the disk fails, between any two steps.

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

/// No test can see a missing sync before the power goes, so the order is pinned.
#[test]
fn each_step_is_on_the_disk_before_the_next_one_builds_on_it() {
    let site = Before::Ours.site();
    let base = site.version();
    let changes = script::changes(|| {
        site.swap_over(base.as_ref(), 2)
            .expect("the current version");
    });
    let clean_up = ["remove", "remove"];
    let draft = ["create", "set time"];
    let beside = ["create", "write", "sync", "rename", "sync folder"];
    let login = ["write", "set time", "sync"];
    let commit = ["rename", "sync folder"];
    assert_eq!(
        changes,
        [&clean_up[..], &draft, &beside, &login, &commit].concat()
    );
}

#[test]
fn a_conflict_costs_no_write() {
    let site = Before::Ours.site();
    let changes = script::changes(|| {
        let answer = site.swap_over(None, 2);
        assert!(matches!(answer, Err(Unswapped::Conflict)), "{answer:?}");
    });
    assert_eq!(changes, ["remove", "remove"]);
}

#[test]
fn every_failure_of_the_disk_is_told_as_what_it_is() {
    for before in Before::ALL {
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
                Err(Unswapped::Before(trouble)) => {
                    refused += 1;
                    assert_eq!(trouble.kind(), ErrorKind::Full, "{what}");
                    assert_eq!(site.version(), base, "{what}");
                    assert!(site.leftovers().is_empty(), "{what}");
                }
                Err(Unswapped::After(trouble)) => {
                    ambiguous += 1;
                    assert_eq!(trouble.kind(), ErrorKind::Full, "{what}");
                    site.shows(2);
                }
                Ok(_) | Err(Unswapped::Conflict) => panic!("{what}"),
            }
            // The same write again is one write, and settles it.
            let version = site.swap_over(base.as_ref(), 2).expect(&what);
            assert_eq!(site.shows(2), version, "{what}");
            assert!(site.leftovers().is_empty(), "{what}");
        }
        assert!(refused > 10, "{before:?}: {refused} refused");
        // Right after the rename, and twice around the sync of the folder.
        assert_eq!(ambiguous, 3, "{before:?}");
    }
}

#[test]
fn a_duplicate_of_a_write_is_answered_when_the_disk_has_it() {
    let site = Before::Ours.site();
    for number in 0.. {
        let fault = Fault::Fail(Errno::IO);
        let (answer, reached) = script::with(number, fault, || site.swap_over(None, 1));
        site.shows(1);
        if !reached {
            answer.expect("the same write");
            assert_eq!(number, 6, "two removals, one sync");
            return;
        }
        match number {
            0..4 => assert!(matches!(answer, Err(Unswapped::Before(_))), "{answer:?}"),
            _ => assert!(matches!(answer, Err(Unswapped::After(_))), "{answer:?}"),
        }
    }
}

const KILL_AT: &str = "AUTHFERRY_TEST_KILL_AT";
const KILL_IN: &str = "AUTHFERRY_TEST_KILL_IN";

#[test]
fn a_writer_killed_between_any_two_steps_loses_nothing() {
    if is_the_writer() {
        return;
    }
    let test = "place::tests::faults::a_writer_killed_between_any_two_steps_loses_nothing";
    for before in Before::ALL {
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

            // Whichever of the two is there has its own version and stamp; it is the new one
            // if all of its bytes are on the disk.
            let temp = fs::read(site.path("login.json.authferry-tmp"));
            let is_complete = temp.is_ok_and(|bytes| bytes == login(2));
            let version = site.version();
            if is_complete {
                assert!(!site.leftovers().contains(&TEMP_NAME.to_owned()), "{what}");
                site.shows(2);
            }
            if version == base {
                old += 1;
            } else {
                new += 1;
                site.shows(2);
            }
            // The lock is free, and what is there can be swapped over.
            let next = site.swap_over(version.as_ref(), 3).expect(&what);
            assert_eq!(site.shows(3), next, "{what}");
            assert!(Some(&next) != version.as_ref() && Some(&next) != base.as_ref());
            assert!(site.leftovers().is_empty(), "{what}");
        }
        assert!(old > 10, "{before:?}: killed {old} times before");
        // After the write, and around each of the four steps that follow.
        assert_eq!(new, 9, "{before:?}");
    }
}

const TEMP_NAME: &str = "login.json.authferry-tmp";

/// Leaves what a writer leaves that is killed right before its rename.
fn killed_before_the_rename(site: &Site) {
    let folder = Folder::open(&site.place.folder).expect("a folder");
    let held = site.place.held(&folder).expect("a place");
    site.place
        .prepare(&folder, held.as_ref(), &secret(2), &stamp(2))
        .expect("room on the disk");
}

#[test]
fn a_complete_login_of_a_killed_writer_is_rolled_forward_by_the_next_writer() {
    for before in Before::ALL {
        let site = before.site();
        let base = site.version();
        killed_before_the_rename(&site);
        let answer = site.swap_over(base.as_ref(), 3);
        assert!(matches!(answer, Err(Unswapped::Conflict)), "{answer:?}");
        site.shows(2);
        assert!(site.leftovers().is_empty(), "{before:?}");
    }
}

/// The reader may be killed as well, and the disk may fail.
#[test]
fn rolling_forward_can_be_interrupted_anywhere() {
    let reader = || {
        let site = Before::Ours.site();
        killed_before_the_rename(&site);
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
        site.shows(2);
        assert!(site.leftovers().is_empty());
    }
}

#[test]
fn what_came_after_a_killed_writer_is_not_replaced_and_what_it_left_is_kept() {
    type Change = fn(&Site);
    let changes: [Change; 3] = [
        |site| site.put_by_hand(&login(7)),
        |site| fs::remove_file(site.path("login.json")).expect("removed by hand"),
        |site| fs::remove_file(site.path("login.json.meta")).expect("removed by hand"),
    ];
    for change in changes {
        let site = Before::Ours.site();
        killed_before_the_rename(&site);
        change(&site);
        let there = site.read();
        let is_theirs = there.is_none_or(|it| it.secret.expose() != login(2));
        assert!(is_theirs);
        site.swap(3).expect("the current version");
        site.shows(3);
        let [kept] = &site.leftovers()[..] else {
            panic!("{:?}", site.leftovers());
        };
        assert!(kept.starts_with("login.json.unfinished-"), "{kept}");
        assert_eq!(fs::read(site.path(kept)).expect("ours"), login(2));
    }
}

/// A copy has other inodes, and a touched file another time.
#[test]
fn a_complete_login_is_rolled_forward_also_where_the_folder_was_copied_or_the_login_touched() {
    type Change = fn(&Site);
    let changes: [Change; 3] = [
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
        let site = Before::Ours.site();
        killed_before_the_rename(&site);
        change(&site);
        assert_eq!(site.read().expect("a login").secret.expose(), login(2));
        site.swap(3).expect("the current version");
        site.shows(3);
        assert!(site.leftovers().is_empty());
    }
}

/// As `cp -r` leaves it: nobody removes a login that has to be made private first.
#[test]
fn a_complete_login_that_is_open_to_others_is_refused_and_stays() {
    let site = Before::Ours.site();
    killed_before_the_rename(&site);
    let temp = site.path(TEMP_NAME);
    let mode = |mode| fs::set_permissions(&temp, Permissions::from_mode(mode)).expect("ours");
    mode(0o644);
    let answer = site.place.swap(None, &secret(3), &stamp(3));
    assert!(
        matches!(&answer, Err(Unswapped::Before(trouble)) if trouble.kind() == ErrorKind::Unsafe),
        "{answer:?}"
    );
    mode(0o600);
    site.shows(2);
}

/// A refusal says that nothing was written, and stays true.
#[test]
fn what_was_refused_is_not_rolled_forward() {
    let site = Before::Ours.site();
    let base = site.version();
    let folder = Folder::open(&site.place.folder).expect("a folder");
    for number in 0.. {
        let fault = Fault::Fail(Errno::IO);
        let (answer, reached) = script::with(number, fault, || site.swap_over(base.as_ref(), 2));
        if !reached || matches!(answer, Err(Unswapped::After(_))) {
            break;
        }
        assert!(matches!(answer, Err(Unswapped::Before(_))), "{answer:?}");
        assert_eq!(site.version(), base, "{number}");
        assert!(!folder.has(TEMP_NAME).expect("a folder"), "{number}");
    }
}

/// A lease is worth nothing, and the next holder writes another record.
#[test]
fn a_lease_is_read_without_its_damaged_metadata() {
    let site = Before::Ours.site();
    fs::write(site.path("login.json.meta"), "made up").expect("room");
    site.place
        .read()
        .expect_err("a login whose metadata is damaged");
    let address = format!("file://{}", site.path("login.json").display());
    let lease = Place::of_lease(&address.parse().expect("an address"));
    let stored = lease.read().expect("a lease").expect("a record");
    assert_eq!(stored.stamp, None);
    lease
        .swap(Some(&stored.version), &secret(2), &stamp(2))
        .expect("the current version");
    site.shows(2);
}

/// Plays the writer in the process that the test starts and kills; `false` in the test's own.
fn is_the_writer() -> bool {
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
    answer.expect("nobody killed us");
    true
}

#[test]
fn the_next_writer_clears_up_after_a_killed_one_and_touches_nothing_else() {
    let site = Before::Ours.site();
    for name in ["login.json.authferry-tmp", "login.json.meta.authferry-tmp"] {
        site.put_private(name, b"half a log");
    }
    let theirs = [
        "login.json.tmp",
        "login.json~",
        "other.authferry-tmp",
        ".login.json.authferry-tmp",
    ];
    for name in theirs {
        fs::write(site.path(name), "mine").expect("somebody's file");
    }
    site.swap(2).expect("the current version");
    let mut left = site.leftovers();
    left.sort();
    let mut theirs = theirs.map(String::from);
    theirs.sort();
    assert_eq!(left, theirs);
}

/// A claim lies right beside its login, and its names begin with those of the login.
#[test]
fn who_writes_a_claim_and_who_writes_its_login_clear_up_after_themselves_alone() {
    let site = Before::Ours.site();
    let address = format!("file://{}", site.path("login.json").display());
    let address: Address = address.parse().expect("an address");
    let claim = Place::new(&address.of_the_claim());
    claim
        .swap(None, &secret(1), &stamp(1))
        .expect("an empty place");
    let temps = |name: &str| [TEMP, ".meta.authferry-tmp"].map(|end| format!("{name}{end}"));
    let (of_the_login, of_the_claim) = (temps("login.json"), temps("login.json.claim"));
    for name in of_the_login.iter().chain(&of_the_claim) {
        site.put_private(name, b"half a log");
    }

    site.swap(2).expect("the current version");
    let is_there = |name: &String| site.path(name).exists();
    assert!(!of_the_login.iter().any(is_there));
    assert!(of_the_claim.iter().all(is_there));

    for name in &of_the_login {
        site.put_private(name, b"half a log");
    }
    let base = claim.read().expect("a place").map(|stored| stored.version);
    claim
        .swap(base.as_ref(), &secret(3), &stamp(3))
        .expect("the current version");
    assert!(of_the_login.iter().all(is_there));
    assert!(!of_the_claim.iter().any(is_there));
    site.shows(2);
}

#[test]
fn what_is_written_is_a_new_file() {
    let site = Site::new();
    let folder = Folder::open(&site.place.folder).expect("a folder");
    folder.write("new", b"made-up").expect("nothing is there");
    folder
        .write("new", b"made-up")
        .expect_err("the name is taken");
}
