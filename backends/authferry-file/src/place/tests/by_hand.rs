//! Writes by hand, which take no lock.

use std::{
    fs::{self, File},
    io::{self, Seek, Write},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::*;

/// Swaps the current login, and runs `by_hand` right before the commit.
fn swap_during(site: &Site, by_hand: impl FnOnce()) -> Result<(), SwapError> {
    let folder = Folder::open(&site.place.folder).expect("a folder");
    let lock = folder
        .lock(&site.place.lock, LockMode::Exclusive, LOCK_TIMEOUT)
        .expect("a free lock");
    let held = site.place.held(&folder).expect("a place");
    site.place
        .prepare(&folder, held.as_ref(), &secret(2), &stamp(2))
        .expect("room on the disk");
    by_hand();
    site.place
        .commit(&folder, &lock, held.as_ref().map(Contents::version))
}

#[test]
fn a_login_put_by_hand_during_a_swap_is_kept() {
    for before in InitialState::ALL {
        let site = before.site();
        let answer = swap_during(&site, || site.put_by_hand(&login(7)));
        assert!(matches!(answer, Err(SwapError::Conflict)), "{answer:?}");
        let stored = site.read().expect("the login put by hand");
        assert_eq!(stored.secret.expose(), login(7));
        assert_eq!(stored.stamp, None);
    }
}

#[test]
fn a_login_removed_during_a_swap_stays_removed() {
    let site = InitialState::Ours.site();
    let answer = swap_during(&site, || {
        fs::remove_file(site.path("login.json")).expect("removed by hand");
    });
    assert!(matches!(answer, Err(SwapError::Conflict)), "{answer:?}");
    assert!(site.read().is_none());
}

#[test]
fn metadata_removed_during_a_swap_conflict() {
    let site = InitialState::Ours.site();
    let answer = swap_during(&site, || {
        fs::remove_file(site.path("login.json.meta")).expect("removed by hand");
    });
    assert!(matches!(answer, Err(SwapError::Conflict)), "{answer:?}");
    assert_eq!(site.read().expect("a login").secret.expose(), login(1));
}

#[test]
fn a_lock_removed_during_a_swap_makes_it_ambiguous() {
    for replaced in [false, true] {
        let site = InitialState::Ours.site();
        let answer = swap_during(&site, || {
            fs::remove_file(site.path("login.json.lock")).expect("removed by hand");
            if replaced {
                // Without the lock's file, the reader does not wait for the writer.
                site.expect_generation(2);
            }
        });
        let is_ambiguous = matches!(&answer, Err(SwapError::MaybeWritten(t)) if t.kind() == ErrorKind::Unavailable);
        assert!(is_ambiguous, "{answer:?}");
        // The next read resolves the outcome.
        site.expect_generation(2);
        assert!(site.leftovers().is_empty());
    }
}

#[test]
fn no_version_is_reused_after_files_are_removed_or_restored() {
    let site = Site::new();
    let (login_file, meta_file) = (site.path("login.json"), site.path("login.json.meta"));
    let mut versions = vec![site.swap(1).expect("an empty place")];
    let mut expect_new_version = |what| {
        let version = site.version().expect(what);
        assert!(!versions.contains(&version), "{what}: {version} twice");
        versions.push(version);
    };

    // A backup of both files with all their attributes.
    for file in [&login_file, &meta_file] {
        let copied = Command::new("cp")
            .arg("-p")
            .args([file, &file.with_added_extension("backup")])
            .status();
        assert!(copied.expect("cp").success());
    }
    site.swap(2).expect("the current version");
    expect_new_version("a swap");
    for file in [&login_file, &meta_file] {
        fs::rename(file.with_added_extension("backup"), file).expect("restored");
    }
    expect_new_version("a backup of both files");
    assert_eq!(site.read().and_then(|stored| stored.stamp), None);

    // The clock of a file system may tick only a hundred times a second.
    thread::sleep(Duration::from_millis(20));
    site.put_by_hand(&login(1));
    expect_new_version("the same bytes by hand, in place");
    fs::remove_file(&meta_file).expect("removed by hand");
    site.swap(1).expect("the current version");
    expect_new_version("the same write without the metadata");
    fs::remove_file(&meta_file).expect("removed by hand");
    expect_new_version("a login without its metadata");
    fs::remove_file(&login_file).expect("removed by hand");
    site.swap(1).expect("an empty place");
    expect_new_version("the same write after both files were removed");
    fs::remove_file(&login_file).expect("removed by hand");
    site.swap(1).expect("an empty place");
    expect_new_version("the same write after the login was removed");
}

#[test]
fn a_login_that_changes_during_a_read_is_an_error() {
    let rewrite = |mut file: &File| file.rewind().and_then(|()| file.write_all(b"b"));
    let empty_and_fill = |file: &File| {
        let len = file.metadata()?.len();
        file.set_len(0)?;
        file.set_len(len)
    };
    expect_change_detected(rewrite);
    expect_change_detected(empty_and_fill);
}

/// Reads while `change` keeps changing the file, until some reads detect it.
fn expect_change_detected(change: impl Fn(&File) -> io::Result<()> + Sync) {
    let site = Site::new();
    site.put_by_hand(&vec![b'a'; MAX_LEN]);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let path = site.path("login.json");
            let file = File::options().write(true).open(path).expect("a file");
            while !done.load(Ordering::Relaxed) {
                change(&file).expect("room on the disk");
            }
        });
        let deadline = Instant::now() + Duration::from_mins(2);
        let mut errors = Vec::new();
        while errors.len() < 20 && Instant::now() < deadline {
            errors.extend(site.place.read().err());
        }
        done.store(true, Ordering::Relaxed);
        assert!(!errors.is_empty(), "no read failed in 2 minutes");
        for cause in errors {
            assert!(
                matches!(cause, FileError::ChangedDuringRead(_)),
                "{cause:?}"
            );
            assert_eq!(cause.kind(), ErrorKind::Unavailable);
        }
    });
}
