//! The one joint between the round trip and whatever holds the login.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::{fmt, str::FromStr};

use async_trait::async_trait;

use crate::{Claims, Family, Secret};

/// A place that holds one generation at a time, under an address.
///
/// One value of this trait is one place. `Display` gives the address, which never
/// holds a secret. Every implementation passes `authferry-conformance`.
#[async_trait]
pub trait SecretStore: fmt::Debug + fmt::Display + Send + Sync {
    /// Returns what this store promises. Constant for the life of the value.
    fn guarantees(&self) -> Guarantees;

    /// Returns what else a user of this store should know, for people, one sentence each:
    /// what a rotation costs, what is best effort. Never a secret; asks nobody.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

    /// Returns what the store holds now, or `None` if it holds nothing yet.
    ///
    /// May be repeated by the implementation after a transient failure: reading
    /// changes nothing. [`ErrorKind::NotFound`] means that the *place* is missing (no
    /// mount, no folder), never that the value is.
    async fn read(&self) -> Result<Option<Stored>, StoreError>;

    /// Replaces what the store holds if its version is still `expected` (`None`: if it
    /// holds nothing), and returns the new version.
    ///
    /// The write is sent at most once: only the core retries, with the same stamp, and
    /// only after looking. The same [`Stamp::id`] with the same bytes is one write.
    ///
    /// [`CasError::Conflict`] when the store moved or was emptied since `expected`;
    /// [`CasError::Ambiguous`] whenever the write may have happened and no clear answer
    /// came; [`CasError::Refused`] only when it certainly did not happen.
    async fn compare_and_swap(
        &self,
        expected: Option<&Version>,
        new: &Secret,
        stamp: &Stamp,
    ) -> Result<Version, CasError>;

    /// Returns whether a generation that is replaced now can still be had from the store itself.
    ///
    /// Called only before a generation is replaced that is not surely an ancestor of the new
    /// one. `false` also where the setting of the server cannot be read.
    async fn keeps_history(&self) -> bool {
        self.guarantees().history
    }

    /// Returns the claims beside what the store holds, if it can keep any.
    fn claims(&self) -> Option<&dyn Claims> {
        None
    }

    /// Ends what was begun to reach the store, such as a login of our own. The last call.
    ///
    /// Never fails: what cannot be ended now ends by its own expiry.
    async fn close(&self) {}
}

/// What a store holds.
#[derive(Debug)]
pub struct Stored {
    /// The auth file, byte for byte.
    pub secret: Secret,
    /// The name under which a swap can expect it.
    pub version: Version,
    /// What the writer left beside the value; `None` for a value put there by hand.
    pub stamp: Option<Stamp>,
}

/// The metadata that is written beside a value, in the same atomic step.
///
/// The parent is not among it: it is the version that the swap expected, and a store
/// that keeps it takes it from there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Names the intended write.
    pub id: WriteId,
    /// How many generations this family has had, the first seed being number 1.
    pub count: u64,
    /// How the value came to be written.
    pub origin: Origin,
    /// The family that the login belongs to.
    pub family: Family,
    /// Whether the session hints of this login were seen to change in a rotation of our own:
    /// then they say nothing.
    pub volatile_hints: bool,
    /// Who wrote it, for people: a CI job's address, or a host name. Not a secret. Comes back
    /// empty from a store that has no room for it.
    pub writer: String,
}

/// How a value came to be in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A person put it there.
    Seed,
    /// Codex rotated the login and a trip wrote it back.
    Rotation,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Seed => "seed",
            Self::Rotation => "rotation",
        })
    }
}

impl FromStr for Origin {
    type Err = UnknownText;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "seed" => Ok(Self::Seed),
            "rotation" => Ok(Self::Rotation),
            _ => Err(UnknownText),
        }
    }
}

/// The store's own name for what it holds.
///
/// Opaque: equality alone means something. It has no order, only its backend may look
/// inside, and a store never uses one twice, not even for the same bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Version(Box<str>);

impl Version {
    /// Wraps the store's name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// Returns the store's name, for the backend that made it and for receipts.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Version({self})")
    }
}

/// Names one intended write; every attempt at it carries the same one.
///
/// The first half is drawn at random once for a trip, the second counts the trip's
/// writes. Shown as 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct WriteId {
    /// The trip that intends the write.
    pub trip: u64,
    /// Which of the trip's writes it is.
    pub number: u64,
}

impl fmt::Display for WriteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.trip, self.number)
    }
}

impl fmt::Debug for WriteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WriteId({self})")
    }
}

impl FromStr for WriteId {
    type Err = UnknownText;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(UnknownText);
        }
        let half = |part: &str| u64::from_str_radix(part, 16).map_err(|_| UnknownText);
        Ok(Self {
            trip: half(&text[..16])?,
            number: half(&text[16..])?,
        })
    }
}

/// The text is none that this type writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a text that was written here")]
pub struct UnknownText;

/// What a store promises. There is no `Default`: each backend answers each question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guarantees {
    /// What a swap is worth against a racing writer.
    pub swap: Swap,
    /// Whether the stamp comes back with a read.
    pub stamps: bool,
    /// Whether a read sees every write that was answered before it began.
    pub reads: Reads,
    /// Whether a replaced generation can always be had from the store itself. Where that
    /// depends on a setting of the server, [`SecretStore::keeps_history`] reads it.
    pub history: bool,
    /// The largest value that fits, in bytes.
    pub max_len: usize,
}

/// What a swap is worth against a racing writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swap {
    /// Of any number of writers with the same expectation exactly one wins.
    Atomic,
    /// The store has no condition on a write: safe for the holder of a claim only.
    CheckThenWrite,
}

/// How fresh a read is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// A read sees every write that was answered before the read began.
    Strong,
    /// A read may show an earlier state for a while.
    Eventual,
}

/// What is known after a swap that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum CasError {
    /// Not written: the store moved, was filled or was emptied since it was read.
    #[error("the store moved since it was read")]
    Conflict,
    /// Unknown: the request left, and no clear answer came.
    #[error(transparent)]
    Ambiguous(StoreError),
    /// Not written: the store said no, or the request never left.
    #[error(transparent)]
    Refused(StoreError),
}

/// Why a store did not do as asked: a report for people, with a kind to branch on.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {store}: {kind}")]
pub struct StoreError {
    /// What sort of failure it is.
    pub kind: ErrorKind,
    /// What was attempted: `read`, `write`, …
    pub operation: &'static str,
    /// The store's address.
    pub store: String,
    /// What lies below, never with a secret in its text.
    pub source: Option<BoxError>,
}

/// An error of somebody else's.
pub type BoxError = Box<dyn core::error::Error + Send + Sync + 'static>;

/// The sorts of failure that callers tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The place itself is missing: no mount, no vault, no folder.
    NotFound,
    /// The store knows us and says no.
    PermissionDenied,
    /// The store does not know us.
    Unauthenticated,
    /// Too many requests; worth another try.
    Throttled,
    /// Not reachable or not ready; worth another try.
    Unavailable,
    /// The value is larger than the store takes.
    TooLarge,
    /// No room: a full disk, a quota.
    Full,
    /// What the store holds or answers makes no sense.
    Malformed,
    /// The store's protection is not what it must be: readable by others, a link.
    Unsafe,
    /// None of the above.
    Unexpected,
}

impl ErrorKind {
    /// Returns whether the same request may succeed a little later.
    #[must_use]
    pub fn is_transient(self) -> bool {
        match self {
            Self::Throttled | Self::Unavailable => true,
            Self::NotFound
            | Self::PermissionDenied
            | Self::Unauthenticated
            | Self::TooLarge
            | Self::Full
            | Self::Malformed
            | Self::Unsafe
            | Self::Unexpected => false,
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "no such place",
            Self::PermissionDenied => "permission denied",
            Self::Unauthenticated => "not logged in to the store",
            Self::Throttled => "the store asks to slow down",
            Self::Unavailable => "the store is not available",
            Self::TooLarge => "larger than the store takes",
            Self::Full => "no room left",
            Self::Malformed => "what is there is damaged",
            Self::Unsafe => "not protected as a secret must be",
            Self::Unexpected => "unexpected answer",
        })
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn a_write_id_survives_its_own_text() {
        let id = WriteId {
            trip: 0xfeed,
            number: 7,
        };
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "feed", &"g".repeat(32), &"+".repeat(32)] {
            assert_eq!(bad.parse::<WriteId>(), Err(UnknownText), "{bad}");
        }
    }

    #[test]
    fn an_error_names_the_operation_the_address_and_the_kind() {
        let error = StoreError {
            kind: ErrorKind::PermissionDenied,
            operation: "write",
            store: "vault://secret/ci/codex".into(),
            source: None,
        };
        assert_eq!(
            error.to_string(),
            "cannot write vault://secret/ci/codex: permission denied"
        );
    }
}
