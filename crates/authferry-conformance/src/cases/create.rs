//! The first value in a place.

use crate::{
    cases::{Failure, ensure},
    place::{Place, conflicts, login, secret},
};

pub(super) async fn an_empty_place_reads_none(place: Place) -> Result<(), Failure> {
    place.shows_nothing().await
}

pub(super) async fn a_created_value_is_read_back(place: Place) -> Result<(), Failure> {
    let store = place.open().await;
    let stamp = place.stamp();
    let version = store
        .compare_and_swap(None, &secret(&login(1)), &stamp)
        .await?;
    let shown = place.shows(&login(1), Some(&stamp)).await?;
    ensure!(
        shown == version,
        "the write was answered {version:?}, and reading gives {shown:?}"
    );
    Ok(())
}

pub(super) async fn a_filled_place_is_not_created_over(place: Place) -> Result<(), Failure> {
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
    conflicts(&answer, "creating where something is")?;
    ensure!(
        place.shows(&login(1), Some(&stamp)).await? == version,
        "the version moved although nothing was written"
    );
    Ok(())
}

pub(super) async fn a_value_put_by_hand_is_not_created_over(place: Place) -> Result<(), Failure> {
    place.put_by_hand(&login(1)).await;
    let version = place.shows(&login(1), None).await?;
    let answer = place
        .open()
        .await
        .compare_and_swap(None, &secret(&login(2)), &place.stamp())
        .await;
    conflicts(&answer, "creating over a value put by hand")?;
    ensure!(
        place.shows(&login(1), None).await? == version,
        "the version moved although nothing was written"
    );
    Ok(())
}
