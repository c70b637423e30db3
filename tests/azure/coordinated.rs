//! One request after the other.

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
    NAME, Scene, is_conflict, is_refused, is_unknown, put_of, shows, shows_by_hand, swap, value,
    wait,
};

#[tokio::test]
async fn a_look_takes_two_requests_and_a_swap_six() {
    let scene = Scene::new();
    let store = scene.store();
    let first = swap(&store, None, 1).await.expect("an empty place");
    scene.vault.forget_calls();
    shows(&store, 1).await;
    assert_eq!(scene.asked(), [(Op::ReadBlob, 206), (Op::GetSecret, 200)]);

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
    assert_eq!(scene.asked(), six);
}

#[tokio::test]
async fn a_put_that_was_done_and_told_as_a_failure_makes_one_version() {
    let scene = Scene::new();
    let store = scene.store();
    let first = swap(&store, None, 1).await.expect("an empty place");
    let failed = Fault::AppliedThen(Failure::server_error());
    scene.fails(Op::SetSecret, failed);
    is_unknown(&swap(&store, Some(&first), 2).await);
    let landed = shows(&scene.store(), 2).await;
    let again = swap(&store, Some(&first), 2).await.expect("what landed");
    assert_eq!(again, landed);
    assert_eq!(scene.values(), [value(1), value(2)]);
}

#[tokio::test]
async fn a_put_that_was_lost_is_made_when_it_is_asked_for_again() {
    for fault in [Fault::RequestLost, Fault::Refused(Failure::overlap(NAME))] {
        let scene = Scene::new();
        let store = scene.store();
        let first = swap(&store, None, 1).await.expect("an empty place");
        scene.fails(Op::SetSecret, fault);
        is_unknown(&swap(&store, Some(&first), 2).await);
        assert_eq!(shows(&scene.store(), 1).await, first);
        swap(&store, Some(&first), 2).await.expect("the same again");
        assert_eq!(scene.values(), [value(1), value(2)]);
    }
}

#[tokio::test]
async fn whatever_becomes_of_a_write_to_the_pointer_one_version_is_made() {
    for fault in [
        Fault::RequestLost,
        Fault::ReplyLost,
        Fault::Refused(Failure::server_error()),
        Fault::AppliedThen(Failure::server_error()),
    ] {
        let scene = Scene::new();
        let store = scene.store();
        let first = swap(&store, None, 1).await.expect("an empty place");

        // The intent: nothing was put, and that is certain.
        scene.fails(Op::WriteBlob, fault.clone());
        is_refused(&swap(&store, Some(&first), 2).await);
        assert_eq!(shows(&scene.store(), 1).await, first);
        let second = swap(&store, Some(&first), 2).await.expect("the same again");

        // The end: nobody knows, and whoever looks next brings it about.
        let writes = AtomicUsize::new(0);
        let is_second = move |call: &Call| {
            call.op == Op::WriteBlob && writes.fetch_add(1, Ordering::Relaxed) == 1
        };
        scene.vault.fail(is_second, fault.clone());
        is_unknown(&swap(&store, Some(&second), 3).await);
        shows(&scene.store(), 3).await;
        assert_eq!(scene.values(), [value(1), value(2), value(3)]);
    }
}

#[tokio::test]
async fn a_writer_that_died_after_its_put_has_written() {
    let scene = Scene::new();
    let store = scene.store();
    let first = swap(&store, None, 1).await.expect("an empty place");
    let hold = scene.vault.hold(Moment::After, put_of("dying"));
    let dying = scene.store_of("dying");
    let expected = first.clone();
    let work = tokio::spawn(async move { swap(&dying, Some(&expected), 2).await });
    let hold = wait(hold).await;
    work.abort();
    let landed = shows(&scene.store(), 2).await;
    drop(hold);
    is_conflict(&swap(&store, Some(&first), 3).await);
    swap(&store, Some(&landed), 3)
        .await
        .expect("a swap on that");
    assert_eq!(scene.values(), [value(1), value(2), value(3)]);
}

/// It takes its ten seconds until a writer is taken for dead.
#[tokio::test]
async fn a_writer_that_slept_for_too_long_puts_what_counts_for_nothing() {
    let scene = Scene::new();
    let store = scene.store();
    let first = swap(&store, None, 1).await.expect("an empty place");
    scene.vault.rules(|rules| rules.overlap_conflicts = false);
    let hold = scene.vault.hold(Moment::Before, put_of("sleeper"));
    let sleeper = scene.store_of("sleeper");
    let expected = first.clone();
    let sleeping = tokio::spawn(async move { swap(&sleeper, Some(&expected), 2).await });
    let hold = wait(hold).await;
    let version = swap(&store, Some(&first), 3)
        .await
        .expect("the sleeper's turn");
    drop(hold);
    is_conflict(&sleeping.await.expect("no panic"));
    // It is the newest, and counts for nothing.
    assert_eq!(scene.values(), [value(1), value(3), value(2)]);
    assert_eq!(shows(&scene.store(), 3).await, version);
    let version = &version;
    swap(&store, Some(version), 4)
        .await
        .expect("a swap on that");
    shows(&store, 4).await;
}

#[tokio::test]
async fn what_a_person_puts_in_the_middle_of_a_swap_counts() {
    for moment in [Moment::Before, Moment::After] {
        let scene = Scene::new();
        let store = Arc::new(scene.store());
        let first = swap(&store, None, 1).await.expect("an empty place");
        let mut person = scene.person();
        scene.vault.rules(|rules| rules.overlap_conflicts = false);
        let hold = scene.vault.hold(moment, put_of(ADMIN.0));
        let (writer, expected) = (Arc::clone(&store), first.clone());
        let work = tokio::spawn(async move { swap(&writer, Some(&expected), 2).await });
        let hold = wait(hold).await;
        person.set(NAME, "reseed");
        drop(hold);
        is_conflict(&work.await.expect("no panic"));
        let reseed = shows_by_hand(&scene.store(), "reseed").await;
        swap(&store, Some(&reseed), 3)
            .await
            .expect("a swap on that");
        shows(&store, 3).await;
    }
}

#[tokio::test]
async fn a_list_that_lags_behind_buries_nothing() {
    let scene = Scene::new();
    let store = scene.store();
    scene
        .vault
        .rules(|rules| rules.list_lag = Duration::from_millis(700));
    let first = swap(&store, None, 1).await.expect("an empty place");
    let second = swap(&store, Some(&first), 2).await.expect("a swap");
    shows(&store, 2).await;
    let mut person = scene.person();
    person.set(NAME, "reseed");
    is_conflict(&swap(&store, Some(&second), 3).await);
    let reseed = shows_by_hand(&store, "reseed").await;
    swap(&store, Some(&reseed), 3)
        .await
        .expect("a swap on that");
}

#[tokio::test]
async fn a_secret_with_more_versions_than_a_page_has_rows_is_like_any_other() {
    let scene = Scene::new();
    let store = scene.store();
    let mut person = scene.person();
    for number in 0..60 {
        person.set(NAME, &format!("by-hand-{number}"));
    }
    let last = shows_by_hand(&store, "by-hand-59").await;
    let version = swap(&store, Some(&last), 1).await.expect("a swap");
    assert_eq!(shows(&store, 1).await, version);
    person.set(NAME, "reseed");
    is_conflict(&swap(&store, Some(&version), 2).await);
    let reseed = shows_by_hand(&store, "reseed").await;
    swap(&store, Some(&reseed), 2)
        .await
        .expect("a swap on that");
    shows(&scene.store(), 2).await;
}

#[tokio::test]
async fn tags_that_a_person_copied_do_not_hide_a_reseed() {
    let scene = Scene::new();
    let store = scene.store();
    let first = swap(&store, None, 1).await.expect("an empty place");
    let tags = scene.vault.versions(NAME)[0].tags.clone();
    let copied = json!({"op": "set", "name": NAME, "value": "reseed", "tags": tags});
    scene.person().ask(&copied).expect("a right to everything");
    is_conflict(&swap(&store, Some(&first), 2).await);
    shows_by_hand(&store, "reseed").await;
}

#[tokio::test]
async fn who_is_asked_to_wait_waits_and_comes_back() {
    let scene = Scene::new();
    let store = scene.store();
    let first = swap(&store, None, 1).await.expect("an empty place");
    for op in [Op::GetSecret, Op::ReadBlob] {
        scene.fails(op, Fault::Refused(Failure::throttled(Some(1))));
        shows(&store, 1).await;
    }
    scene.fails(Op::SetSecret, Fault::Refused(Failure::throttled(Some(1))));
    is_refused(&swap(&store, Some(&first), 2).await);
    swap(&store, Some(&first), 2).await.expect("the same again");
    assert_eq!(scene.values(), [value(1), value(2)]);
    assert_eq!(scene.vault.faults_left(), 0);
}

#[tokio::test]
async fn a_token_that_is_not_known_yet_is_no_obstacle() {
    let scene = Scene::new();
    let store = scene.store();
    swap(&store, None, 1).await.expect("an empty place");
    // The library shows it once more by itself, and we do after a pause.
    for _ in 0..2 {
        scene.fails(
            Op::GetSecret,
            Fault::Refused(Failure::token_not_known_yet()),
        );
    }
    shows(&store, 1).await;
    assert_eq!(scene.vault.faults_left(), 0);
}

#[tokio::test]
async fn who_may_not_write_to_the_pointer_sees_what_counts() {
    let scene = Scene::new();
    let first = swap(&scene.store(), None, 1).await.expect("an empty place");
    let looks = [
        "Microsoft.KeyVault/*",
        "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read",
    ];
    let reader = scene.store_of_rights("reader", &looks);
    assert_eq!(shows(&reader, 1).await, first);
    scene.person().set(NAME, "reseed");
    shows_by_hand(&reader, "reseed").await;
    is_refused(&swap(&reader, Some(&first), 2).await);
}
