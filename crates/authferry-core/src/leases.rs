//! The lease: a short exclusive right to rotate, kept in the store.

use alloc::{
    borrow::ToOwned,
    boxed::Box,
    format,
    string::{String, ToString},
};

use async_trait::async_trait;

use crate::{
    CasError, ErrorKind, Family, Fingerprint, Origin, Secret, SecretStore, Stamp, StoreError,
    Stored, Version, WriteId,
};

/// Tolerated clock skew between two runners, in seconds.
///
/// A lease becomes free this long after its expiry by the requester's clock.
pub const CLOCK_SKEW: u64 = 30;

/// The lease of one store: it has at most one holder at a time.
///
/// A lease is advisory: it only keeps two jobs from rotating at once. The new holder must read
/// the store again, since the login may have changed before the lease was acquired. The
/// compare-and-swap, not the lease, keeps a stale login from overwriting a newer one.
///
/// The caller supplies the time. While all clocks agree within [`CLOCK_SKEW`], a lease has one
/// holder until it expires. Mutual exclusion fails in these cases:
///
/// - A holder that renews too late may lose the lease. The holder notices at its next call.
/// - A clock that is further ahead takes over a lease that is still held. The old holder finds
///   its lease [lost](LeaseError::Lost).
/// - A job that has seen no renewal for its own term and [`CLOCK_SKEW`] takes the lease over,
///   regardless of the recorded expiry ([`LeaseRequest::expired`]).
/// - A person who deletes the record frees the lease at once.
/// - Two jobs with the same holder number count as one holder.
///
/// A job that cancels [`acquire`](Self::acquire) before the answer may still have acquired the
/// lease. The lease then blocks other jobs until it expires.
///
/// # Examples
///
/// ```
/// use authferry_core::{LeaseError, LeaseRequest, Leases};
///
/// /// Runs `rotate` under the lease, then releases it.
/// async fn with_lease(
///     leases: &dyn Leases,
///     request: &LeaseRequest,
///     rotate: impl AsyncFnOnce(),
/// ) -> Result<(), LeaseError> {
///     let lease = leases.acquire(request).await?;
///     rotate().await;
///     leases.release(&lease).await
/// }
/// ```
#[async_trait]
pub trait Leases: Send + Sync {
    /// Acquires the lease if it is free. Tries once.
    ///
    /// Idempotent for one holder: after a lost answer, a retry returns the lease that the first
    /// attempt acquired, with its expiry. If that lease has expired and is free, the retry
    /// acquires it again.
    ///
    /// Fails with [`LeaseError::Held`] while another job holds the lease, and never with
    /// [`LeaseError::Lost`].
    async fn acquire(&self, request: &LeaseRequest) -> Result<Lease, LeaseError>;

    /// Changes the expiry of the lease, to a later or an earlier time. Renews an expired lease
    /// too, if no other job took it over.
    ///
    /// After a lost answer, the caller may retry with the same lease and any expiry.
    ///
    /// Fails with [`LeaseError::Lost`] if another job took the lease over, or if it was released
    /// or deleted. Then nothing changes.
    async fn renew(&self, lease: &Lease, until: u64) -> Result<Lease, LeaseError>;

    /// Releases the lease, so that other jobs need not wait for its expiry.
    ///
    /// After a lost answer, to this call or to a renewal, the caller may release the same lease
    /// again.
    ///
    /// Fails with [`LeaseError::Lost`] if the lease was no longer ours. Then nothing changes. A
    /// second release may also fail so, if another job has acquired the lease since.
    async fn release(&self, lease: &Lease) -> Result<(), LeaseError>;

    /// Returns the status of the lease, or `None` if no job ever acquired it. Changes nothing.
    ///
    /// For display only: the status may be stale as soon as it is returned.
    ///
    /// Fails only with [`LeaseError::Store`].
    async fn look(&self) -> Result<Option<LeaseStatus>, LeaseError>;
}

impl RecordState {
    /// Identifies a state of the record by its version and its text, which a renewal changes.
    #[must_use]
    pub fn new(version: Version, text: &[u8]) -> Self {
        let text = fnv(text.iter().copied());
        Self { version, text }
    }
}

/// The status of a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseStatus {
    /// The current or last owner, human-readable.
    pub owner: String,
    /// The expiry by the holder's clock, in Unix seconds; `None` if the lease was released.
    /// `u64::MAX` if the record does not parse.
    pub until: Option<u64>,
    /// The note in the record.
    pub note: Option<String>,
    /// Whether authferry did not write the record: it has no stamp or does not parse. Then its
    /// owner is unknown, and no job renews it.
    pub is_foreign: bool,
}

/// A request to acquire the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseRequest {
    /// The requester, human-readable: the URL of a CI job, or a host name. Not a secret.
    pub owner: String,
    /// Identifies the requester: a random number, one for each lease that a job wants.
    pub holder: u64,
    /// The current time by the requester's clock, in Unix seconds.
    pub now: u64,
    /// The wanted expiry by the requester's clock, in Unix seconds.
    pub until: u64,
    /// A state of the record that the requester has seen unchanged for its own term and
    /// [`CLOCK_SKEW`], by a monotonic clock. A holder renews long before that, so this state has
    /// expired, regardless of its recorded expiry: the holder's clock was ahead, or the holder is
    /// gone.
    pub expired: Option<RecordState>,
}

/// One state of the lease's record. A renewal makes a new state, even in a store where it makes
/// no new version.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RecordState {
    version: Version,
    /// A digest of the text.
    text: u64,
}

/// A lease that a job holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The owner, human-readable.
    pub owner: String,
    /// The number of the holder.
    pub holder: u64,
    /// The expiry by the holder's clock, in Unix seconds.
    pub until: u64,
    /// The store's name for this state of the lease.
    pub version: Version,
    /// A note for the next holder: one line for people and programs, not a secret. A new lease
    /// starts with the note of the last one, whether that was released or has expired. A renewal
    /// or a release writes the note.
    pub note: Option<String>,
}

/// Why a lease operation failed.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Another job holds the lease.
    #[error("{owner} holds the lease")]
    Held {
        /// The owner, human-readable.
        owner: String,
        /// The expiry by the owner's clock, in Unix seconds. At most [`CLOCK_SKEW`] after the
        /// requested expiry: by then the record has [expired](LeaseRequest::expired) unless its
        /// holder renews it.
        until: u64,
        /// The state of the record, for [`LeaseRequest::expired`].
        state: RecordState,
    },
    /// The lease is no longer ours.
    #[error("the lease was lost")]
    Lost,
    /// Unknown: the store failed, or another job changed the lease at the same time. The caller
    /// may retry the same call.
    #[error(transparent)]
    Store(StoreError),
}

/// Leases kept in a second store, separate from the store of the login. That store needs an
/// atomic swap and stamps.
///
/// The record is a stored value in readable text: `held until` with Unix seconds, or `released`.
/// The note is on the second line. In the stamp, the writer is the owner, and the first half of
/// the id is the holder. The count has no meaning. Acquiring costs a read and a swap; renewing or
/// releasing costs a swap.
///
/// A record loses its stamp when a person copies its file or writes the record. Its text remains
/// valid. A record that does not parse counts as held until its state has
/// [expired](LeaseRequest::expired).
///
/// With stale reads, [`LeaseError::Held`] may name a lease that was just released. After a lost
/// answer, [`LeaseError::Lost`] may name a lease that is still ours. The opposite cannot happen,
/// since the swap decides. A store that remembers all its writes may acknowledge a retried
/// renewal although the lease has expired since and another job holds it.
#[derive(Clone, Copy, Debug)]
pub struct StoreBackedLeases<S>(pub S);

#[async_trait]
impl<S: SecretStore> Leases for StoreBackedLeases<S> {
    async fn acquire(&self, request: &LeaseRequest) -> Result<Lease, LeaseError> {
        let (expected, note) = match self.availability(request).await? {
            Availability::Ours(lease) => return Ok(lease),
            Availability::Held(held) => return Err(held),
            Availability::Free { expected, note } => (expected, note),
        };
        let record = NewRecord {
            owner: request.owner.clone(),
            holder: request.holder,
            until: Some(request.until),
            note,
        };
        if let Some(version) = self.write(expected.as_ref(), &record).await? {
            return Ok(record.lease(request.until, version));
        }
        // Another job won the race, or an earlier attempt of ours landed late.
        match self.availability(request).await? {
            Availability::Ours(lease) => Ok(lease),
            Availability::Held(held) => Err(held),
            Availability::Free { .. } => Err(self.race_error()),
        }
    }

    async fn renew(&self, lease: &Lease, until: u64) -> Result<Lease, LeaseError> {
        let (record, version) = self.replace(lease, Some(until)).await?;
        Ok(record.lease(until, version))
    }

    async fn release(&self, lease: &Lease) -> Result<(), LeaseError> {
        self.replace(lease, None).await.map(drop)
    }

    async fn look(&self) -> Result<Option<LeaseStatus>, LeaseError> {
        let found = self.read_record().await?;
        Ok(found.map(|found| LeaseStatus {
            owner: found.owner(),
            until: found.until(),
            is_foreign: found.holder.is_none() || found.text.is_none(),
            note: found.text.and_then(|text| text.note),
        }))
    }
}

impl<S: SecretStore> StoreBackedLeases<S> {
    async fn availability(&self, request: &LeaseRequest) -> Result<Availability, LeaseError> {
        let Some(found) = self.read_record().await? else {
            return Ok(Availability::Free {
                expected: None,
                note: None,
            });
        };
        let is_ours = found.is_of(request.holder);
        let has_expired = request.expired.as_ref() == Some(&found.state);
        Ok(match found.until() {
            Some(until) if is_ours && until > request.now => Availability::Ours(found.lease(until)),
            Some(until)
                if !is_ours && !has_expired && until.saturating_add(CLOCK_SKEW) > request.now =>
            {
                Availability::Held(LeaseError::Held {
                    owner: found.owner(),
                    until: until.min(request.until.saturating_add(CLOCK_SKEW)),
                    state: found.state,
                })
            }
            Some(_) | None => Availability::Free {
                expected: Some(found.state.version),
                note: found.text.and_then(|text| text.note),
            },
        })
    }

    /// Writes the next record of our lease. `until` is `None` to release it.
    async fn replace(
        &self,
        lease: &Lease,
        until: Option<u64>,
    ) -> Result<(NewRecord, Version), LeaseError> {
        let record = NewRecord {
            owner: lease.owner.clone(),
            holder: lease.holder,
            until,
            note: lease.note.clone(),
        };
        if let Some(version) = self.write(Some(&lease.version), &record).await? {
            return Ok((record, version));
        }
        // The record changed since. The writer may be an earlier call of ours whose answer was
        // lost.
        let Some(found) = self.read_record().await? else {
            return Err(LeaseError::Lost);
        };
        if !found.is_of(lease.holder) {
            return Err(LeaseError::Lost);
        }
        let version = found.state.version;
        let Some(text) = found.text else {
            return Err(LeaseError::Lost);
        };
        if text.until == until {
            let note = text.note;
            return Ok((NewRecord { note, ..record }, version));
        }
        if text.until.is_none() {
            return Err(LeaseError::Lost);
        }
        match self.write(Some(&version), &record).await? {
            Some(version) => Ok((record, version)),
            None => Err(self.race_error()),
        }
    }

    /// Returns the version of the new record; `None` on a conflict.
    async fn write(
        &self,
        expected: Option<&Version>,
        record: &NewRecord,
    ) -> Result<Option<Version>, LeaseError> {
        let text = Secret::new(record.text().into_bytes());
        match self
            .0
            .compare_and_swap(expected, &text, &record.stamp(expected))
            .await
        {
            Ok(version) => Ok(Some(version)),
            Err(CasError::Conflict) => Ok(None),
            Err(CasError::Ambiguous(error) | CasError::Refused(error)) => {
                Err(LeaseError::Store(error))
            }
        }
    }

    async fn read_record(&self) -> Result<Option<StoredRecord>, LeaseError> {
        let stored = self.0.read().await.map_err(LeaseError::Store)?;
        Ok(stored.map(StoredRecord::new))
    }

    /// The error for a swap that conflicted although the lease is free or ours by the last read.
    fn race_error(&self) -> LeaseError {
        LeaseError::Store(StoreError {
            kind: ErrorKind::Unavailable,
            operation: "change the lease in",
            store: self.0.to_string(),
            source: Some("another job changed it at the same time".into()),
        })
    }
}

/// Whether a request can get the lease.
enum Availability {
    /// This requester already holds it.
    Ours(Lease),
    /// Another job holds it; the error to return.
    Held(LeaseError),
    /// It is free: never acquired, released or expired.
    Free {
        expected: Option<Version>,
        note: Option<String>,
    },
}

/// The record as the store holds it.
struct StoredRecord {
    state: RecordState,
    /// The owner and the holder's number; `None` without a stamp.
    holder: Option<(String, u64)>,
    /// `None` if the text does not parse.
    text: Option<LeaseRecordText>,
}

/// The parsed text of a record.
struct LeaseRecordText {
    /// `None` if the lease was released.
    until: Option<u64>,
    note: Option<String>,
}

/// The owner shown for a record without a stamp.
const UNKNOWN_OWNER: &str = "an unknown job";

impl StoredRecord {
    fn new(stored: Stored) -> Self {
        let text = core::str::from_utf8(stored.secret.expose());
        Self {
            state: RecordState::new(stored.version, stored.secret.expose()),
            holder: stored.stamp.map(|stamp| (stamp.writer, stamp.id.nonce)),
            text: text.ok().and_then(LeaseRecordText::parse),
        }
    }

    fn owner(&self) -> String {
        let owner = self.holder.as_ref().map(|(owner, _)| owner.clone());
        owner.unwrap_or_else(|| UNKNOWN_OWNER.to_owned())
    }

    fn is_of(&self, holder: u64) -> bool {
        self.holder.as_ref().is_some_and(|(_, it)| *it == holder)
    }

    /// Returns the expiry; `None` if the lease was released. `u64::MAX` if the text does not parse:
    /// a requester gets such a lease only by [`LeaseRequest::expired`].
    fn until(&self) -> Option<u64> {
        self.text.as_ref().map_or(Some(u64::MAX), |text| text.until)
    }

    /// Converts our own record into the lease.
    fn lease(self, until: u64) -> Lease {
        let (owner, holder) = self.holder.unwrap_or_default();
        Lease {
            owner,
            holder,
            until,
            version: self.state.version,
            note: self.text.and_then(|text| text.note),
        }
    }
}

impl LeaseRecordText {
    fn parse(text: &str) -> Option<Self> {
        let (state, note) = match text.split_once('\n') {
            Some((state, note)) => (state, Some(note.to_owned())),
            None => (text, None),
        };
        let until = match state.strip_prefix(HELD_UNTIL) {
            Some(until) => Some(until.parse().ok()?),
            None if state == RELEASED => None,
            None => return None,
        };
        Some(Self { until, note })
    }
}

/// A record to write.
struct NewRecord {
    owner: String,
    holder: u64,
    /// `None` to release the lease.
    until: Option<u64>,
    note: Option<String>,
}

const HELD_UNTIL: &str = "held until ";
const RELEASED: &str = "released";

impl NewRecord {
    fn text(&self) -> String {
        let state = self.until.map_or_else(
            || RELEASED.to_owned(),
            |until| format!("{HELD_UNTIL}{until}"),
        );
        match &self.note {
            Some(note) => format!("{state}\n{note}"),
            None => state,
        }
    }

    /// Stamps the write of this record over a version.
    ///
    /// The id is a digest of both. A retry after a lost answer has the same id, so the write
    /// is idempotent. Any other text, or the same text over another version, has another id: a
    /// store may refuse other bytes under an id that it has seen.
    fn stamp(&self, expected: Option<&Version>) -> Stamp {
        let over = expected.map_or("", Version::as_str);
        Stamp {
            id: WriteId {
                nonce: self.holder,
                number: digest(&[over, &self.text()]),
            },
            count: 0,
            origin: Origin::Rotation,
            family: Family(Fingerprint::new([0; 8])),
            volatile_hints: false,
            writer: self.owner.clone(),
        }
    }

    fn lease(self, until: u64, version: Version) -> Lease {
        Lease {
            owner: self.owner,
            holder: self.holder,
            until,
            version,
            note: self.note,
        }
    }
}

/// FNV-1a, with a zero byte after each part. It must distinguish only the few writes of one
/// holder. The holder's number is random, and no other party chooses the texts.
fn digest(parts: &[&str]) -> u64 {
    fnv(parts.iter().flat_map(|part| part.bytes().chain([0])))
}

fn fnv(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests;
