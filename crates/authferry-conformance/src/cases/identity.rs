//! One intended write is one write, however often it is sent.

use authferry_core::{CasError, ErrorKind, SecretStore, Version};

use crate::{
    Fault, Faulty,
    cases::{Failure, ensure},
    place::{Place, login, refused, secret},
};

pub(super) async fn a_lost_reply_is_settled_by_looking(place: Place) -> Result<(), Failure> {
    let base = place.seed(&login(1)).await?;
    let faulty = Faulty::new(place.open().await, [Fault::ReplyLost]);
    let stamp = place.stamp();
    let answer = faulty
        .compare_and_swap(Some(&base), &secret(&login(2)), &stamp)
        .await;
    ambiguous(&answer)?;
    let landed = place.shows(&login(2), Some(&stamp)).await?;
    ensure!(landed != base, "{base:?} stands for two values");

    // What was settled is a base like any other.
    let stamp = place.stamp();
    faulty
        .compare_and_swap(Some(&landed), &secret(&login(3)), &stamp)
        .await?;
    place.shows(&login(3), Some(&stamp)).await?;
    Ok(())
}

pub(super) async fn a_lost_request_lands_once_when_sent_again(place: Place) -> Result<(), Failure> {
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
            Fault::Refused(kind) => refused(&answer, kind, "what never left")?,
            Fault::Pass | Fault::Delay(_) | Fault::Lost | Fault::ReplyLost => ambiguous(&answer)?,
        }
        ensure!(
            place.shows(&login(1), Some(&first)).await? == base,
            "the version moved although nothing was written"
        );
    }
    let version = faulty.compare_and_swap(Some(&base), &new, &stamp).await?;
    ensure!(
        place.shows(&login(2), Some(&stamp)).await? == version,
        "reading gives another version than the write was answered"
    );
    Ok(())
}

pub(super) async fn a_duplicate_is_one_write(place: Place) -> Result<(), Failure> {
    let mut base: Option<Version> = None;
    // First as the one that creates, then as the one that replaces.
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
        one_write(&again, &version)?;
        ensure!(
            place.shows(&login(number), Some(&stamp)).await? == version,
            "the duplicate was written once more"
        );
        base = Some(version);
    }
    Ok(())
}

/// A duplicate that was held up on the way must not bring an older login back.
pub(super) async fn a_late_duplicate_brings_nothing_back(place: Place) -> Result<(), Failure> {
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
    one_write(&again, &landed)?;
    ensure!(
        place.shows(&login(3), Some(&stamp)).await? == version,
        "the version moved although nothing was written"
    );
    Ok(())
}

/// Whoever answers for an id alone calls a login written that is nowhere.
pub(super) async fn an_id_does_not_stand_for_other_bytes(place: Place) -> Result<(), Failure> {
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
        "other bytes under the same id were answered {answer:?}"
    );
    ensure!(
        place.shows(&login(2), Some(&stamp)).await? == version,
        "the version moved although nothing was written"
    );
    Ok(())
}

fn ambiguous(answer: &Result<Version, CasError>) -> Result<(), Failure> {
    ensure!(
        matches!(answer, Err(CasError::Ambiguous(_))),
        "a lost answer must be ambiguous, and was {answer:?}"
    );
    Ok(())
}

/// The store may remember the write or just see a stale version: either is true.
fn one_write(again: &Result<Version, CasError>, landed: &Version) -> Result<(), Failure> {
    ensure!(
        matches!(again, Err(CasError::Conflict)) || again.as_ref().is_ok_and(|v| v == landed),
        "a duplicate of {landed:?} was answered {again:?}"
    );
    Ok(())
}
