//! What the protocol holds against: a fault between any two steps, and people.

use std::{
    env, fs,
    io::Write,
    os::unix::{fs::OpenOptionsExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use authferry_core::{ErrorKind, Origin, WriteId};
use rustix::io::Errno;
use tempfile::TempDir;

use super::*;
use crate::steps::script::{self, Fault};

/// One place in a folder of its own.
struct Site {
    folder: TempDir,
    place: Place,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let place = place_at(&folder.path().join("login.json"));
        Self { folder, place }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn put_by_hand(&self, login: &[u8]) {
        fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.path("login.json"))
            .and_then(|mut file| file.write_all(login))
            .expect("written by hand");
    }

    /// Returns what is in the folder besides the three files that belong there.
    fn leftovers(&self) -> Vec<String> {
        fs::read_dir(self.folder.path())
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name())
            .map(|name| name.into_string().expect("text"))
            .filter(|name| !["login.json", "login.json.meta", "login.json.lock"].contains(&&**name))
            .collect()
    }

    fn read(&self) -> Option<Stored> {
        self.place.read().expect("a place that can be read")
    }

    fn version(&self) -> Option<Version> {
        self.read().map(|stored| stored.version)
    }

    /// Requires generation `number`, with its own stamp, and returns its version.
    fn shows(&self, number: u64) -> Version {
        let stored = self.read().expect("a login");
        assert_eq!(stored.secret.expose(), login(number));
        assert_eq!(stored.stamp, Some(stamp(number)));
        stored.version
    }

    /// Swaps generation `number` in over what is there.
    fn swap(&self, number: u64) -> Result<Version, Unswapped> {
        self.swap_over(self.version().as_ref(), number)
    }

    fn swap_over(&self, base: Option<&Version>, number: u64) -> Result<Version, Unswapped> {
        self.place.swap(base, &secret(number), &stamp(number))
    }
}

fn place_at(path: &Path) -> Place {
    let address = format!("file://{}", path.display());
    Place::new(&address.parse().expect("an address"))
}

fn login(number: u64) -> Vec<u8> {
    format!("{{\"token\":\"made-up-{number}\"}}").into_bytes()
}

fn secret(number: u64) -> Secret {
    Secret::new(login(number))
}

fn stamp(number: u64) -> Stamp {
    Stamp {
        id: WriteId { trip: 1, number },
        count: number,
        origin: Origin::Rotation,
        writer: "a test".into(),
    }
}

/// How a place can be before a swap; generation 1 is there, or nothing is.
#[derive(Clone, Copy, Debug)]
enum Before {
    Empty,
    ByHand,
    Ours,
}

impl Before {
    const ALL: [Self; 3] = [Self::Empty, Self::ByHand, Self::Ours];

    fn site(self) -> Site {
        let site = Site::new();
        match self {
            Self::Empty => {}
            Self::ByHand => site.put_by_hand(&login(1)),
            Self::Ours => {
                site.swap(1).expect("an empty place");
            }
        }
        site
    }
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
            assert_eq!(number, 8, "one lock, two removals, one sync");
            return;
        }
        match number {
            0..6 => assert!(matches!(answer, Err(Unswapped::Before(_))), "{answer:?}"),
            _ => assert!(matches!(answer, Err(Unswapped::After(_))), "{answer:?}"),
        }
    }
}

const KILL_AT: &str = "AUTHFERRY_TEST_KILL_AT";
const KILL_IN: &str = "AUTHFERRY_TEST_KILL_IN";

#[test]
fn a_writer_killed_between_any_two_steps_loses_nothing() {
    for before in Before::ALL {
        let (mut old, mut new) = (0, 0);
        for number in 0_usize.. {
            let site = before.site();
            let base = site.version();
            let status = Command::new(env::current_exe().expect("this program"))
                .args(["--exact", "place::tests::writer", "--ignored"])
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

            // Whichever of the two is there has its own version and stamp.
            let version = site.version();
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
        assert_eq!(new, 3, "{before:?}");
    }
}

#[test]
#[ignore = "a process of its own, which another test starts and kills"]
fn writer() {
    let (Ok(number), Ok(path)) = (env::var(KILL_AT), env::var(KILL_IN)) else {
        return;
    };
    let place = place_at(Path::new(&path));
    let stored = place.read().expect("a place that can be read");
    let base = stored.map(|stored| stored.version);
    let number = number.parse().expect("a number");
    let (answer, _) = script::with(number, Fault::Kill, || {
        place.swap(base.as_ref(), &secret(2), &stamp(2))
    });
    answer.expect("nobody killed us");
}

#[test]
fn what_a_hand_puts_there_during_a_swap_is_kept() {
    for before in Before::ALL {
        let site = before.site();
        let folder = Folder::open(&site.place.folder).expect("a folder");
        let held = site.place.held(&folder).expect("a place");
        let base = held.as_ref();
        site.place
            .prepare(&folder, base, &secret(2), &stamp(2))
            .expect("room on the disk");
        site.put_by_hand(&login(7));
        let answer = site.place.replace(&folder, base);
        assert!(matches!(answer, Err(Unswapped::Conflict)), "{answer:?}");
        let stored = site.read().expect("the hand's login");
        assert_eq!(stored.secret.expose(), login(7));
        assert_eq!(stored.stamp, None);
    }
}

#[test]
fn what_a_hand_removes_during_a_swap_stays_removed() {
    let site = Before::Ours.site();
    let folder = Folder::open(&site.place.folder).expect("a folder");
    let held = site.place.held(&folder).expect("a place");
    site.place
        .prepare(&folder, held.as_ref(), &secret(2), &stamp(2))
        .expect("room on the disk");
    fs::remove_file(site.path("login.json")).expect("removed by hand");
    let answer = site.place.replace(&folder, held.as_ref());
    assert!(matches!(answer, Err(Unswapped::Conflict)), "{answer:?}");
    assert!(site.read().is_none());
}

#[test]
fn no_version_comes_twice_whatever_hands_remove_and_restore() {
    let site = Site::new();
    let (login_file, meta_file) = (site.path("login.json"), site.path("login.json.meta"));
    let mut versions = vec![site.swap(1).expect("an empty place")];
    let mut another = |what| {
        let version = site.version().expect(what);
        assert!(!versions.contains(&version), "{what}: {version} twice");
        versions.push(version);
    };

    // A backup of both files, taken with all that can be taken of them.
    for file in [&login_file, &meta_file] {
        let copied = Command::new("cp")
            .arg("-p")
            .args([file, &file.with_added_extension("backup")])
            .status();
        assert!(copied.expect("cp").success());
    }
    site.swap(2).expect("the current version");
    another("a swap");
    for file in [&login_file, &meta_file] {
        fs::rename(file.with_added_extension("backup"), file).expect("restored");
    }
    another("a backup of both files");
    assert_eq!(site.read().and_then(|stored| stored.stamp), None);

    site.put_by_hand(&login(1));
    another("the same bytes by hand, in place");
    fs::remove_file(&meta_file).expect("removed by hand");
    site.swap(1).expect("the current version");
    another("the same write without the file beside it");
    fs::remove_file(&meta_file).expect("removed by hand");
    another("what was written here, without the file beside it");
    fs::remove_file(&login_file).expect("removed by hand");
    site.swap(1).expect("an empty place");
    another("the same write after both files were removed");
    fs::remove_file(&login_file).expect("removed by hand");
    site.swap(1).expect("an empty place");
    another("the same write after the login was removed");
}

#[test]
fn the_next_writer_clears_up_after_a_killed_one_and_touches_nothing_else() {
    let site = Before::Ours.site();
    for name in ["login.json.authferry-tmp", "login.json.meta.authferry-tmp"] {
        fs::write(site.path(name), "half a log").expect("left by a killed writer");
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

#[test]
fn a_lock_that_nobody_lets_go_of_is_told_and_a_reader_disturbs_no_reader() {
    let mut site = Before::Ours.site();
    site.place.patience = Duration::from_millis(20);
    let folder = Folder::open(&site.place.folder).expect("a folder");
    let take = |sharing| folder.lock(&site.place.lock, sharing, Duration::ZERO);

    let reading = take(Sharing::Readers).expect("a free lock");
    site.shows(1);
    let written = site.swap_over(None, 2);
    let told = matches!(&written, Err(Unswapped::Before(t)) if t.kind() == ErrorKind::Unavailable);
    assert!(told, "{written:?}");
    drop(reading);

    let writing = take(Sharing::Nobody).expect("a free lock");
    let trouble = site.place.read().expect_err("a writer is at work");
    assert_eq!(trouble.kind(), ErrorKind::Unavailable);
    drop(writing);
    site.swap(2).expect("a free lock");
}

#[test]
fn who_waited_for_a_lock_that_was_removed_takes_the_new_one() {
    let site = Site::new();
    let folder = Folder::open(&site.place.folder).expect("a folder");
    let take = || folder.lock(&site.place.lock, Sharing::Nobody, PATIENCE);
    let first = take().expect("a free lock");
    let second = thread::scope(|scope| {
        let waiting = scope.spawn(take);
        // Long enough for the other one to have opened the file.
        thread::sleep(Duration::from_millis(50));
        fs::remove_file(site.path("login.json.lock")).expect("removed by hand");
        drop(first);
        waiting.join().expect("no panic")
    });
    let second = second.expect("a free lock");
    let named = folder.look(&site.place.lock).expect("a file").expect("one");
    let metadata = second.metadata().expect("an open file");
    assert_eq!(Facts::of(&metadata).inode, named.inode);
}

#[test]
fn a_login_that_changes_while_it_is_read_is_not_taken() {
    let site = Site::new();
    site.put_by_hand(&vec![b'a'; MAX_LEN]);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let path = site.path("login.json");
            let file = fs::OpenOptions::new().write(true).open(path);
            let mut file = file.expect("a file");
            while !done.load(Ordering::Relaxed) {
                file.write_all(b"b").expect("room on the disk");
                std::io::Seek::rewind(&mut file).expect("a file");
            }
        });
        let deadline = Instant::now() + Duration::from_secs(20);
        let told = loop {
            match site.place.read() {
                Err(trouble) => break Some(trouble),
                Ok(_) if Instant::now() > deadline => break None,
                Ok(_) => {}
            }
        };
        done.store(true, Ordering::Relaxed);
        let told = told.expect("no change was noticed in 20 seconds");
        assert!(matches!(told, Trouble::Moving(_)), "{told:?}");
        assert_eq!(told.kind(), ErrorKind::Unavailable);
    });
}
