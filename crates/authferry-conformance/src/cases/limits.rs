//! What the store declares, and the length it declares above all.

use authferry_core::ErrorKind;

use crate::{
    cases::{Failure, ensure},
    place::{Place, login, refused, secret},
};

/// More than any auth file needs; a store that declares more is tried with this.
const LONG_ENOUGH: usize = 1024 * 1024;

/// The most that the suite offers. A limit beyond it could not be tested.
const TESTABLE: usize = 16 * LONG_ENOUGH;

pub(super) async fn the_declaration_is_the_pinned_one(place: Place) -> Result<(), Failure> {
    let (declared, pinned) = (place.open().await.guarantees(), place.guarantees());
    ensure!(
        declared == pinned,
        "the store declares {declared:?}, and the fixture pins {pinned:?}"
    );
    Ok(())
}

pub(super) async fn the_longest_value_fits(place: Place) -> Result<(), Failure> {
    let longest = login_of(place.guarantees().max_len.min(LONG_ENOUGH));
    let stamp = place.stamp();
    let version = place
        .open()
        .await
        .compare_and_swap(None, &secret(&longest), &stamp)
        .await?;
    ensure!(
        place.shows(&longest, Some(&stamp)).await? == version,
        "reading gives another version than the write was answered"
    );
    Ok(())
}

pub(super) async fn a_longer_value_is_refused(place: Place) -> Result<(), Failure> {
    let max_len = place.guarantees().max_len;
    ensure!(
        max_len <= TESTABLE,
        "a limit of {max_len} bytes is more than can be tried ({TESTABLE})"
    );
    let too_long = secret(&login_of(max_len + 1));
    let store = place.open().await;
    let answer = store
        .compare_and_swap(None, &too_long, &place.stamp())
        .await;
    refused(&answer, ErrorKind::TooLarge, "a value that is too long")?;
    place.shows_nothing().await?;

    let stamp = place.stamp();
    let version = store
        .compare_and_swap(None, &secret(&login(1)), &stamp)
        .await?;
    let answer = store
        .compare_and_swap(Some(&version), &too_long, &place.stamp())
        .await;
    refused(&answer, ErrorKind::TooLarge, "a value that is too long")?;
    ensure!(
        place.shows(&login(1), Some(&stamp)).await? == version,
        "the version moved although nothing was written"
    );
    Ok(())
}

/// Returns an auth file of exactly `len` bytes that does not compress to nothing.
fn login_of(len: usize) -> Vec<u8> {
    let (head, tail) = (b"{\"token\":\"made-up-", b"\"}");
    let filling = (0_u32..)
        .flat_map(|n| format!("{:08x}", n.wrapping_mul(0x9e37_79b9)).into_bytes())
        .take(len - head.len() - tail.len());
    head.iter()
        .copied()
        .chain(filling)
        .chain(tail.iter().copied())
        .collect()
}
