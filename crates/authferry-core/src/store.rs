//! The interface between the round trip and the store.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::{fmt, str::FromStr};

use async_trait::async_trait;

use crate::{Family, Leases, Secret};

/// A store that holds one generation at a time, under an address.
///
/// `Display` gives the address, which never contains a secret. Every implementation passes
/// `authferry-conformance`.
///
/// # Examples
///
/// ```
/// use authferry_core::{BoxError, SecretStore};
///
/// /// Describes the store and the length of its login.
/// async fn describe(store: &dyn SecretStore) -> Result<String, BoxError> {
///     let len = store.read().await?.map_or(0, |stored| stored.secret.expose().len());
///     let history = store.guarantees().history;
///     Ok(format!("{store}: {len} bytes, history: {history}"))
/// }
/// ```
#[async_trait]
pub trait SecretStore: fmt::Debug + fmt::Display + Send + Sync {
    /// Returns what this store guarantees. The answer never changes.
    fn guarantees(&self) -> Guarantees;

    /// Returns notes for users, one sentence each: what a rotation costs, what is best effort.
    /// They contain no secret. Sends no request.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

    /// Returns what the store holds now, or `None` if it is empty.
    ///
    /// A read is idempotent, so the implementation may retry it after a transient failure.
    /// [`ErrorKind::NotFound`] means that the *place* is missing (no mount, no folder), never
    /// that the value is missing.
    async fn read(&self) -> Result<Option<Stored>, StoreError>;

    /// Swaps in a new value if the version is still `expected` (`None`: if the store is empty).
    /// Returns the new version.
    ///
    /// The implementation sends the write at most once. Only the core retries a write: after a
    /// read, and with the same stamp. The same [`Stamp::id`] with the same bytes is one write.
    ///
    /// Fails with [`CasError::Conflict`] when the value was replaced or deleted since
    /// `expected`, with [`CasError::Ambiguous`] whenever the write may have happened, and with
    /// [`CasError::Refused`] only when the write certainly did not happen.
    async fn compare_and_swap(
        &self,
        expected: Option<&Version>,
        new: &Secret,
        stamp: &Stamp,
    ) -> Result<Version, CasError>;

    /// Returns whether the store keeps a generation that a write replaces now.
    ///
    /// Called only before a write that replaces a generation which may not be an ancestor of
    /// the new one. Returns `false` if the server's setting cannot be read.
    async fn keeps_history(&self) -> bool {
        self.guarantees().history
    }

    /// Returns the leases that this store keeps, if it supports leases.
    fn leases(&self) -> Option<&dyn Leases> {
        None
    }

    /// Releases what opening the store acquired, for example revokes our Vault token. Call last.
    ///
    /// Never fails: what cannot be released now expires.
    async fn close(&self) {}
}

/// What a store holds.
#[derive(Debug)]
pub struct Stored {
    /// The auth file, byte for byte.
    pub secret: Secret,
    /// The name under which a swap can expect it.
    pub version: Version,
    /// The writer's metadata; `None` for a value that a person wrote by hand.
    pub stamp: Option<Stamp>,
}

/// Metadata that a swap writes atomically with the value.
///
/// It does not contain the parent. The parent is the version that the swap expected; a store
/// that records it takes it from there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Identifies the intended write.
    pub id: WriteId,
    /// Number of generations in this family so far; the first seed is number 1.
    pub count: u64,
    /// Who created the generation: a person or a rotation.
    pub origin: Origin,
    /// The family that the login belongs to.
    pub family: Family,
    /// Whether a rotation by authferry changed the session hints of this login. Such hints
    /// prove nothing.
    pub volatile_hints: bool,
    /// The writer, human-readable: the URL of a CI job, or a host name. Not a secret. A store
    /// without room for it returns an empty string.
    pub writer: String,
}

/// Who created a value in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A person put it there.
    Seed,
    /// Codex rotated the login, and a round trip wrote it back.
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

/// The store's name for what it holds.
///
/// Opaque: versions compare for equality only and have no order. Only the backend interprets
/// one. A store never reuses a version, not even for the same bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Version(Box<str>);

impl Version {
    /// Wraps the store's name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// Returns the store's name, for its backend and for receipts.
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

/// Identifies one intended write. Every retry carries the same id.
///
/// The first half is random, one for each round trip. The second half counts the writes of that
/// round trip. Displayed as 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct WriteId {
    /// Identifies the round trip: random.
    pub nonce: u64,
    /// The number of the write within the round trip.
    pub number: u64,
}

impl fmt::Display for WriteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.nonce, self.number)
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
            nonce: half(&text[..16])?,
            number: half(&text[16..])?,
        })
    }
}

/// The text does not parse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a text that authferry writes")]
pub struct UnknownText;

/// What a store guarantees. There is no `Default`: each backend answers each question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guarantees {
    /// Whether a swap is safe against a concurrent writer.
    pub swap: Swap,
    /// Whether a read returns the stamp.
    pub stamps: bool,
    /// Whether a read may be stale.
    pub reads: Reads,
    /// Whether the store always keeps a replaced generation. Where that depends on a setting of
    /// the server, [`SecretStore::keeps_history`] reads the setting.
    pub history: bool,
    /// The size limit of a value, in bytes.
    pub max_len: usize,
}

/// Whether a swap is safe against a concurrent writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swap {
    /// Of all writers that expect the same version, exactly one succeeds.
    Atomic,
    /// The store has no conditional write: only the holder of a lease may write.
    CheckThenWrite,
}

/// Whether a read may be stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// A read returns every write that was acknowledged before the read began.
    Strong,
    /// A read may return an earlier state for a while.
    Eventual,
}

/// Why a swap did not succeed, and whether it may have written.
#[derive(Debug, thiserror::Error)]
pub enum CasError {
    /// Not written: the value was replaced, created or deleted since the read.
    #[error("another write changed the store after it was read")]
    Conflict,
    /// Unknown: the request was sent, and no clear answer arrived.
    #[error(transparent)]
    Ambiguous(StoreError),
    /// Not written: the store refused the write, or the request was never sent.
    #[error(transparent)]
    Refused(StoreError),
}

/// Why a store request failed: a message for people, with a kind for the caller.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {store}: {kind}")]
pub struct StoreError {
    /// The kind of failure.
    pub kind: ErrorKind,
    /// The operation that failed: `read`, `write`, …
    pub operation: &'static str,
    /// The store's address.
    pub store: String,
    /// The underlying error. Its text contains no secret.
    pub source: Option<BoxError>,
}

/// An error from another crate.
pub type BoxError = Box<dyn core::error::Error + Send + Sync + 'static>;

/// The kinds of failure that callers distinguish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The place itself is missing: no mount, no vault, no folder.
    NotFound,
    /// The store knows our identity and denies the request.
    PermissionDenied,
    /// The store does not accept our credentials.
    Unauthenticated,
    /// Too many requests; a retry may succeed.
    Throttled,
    /// Unreachable or not ready; a retry may succeed.
    Unavailable,
    /// The value exceeds the store's size limit.
    TooLarge,
    /// No space left: a full disk, a quota.
    Full,
    /// The stored value or the answer does not parse.
    Malformed,
    /// The store is not safe for a secret: other users can read it, it is a link, no TLS.
    Unsafe,
    /// Any other failure.
    Unexpected,
}

impl ErrorKind {
    /// Returns whether a retry of the same request may succeed.
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
            Self::Throttled => "too many requests",
            Self::Unavailable => "the store is not available",
            Self::TooLarge => "value too large for the store",
            Self::Full => "no space left",
            Self::Malformed => "damaged data",
            Self::Unsafe => "not safe for a secret",
            Self::Unexpected => "unexpected answer",
        })
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn a_write_id_round_trips_through_its_text() {
        let id = WriteId {
            nonce: 0xfeed,
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
