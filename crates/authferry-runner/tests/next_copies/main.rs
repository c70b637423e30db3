//! Which copies are tried when the provider rejects the store's login.

use std::fs;

use scene::Answer::{
    Accepts, AcceptsACopy, Fails, FailsOnACopy, NamesOnACopy, NamesTheReason, Refuses,
};
use scene::{Scene, fingerprint};

mod scene;

#[tokio::test]
async fn after_an_unnamed_refusal_an_accepted_copy_becomes_the_head() {
    let scene = Scene::new(&[("head", Refuses), ("copy", Accepts)]);
    scene.keep("copy");
    let rotated = scene.rotate().await;

    assert_eq!(scene.tried(), ["head", "copy"]);
    assert_eq!(scene.stored().await, "copy-next");
    assert_eq!(scene.kept(), ["copy", "head"]);
    assert_eq!(scene.note().await, None);
    assert!(rotated.tried_copies.is_empty() && rotated.not_put_back.is_none());
}

/// Only the provider can show whether a copy is live.
#[tokio::test]
async fn a_copy_that_is_not_due_is_rotated_too() {
    let scene = Scene::new(&[("head", Refuses), ("fresh-copy", Accepts)]);
    scene.keep("fresh-copy");
    scene.rotate().await;
    assert_eq!(scene.tried(), ["head", "fresh-copy"]);
    assert_eq!(scene.stored().await, "fresh-copy-next");
}

#[tokio::test]
async fn a_gateway_that_refuses_every_login_marks_none_as_dead() {
    let scene = Scene::new(&[("head", Refuses), ("one", Refuses), ("two", Refuses)]);
    scene.keep("one");
    scene.keep("two");
    let rotated = scene.rotate().await;

    let mut tried = scene.tried();
    tried.sort_unstable();
    assert_eq!(tried, ["head", "one", "two"], "each once");
    assert_eq!(scene.stored().await, "head");
    assert_eq!(scene.kept(), ["head", "one", "two"]);
    let note = scene.note().await.expect("a note");
    let unnamed = format!("unnamed {} since ", fingerprint("head"));
    assert!(
        note.starts_with(&unnamed),
        "a gateway marks no login as dead: {note}"
    );
    assert_eq!(rotated.tried_copies.len(), 2);
    assert_eq!(rotated.not_put_back, None);
    let report = rotated.round_trip.expect("a round trip was made");
    let base = report.base.expect("the store was read");
    assert_eq!(base.generation.fingerprint.to_string(), fingerprint("head"));

    scene.answers(&[("head", Accepts)]);
    scene.pass_an_hour().await;
    scene.rotate().await;
    assert_eq!(scene.stored().await, "head-next");
    assert_eq!(scene.note().await, None);
}

/// After an hour, the next rotation tries again what the gateway refused before.
#[tokio::test]
async fn an_unnamed_refusal_counts_for_an_hour() {
    let scene = Scene::new(&[("head", Refuses), ("copy", Refuses)]);
    scene.keep("copy");
    let first = scene.rotate().await.refusal.expect("a note");
    scene.answers(&[("head", Refuses), ("copy", Accepts)]);
    let second = scene.rotate().await;
    assert_eq!(scene.tried(), ["head", "copy"]);
    assert_eq!(second.refusal, Some(first));
    assert!(second.round_trip.is_none());
    scene.pass_an_hour().await;
    scene.rotate().await;
    assert_eq!(scene.tried(), ["head", "copy", "head", "copy"]);
    assert_eq!(scene.stored().await, "copy-next");
}

#[tokio::test]
async fn a_copy_refused_by_name_is_marked_dead_and_the_head_put_back() {
    let scene = Scene::new(&[("head", Refuses), ("copy", NamesTheReason)]);
    scene.keep("copy");
    let rotated = scene.rotate().await;
    assert_eq!(scene.stored().await, "head");
    let note = scene.note().await.expect("a note");
    let (copy, head) = (fingerprint("copy"), fingerprint("head"));
    let expected = format!("refused {copy}; unnamed {head} since ");
    assert!(note.starts_with(&expected), "{note}");
    let refusal = rotated.refusal.expect("a note");
    assert!(!refusal.is_dead(), "the store's login may be live");
    scene.pass_an_hour().await;
    scene.rotate().await;
    assert_eq!(scene.tried(), ["head", "copy", "head"]);
}

#[tokio::test]
async fn an_outage_is_not_a_refusal() {
    let scene = Scene::new(&[("head", Fails), ("copy", Accepts)]);
    scene.keep("copy");
    scene.rotate().await;
    assert_eq!(scene.tried(), ["head"]);
    assert_eq!(scene.stored().await, "head");

    scene.answers(&[("head", Refuses), ("copy", Fails)]);
    scene.rotate().await;
    assert_eq!(scene.tried(), ["head", "head", "copy"]);
    assert_eq!(
        scene.stored().await,
        "head",
        "no answer shows that the copy is live"
    );
}

/// A copy may be live: the refused token is not shown to the provider again before that is known.
#[tokio::test]
async fn the_reason_is_asked_for_after_every_copy_was_tried() {
    let scene = Scene::new(&[("living-head", NamesOnACopy), ("copy", Refuses)]);
    scene.keep("copy");
    let rotated = scene.rotate().await;

    assert_eq!(scene.tried(), ["living-head", "copy", "ended living-head"]);
    assert_eq!(scene.stored().await, "living-head");
    let head = fingerprint("living-head");
    let note = scene.note().await.expect("a note");
    assert!(
        note.starts_with(&format!("refused {head}; dead {head} reused since ")),
        "{note}"
    );
    assert!(rotated.refusal.expect("a note").is_dead());
    assert_eq!(scene.kept(), ["copy", "living-head"], "no ended copy");
    scene.rotate().await;
    assert_eq!(scene.tried()[3..], ["copy"], "a dead login makes way");
}

#[tokio::test]
async fn a_live_copy_spares_the_question_for_the_reason() {
    let scene = Scene::new(&[("living-head", NamesOnACopy), ("copy", Accepts)]);
    scene.keep("copy");
    scene.rotate().await;
    assert_eq!(scene.tried(), ["living-head", "copy"]);
    assert_eq!(scene.stored().await, "copy-next");
}

#[tokio::test]
async fn a_login_that_is_accepted_on_an_ended_copy_is_persisted() {
    let scene = Scene::new(&[("living-head", AcceptsACopy)]);
    let rotated = scene.rotate().await;
    assert_eq!(scene.tried(), ["living-head", "ended living-head"]);
    assert_eq!(scene.stored().await, "living-head-next");
    assert_eq!((scene.note().await, rotated.refusal), (None, None));
}

#[tokio::test]
async fn an_outage_on_an_ended_copy_is_not_a_refusal() {
    let scene = Scene::new(&[("living-head", FailsOnACopy)]);
    let rotated = scene.rotate().await;
    assert_eq!(scene.tried(), ["living-head", "ended living-head"]);
    assert_eq!(scene.stored().await, "living-head");
    assert_eq!((scene.note().await, rotated.refusal), (None, None));
}

/// One job asks for the reason; later attempts are ordinary ones.
#[tokio::test]
async fn the_reason_is_asked_for_once() {
    let scene = Scene::new(&[("living-head", Refuses)]);
    let first = scene.rotate().await.refusal.expect("a note");
    assert_eq!(scene.tried(), ["living-head", "ended living-head"]);
    scene.pass_an_hour().await;
    let second = scene.rotate().await.refusal.expect("a note");
    assert_eq!(
        scene.tried(),
        ["living-head", "ended living-head", "living-head"]
    );
    assert_eq!((second.since, &second.by), (first.since, &first.by));
    assert!(second.tried >= first.tried);
    assert_eq!(
        fs::read_dir(scene.path("rotations"))
            .expect("a folder")
            .count(),
        0
    );
}

/// A head that is dead is not put back.
#[tokio::test]
async fn after_a_refusal_by_name_the_copy_stays_the_head() {
    let scene = Scene::new(&[("head", NamesTheReason), ("copy", Fails)]);
    scene.keep("copy");
    scene.rotate().await;
    assert_eq!(scene.tried(), ["head", "copy"]);
    assert_eq!(scene.stored().await, "copy");
    let note = scene.note().await.expect("a note");
    assert_eq!(note, format!("refused {}", fingerprint("head")));
}

/// The private home of the copy is removed when the copy is adopted.
#[tokio::test]
async fn a_copy_of_an_unfinished_rotation_is_rescued_before_the_head_is_put_back() {
    let scene = Scene::new(&[("head", Refuses), ("unfinished", Refuses)]);
    scene.leave_unfinished("unfinished");
    scene.rotate().await;
    assert_eq!(scene.tried(), ["head", "unfinished"]);
    assert_eq!(scene.stored().await, "head");
    assert_eq!(scene.kept(), ["head", "unfinished"]);
}

#[tokio::test]
async fn a_copy_of_another_account_is_not_tried() {
    let scene = Scene::new(&[("head", Refuses), ("other-account", Accepts)]);
    scene.keep("other-account");
    scene.rotate().await;
    assert_eq!(scene.tried(), ["head"]);
    assert_eq!(scene.stored().await, "head");
}

/// `--replace` for the home applies to the other copies as well.
#[tokio::test]
async fn replace_for_the_home_lets_other_copies_be_tried() {
    let scene = Scene::new(&[("head", NamesTheReason), ("copy", Accepts)]);
    scene.keep("copy");
    scene.place("of-unknown-family");
    scene.rotate_first(true).await;
    assert_eq!(scene.tried(), ["head", "copy"]);
    assert_eq!(scene.stored().await, "copy-next");
}

/// A tag or the file was edited by hand since the receipt was written.
#[tokio::test]
async fn the_proof_keeps_the_family_of_a_login_without_a_stamp() {
    let scene = Scene::new(&[("head", Fails)]);
    scene.leave_receipt("head", "parent", 7);
    scene.rotate_first(false).await;
    let proven = scene.store.history().pop().expect("a login");
    let stamp = proven.stamp.expect("the proof's");
    assert_eq!(stamp.family.to_string(), fingerprint("parent"));
    assert_eq!((stamp.count, stamp.volatile_hints), (7, true));
}
