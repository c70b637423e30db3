//! Somebody who wants the claim of a place, as the cases see it.

use std::{fmt, time::Instant};

use authferry_core::{Bid, Claim, ClaimError, Claims, Reads, RecordState, SecretStore, Standing};

use crate::{
    Fault, Faulty,
    cases::{Failure, ensure},
    place::{PACE, PATIENCE, Place},
};

/// When the cases play. They tell the time, so that nobody has to wait for an end.
pub(crate) const NOW: u64 = 1_760_000_000;

/// How long a claim is asked for, in seconds.
pub(crate) const TERM: u64 = 60;

/// Somebody with a handle and a number of its own.
pub(crate) struct Bidder {
    store: Box<dyn SecretStore>,
    reads: Reads,
    pub(crate) number: u64,
}

/// Returns as many as are wanted; `None` at a place without claims.
pub(crate) async fn bidders<const N: usize>(place: &Place) -> Result<Option<[Bidder; N]>, Failure> {
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
pub(crate) type Answer<T> = Result<T, ClaimError>;

impl Bidder {
    pub(crate) fn claims(&self) -> &dyn Claims {
        self.store.claims().expect("claims, as there were before")
    }

    pub(crate) fn bid(&self, now: u64) -> Bid {
        bid(self.number, now)
    }

    /// Lets what is asked next run into `faults`.
    pub(crate) fn breaks_the_wire<const N: usize>(self, faults: [Fault; N]) -> Self {
        Self {
            store: Box::new(Faulty::new(self.store, faults)),
            ..self
        }
    }

    pub(crate) async fn wins(&self, now: u64) -> Result<Claim, Failure> {
        let bid = self.bid(now);
        let ask = || self.claims().acquire(&bid);
        Ok(self.clear(Result::is_ok, ask).await?)
    }

    /// Requires that what is held is neither granted nor told in another way than as it is.
    pub(crate) async fn finds_held(&self, now: u64, held: &Claim) -> Result<(), Failure> {
        let is_told = |answer: &Answer<Claim>| {
            matches!(answer, Err(ClaimError::Held { owner, until, .. })
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

    /// Requires that somebody else holds the claim, and returns the state of its record, which
    /// must be another one than `before`.
    pub(crate) async fn sees(
        &self,
        now: u64,
        expired: Option<&RecordState>,
        before: &[RecordState],
    ) -> Result<RecordState, Failure> {
        let is_new = |answer: &Answer<Claim>| matches!(answer, Err(ClaimError::Held { state, .. }) if !before.contains(state));
        let bid = Bid {
            expired: expired.cloned(),
            ..self.bid(now)
        };
        let answer = self.clear(is_new, || self.claims().acquire(&bid)).await;
        match answer {
            Err(ClaimError::Held { state, .. }) if !before.contains(&state) => Ok(state),
            answer => Err(Failure::new(format!(
                "the claim is held in a new state, and {bid:?} was answered {answer:?}"
            ))),
        }
    }

    /// Wins the claim, whose record has not changed since `expired` was seen.
    pub(crate) async fn takes_over(
        &self,
        now: u64,
        expired: &RecordState,
    ) -> Result<Claim, Failure> {
        let bid = Bid {
            expired: Some(expired.clone()),
            ..self.bid(now)
        };
        let ask = || self.claims().acquire(&bid);
        Ok(self.clear(Result::is_ok, ask).await?)
    }

    /// Bids against `owners`, and returns the claim if it is won.
    pub(crate) async fn races(
        &self,
        bid: &Bid,
        owners: &[String],
    ) -> Result<Option<Claim>, Failure> {
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

    pub(crate) async fn renews(&self, claim: &Claim, until: u64) -> Result<Claim, Failure> {
        let ask = || self.claims().renew(claim, until);
        let renewed = self.clear(Result::is_ok, ask).await?;
        ensure!(
            (&renewed.owner, renewed.holder, renewed.until) == (&claim.owner, claim.holder, until),
            "{claim:?} was to hold until {until}, and is {renewed:?} now"
        );
        Ok(renewed)
    }

    pub(crate) async fn releases(&self, claim: &Claim) -> Result<(), Failure> {
        let ask = || self.claims().release(claim);
        Ok(self.clear(Result::is_ok, ask).await?)
    }

    /// Requires that a look tells this.
    pub(crate) async fn finds(&self, standing: Option<Standing>) -> Result<(), Failure> {
        let is_told =
            |answer: &Answer<Option<Standing>>| matches!(answer, Ok(told) if *told == standing);
        let answer = self.clear(is_told, || self.claims().look()).await;
        ensure!(
            is_told(&answer),
            "a look should tell {standing:?}, and was answered {answer:?}"
        );
        Ok(())
    }

    /// Requires that a look tells of a record that authferry did not write.
    pub(crate) async fn is_foreign(&self, until: Option<u64>) -> Result<(), Failure> {
        let is_told = |answer: &Answer<Option<Standing>>| matches!(answer, Ok(Some(told)) if told.is_foreign && told.until == until);
        let answer = self.clear(is_told, || self.claims().look()).await;
        ensure!(
            is_told(&answer),
            "the record is foreign and ends at {until:?}, and a look was answered {answer:?}"
        );
        Ok(())
    }

    /// Requires that whoever asks this is told of its loss.
    pub(crate) async fn has_lost<T: fmt::Debug, F: Future<Output = Answer<T>>>(
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
pub(crate) fn bid(number: u64, now: u64) -> Bid {
    Bid {
        owner: format!("https://ci.example/acme/app/runs/{number}?attempt=1"),
        // The leading zero must come back too.
        holder: 0x0123_4567_89ab_cdef ^ number,
        now,
        until: now + TERM,
        expired: None,
    }
}
