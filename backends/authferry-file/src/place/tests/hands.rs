//! What people do, who take no lock.

use std::{
    fs::{self, File},
    io::{self, Seek, Write},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::*;

/// Swaps over what is there, and lets a hand do something right before the step that
/// decides.
fn swap_with_a_hand(site: &Site, hand: impl FnOnce()) -> Result<(), Unswapped> {
    let folder = Folder::open(&site.place.folder).expect("a folder");
    let lock = folder
        .lock(&site.place.lock, Sharing::Nobody, PATIENCE)
        .expect("a free lock");
    let held = site.place.held(&folder).expect("a place");
    site.place
        .prepare(&folder, held.as_ref(), &secret(2), &stamp(2))
        .expect("room on the disk");
    hand();
    site.place
        .replace(&folder, &lock, held.as_ref().map(Held::version))
}

#[test]
fn what_a_hand_puts_there_during_a_swap_is_kept() {
    for before in Before::ALL {
        let site = before.site();
        let answer = swap_with_a_hand(&site, || site.put_by_hand(&login(7)));
        assert!(matches!(answer, Err(Unswapped::Conflict)), "{answer:?}");
        let stored = site.read().expect("the hand's login");
        assert_eq!(stored.secret.expose(), login(7));
        assert_eq!(stored.stamp, None);
    }
}

#[test]
fn what_a_hand_removes_during_a_swap_stays_removed() {
    let site = Before::Ours.site();
    let answer = swap_with_a_hand(&site, || {
        fs::remove_file(site.path("login.json")).expect("removed by hand");
    });
    assert!(matches!(answer, Err(Unswapped::Conflict)), "{answer:?}");
    assert!(site.read().is_none());
}

#[test]
fn what_a_hand_removes_beside_the_login_is_no_stamp_of_the_new_one() {
    let site = Before::Ours.site();
    let answer = swap_with_a_hand(&site, || {
        fs::remove_file(site.path("login.json.meta")).expect("removed by hand");
    });
    assert!(matches!(answer, Err(Unswapped::Conflict)), "{answer:?}");
    assert_eq!(site.read().expect("a login").secret.expose(), login(1));
}

#[test]
fn nobody_writes_under_a_lock_that_others_do_not_come_to() {
    for replaced in [false, true] {
        let site = Before::Ours.site();
        let answer = swap_with_a_hand(&site, || {
            fs::remove_file(site.path("login.json.lock")).expect("removed by hand");
            if replaced {
                // Nothing tells a reader that the writer is still there.
                site.shows(2);
            }
        });
        let told =
            matches!(&answer, Err(Unswapped::After(t)) if t.kind() == ErrorKind::Unavailable);
        assert!(told, "{answer:?}");
        // Whoever looks settles it.
        site.shows(2);
        assert!(site.leftovers().is_empty());
    }
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

    // The clock of a file system may tick no more than a hundred times a second.
    thread::sleep(Duration::from_millis(20));
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
fn a_login_that_changes_while_it_is_read_is_not_taken() {
    let rewrite = |mut file: &File| file.rewind().and_then(|()| file.write_all(b"b"));
    let empty_and_fill = |file: &File| {
        let len = file.metadata()?.len();
        file.set_len(0)?;
        file.set_len(len)
    };
    notices(rewrite);
    notices(empty_and_fill);
}

/// Reads while a hand goes on changing the file, until that was noticed a few times.
fn notices(hand: impl Fn(&File) -> io::Result<()> + Sync) {
    let site = Site::new();
    site.put_by_hand(&vec![b'a'; MAX_LEN]);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let path = site.path("login.json");
            let file = File::options().write(true).open(path).expect("a file");
            while !done.load(Ordering::Relaxed) {
                hand(&file).expect("room on the disk");
            }
        });
        let deadline = Instant::now() + Duration::from_mins(2);
        let mut troubles = Vec::new();
        while troubles.len() < 20 && Instant::now() < deadline {
            troubles.extend(site.place.read().err());
        }
        done.store(true, Ordering::Relaxed);
        assert!(!troubles.is_empty(), "no read failed in 2 minutes");
        for trouble in troubles {
            assert!(matches!(trouble, Trouble::Moving(_)), "{trouble:?}");
            assert_eq!(trouble.kind(), ErrorKind::Unavailable);
        }
    });
}
