//! The lease: acquire, renew, release, expiry and takeover.

use std::{fmt, sync::Arc};

use authferry_core::{CLOCK_SKEW, Lease, LeaseError, LeaseStatus};
use tokio::sync::Barrier;

use super::RACERS;
use crate::{
    Fault,
    cases::{Failure, ensure},
    lease_client::{LeaseResult, NOW, TERM, lease_clients, lease_request},
    place::{Place, login, secret},
};

const ROUNDS: u64 = 20;

pub(super) async fn the_declared_lease_support_matches_the_fixture(
    place: Place,
) -> Result<(), Failure> {
    let (offered, pinned) = (place.open().await.leases().is_some(), place.leases());
    ensure!(
        offered == pinned,
        "lease support: the store returns {offered}, and the fixture declares {pinned}"
    );
    Ok(())
}

pub(super) async fn only_one_client_holds_the_lease(place: Place) -> Result<(), Failure> {
    let Some([first, second]) = lease_clients(&place).await? else {
        return Ok(());
    };
    let (request, held) = (first.request(NOW), first.acquire(NOW).await?);
    ensure!(
        (&held.owner, held.holder, held.until) == (&request.owner, request.holder, request.until),
        "{request:?} was granted {held:?}"
    );
    second.expect_held(NOW, &held).await?;
    second.expect_held(held.until, &held).await
}

pub(super) async fn a_released_lease_is_free_at_once(place: Place) -> Result<(), Failure> {
    let Some([first, second]) = lease_clients(&place).await? else {
        return Ok(());
    };
    let released = first.acquire(NOW).await?;
    first.release(&released).await?;
    second.acquire(NOW).await?;
    Ok(())
}

/// The holder's clock may be behind the next client's clock.
pub(super) async fn an_expired_lease_is_free_after_the_clock_skew(
    place: Place,
) -> Result<(), Failure> {
    let Some([first, second]) = lease_clients(&place).await? else {
        return Ok(());
    };
    let ended = first.acquire(NOW).await?;
    let free = ended.until + CLOCK_SKEW;
    second.expect_held(free - 1, &ended).await?;
    second.acquire(free).await?;
    Ok(())
}

pub(super) async fn a_lease_that_was_taken_over_is_lost(place: Place) -> Result<(), Failure> {
    let Some([first, second]) = lease_clients(&place).await? else {
        return Ok(());
    };
    let old = first.acquire(NOW).await?;
    let later = old.until + CLOCK_SKEW;
    let new = second.acquire(later).await?;
    first
        .expect_lost(|| first.leases().renew(&old, later + TERM))
        .await?;
    first.expect_lost(|| first.leases().release(&old)).await?;
    first.expect_held(later, &new).await?;
    second.renew(&new, later + 2 * TERM).await?;
    Ok(())
}

pub(super) async fn a_renewed_lease_holds_until_its_new_expiry(
    place: Place,
) -> Result<(), Failure> {
    let Some([first, second]) = lease_clients(&place).await? else {
        return Ok(());
    };
    let held = first.acquire(NOW).await?;
    let renewed = first.renew(&held, NOW + 5 * TERM).await?;
    let free = renewed.until + CLOCK_SKEW;
    second.expect_held(free - 1, &renewed).await?;
    second.acquire(free).await?;
    Ok(())
}

pub(super) async fn a_look_returns_the_lease_status(place: Place) -> Result<(), Failure> {
    let Some([first, second]) = lease_clients(&place).await? else {
        return Ok(());
    };
    second.expect_status(None).await?;
    let mut held = first.acquire(NOW).await?;
    let status = |until: Option<u64>, note: Option<&str>| LeaseStatus {
        owner: first.request(NOW).owner,
        until,
        note: note.map(str::to_owned),
        is_foreign: false,
    };
    second
        .expect_status(Some(status(Some(held.until), None)))
        .await?;
    held.note = Some("a made-up note".to_owned());
    let held = first.renew(&held, NOW + 2 * TERM).await?;
    let renewed = status(Some(held.until), Some("a made-up note"));
    second.expect_status(Some(renewed)).await?;
    first.release(&held).await?;
    let released = status(None, Some("a made-up note"));
    second.expect_status(Some(released)).await
}

pub(super) async fn the_next_holder_reads_the_note(place: Place) -> Result<(), Failure> {
    let Some([first, second]) = lease_clients(&place).await? else {
        return Ok(());
    };
    let has = |lease: &Lease, expected: Option<&str>| {
        let found = lease.note.as_deref();
        ensure!(
            found == expected,
            "the note of {lease:?} should be {expected:?}"
        );
        Ok::<_, Failure>(())
    };
    let mut held = first.acquire(NOW).await?;
    has(&held, None)?;
    held.note = Some("a made-up note".to_owned());
    first.release(&held).await?;
    let reacquired = second.acquire(NOW).await?;
    has(&reacquired, Some("a made-up note"))?;
    let renewed = second.renew(&reacquired, NOW + 2 * TERM).await?;
    let mut ended = first.acquire(renewed.until + CLOCK_SKEW).await?;
    has(&ended, Some("a made-up note"))?;
    ended.note = None;
    first.release(&ended).await?;
    has(&second.acquire(ended.until).await?, None)
}

pub(super) async fn a_repeated_acquire_returns_the_same_lease(place: Place) -> Result<(), Failure> {
    let Some([first, second]) = lease_clients(&place).await? else {
        return Ok(());
    };
    let first = first.with_faults([Fault::Lost, Fault::ReplyLost]);
    for _ in 0..2 {
        expect_unknown_outcome(&first.leases().acquire(&first.request(NOW)).await)?;
    }
    let held = first.acquire(NOW).await?;
    // The last attempt has a later clock and requests a later expiry.
    for now in [NOW, NOW + 1] {
        let again = first.acquire(now).await?;
        ensure!(
            again == held,
            "a repeated acquire of {held:?} returned {again:?}"
        );
    }
    second.expect_held(NOW, &held).await
}

pub(super) async fn a_repeated_renewal_succeeds(place: Place) -> Result<(), Failure> {
    let Some([first, second]) = lease_clients(&place).await? else {
        return Ok(());
    };
    let first = first.with_faults([Fault::Pass, Fault::Lost, Fault::ReplyLost]);
    let held = first.acquire(NOW).await?;
    let until = NOW + 5 * TERM;
    for _ in 0..2 {
        expect_unknown_outcome(&first.leases().renew(&held, until).await)?;
    }
    // The last attempt has a later clock and requests a later expiry.
    for until in [until, until + 1] {
        let renewed = first.renew(&held, until).await?;
        second.expect_held(until + CLOCK_SKEW - 1, &renewed).await?;
    }
    Ok(())
}

pub(super) async fn a_repeated_release_succeeds(place: Place) -> Result<(), Failure> {
    let Some([first, second]) = lease_clients(&place).await? else {
        return Ok(());
    };
    let script = [Fault::Pass, Fault::ReplyLost, Fault::Lost, Fault::ReplyLost];
    let first = first.with_faults(script);
    let held = first.acquire(NOW).await?;
    // The holder releases the lease although the outcome of the renewal is unknown.
    expect_unknown_outcome(&first.leases().renew(&held, NOW + 5 * TERM).await)?;
    for _ in 0..2 {
        expect_unknown_outcome(&first.leases().release(&held).await)?;
    }
    first.release(&held).await?;
    second.acquire(NOW).await?;
    Ok(())
}

/// An expiry from a wrong clock does not protect a lease that is not renewed for a term.
pub(super) async fn a_lease_that_is_not_renewed_is_taken_over(place: Place) -> Result<(), Failure> {
    const DAY: u64 = 86_400;
    let Some([first, second]) = lease_clients(&place).await? else {
        return Ok(());
    };
    let ahead = first.acquire(NOW + DAY).await?;
    let seen = second.observe_state(NOW, None, &[]).await?;
    let now = NOW + TERM + CLOCK_SKEW;
    let again = second.observe_state(now, None, &[]).await?;
    ensure!(
        again == seen,
        "the lease was not renewed, and its state {seen:?} became {again:?}"
    );
    // A renewal changes the state, so the lease has not expired.
    let ahead = first.renew(&ahead, NOW + DAY + 2 * TERM).await?;
    let renewed = second
        .observe_state(now, Some(&seen), std::slice::from_ref(&seen))
        .await?;
    let now = now + TERM + CLOCK_SKEW;
    let won = second.take_over(now, &renewed).await?;
    first
        .expect_lost(|| first.leases().renew(&ahead, NOW + DAY + 3 * TERM))
        .await?;
    first.expect_held(now, &won).await
}

/// A copied file loses its stamp, and a person writes none.
pub(super) async fn a_record_without_a_stamp_is_taken_over_after_its_expiry(
    place: Place,
) -> Result<(), Failure> {
    let Some([first, second]) = lease_clients(&place).await? else {
        return Ok(());
    };
    let until = NOW + TERM;
    place
        .put_lease_by_hand(&format!("held until {until}"))
        .await;
    first.expect_foreign(Some(until)).await?;
    first
        .observe_state(until + CLOCK_SKEW - 1, None, &[])
        .await?;
    let won = first.acquire(until + CLOCK_SKEW).await?;
    second.expect_held(won.until, &won).await?;

    place.put_lease_by_hand("released").await;
    first.expect_lost(|| first.leases().release(&won)).await?;
    second.acquire(NOW).await?;
    Ok(())
}

pub(super) async fn a_malformed_record_is_taken_over_after_one_term(
    place: Place,
) -> Result<(), Failure> {
    let Some([first, second]) = lease_clients(&place).await? else {
        return Ok(());
    };
    place.put_lease_by_hand("made up").await;
    first.expect_foreign(Some(u64::MAX)).await?;
    let seen = first.observe_state(NOW, None, &[]).await?;
    second.observe_state(NOW + 1000 * TERM, None, &[]).await?;
    let won = first.take_over(NOW + TERM + CLOCK_SKEW, &seen).await?;
    second.expect_held(won.until, &won).await?;
    first.release(&won).await
}

pub(super) async fn one_of_many_lease_clients_wins(place: Place) -> Result<(), Failure> {
    let Some(racers) = lease_clients::<RACERS>(&place).await? else {
        return Ok(());
    };
    let racers = racers.map(Arc::new);
    for round in 0..ROUNDS {
        let now = NOW + round * (TERM + CLOCK_SKEW);
        let requests = racers
            .each_ref()
            .map(|racer| lease_request(round * 100 + racer.number, now));
        let owners: Arc<[_]> = requests.iter().map(|it| it.owner.clone()).collect();
        let start = Arc::new(Barrier::new(RACERS));
        let running: Vec<_> = racers
            .iter()
            .zip(requests)
            .map(|(racer, request)| {
                let (racer, start) = (Arc::clone(racer), Arc::clone(&start));
                let owners = Arc::clone(&owners);
                tokio::spawn(async move {
                    start.wait().await;
                    racer.race(&request, &owners).await
                })
            })
            .collect();
        let mut won = Vec::new();
        for (racer, running) in racers.iter().zip(running) {
            won.extend(running.await??.map(|lease| (racer, lease)));
        }
        ensure!(won.len() == 1, "round {round} was won by {}", won.len());
        let Some((winner, lease)) = won.pop() else {
            break;
        };
        // Half of the rounds race for a released lease, the others for an expired one.
        if round % 2 == 0 {
            winner.release(&lease).await?;
        }
    }
    Ok(())
}

pub(super) async fn a_lease_does_not_change_the_login(place: Place) -> Result<(), Failure> {
    let Some([first, second]) = lease_clients(&place).await? else {
        return Ok(());
    };
    let held = first.acquire(NOW).await?;
    place.expect_empty().await?;
    let stamp = place.stamp();
    let version = place
        .open()
        .await
        .compare_and_swap(None, &secret(&login(1)), &stamp)
        .await?;
    let renewed = first.renew(&held, NOW + 2 * TERM).await?;
    first.release(&renewed).await?;
    second.acquire(NOW).await?;
    ensure!(
        place.expect_value(&login(1), Some(&stamp)).await? == version,
        "the lease changed the login's version"
    );
    ensure!(
        place.look_by_hand().await == Some(login(1)),
        "the store's own tools do not return the login unchanged"
    );
    Ok(())
}

pub(super) async fn writing_the_login_does_not_change_the_lease(
    place: Place,
) -> Result<(), Failure> {
    let Some([first, second]) = lease_clients(&place).await? else {
        return Ok(());
    };
    let held = first.acquire(NOW).await?;
    let version = place.seed(&login(1)).await?;
    second.expect_held(NOW, &held).await?;
    place
        .open()
        .await
        .compare_and_swap(Some(&version), &secret(&login(2)), &place.stamp())
        .await?;
    second.expect_held(NOW, &held).await?;
    place.put_by_hand(&login(3)).await;
    second.expect_held(NOW, &held).await?;
    place.empty().await;
    second.expect_held(NOW, &held).await?;
    first.release(&held).await
}

/// Expects that the outcome of a call is unknown.
fn expect_unknown_outcome<T: fmt::Debug>(answer: &LeaseResult<T>) -> Result<(), Failure> {
    ensure!(
        matches!(answer, Err(LeaseError::Store(_))),
        "a lost reply must leave the outcome unknown, but the result was {answer:?}"
    );
    Ok(())
}
