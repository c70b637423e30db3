//! The first value in a place.

use crate::{
    cases::{Failure, ensure},
    place::{Place, expect_conflict, login, secret},
};

pub(super) async fn an_empty_place_reads_none(place: Place) -> Result<(), Failure> {
    place.expect_empty().await
}

pub(super) async fn a_created_value_is_read_back(place: Place) -> Result<(), Failure> {
    let store = place.open().await;
    let stamp = place.stamp();
    let version = store
        .compare_and_swap(None, &secret(&login(1)), &stamp)
        .await?;
    let shown = place.expect_value(&login(1), Some(&stamp)).await?;
    ensure!(
        shown == version,
        "the write returned {version:?}, and a read returned {shown:?}"
    );
    Ok(())
}

pub(super) async fn creating_over_an_existing_value_conflicts(place: Place) -> Result<(), Failure> {
    let store = place.open().await;
    let stamp = place.stamp();
    let version = store
        .compare_and_swap(None, &secret(&login(1)), &stamp)
        .await?;
    let answer = place
        .open()
        .await
        .compare_and_swap(None, &secret(&login(2)), &place.stamp())
        .await;
    expect_conflict(&answer, "creating over an existing value")?;
    ensure!(
        place.expect_value(&login(1), Some(&stamp)).await? == version,
        "the version changed without a write"
    );
    Ok(())
}

pub(super) async fn creating_over_a_value_put_by_hand_conflicts(
    place: Place,
) -> Result<(), Failure> {
    place.put_by_hand(&login(1)).await;
    let version = place.expect_value(&login(1), None).await?;
    let answer = place
        .open()
        .await
        .compare_and_swap(None, &secret(&login(2)), &place.stamp())
        .await;
    expect_conflict(&answer, "creating over a value put by hand")?;
    ensure!(
        place.expect_value(&login(1), None).await? == version,
        "the version changed without a write"
    );
    Ok(())
}
