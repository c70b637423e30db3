//! Without a coordinator: what of that is best effort, and what is not.

use authferry_core::{Bid, ClaimError, SecretStore};
use rig::{Failure, KeyVaultFault as Fault, Moment, Op};

use crate::scene::{
    NAME, Scene, is_conflict, is_refused, is_unknown, put_of, shows, shows_by_hand, swap, value,
    wait,
};

#[tokio::test]
async fn a_put_that_was_done_and_told_as_a_failure_makes_one_version() {
    let scene = Scene::alone();
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
async fn a_busy_vault_is_asked_again_and_one_that_says_no_is_not() {
    let scene = Scene::alone();
    let store = scene.store();
    scene.fails(Op::SetSecret, Fault::Refused(Failure::overlap(NAME)));
    let first = swap(&store, None, 1).await.expect("an empty place");
    scene.fails(Op::SetSecret, Fault::Refused(Failure::throttled(None)));
    is_refused(&swap(&store, Some(&first), 2).await);
    assert_eq!(scene.values(), [value(1)]);
}

/// Two of them have looked before either has written: that is what no claim has kept apart.
#[tokio::test]
async fn of_a_fork_the_first_one_counts_and_both_values_stay() {
    let scene = Scene::alone();
    let store = scene.store();
    let first = swap(&store, None, 1).await.expect("an empty place");
    scene.vault.rules(|rules| rules.overlap_conflicts = false);
    let hold = scene.vault.hold(Moment::Before, put_of("late"));
    let late = scene.store_of("late");
    let expected = first.clone();
    let writing = tokio::spawn(async move { swap(&late, Some(&expected), 2).await });
    let hold = wait(hold).await;
    let early = swap(&store, Some(&first), 3)
        .await
        .expect("nobody has written yet");
    // Both are stamped with whole seconds, and the late one is to be the later one.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    drop(hold);
    is_conflict(&writing.await.expect("no panic"));
    // The first one is the newest again, under its own name.
    assert_eq!(shows(&scene.store(), 3).await, early);
    assert_eq!(scene.values(), [value(1), value(3), value(2), value(3)]);
    swap(&store, Some(&early), 4).await.expect("a swap on that");
    shows(&store, 4).await;
}

#[tokio::test]
async fn what_a_person_puts_between_the_look_and_the_write_counts() {
    let scene = Scene::alone();
    let store = scene.store();
    let first = swap(&store, None, 1).await.expect("an empty place");
    scene.vault.rules(|rules| rules.overlap_conflicts = false);
    let hold = scene.vault.hold(Moment::Before, put_of("writer"));
    let writer = scene.store_of("writer");
    let expected = first.clone();
    let writing = tokio::spawn(async move { swap(&writer, Some(&expected), 2).await });
    let hold = wait(hold).await;
    // A version tells its time in whole seconds.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    scene.person().set(NAME, "reseed");
    drop(hold);
    is_conflict(&writing.await.expect("no panic"));
    let reseed = shows_by_hand(&scene.store(), "reseed").await;
    swap(&store, Some(&reseed), 3)
        .await
        .expect("a swap on that");
    shows(&store, 3).await;
}

#[tokio::test]
async fn a_holder_that_comes_back_in_time_keeps_its_claim() {
    let scene = Scene::alone();
    let (first, second) = (scene.store(), scene.store_of("second"));
    let claims = |store: &'static str| Bid {
        owner: store.to_owned(),
        holder: store.len() as u64,
        now: 1000,
        until: 1060,
    };
    let of_first = first.claims().expect("claims");
    let claim = of_first
        .acquire(&claims("one"))
        .await
        .expect("nobody has it");
    let hold = scene.vault.hold(Moment::After, put_of("second"));
    let late = Bid {
        now: 2000,
        until: 2060,
        ..claims("second")
    };
    let asking = tokio::spawn(async move {
        let claims = second.claims().expect("claims");
        claims.acquire(&late).await
    });
    let hold = wait(hold).await;
    // Its bid is there, and it has not looked at what the first one did meanwhile.
    let renewed = of_first.renew(&claim, 3000).await;
    drop(hold);
    let asked = asking.await.expect("no panic");
    let both = renewed.is_ok() && asked.is_ok();
    assert!(!both, "{renewed:?} {asked:?}");
    assert!(
        matches!(asked, Ok(_) | Err(ClaimError::Held { .. })),
        "{asked:?}"
    );
}
