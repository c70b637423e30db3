//! What is refused is told as refused, and nothing is touched.

use crate::{
    Refusal,
    cases::{Failure, ensure},
    place::{Place, login, refused, secret},
};

pub(super) async fn a_refusal_is_told_as_one(place: Place) -> Result<(), Failure> {
    let refusals = place.fixture().refusals(&login(1)).await;
    ensure!(
        !refusals.is_empty(),
        "the fixture knows no handle that is turned away"
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
        let as_due = match (&read, on_read) {
            (Ok(_), None) => true,
            (Err(error), Some(kind)) => error.kind == *kind,
            (Ok(_), Some(_)) | (Err(_), None) => false,
        };
        ensure!(
            as_due,
            "{name}: reading was due {on_read:?}, and was answered {read:?}"
        );

        // Where reading is allowed the swap is one that would go through otherwise.
        let base = read.ok().flatten().map(|stored| stored.version);
        let answer = store
            .compare_and_swap(base.as_ref(), &secret(&login(2)), &place.stamp())
            .await;
        refused(&answer, *on_swap, name)?;
        ensure!(
            place.fixture().look_by_hand(held_at).await == before,
            "{name}: refused, and the place was touched all the same"
        );
    }
    Ok(())
}
