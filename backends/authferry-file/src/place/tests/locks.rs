//! Tests of the lock.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    thread,
    time::Duration,
};

use super::*;

#[test]
fn a_held_lock_times_out_and_readers_share_it() {
    let mut site = InitialState::Ours.site();
    site.place.lock_timeout = Duration::from_millis(20);
    let folder = Folder::open(&site.place.folder).expect("a folder");
    // Wait for the lock: a process that another test forks holds our open files until its exec.
    let take = |mode| folder.lock(&site.place.lock, mode, LOCK_TIMEOUT);

    let reading = take(LockMode::Shared).expect("a free lock");
    site.expect_generation(1);
    expect_unavailable(&site.swap_over(None, 2));
    drop(reading);

    let writing = take(LockMode::Exclusive).expect("a free lock");
    let cause = site.place.read().expect_err("a lock held by a writer");
    assert_eq!(cause.kind(), ErrorKind::Unavailable);
    drop(writing);
    drop(take(LockMode::Exclusive).expect("a free lock"));
}

#[test]
fn a_lock_open_to_other_users_is_refused_without_a_wait() {
    let site = InitialState::Ours.site();
    let lock = fs::File::open(site.path("login.json.lock")).expect("a lock");
    lock.set_permissions(Permissions::from_mode(0o644))
        .and_then(|()| lock.lock())
        .expect("a lock held by another user");
    let cause = site.place.read().expect_err("an open lock");
    assert_eq!(cause.kind(), ErrorKind::Unsafe);
}

#[test]
fn a_waiter_for_a_removed_lock_takes_the_new_lock() {
    let site = Site::new();
    let folder = Folder::open(&site.place.folder).expect("a folder");
    let take = || folder.lock(&site.place.lock, LockMode::Exclusive, LOCK_TIMEOUT);
    let first = take().expect("a free lock");
    let second = thread::scope(|scope| {
        let waiting = scope.spawn(take);
        // Long enough for the other thread to open the lock's file.
        thread::sleep(Duration::from_millis(50));
        fs::remove_file(site.path("login.json.lock")).expect("removed by hand");
        drop(first);
        waiting.join().expect("no panic")
    });
    let second = second.expect("a free lock");
    folder.check_lock(&second).expect("the current lock");
}
