//! A refused call returns the right error and changes nothing.

use crate::{
    Refusal,
    cases::{Failure, ensure},
    place::{Place, expect_refused, login, secret},
};

pub(super) async fn a_refused_call_returns_its_error_and_changes_nothing(
    place: Place,
) -> Result<(), Failure> {
    let refusals = place.fixture().refusals(&login(1)).await;
    ensure!(
        !refusals.is_empty(),
        "the fixture has no handle that the store refuses"
    );
    for refusal in refusals {
        let Refusal {
            name,
            place: held_at,
            store,
            on_read,
            on_swap,
        } = &refusal;
        let before = place.fixture().look_by_hand(held_at).await;

        let read = store.read().await;
        let is_expected = match (&read, on_read) {
            (Ok(_), None) => true,
            (Err(error), Some(kind)) => error.kind == *kind,
            (Ok(_), Some(_)) | (Err(_), None) => false,
        };
        ensure!(
            is_expected,
            "{name}: a read should return {on_read:?}, and returned {read:?}"
        );

        // If reads are allowed, the swap has the current version: only the refusal can stop it.
        let base = read.ok().flatten().map(|stored| stored.version);
        let answer = store
            .compare_and_swap(base.as_ref(), &secret(&login(2)), &place.stamp())
            .await;
        expect_refused(&answer, *on_swap, name)?;
        ensure!(
            place.fixture().look_by_hand(held_at).await == before,
            "{name}: the swap was refused, but changed the place"
        );
    }
    Ok(())
}
