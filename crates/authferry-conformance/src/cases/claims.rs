//! The right to rotate: who has it, until when, and what becomes of it.
//!
//! The time is the caller's, so that nobody here has to wait for anything to end.

use std::{fmt, sync::Arc, time::Instant};

use authferry_core::{Bid, CLOCK_SKEW, Claim, ClaimError, Claims, Reads, SecretStore};
use tokio::sync::Barrier;

use super::RACERS;
use crate::{
    Fault, Faulty,
    cases::{Failure, ensure},
    place::{PACE, PATIENCE, Place, login, secret},
};

pub(super) const NOW: u64 = 1_760_000_000;

/// How long a claim is asked for, in seconds.
const TERM: u64 = 60;

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
    let next = second.wins(NOW).await?;
    fence_has_grown(&released, &next)
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
    let next = second.wins(free).await?;
    fence_has_grown(&ended, &next)
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
    let next = second.wins(free).await?;
    fence_has_grown(&renewed, &next)
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

pub(super) async fn one_of_many_bidders_wins(place: Place) -> Result<(), Failure> {
    let Some(racers) = bidders::<RACERS>(&place).await? else {
        return Ok(());
    };
    let racers = racers.map(Arc::new);
    let mut before: Option<Claim> = None;
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
        if let Some(before) = &before {
            fence_has_grown(before, &claim)?;
        }
        // Half of the rounds race for what was released, the others for what has ended.
        if round % 2 == 0 {
            winner.releases(&claim).await?;
        }
        before = Some(claim);
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

/// Somebody who wants the claim of a place, with a handle of its own.
pub(super) struct Bidder {
    store: Box<dyn SecretStore>,
    reads: Reads,
    number: u64,
}

/// Returns as many as are wanted; `None` at a place without claims.
pub(super) async fn bidders<const N: usize>(place: &Place) -> Result<Option<[Bidder; N]>, Failure> {
    if !place.claims() {
        return Ok(None);
    }
    let mut bidders = Vec::new();
    for number in (0..).take(N) {
        let store = place.open().await;
        ensure!(store.claims().is_some(), "{store} offers no claims");
        bidders.push(Bidder {
            store,
            reads: place.guarantees().reads,
            number,
        });
    }
    Ok(bidders.try_into().ok())
}

/// What a call about a claim is answered.
type Answer<T> = Result<T, ClaimError>;

impl Bidder {
    pub(super) fn claims(&self) -> &dyn Claims {
        self.store.claims().expect("claims, as there were before")
    }

    pub(super) fn bid(&self, now: u64) -> Bid {
        bid(self.number, now)
    }

    /// Lets what is asked next run into `faults`.
    fn breaks_the_wire<const N: usize>(self, faults: [Fault; N]) -> Self {
        Self {
            store: Box::new(Faulty::new(self.store, faults)),
            ..self
        }
    }

    pub(super) async fn wins(&self, now: u64) -> Result<Claim, Failure> {
        let bid = self.bid(now);
        let ask = || self.claims().acquire(&bid);
        Ok(self.clear(Result::is_ok, ask).await?)
    }

    /// Requires that what is held is neither granted nor told in another way than as it is.
    async fn finds_held(&self, now: u64, held: &Claim) -> Result<(), Failure> {
        let is_told = |answer: &Answer<Claim>| {
            matches!(answer, Err(ClaimError::Held { owner, until })
                if *owner == held.owner && *until == held.until)
        };
        let bid = self.bid(now);
        let ask = || self.claims().acquire(&bid);
        let answer = self.clear(is_told, ask).await;
        ensure!(
            is_told(&answer),
            "{held:?} is held, and {bid:?} was answered {answer:?}"
        );
        Ok(())
    }

    /// Bids against `owners`, and returns the claim if it is won.
    async fn races(&self, bid: &Bid, owners: &[String]) -> Result<Option<Claim>, Failure> {
        let is_settled = |answer: &Answer<Claim>| match answer {
            Ok(_) => true,
            Err(ClaimError::Held { owner, .. }) => owners.contains(owner),
            Err(ClaimError::Lost | ClaimError::Store(_)) => false,
        };
        let ask = || self.claims().acquire(bid);
        let answer = self.clear(is_settled, ask).await;
        ensure!(
            is_settled(&answer),
            "{bid:?} was answered {answer:?} in a race of {owners:?}"
        );
        Ok(answer.ok())
    }

    async fn renews(&self, claim: &Claim, until: u64) -> Result<Claim, Failure> {
        let ask = || self.claims().renew(claim, until);
        let renewed = self.clear(Result::is_ok, ask).await?;
        ensure!(
            (&renewed.owner, renewed.holder, renewed.until) == (&claim.owner, claim.holder, until)
                && renewed.fence >= claim.fence,
            "{claim:?} was to hold until {until}, and is {renewed:?} now"
        );
        Ok(renewed)
    }

    async fn releases(&self, claim: &Claim) -> Result<(), Failure> {
        let ask = || self.claims().release(claim);
        Ok(self.clear(Result::is_ok, ask).await?)
    }

    /// Requires that whoever asks this is told of its loss.
    async fn has_lost<T: fmt::Debug, F: Future<Output = Answer<T>>>(
        &self,
        ask: impl Fn() -> F,
    ) -> Result<(), Failure> {
        let is_told = |answer: &Answer<T>| matches!(answer, Err(ClaimError::Lost));
        let answer = self.clear(is_told, ask).await;
        ensure!(
            is_told(&answer),
            "what was taken over must be lost, and the answer was {answer:?}"
        );
        Ok(())
    }

    /// Asks once, or, where a read may lag, until the answer is as wanted or patience ends.
    async fn clear<T, F: Future<Output = Answer<T>>>(
        &self,
        as_wanted: impl Fn(&Answer<T>) -> bool,
        ask: impl Fn() -> F,
    ) -> Answer<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = ask().await;
            match self.reads {
                Reads::Eventual if !as_wanted(&answer) && Instant::now() < deadline => {
                    tokio::time::sleep(PACE).await;
                }
                Reads::Eventual | Reads::Strong => return answer,
            }
        }
    }
}

/// Returns what the bidder with this number asks for.
fn bid(number: u64, now: u64) -> Bid {
    Bid {
        owner: format!("https://ci.example/acme/app/runs/{number}?attempt=1"),
        // The leading zero must come back too.
        holder: 0x0123_4567_89ab_cdef ^ number,
        now,
        until: now + TERM,
    }
}

fn fence_has_grown(before: &Claim, after: &Claim) -> Result<(), Failure> {
    ensure!(
        before.fence < after.fence,
        "the fence must grow from {before:?} to {after:?}"
    );
    Ok(())
}

/// Requires that nobody could know what became of a call.
fn in_doubt<T: fmt::Debug>(answer: &Answer<T>) -> Result<(), Failure> {
    ensure!(
        matches!(answer, Err(ClaimError::Store(_))),
        "a lost answer leaves all open, and was {answer:?}"
    );
    Ok(())
}
