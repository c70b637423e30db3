//! Decides what happens to a login. Performs no I/O.
//!
//! The crate uses no clock, no randomness, no environment variables and no async runtime. It is
//! `no_std`, so the compiler enforces this. It never reads a token: it knows an auth file only
//! by its [`Generation`].
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod backoff;
pub mod copies;
mod generation;
mod identity;
mod leases;
pub mod order;
mod policy;
pub mod rotation;
mod round_trip;
mod secret;
mod store;
mod verdict;

pub use backoff::pause;
pub use generation::{DueRule, Family, Fingerprint, Generation, Issued, NotAFingerprint};
pub use identity::{Identity, Label, SessionHints};
pub use leases::{
    CLOCK_SKEW, Lease, LeaseError, LeaseRequest, LeaseStatus, Leases, RecordState,
    StoreBackedLeases,
};
pub use policy::{Policy, Winner};
pub use round_trip::{
    Base, Cause, Effect, Event, Goal, Keep, Outcome, Placing, Reply, Retryable, RoundTrip,
    SetAside, Terms, Write,
};
pub use secret::Secret;
pub use store::{
    BoxError, CasError, ErrorKind, Guarantees, Origin, Reads, SecretStore, Stamp, StoreError,
    Stored, Swap, UnknownText, Version, WriteId,
};
pub use verdict::{Held, Refusal, Seen};
