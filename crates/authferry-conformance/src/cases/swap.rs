//! One writer after another, and people in between.

use std::{future::poll_fn, pin::pin, task::Poll, time::Duration};

use authferry_core::{CasError, Reads, Version};

use crate::{
    cases::{Failure, ensure},
    place::{Place, conflicts, login, secret},
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
        ensure!(
            !versions.contains(&version),
            "{version:?} comes a second time"
        );
        ensure!(
            place.shows(&login(number), Some(&stamp)).await? == version,
            "reading gives another version than the write was answered"
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
    conflicts(&answer, "a swap of a version that was replaced")?;
    ensure!(
        place.shows(&login(2), Some(&stamp)).await? == version,
        "the version moved although nothing was written"
    );
    Ok(())
}

pub(super) async fn a_version_never_given_conflicts(place: Place) -> Result<(), Failure> {
    let store = place.open().await;
    let unknown = Version::new("never-given");
    let answer = store
        .compare_and_swap(Some(&unknown), &secret(&login(1)), &place.stamp())
        .await;
    conflicts(&answer, "a swap of an unknown version in an empty place")?;
    place.shows_nothing().await?;

    let stamp = place.stamp();
    store
        .compare_and_swap(None, &secret(&login(2)), &stamp)
        .await?;
    let answer = store
        .compare_and_swap(Some(&unknown), &secret(&login(3)), &place.stamp())
        .await;
    conflicts(&answer, "a swap of an unknown version")?;
    place.shows(&login(2), Some(&stamp)).await?;
    Ok(())
}

pub(super) async fn a_value_that_is_gone_conflicts(place: Place) -> Result<(), Failure> {
    let store = place.open().await;
    let gone = place.seed(&login(1)).await?;
    place.empty().await;
    place.shows_nothing().await?;
    let answer = store
        .compare_and_swap(Some(&gone), &secret(&login(2)), &place.stamp())
        .await;
    conflicts(&answer, "a swap of a value that is gone")?;
    place.shows_nothing().await?;

    let stamp = place.stamp();
    let version = store
        .compare_and_swap(None, &secret(&login(1)), &stamp)
        .await?;
    ensure!(version != gone, "{version:?} comes a second time");
    place.shows(&login(1), Some(&stamp)).await?;
    Ok(())
}

pub(super) async fn the_same_bytes_get_another_version(place: Place) -> Result<(), Failure> {
    let store = place.open().await;
    let mut versions = vec![place.seed(&login(1)).await?];
    // Away and back again, and then the same once more on the spot.
    for number in [2, 1, 1] {
        let version = store
            .compare_and_swap(versions.last(), &secret(&login(number)), &place.stamp())
            .await?;
        ensure!(
            !versions.contains(&version),
            "{version:?} comes a second time"
        );
        versions.push(version);
    }
    let answer = store
        .compare_and_swap(versions.first(), &secret(&login(3)), &place.stamp())
        .await;
    conflicts(&answer, "a swap of a version whose bytes are back")
}

pub(super) async fn a_value_put_by_hand_is_swapped_over(place: Place) -> Result<(), Failure> {
    place.put_by_hand(&login(1)).await;
    let by_hand = place.shows(&login(1), None).await?;
    let stamp = place.stamp();
    let version = place
        .open()
        .await
        .compare_and_swap(Some(&by_hand), &secret(&login(2)), &stamp)
        .await?;
    ensure!(version != by_hand, "{version:?} comes a second time");
    ensure!(
        place.shows(&login(2), Some(&stamp)).await? == version,
        "reading gives another version than the write was answered"
    );
    Ok(())
}

pub(super) async fn a_value_put_by_hand_over_ours_ends_our_version(
    place: Place,
) -> Result<(), Failure> {
    let ours = place.seed(&login(1)).await?;
    place.put_by_hand(&login(2)).await;
    let by_hand = place.shows(&login(2), None).await?;
    ensure!(by_hand != ours, "{ours:?} comes a second time");
    let answer = place
        .open()
        .await
        .compare_and_swap(Some(&ours), &secret(&login(3)), &place.stamp())
        .await;
    conflicts(&answer, "a swap of a version that was replaced by hand")?;
    ensure!(
        place.shows(&login(2), None).await? == by_hand,
        "the version moved although nothing was written"
    );
    Ok(())
}

pub(super) async fn bytes_are_kept_as_they_are(place: Place) -> Result<(), Failure> {
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
        place.shows(text.as_bytes(), Some(&stamp)).await?;
        let by_hand = place.look_by_hand().await;
        ensure!(
            by_hand.as_deref() == Some(text.as_bytes()),
            "the store's own tools do not show {text:?} as it was written"
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
    let first = place.shows(&login(1), Some(&stamp)).await?;
    let second = place.shows(&login(1), Some(&stamp)).await?;
    ensure!(first == second, "two reads gave {first:?} and {second:?}");

    place.put_by_hand(&login(2)).await;
    let first = place.shows(&login(2), None).await?;
    let second = place.shows(&login(2), None).await?;
    ensure!(
        first == second,
        "two reads of a value put by hand gave {first:?} and {second:?}"
    );
    Ok(())
}

/// A caller out of time drops the future, and cannot know. What it leaves behind is the
/// old value or the new one, now or a little later, and never anything else.
pub(super) async fn a_swap_given_up_leaves_one_of_the_two(place: Place) -> Result<(), Failure> {
    let store = place.open().await;
    let mut base = place.seed(&login(0)).await?;
    for (number, patience) in (1..).zip([0, 0, 1, 2, 5].map(Duration::from_millis)) {
        let (new, stamp) = (secret(&login(number)), place.stamp());
        give_up(store.compare_and_swap(Some(&base), &new, &stamp), patience).await;

        let seen = store.read().await?;
        // A read that may lag may also show what was there before.
        let (oldest, lagging) = match place.guarantees().reads {
            Reads::Strong => (number - 1, false),
            Reads::Eventual => (0, true),
        };
        let whole = seen.as_ref().map_or(lagging, |seen| {
            (oldest..=number).any(|n| seen.secret.expose() == login(n))
        });
        ensure!(
            whole,
            "neither the old value nor the new one is there: {seen:?}"
        );

        // The same write again settles it, whether or not the first one landed.
        let again = store.compare_and_swap(Some(&base), &new, &stamp).await;
        ensure!(
            matches!(again, Ok(_) | Err(CasError::Conflict)),
            "the same write again was answered {again:?}"
        );
        base = place.shows(&login(number), Some(&stamp)).await?;
    }
    Ok(())
}

/// Waits for `work` as long as `patience` lasts, and drops it.
async fn give_up<T>(work: impl Future<Output = T>, patience: Duration) {
    let mut work = pin!(work);
    // The work begins, whatever the patience; a timer that is late must not let it end.
    let done = poll_fn(|context| Poll::Ready(work.as_mut().poll(context).is_ready())).await;
    if !done && !patience.is_zero() {
        drop(tokio::time::timeout(patience, work).await);
    }
}
