//! Sequential swaps, with writes by hand between them.

use std::{future::poll_fn, pin::pin, task::Poll, time::Duration};

use authferry_core::{CasError, Reads, Version};

use crate::{
    cases::{Failure, ensure},
    place::{Place, expect_conflict, login, secret},
};

pub(super) async fn the_current_version_is_replaced(place: Place) -> Result<(), Failure> {
    let mut versions = vec![place.seed(&login(0)).await?];
    for number in 1..=3 {
        let stamp = place.stamp();
        let version = place
            .open()
            .await
            .compare_and_swap(versions.last(), &secret(&login(number)), &stamp)
            .await?;
        ensure!(!versions.contains(&version), "{version:?} is reused");
        ensure!(
            place.expect_value(&login(number), Some(&stamp)).await? == version,
            "a read returned another version than the write"
        );
        versions.push(version);
    }
    Ok(())
}

pub(super) async fn a_stale_version_conflicts(place: Place) -> Result<(), Failure> {
    let store = place.open().await;
    let stale = place.seed(&login(1)).await?;
    let stamp = place.stamp();
    let version = store
        .compare_and_swap(Some(&stale), &secret(&login(2)), &stamp)
        .await?;
    let answer = place
        .open()
        .await
        .compare_and_swap(Some(&stale), &secret(&login(3)), &place.stamp())
        .await;
    expect_conflict(&answer, "a swap of a version that was replaced")?;
    ensure!(
        place.expect_value(&login(2), Some(&stamp)).await? == version,
        "the version changed without a write"
    );
    Ok(())
}

pub(super) async fn an_unknown_version_conflicts(place: Place) -> Result<(), Failure> {
    let store = place.open().await;
    let unknown = Version::new("never-given");
    let answer = store
        .compare_and_swap(Some(&unknown), &secret(&login(1)), &place.stamp())
        .await;
    expect_conflict(&answer, "a swap of an unknown version in an empty place")?;
    place.expect_empty().await?;

    let stamp = place.stamp();
    store
        .compare_and_swap(None, &secret(&login(2)), &stamp)
        .await?;
    let answer = store
        .compare_and_swap(Some(&unknown), &secret(&login(3)), &place.stamp())
        .await;
    expect_conflict(&answer, "a swap of an unknown version")?;
    place.expect_value(&login(2), Some(&stamp)).await?;
    Ok(())
}

pub(super) async fn the_version_of_a_deleted_value_conflicts(place: Place) -> Result<(), Failure> {
    let store = place.open().await;
    let gone = place.seed(&login(1)).await?;
    place.empty().await;
    place.expect_empty().await?;
    let answer = store
        .compare_and_swap(Some(&gone), &secret(&login(2)), &place.stamp())
        .await;
    expect_conflict(&answer, "a swap of a deleted value")?;
    place.expect_empty().await?;

    let stamp = place.stamp();
    let version = store
        .compare_and_swap(None, &secret(&login(1)), &stamp)
        .await?;
    ensure!(version != gone, "{version:?} is reused");
    place.expect_value(&login(1), Some(&stamp)).await?;
    Ok(())
}

pub(super) async fn the_same_bytes_get_a_new_version(place: Place) -> Result<(), Failure> {
    let store = place.open().await;
    let mut versions = vec![place.seed(&login(1)).await?];
    // Replace the bytes, restore them, and write the same bytes again.
    for number in [2, 1, 1] {
        let version = store
            .compare_and_swap(versions.last(), &secret(&login(number)), &place.stamp())
            .await?;
        ensure!(!versions.contains(&version), "{version:?} is reused");
        versions.push(version);
    }
    let answer = store
        .compare_and_swap(versions.first(), &secret(&login(3)), &place.stamp())
        .await;
    expect_conflict(&answer, "a swap of an old version with the current bytes")
}

pub(super) async fn a_value_put_by_hand_can_be_swapped(place: Place) -> Result<(), Failure> {
    place.put_by_hand(&login(1)).await;
    let by_hand = place.expect_value(&login(1), None).await?;
    let stamp = place.stamp();
    let version = place
        .open()
        .await
        .compare_and_swap(Some(&by_hand), &secret(&login(2)), &stamp)
        .await?;
    ensure!(version != by_hand, "{version:?} is reused");
    ensure!(
        place.expect_value(&login(2), Some(&stamp)).await? == version,
        "a read returned another version than the write"
    );
    Ok(())
}

pub(super) async fn a_write_by_hand_makes_our_version_stale(place: Place) -> Result<(), Failure> {
    let ours = place.seed(&login(1)).await?;
    place.put_by_hand(&login(2)).await;
    let by_hand = place.expect_value(&login(2), None).await?;
    ensure!(by_hand != ours, "{ours:?} is reused");
    let answer = place
        .open()
        .await
        .compare_and_swap(Some(&ours), &secret(&login(3)), &place.stamp())
        .await;
    expect_conflict(&answer, "a swap of a version that was overwritten by hand")?;
    ensure!(
        place.expect_value(&login(2), None).await? == by_hand,
        "the version changed without a write"
    );
    Ok(())
}

pub(super) async fn bytes_are_stored_unchanged(place: Place) -> Result<(), Failure> {
    let texts = [
        "{\"token\":\"no newline at the end\"}",
        "{\"token\":\"one newline\"}\n",
        "{\"token\":\"two newlines\"}\n\n",
        "{\r\n\t\"token\": \"as Windows writes it\"\r\n}\r\n",
        "  {\"token\" : \"white space around\"}  ",
        "{\"token\":\"größer als 字 🔑\"}",
        "{\"token\":\"\\u0000 \\ud83d\\udd11 \\/ \\\" \\\\n %0A $HOME ' ` <&>\"}",
        "{\"token\":\"controls \u{7f}\u{85}\u{a0}\u{2028}\u{feff}\"}",
        "{\"b\":1,\"a\":1.50,\"b\":2}",
    ];
    let store = place.open().await;
    let mut version = None;
    for text in texts {
        let stamp = place.stamp();
        version = Some(
            store
                .compare_and_swap(version.as_ref(), &secret(text.as_bytes()), &stamp)
                .await?,
        );
        place.expect_value(text.as_bytes(), Some(&stamp)).await?;
        let by_hand = place.look_by_hand().await;
        ensure!(
            by_hand.as_deref() == Some(text.as_bytes()),
            "the store's own tools do not return {text:?} unchanged"
        );
    }
    Ok(())
}

pub(super) async fn reading_changes_nothing(place: Place) -> Result<(), Failure> {
    let stamp = place.stamp();
    let store = place.open().await;
    store
        .compare_and_swap(None, &secret(&login(1)), &stamp)
        .await?;
    let first = place.expect_value(&login(1), Some(&stamp)).await?;
    let second = place.expect_value(&login(1), Some(&stamp)).await?;
    ensure!(
        first == second,
        "two reads returned {first:?} and {second:?}"
    );

    place.put_by_hand(&login(2)).await;
    let first = place.expect_value(&login(2), None).await?;
    let second = place.expect_value(&login(2), None).await?;
    ensure!(
        first == second,
        "two reads of a value put by hand returned {first:?} and {second:?}"
    );
    Ok(())
}

/// A caller that times out drops the future, and does not know the outcome. The store must then
/// hold the old value or the new one, and the write may land a little later.
pub(super) async fn a_cancelled_swap_leaves_the_old_or_the_new_value(
    place: Place,
) -> Result<(), Failure> {
    let store = place.open().await;
    let mut base = place.seed(&login(0)).await?;
    for (number, timeout) in (1..).zip([0, 0, 1, 2, 5].map(Duration::from_millis)) {
        let (new, stamp) = (secret(&login(number)), place.stamp());
        cancel_after(store.compare_and_swap(Some(&base), &new, &stamp), timeout).await;

        let seen = store.read().await?;
        // A stale read may return an older value.
        let (oldest, may_be_stale) = match place.guarantees().reads {
            Reads::Strong => (number - 1, false),
            Reads::Eventual => (0, true),
        };
        let whole = seen.as_ref().map_or(may_be_stale, |seen| {
            (oldest..=number).any(|n| seen.secret.expose() == login(n))
        });
        ensure!(
            whole,
            "a read returned neither the old value nor the new one: {seen:?}"
        );

        // A retry of the same write resolves the outcome.
        let again = store.compare_and_swap(Some(&base), &new, &stamp).await;
        ensure!(
            matches!(again, Ok(_) | Err(CasError::Conflict)),
            "a retry of the same write returned {again:?}"
        );
        base = place.expect_value(&login(number), Some(&stamp)).await?;
    }
    Ok(())
}

/// Runs `work` until the timeout, and drops it.
async fn cancel_after<T>(work: impl Future<Output = T>, timeout: Duration) {
    let mut work = pin!(work);
    // Always poll the work once. A late timer must not let it finish.
    let done = poll_fn(|context| Poll::Ready(work.as_mut().poll(context).is_ready())).await;
    if !done && !timeout.is_zero() {
        drop(tokio::time::timeout(timeout, work).await);
    }
}
