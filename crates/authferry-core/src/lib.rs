//! Decides what happens to a login, and touches nothing.
//!
//! No I/O, no clock, no randomness, no environment and no async runtime: the crate is
//! `no_std`, so the compiler holds that. It never sees a token either; what it knows of
//! an auth file is its [`Generation`].
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod backoff;
mod claims;
pub mod copies;
mod generation;
mod identity;
pub mod order;
mod policy;
pub mod rotation;
mod secret;
mod store;
mod trip;
mod verdict;

pub use backoff::pause;
pub use claims::{Beside, Bid, CLOCK_SKEW, Claim, ClaimError, Claims, RecordState, Standing};
pub use generation::{DueRule, Family, Fingerprint, Generation, Issued, NotAFingerprint};
pub use identity::{Identity, Label, SessionHints};
pub use policy::{Policy, Winner};
pub use secret::Secret;
pub use store::{
    BoxError, CasError, ErrorKind, Guarantees, Origin, Reads, SecretStore, Stamp, StoreError,
    Stored, Swap, UnknownText, Version, WriteId,
};
pub use trip::{
    Base, Cause, Effect, Event, Goal, Keep, Outcome, Placing, Reply, SetAside, Terms, Trip,
    Trouble, Write,
};
pub use verdict::{Held, Refusal, Seen};
