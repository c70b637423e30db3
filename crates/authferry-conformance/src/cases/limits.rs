//! The declared guarantees, mainly the maximum length.

use authferry_core::ErrorKind;

use crate::{
    cases::{Failure, ensure},
    place::{Place, expect_refused, login, secret},
};

/// More bytes than any auth file has. For a store that declares more, the suite tests this length.
const LONG_ENOUGH: usize = 1024 * 1024;

/// The largest limit that the suite can test, in bytes.
const TESTABLE: usize = 16 * LONG_ENOUGH;

pub(super) async fn the_declared_guarantees_match_the_fixture(place: Place) -> Result<(), Failure> {
    let (declared, pinned) = (place.open().await.guarantees(), place.guarantees());
    ensure!(
        declared == pinned,
        "the store declares {declared:?}, and the fixture declares {pinned:?}"
    );
    Ok(())
}

pub(super) async fn a_value_of_the_maximum_length_fits(place: Place) -> Result<(), Failure> {
    let longest = login_of(place.guarantees().max_len.min(LONG_ENOUGH));
    let stamp = place.stamp();
    let version = place
        .open()
        .await
        .compare_and_swap(None, &secret(&longest), &stamp)
        .await?;
    ensure!(
        place.expect_value(&longest, Some(&stamp)).await? == version,
        "a read returned another version than the write"
    );
    Ok(())
}

pub(super) async fn a_longer_value_is_refused(place: Place) -> Result<(), Failure> {
    let max_len = place.guarantees().max_len;
    ensure!(
        max_len <= TESTABLE,
        "a limit of {max_len} bytes exceeds the testable {TESTABLE}"
    );
    let too_long = secret(&login_of(max_len + 1));
    let store = place.open().await;
    let answer = store
        .compare_and_swap(None, &too_long, &place.stamp())
        .await;
    expect_refused(&answer, ErrorKind::TooLarge, "a value that is too long")?;
    place.expect_empty().await?;

    let stamp = place.stamp();
    let version = store
        .compare_and_swap(None, &secret(&login(1)), &stamp)
        .await?;
    let answer = store
        .compare_and_swap(Some(&version), &too_long, &place.stamp())
        .await;
    expect_refused(&answer, ErrorKind::TooLarge, "a value that is too long")?;
    ensure!(
        place.expect_value(&login(1), Some(&stamp)).await? == version,
        "the version changed without a write"
    );
    Ok(())
}

/// Returns an auth file of exactly `len` bytes that compresses badly.
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
