//! The contract suffices to handle faults: on a network that loses requests and replies, a caller
//! that resolves each ambiguous result with a read passes the suite.

mod places;

use std::{fmt, process::ExitCode, time::Duration};

use async_trait::async_trait;
use authferry_conformance::{Fault, Faulty};
use authferry_core::{
    CasError, ErrorKind, Guarantees, Lease, LeaseError, LeaseRequest, LeaseStatus, Leases, Secret,
    SecretStore, Stamp, StoreError, Stored, Version,
};

fn main() -> ExitCode {
    authferry_conformance::main(places::Places::new(|store, number| {
        Box::new(Settling(Faulty::new(store, faults(number))))
    }))
}

/// Returns endless pseudorandom faults from `seed`; about half of the calls pass.
fn faults(seed: u64) -> impl Iterator<Item = Fault> + Send {
    let mut state = seed;
    std::iter::repeat_with(move || {
        // Knuth's multiplier; the upper bits are the most random.
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

/// Retries a swap until its outcome is known, with a read before each retry. Retries a lease call
/// without a read.
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
                    // The id alone does not identify the bytes.
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
    fn leases(&self) -> Option<&dyn Leases> {
        self.0.leases().map(|_| self as &dyn Leases)
    }
}

#[async_trait]
impl Leases for Settling {
    async fn acquire(&self, request: &LeaseRequest) -> Result<Lease, LeaseError> {
        with_retries(|| self.0.acquire(request)).await
    }

    async fn renew(&self, lease: &Lease, until: u64) -> Result<Lease, LeaseError> {
        with_retries(|| self.0.renew(lease, until)).await
    }

    async fn release(&self, lease: &Lease) -> Result<(), LeaseError> {
        with_retries(|| self.0.release(lease)).await
    }

    async fn look(&self) -> Result<Option<LeaseStatus>, LeaseError> {
        with_retries(|| self.0.look()).await
    }
}

async fn with_retries<T, F: Future<Output = Result<T, LeaseError>>>(
    call: impl Fn() -> F,
) -> Result<T, LeaseError> {
    loop {
        match call().await {
            Err(LeaseError::Store(error)) if error.kind.is_transient() => {}
            settled => return settled,
        }
    }
}
