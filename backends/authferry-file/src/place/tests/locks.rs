//! Taking turns, and what comes in the way.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    thread,
    time::Duration,
};

use super::*;

#[test]
fn a_lock_that_nobody_lets_go_of_is_told_and_a_reader_disturbs_no_reader() {
    let mut site = Before::Ours.site();
    site.place.patience = Duration::from_millis(20);
    let folder = Folder::open(&site.place.folder).expect("a folder");
    // A process that another test is starting has our files too, for a moment.
    let take = |sharing| folder.lock(&site.place.lock, sharing, PATIENCE);

    let reading = take(Sharing::Readers).expect("a free lock");
    site.shows(1);
    unavailable(&site.swap_over(None, 2));
    drop(reading);

    let writing = take(Sharing::Nobody).expect("a free lock");
    let trouble = site.place.read().expect_err("a writer is at work");
    assert_eq!(trouble.kind(), ErrorKind::Unavailable);
    drop(writing);
    drop(take(Sharing::Nobody).expect("a free lock"));
}

#[test]
fn nobody_waits_for_a_lock_that_anybody_could_hold_for_ever() {
    let site = Before::Ours.site();
    let lock = fs::File::open(site.path("login.json.lock")).expect("a lock");
    lock.set_permissions(Permissions::from_mode(0o644))
        .and_then(|()| lock.lock())
        .expect("a lock held by somebody who can read it");
    let trouble = site.place.read().expect_err("an open lock");
    assert_eq!(trouble.kind(), ErrorKind::Unsafe);
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
    folder.check(&second).expect("the lock that others come to");
}
