//! The stamp of a value, and how a write by hand affects it.

use authferry_core::{Family, Fingerprint, Origin, Stamp};

use crate::{
    cases::{Failure, ensure},
    place::{Place, expect_conflict, login, secret},
};

/// The largest count in a stamp: some stores cannot hold a larger one.
const LARGEST_COUNT: u64 = 9_999_999_999;

pub(super) async fn every_field_is_read_back(place: Place) -> Result<(), Failure> {
    let store = place.open().await;
    let parts = [
        // Zeros at both ends must be preserved too.
        (1, Origin::Seed, [0; 8], false),
        (
            LARGEST_COUNT,
            Origin::Rotation,
            [0, 1, 0x7f, 0x80, 0xfe, 0xff, 0x0a, 0],
            true,
        ),
        (LARGEST_COUNT - 1, Origin::Seed, [0xff; 8], true),
        (2, Origin::Rotation, [0xff, 0, 0, 0, 0, 0, 0, 1], false),
    ];
    let mut version = None;
    for (number, (count, origin, family, volatile_hints)) in (1..).zip(parts) {
        let stamp = Stamp {
            count,
            origin,
            family: Family(Fingerprint::new(family)),
            volatile_hints,
            ..place.stamp()
        };
        let login = login(number);
        version = Some(
            store
                .compare_and_swap(version.as_ref(), &secret(&login), &stamp)
                .await?,
        );
        place.expect_value(&login, Some(&stamp)).await?;
    }
    Ok(())
}

/// A person may have restored an older value: after a write by hand only the bytes count.
pub(super) async fn the_same_bytes_put_by_hand_lose_the_stamp(place: Place) -> Result<(), Failure> {
    let ours = place.seed(&login(1)).await?;
    place.put_by_hand(&login(1)).await;
    let by_hand = place.expect_value(&login(1), None).await?;
    ensure!(by_hand != ours, "{ours:?} is reused");
    let answer = place
        .open()
        .await
        .compare_and_swap(Some(&ours), &secret(&login(2)), &place.stamp())
        .await;
    expect_conflict(
        &answer,
        "a swap of a version that was written again by hand",
    )?;
    let stamp = place.stamp();
    let store = place.open().await;
    store
        .compare_and_swap(Some(&by_hand), &secret(&login(1)), &stamp)
        .await?;
    place.expect_value(&login(1), Some(&stamp)).await?;
    Ok(())
}

/// Seeding the current value again is a new write, maybe of another family.
pub(super) async fn rewriting_the_same_login_makes_a_new_version(
    place: Place,
) -> Result<(), Failure> {
    let first = place.seed(&login(1)).await?;
    let stamp = Stamp {
        origin: Origin::Seed,
        family: Family(Fingerprint::new([9; 8])),
        ..place.stamp()
    };
    let store = place.open().await;
    let again = store
        .compare_and_swap(Some(&first), &secret(&login(1)), &stamp)
        .await?;
    ensure!(again != first, "{first:?} is reused");
    ensure!(
        place.expect_value(&login(1), Some(&stamp)).await? == again,
        "a read returned another version than the write"
    );
    Ok(())
}
