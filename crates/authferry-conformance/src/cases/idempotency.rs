//! Idempotency: a write that is sent several times happens once.

use authferry_core::{CasError, ErrorKind, SecretStore, Version};

use crate::{
    Fault, Faulty,
    cases::{Failure, ensure},
    place::{Place, expect_refused, login, secret},
};

pub(super) async fn a_lost_reply_is_resolved_by_a_read(place: Place) -> Result<(), Failure> {
    let base = place.seed(&login(1)).await?;
    let faulty = Faulty::new(place.open().await, [Fault::ReplyLost]);
    let stamp = place.stamp();
    let answer = faulty
        .compare_and_swap(Some(&base), &secret(&login(2)), &stamp)
        .await;
    expect_ambiguous(&answer)?;
    let landed = place.expect_value(&login(2), Some(&stamp)).await?;
    ensure!(landed != base, "{base:?} names two values");

    // The resolved version is a valid base.
    let stamp = place.stamp();
    faulty
        .compare_and_swap(Some(&landed), &secret(&login(3)), &stamp)
        .await?;
    place.expect_value(&login(3), Some(&stamp)).await?;
    Ok(())
}

pub(super) async fn a_retry_of_a_lost_request_writes_once(place: Place) -> Result<(), Failure> {
    let first = place.stamp();
    let base = place
        .open()
        .await
        .compare_and_swap(None, &secret(&login(1)), &first)
        .await?;
    let script = [
        Fault::Lost,
        Fault::Refused(ErrorKind::Throttled),
        Fault::Refused(ErrorKind::PermissionDenied),
    ];
    let faulty = Faulty::new(place.open().await, script);
    let (new, stamp) = (secret(&login(2)), place.stamp());
    for fault in script {
        let answer = faulty.compare_and_swap(Some(&base), &new, &stamp).await;
        match fault {
            Fault::Refused(kind) => expect_refused(&answer, kind, "a request that was not sent")?,
            Fault::Pass | Fault::Delay(_) | Fault::Lost | Fault::ReplyLost => {
                expect_ambiguous(&answer)?;
            }
        }
        ensure!(
            place.expect_value(&login(1), Some(&first)).await? == base,
            "the version changed without a write"
        );
    }
    let version = faulty.compare_and_swap(Some(&base), &new, &stamp).await?;
    ensure!(
        place.expect_value(&login(2), Some(&stamp)).await? == version,
        "a read returned another version than the write"
    );
    Ok(())
}

pub(super) async fn a_duplicate_writes_once(place: Place) -> Result<(), Failure> {
    let mut base: Option<Version> = None;
    // First for a create, then for a swap.
    for number in 1..=2 {
        let (new, stamp) = (secret(&login(number)), place.stamp());
        let version = place
            .open()
            .await
            .compare_and_swap(base.as_ref(), &new, &stamp)
            .await?;
        let again = place
            .open()
            .await
            .compare_and_swap(base.as_ref(), &new, &stamp)
            .await;
        expect_one_write(&again, &version)?;
        ensure!(
            place.expect_value(&login(number), Some(&stamp)).await? == version,
            "the duplicate was written again"
        );
        base = Some(version);
    }
    Ok(())
}

/// A delayed duplicate must not overwrite a newer login.
pub(super) async fn a_delayed_duplicate_overwrites_nothing(place: Place) -> Result<(), Failure> {
    let store = place.open().await;
    let base = place.seed(&login(1)).await?;
    let (late, late_stamp) = (secret(&login(2)), place.stamp());
    let landed = store
        .compare_and_swap(Some(&base), &late, &late_stamp)
        .await?;
    let stamp = place.stamp();
    let version = place
        .open()
        .await
        .compare_and_swap(Some(&landed), &secret(&login(3)), &stamp)
        .await?;
    let again = store
        .compare_and_swap(Some(&base), &late, &late_stamp)
        .await;
    expect_one_write(&again, &landed)?;
    ensure!(
        place.expect_value(&login(3), Some(&stamp)).await? == version,
        "the version changed without a write"
    );
    Ok(())
}

/// A store that compares only the id would report a login as written that it does not hold.
pub(super) async fn a_reused_write_id_with_other_bytes_fails(place: Place) -> Result<(), Failure> {
    let store = place.open().await;
    let base = place.seed(&login(1)).await?;
    let stamp = place.stamp();
    let version = store
        .compare_and_swap(Some(&base), &secret(&login(2)), &stamp)
        .await?;
    let answer = store
        .compare_and_swap(Some(&base), &secret(&login(3)), &stamp)
        .await;
    ensure!(
        matches!(answer, Err(CasError::Conflict | CasError::Refused(_))),
        "a swap of other bytes with the same id returned {answer:?}"
    );
    ensure!(
        place.expect_value(&login(2), Some(&stamp)).await? == version,
        "the version changed without a write"
    );
    Ok(())
}

fn expect_ambiguous(answer: &Result<Version, CasError>) -> Result<(), Failure> {
    ensure!(
        matches!(answer, Err(CasError::Ambiguous(_))),
        "the result after a lost reply must be ambiguous, and was {answer:?}"
    );
    Ok(())
}

/// The store may remember the write, or report a stale version: both are correct.
fn expect_one_write(again: &Result<Version, CasError>, landed: &Version) -> Result<(), Failure> {
    ensure!(
        matches!(again, Err(CasError::Conflict)) || again.as_ref().is_ok_and(|v| v == landed),
        "a duplicate of {landed:?} returned {again:?}"
    );
    Ok(())
}
