//! Swaps and reads, request by request.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rig::{ADMIN, Call, Failure, KeyVaultFault as Fault, Moment, Op};
use serde_json::json;

use crate::scene::{
    NAME, Scene, assert_ambiguous, assert_conflict, assert_current, assert_manual, assert_refused,
    put_of, swap, value, wait_until_held,
};

#[tokio::test]
async fn a_read_takes_two_requests_and_a_swap_six() {
    let scene = Scene::new();
    let store = scene.store();
    let first = swap(&store, None, 1).await.expect("an empty place");
    scene.vault.forget_calls();
    assert_current(&store, 1).await;
    assert_eq!(
        scene.requests(),
        [(Op::ReadBlob, 206), (Op::GetSecret, 200)]
    );

    scene.vault.forget_calls();
    swap(&store, Some(&first), 2).await.expect("a swap");
    let six = [
        (Op::ReadBlob, 206),
        (Op::GetSecret, 200),
        (Op::WriteBlob, 201),
        (Op::SetSecret, 200),
        (Op::ListVersions, 200),
        (Op::WriteBlob, 201),
    ];
    assert_eq!(scene.requests(), six);
}

#[tokio::test]
async fn a_put_applied_but_reported_as_failed_makes_one_version() {
    let scene = Scene::new();
    let store = scene.store();
    let first = swap(&store, None, 1).await.expect("an empty place");
    let failed = Fault::AppliedThen(Failure::server_error());
    scene.fail_next(Op::SetSecret, failed);
    assert_ambiguous(&swap(&store, Some(&first), 2).await);
    let applied = assert_current(&scene.store(), 2).await;
    let again = swap(&store, Some(&first), 2)
        .await
        .expect("the applied put");
    assert_eq!(again, applied);
    assert_eq!(scene.values(), [value(1), value(2)]);
}

#[tokio::test]
async fn a_lost_put_is_applied_by_the_retry() {
    for fault in [Fault::RequestLost, Fault::Refused(Failure::overlap(NAME))] {
        let scene = Scene::new();
        let store = scene.store();
        let first = swap(&store, None, 1).await.expect("an empty place");
        scene.fail_next(Op::SetSecret, fault);
        assert_ambiguous(&swap(&store, Some(&first), 2).await);
        assert_eq!(assert_current(&scene.store(), 1).await, first);
        swap(&store, Some(&first), 2).await.expect("the same again");
        assert_eq!(scene.values(), [value(1), value(2)]);
    }
}

#[tokio::test]
async fn any_fault_of_a_pointer_write_makes_one_version() {
    for fault in [
        Fault::RequestLost,
        Fault::ReplyLost,
        Fault::Refused(Failure::server_error()),
        Fault::AppliedThen(Failure::server_error()),
    ] {
        let scene = Scene::new();
        let store = scene.store();
        let first = swap(&store, None, 1).await.expect("an empty place");

        // A fault of the intent: nothing was put, and the store knows it.
        scene.fail_next(Op::WriteBlob, fault.clone());
        assert_refused(&swap(&store, Some(&first), 2).await);
        assert_eq!(assert_current(&scene.store(), 1).await, first);
        let second = swap(&store, Some(&first), 2).await.expect("the same again");

        // A fault of the completion: the result is ambiguous, and the next read completes the swap.
        let writes = AtomicUsize::new(0);
        let is_second = move |call: &Call| {
            call.op == Op::WriteBlob && writes.fetch_add(1, Ordering::Relaxed) == 1
        };
        scene.vault.fail(is_second, fault.clone());
        assert_ambiguous(&swap(&store, Some(&second), 3).await);
        assert_current(&scene.store(), 3).await;
        assert_eq!(scene.values(), [value(1), value(2), value(3)]);
    }
}

#[tokio::test]
async fn a_put_counts_although_its_writer_died() {
    let scene = Scene::new();
    let store = scene.store();
    let first = swap(&store, None, 1).await.expect("an empty place");
    let hold = scene.vault.hold(Moment::After, put_of("killed"));
    let killed = scene.store_of("killed");
    let expected = first.clone();
    let work = tokio::spawn(async move { swap(&killed, Some(&expected), 2).await });
    let hold = wait_until_held(hold).await;
    work.abort();
    let applied = assert_current(&scene.store(), 2).await;
    drop(hold);
    assert_conflict(&swap(&store, Some(&first), 3).await);
    swap(&store, Some(&applied), 3)
        .await
        .expect("a swap on the current version");
    assert_eq!(scene.values(), [value(1), value(2), value(3)]);
}

/// The store waits 10 seconds before it takes a writer for dead.
#[tokio::test]
async fn a_put_by_a_stalled_writer_does_not_count() {
    let scene = Scene::new();
    let store = scene.store();
    let first = swap(&store, None, 1).await.expect("an empty place");
    scene.vault.rules(|rules| rules.overlap_conflicts = false);
    let hold = scene.vault.hold(Moment::Before, put_of("stalled"));
    let stalled = scene.store_of("stalled");
    let expected = first.clone();
    let stalled_swap = tokio::spawn(async move { swap(&stalled, Some(&expected), 2).await });
    let hold = wait_until_held(hold).await;
    let version = swap(&store, Some(&first), 3)
        .await
        .expect("a swap after the stalled writer timed out");
    drop(hold);
    assert_conflict(&stalled_swap.await.expect("no panic"));
    // The late version is the newest, and does not count.
    assert_eq!(scene.values(), [value(1), value(3), value(2)]);
    assert_eq!(assert_current(&scene.store(), 3).await, version);
    let version = &version;
    swap(&store, Some(version), 4)
        .await
        .expect("a swap on the current version");
    assert_current(&store, 4).await;
}

#[tokio::test]
async fn a_manual_write_during_a_swap_counts() {
    for moment in [Moment::Before, Moment::After] {
        let scene = Scene::new();
        let store = Arc::new(scene.store());
        let first = swap(&store, None, 1).await.expect("an empty place");
        let mut person = scene.person();
        scene.vault.rules(|rules| rules.overlap_conflicts = false);
        let hold = scene.vault.hold(moment, put_of(ADMIN.0));
        let (writer, expected) = (Arc::clone(&store), first.clone());
        let work = tokio::spawn(async move { swap(&writer, Some(&expected), 2).await });
        let hold = wait_until_held(hold).await;
        person.set(NAME, "reseed");
        drop(hold);
        assert_conflict(&work.await.expect("no panic"));
        let reseed = assert_manual(&scene.store(), "reseed").await;
        swap(&store, Some(&reseed), 3)
            .await
            .expect("a swap on the current version");
        assert_current(&store, 3).await;
    }
}

#[tokio::test]
async fn a_lagging_list_overwrites_nothing() {
    let scene = Scene::new();
    let store = scene.store();
    scene
        .vault
        .rules(|rules| rules.list_lag = Duration::from_millis(700));
    let first = swap(&store, None, 1).await.expect("an empty place");
    let second = swap(&store, Some(&first), 2).await.expect("a swap");
    assert_current(&store, 2).await;
    let mut person = scene.person();
    person.set(NAME, "reseed");
    assert_conflict(&swap(&store, Some(&second), 3).await);
    let reseed = assert_manual(&store, "reseed").await;
    swap(&store, Some(&reseed), 3)
        .await
        .expect("a swap on the current version");
}

#[tokio::test]
async fn a_secret_with_more_than_one_page_of_versions_works() {
    let scene = Scene::new();
    let store = scene.store();
    let mut person = scene.person();
    for number in 0..60 {
        person.set(NAME, &format!("by-hand-{number}"));
    }
    let last = assert_manual(&store, "by-hand-59").await;
    let version = swap(&store, Some(&last), 1).await.expect("a swap");
    assert_eq!(assert_current(&store, 1).await, version);
    person.set(NAME, "reseed");
    assert_conflict(&swap(&store, Some(&version), 2).await);
    let reseed = assert_manual(&store, "reseed").await;
    swap(&store, Some(&reseed), 2)
        .await
        .expect("a swap on the current version");
    assert_current(&scene.store(), 2).await;
}

#[tokio::test]
async fn copied_tags_do_not_hide_a_reseed() {
    let scene = Scene::new();
    let store = scene.store();
    let first = swap(&store, None, 1).await.expect("an empty place");
    let tags = scene.vault.versions(NAME)[0].tags.clone();
    let copied = json!({"op": "set", "name": NAME, "value": "reseed", "tags": tags});
    scene.person().ask(&copied).expect("a right to everything");
    assert_conflict(&swap(&store, Some(&first), 2).await);
    assert_manual(&store, "reseed").await;
}

#[tokio::test]
async fn a_throttled_request_is_retried_after_its_delay() {
    let scene = Scene::new();
    let store = scene.store();
    let first = swap(&store, None, 1).await.expect("an empty place");
    for op in [Op::GetSecret, Op::ReadBlob] {
        scene.fail_next(op, Fault::Refused(Failure::throttled(Some(1))));
        assert_current(&store, 1).await;
    }
    scene.fail_next(Op::SetSecret, Fault::Refused(Failure::throttled(Some(1))));
    assert_refused(&swap(&store, Some(&first), 2).await);
    swap(&store, Some(&first), 2).await.expect("the same again");
    assert_eq!(scene.values(), [value(1), value(2)]);
    assert_eq!(scene.vault.faults_left(), 0);
}

#[tokio::test]
async fn a_token_that_the_vault_does_not_know_yet_is_retried() {
    let scene = Scene::new();
    let store = scene.store();
    swap(&store, None, 1).await.expect("an empty place");
    // The library retries once by itself, and our store retries after a pause.
    for _ in 0..2 {
        scene.fail_next(
            Op::GetSecret,
            Fault::Refused(Failure::token_not_known_yet()),
        );
    }
    assert_current(&store, 1).await;
    assert_eq!(scene.vault.faults_left(), 0);
}

#[tokio::test]
async fn a_reader_without_pointer_writes_sees_the_current_version() {
    let scene = Scene::new();
    let first = swap(&scene.store(), None, 1).await.expect("an empty place");
    let read_only = [
        "Microsoft.KeyVault/*",
        "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read",
    ];
    let reader = scene.store_of_rights("reader", &read_only);
    assert_eq!(assert_current(&reader, 1).await, first);
    scene.person().set(NAME, "reseed");
    assert_manual(&reader, "reseed").await;
    assert_refused(&swap(&reader, Some(&first), 2).await);
}
