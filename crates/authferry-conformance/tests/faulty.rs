//! The contract is enough to live with faults: behind a wire that loses requests and
//! replies, a caller that settles each doubt by looking is a conforming store again.

mod places;

use std::{fmt, process::ExitCode, time::Duration};

use async_trait::async_trait;
use authferry_conformance::{Fault, Faulty};
use authferry_core::{
    Bid, CasError, Claim, ClaimError, Claims, ErrorKind, Guarantees, Secret, SecretStore, Stamp,
    Standing, StoreError, Stored, Version,
};

fn main() -> ExitCode {
    authferry_conformance::main(places::Places::new(|store, number| {
        Box::new(Settling(Faulty::new(store, faults(number))))
    }))
}

/// Returns endless faults, drawn from `seed`; every other call passes.
fn faults(seed: u64) -> impl Iterator<Item = Fault> + Send {
    let mut state = seed;
    std::iter::repeat_with(move || {
        // Knuth's multiplier; the upper bits are the random ones.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        match (state >> 33) % 8 {
            0 => Fault::Lost,
            1 => Fault::ReplyLost,
            2 => Fault::Refused(ErrorKind::Throttled),
            3 => Fault::Delay(Duration::from_micros(state >> 56)),
            _ => Fault::Pass,
        }
    })
}

/// Sends a swap until its fate is known, looking before it sends again. A call about a
/// claim it just sends again.
#[derive(Debug)]
struct Settling(Faulty);

impl fmt::Display for Settling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[async_trait]
impl SecretStore for Settling {
    fn guarantees(&self) -> Guarantees {
        self.0.guarantees()
    }

    async fn read(&self) -> Result<Option<Stored>, StoreError> {
        self.0.read().await
    }

    async fn compare_and_swap(
        &self,
        expected: Option<&Version>,
        new: &Secret,
        stamp: &Stamp,
    ) -> Result<Version, CasError> {
        loop {
            match self.0.compare_and_swap(expected, new, stamp).await {
                Err(CasError::Ambiguous(_)) => {
                    let stored = self.0.read().await.map_err(CasError::Ambiguous)?;
                    let version = stored.as_ref().map(|stored| &stored.version);
                    // An id that was used before does not stand for these bytes.
                    let is_ours = stored.as_ref().is_some_and(|stored| {
                        stored.stamp.as_ref().is_some_and(|s| s.id == stamp.id)
                            && stored.secret.expose() == new.expose()
                    });
                    match version {
                        Some(version) if is_ours => return Ok(version.clone()),
                        _ if version == expected => {}
                        _ => return Err(CasError::Conflict),
                    }
                }
                Err(CasError::Refused(error)) if error.kind.is_transient() => {}
                settled => return settled,
            }
        }
    }
    fn claims(&self) -> Option<&dyn Claims> {
        self.0.claims().map(|_| self as &dyn Claims)
    }
}

#[async_trait]
impl Claims for Settling {
    async fn acquire(&self, bid: &Bid) -> Result<Claim, ClaimError> {
        again(|| self.0.acquire(bid)).await
    }

    async fn renew(&self, claim: &Claim, until: u64) -> Result<Claim, ClaimError> {
        again(|| self.0.renew(claim, until)).await
    }

    async fn release(&self, claim: &Claim) -> Result<(), ClaimError> {
        again(|| self.0.release(claim)).await
    }

    async fn look(&self) -> Result<Option<Standing>, ClaimError> {
        again(|| self.0.look()).await
    }
}

async fn again<T, F: Future<Output = Result<T, ClaimError>>>(
    call: impl Fn() -> F,
) -> Result<T, ClaimError> {
    loop {
        match call().await {
            Err(ClaimError::Store(error)) if error.kind.is_transient() => {}
            settled => return settled,
        }
    }
}
