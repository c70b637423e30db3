//! The right to rotate: who has it, until when, and what becomes of it.

use std::{fmt, sync::Arc};

use authferry_core::{CLOCK_SKEW, Claim, ClaimError, Standing};
use tokio::sync::Barrier;

use super::RACERS;
use crate::{
    Fault,
    bidder::{Answer, NOW, TERM, bid, bidders},
    cases::{Failure, ensure},
    place::{Place, login, secret},
};

const ROUNDS: u64 = 20;

pub(super) async fn the_declaration_is_the_pinned_one(place: Place) -> Result<(), Failure> {
    let (offered, pinned) = (place.open().await.claims().is_some(), place.claims());
    ensure!(
        offered == pinned,
        "whether there are claims: the store says {offered}, and the fixture pins {pinned}"
    );
    Ok(())
}

pub(super) async fn one_holds_it_at_a_time(place: Place) -> Result<(), Failure> {
    let Some([first, second]) = bidders(&place).await? else {
        return Ok(());
    };
    let (bid, held) = (first.bid(NOW), first.wins(NOW).await?);
    ensure!(
        (&held.owner, held.holder, held.until) == (&bid.owner, bid.holder, bid.until),
        "{bid:?} was granted {held:?}"
    );
    second.finds_held(NOW, &held).await?;
    second.finds_held(held.until, &held).await
}

pub(super) async fn what_was_released_is_free_at_once(place: Place) -> Result<(), Failure> {
    let Some([first, second]) = bidders(&place).await? else {
        return Ok(());
    };
    let released = first.wins(NOW).await?;
    first.releases(&released).await?;
    second.wins(NOW).await?;
    Ok(())
}

/// Its holder's clock may be behind the taker's.
pub(super) async fn what_has_ended_is_free_once_all_clocks_say_so(
    place: Place,
) -> Result<(), Failure> {
    let Some([first, second]) = bidders(&place).await? else {
        return Ok(());
    };
    let ended = first.wins(NOW).await?;
    let free = ended.until + CLOCK_SKEW;
    second.finds_held(free - 1, &ended).await?;
    second.wins(free).await?;
    Ok(())
}

pub(super) async fn what_was_taken_over_is_lost(place: Place) -> Result<(), Failure> {
    let Some([first, second]) = bidders(&place).await? else {
        return Ok(());
    };
    let old = first.wins(NOW).await?;
    let later = old.until + CLOCK_SKEW;
    let new = second.wins(later).await?;
    first
        .has_lost(|| first.claims().renew(&old, later + TERM))
        .await?;
    first.has_lost(|| first.claims().release(&old)).await?;
    first.finds_held(later, &new).await?;
    second.renews(&new, later + 2 * TERM).await?;
    Ok(())
}

pub(super) async fn a_renewed_claim_holds_until_its_new_end(place: Place) -> Result<(), Failure> {
    let Some([first, second]) = bidders(&place).await? else {
        return Ok(());
    };
    let held = first.wins(NOW).await?;
    let renewed = first.renews(&held, NOW + 5 * TERM).await?;
    let free = renewed.until + CLOCK_SKEW;
    second.finds_held(free - 1, &renewed).await?;
    second.wins(free).await?;
    Ok(())
}

pub(super) async fn a_look_tells_how_it_stands(place: Place) -> Result<(), Failure> {
    let Some([first, second]) = bidders(&place).await? else {
        return Ok(());
    };
    second.finds(None).await?;
    let mut held = first.wins(NOW).await?;
    let standing = |until: Option<u64>, note: Option<&str>| Standing {
        owner: first.bid(NOW).owner,
        until,
        note: note.map(str::to_owned),
        is_foreign: false,
    };
    second.finds(Some(standing(Some(held.until), None))).await?;
    held.note = Some("a made-up note".to_owned());
    let held = first.renews(&held, NOW + 2 * TERM).await?;
    let told = standing(Some(held.until), Some("a made-up note"));
    second.finds(Some(told)).await?;
    first.releases(&held).await?;
    let told = standing(None, Some("a made-up note"));
    second.finds(Some(told)).await
}

pub(super) async fn a_note_is_found_by_whoever_has_it_next(place: Place) -> Result<(), Failure> {
    let Some([first, second]) = bidders(&place).await? else {
        return Ok(());
    };
    let has = |claim: &Claim, wanted: Option<&str>| {
        let found = claim.note.as_deref();
        ensure!(
            found == wanted,
            "the note of {claim:?} should be {wanted:?}"
        );
        Ok::<_, Failure>(())
    };
    let mut held = first.wins(NOW).await?;
    has(&held, None)?;
    held.note = Some("a made-up note".to_owned());
    first.releases(&held).await?;
    let given_back = second.wins(NOW).await?;
    has(&given_back, Some("a made-up note"))?;
    let renewed = second.renews(&given_back, NOW + 2 * TERM).await?;
    let mut ended = first.wins(renewed.until + CLOCK_SKEW).await?;
    has(&ended, Some("a made-up note"))?;
    ended.note = None;
    first.releases(&ended).await?;
    has(&second.wins(ended.until).await?, None)
}

pub(super) async fn a_bid_asked_again_is_one_claim(place: Place) -> Result<(), Failure> {
    let Some([first, second]) = bidders(&place).await? else {
        return Ok(());
    };
    let first = first.breaks_the_wire([Fault::Lost, Fault::ReplyLost]);
    for _ in 0..2 {
        in_doubt(&first.claims().acquire(&first.bid(NOW)).await)?;
    }
    let held = first.wins(NOW).await?;
    // At last the clock has moved on, and with it the end that is asked for.
    for now in [NOW, NOW + 1] {
        let again = first.wins(now).await?;
        ensure!(
            again == held,
            "{held:?} was asked for again, and is {again:?} now"
        );
    }
    second.finds_held(NOW, &held).await
}

pub(super) async fn a_renewal_asked_again_lasts(place: Place) -> Result<(), Failure> {
    let Some([first, second]) = bidders(&place).await? else {
        return Ok(());
    };
    let first = first.breaks_the_wire([Fault::Pass, Fault::Lost, Fault::ReplyLost]);
    let held = first.wins(NOW).await?;
    let until = NOW + 5 * TERM;
    for _ in 0..2 {
        in_doubt(&first.claims().renew(&held, until).await)?;
    }
    // At last the clock has moved on, and with it the end that is asked for.
    for until in [until, until + 1] {
        let renewed = first.renews(&held, until).await?;
        second.finds_held(until + CLOCK_SKEW - 1, &renewed).await?;
    }
    Ok(())
}

pub(super) async fn a_release_asked_again_is_done(place: Place) -> Result<(), Failure> {
    let Some([first, second]) = bidders(&place).await? else {
        return Ok(());
    };
    let script = [Fault::Pass, Fault::ReplyLost, Fault::Lost, Fault::ReplyLost];
    let first = first.breaks_the_wire(script);
    let held = first.wins(NOW).await?;
    // Who does not know whether it was renewed gives it back all the same.
    in_doubt(&first.claims().renew(&held, NOW + 5 * TERM).await)?;
    for _ in 0..2 {
        in_doubt(&first.claims().release(&held).await)?;
    }
    first.releases(&held).await?;
    second.wins(NOW).await?;
    Ok(())
}

/// The end that a wrong clock gave counts no longer than a holder takes to renew.
pub(super) async fn a_claim_that_nobody_renews_is_taken_over(place: Place) -> Result<(), Failure> {
    const DAY: u64 = 86_400;
    let Some([first, second]) = bidders(&place).await? else {
        return Ok(());
    };
    let ahead = first.wins(NOW + DAY).await?;
    let seen = second.sees(NOW, None, &[]).await?;
    let now = NOW + TERM + CLOCK_SKEW;
    let again = second.sees(now, None, &[]).await?;
    ensure!(
        again == seen,
        "nobody renewed the claim, and its state {seen:?} became {again:?}"
    );
    // A renewal is another state, and the claim has not expired.
    let ahead = first.renews(&ahead, NOW + DAY + 2 * TERM).await?;
    let renewed = second
        .sees(now, Some(&seen), std::slice::from_ref(&seen))
        .await?;
    let now = now + TERM + CLOCK_SKEW;
    let won = second.takes_over(now, &renewed).await?;
    first
        .has_lost(|| first.claims().renew(&ahead, NOW + DAY + 3 * TERM))
        .await?;
    first.finds_held(now, &won).await
}

/// Copying a file loses its stamp, and a person writes none.
pub(super) async fn a_record_without_a_stamp_is_taken_over_after_its_end(
    place: Place,
) -> Result<(), Failure> {
    let Some([first, second]) = bidders(&place).await? else {
        return Ok(());
    };
    let until = NOW + TERM;
    place
        .put_claim_by_hand(&format!("held until {until}"))
        .await;
    first.is_foreign(Some(until)).await?;
    first.sees(until + CLOCK_SKEW - 1, None, &[]).await?;
    let won = first.wins(until + CLOCK_SKEW).await?;
    second.finds_held(won.until, &won).await?;

    place.put_claim_by_hand("released").await;
    first.has_lost(|| first.claims().release(&won)).await?;
    second.wins(NOW).await?;
    Ok(())
}

pub(super) async fn a_record_that_makes_no_sense_is_taken_over_after_a_term(
    place: Place,
) -> Result<(), Failure> {
    let Some([first, second]) = bidders(&place).await? else {
        return Ok(());
    };
    place.put_claim_by_hand("made up").await;
    first.is_foreign(Some(u64::MAX)).await?;
    let seen = first.sees(NOW, None, &[]).await?;
    second.sees(NOW + 1000 * TERM, None, &[]).await?;
    let won = first.takes_over(NOW + TERM + CLOCK_SKEW, &seen).await?;
    second.finds_held(won.until, &won).await?;
    first.releases(&won).await
}

pub(super) async fn one_of_many_bidders_wins(place: Place) -> Result<(), Failure> {
    let Some(racers) = bidders::<RACERS>(&place).await? else {
        return Ok(());
    };
    let racers = racers.map(Arc::new);
    for round in 0..ROUNDS {
        let now = NOW + round * (TERM + CLOCK_SKEW);
        let bids = racers
            .each_ref()
            .map(|racer| bid(round * 100 + racer.number, now));
        let owners: Arc<[_]> = bids.iter().map(|bid| bid.owner.clone()).collect();
        let start = Arc::new(Barrier::new(RACERS));
        let running: Vec<_> = racers
            .iter()
            .zip(bids)
            .map(|(racer, bid)| {
                let (racer, start) = (Arc::clone(racer), Arc::clone(&start));
                let owners = Arc::clone(&owners);
                tokio::spawn(async move {
                    start.wait().await;
                    racer.races(&bid, &owners).await
                })
            })
            .collect();
        let mut won = Vec::new();
        for (racer, running) in racers.iter().zip(running) {
            won.extend(running.await??.map(|claim| (racer, claim)));
        }
        ensure!(won.len() == 1, "round {round} was won by {}", won.len());
        let Some((winner, claim)) = won.pop() else {
            break;
        };
        // Half of the rounds race for what was released, the others for what has ended.
        if round % 2 == 0 {
            winner.releases(&claim).await?;
        }
    }
    Ok(())
}

pub(super) async fn a_claim_leaves_the_login_alone(place: Place) -> Result<(), Failure> {
    let Some([first, second]) = bidders(&place).await? else {
        return Ok(());
    };
    let held = first.wins(NOW).await?;
    place.shows_nothing().await?;
    let stamp = place.stamp();
    let version = place
        .open()
        .await
        .compare_and_swap(None, &secret(&login(1)), &stamp)
        .await?;
    let renewed = first.renews(&held, NOW + 2 * TERM).await?;
    first.releases(&renewed).await?;
    second.wins(NOW).await?;
    ensure!(
        place.shows(&login(1), Some(&stamp)).await? == version,
        "a claim moved the login's version"
    );
    ensure!(
        place.look_by_hand().await == Some(login(1)),
        "the store's own tools do not show the login as it was written"
    );
    Ok(())
}

pub(super) async fn a_login_leaves_the_claim_alone(place: Place) -> Result<(), Failure> {
    let Some([first, second]) = bidders(&place).await? else {
        return Ok(());
    };
    let held = first.wins(NOW).await?;
    let version = place.seed(&login(1)).await?;
    second.finds_held(NOW, &held).await?;
    place
        .open()
        .await
        .compare_and_swap(Some(&version), &secret(&login(2)), &place.stamp())
        .await?;
    second.finds_held(NOW, &held).await?;
    place.put_by_hand(&login(3)).await;
    second.finds_held(NOW, &held).await?;
    place.empty().await;
    second.finds_held(NOW, &held).await?;
    first.releases(&held).await
}

/// Requires that nobody could know what became of a call.
fn in_doubt<T: fmt::Debug>(answer: &Answer<T>) -> Result<(), Failure> {
    ensure!(
        matches!(answer, Err(ClaimError::Store(_))),
        "a lost answer leaves all open, and was {answer:?}"
    );
    Ok(())
}
