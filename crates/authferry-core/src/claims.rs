//! A short exclusive right to rotate, kept in the store.

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

/// How far apart the clocks of two runners may be, in seconds.
///
/// A claim is taken over no sooner than this after it has ended by the taker's clock.
pub const CLOCK_SKEW: u64 = 30;

/// The claims of one place: at most one is held at a time.
///
/// A claim protects nothing by itself: whoever wins one reads the store again, for it is
/// worth nothing if the login moved meanwhile, and it is the swap that keeps an older
/// login from a newer one's place. It only saves two jobs from rotating at once.
///
/// The time is the caller's. As long as no two clocks are further apart than
/// [`CLOCK_SKEW`], a claim has one holder from its grant to its end. These are the ways
/// to lose that:
///
/// - A holder that does not renew in time may be followed by another one, and is told
///   only when it comes back.
/// - A clock that is further ahead takes over what is still held, and the old holder
///   finds its claim [lost](ClaimError::Lost).
/// - A holder that does not renew for its term and [`CLOCK_SKEW`] is followed by whoever has
///   seen that ([`Bid::expired`]), whatever end its clock gave it.
/// - Who removes the record by hand frees the claim at once.
/// - Two askers with one number for a holder are one asker.
///
/// Whoever gives up while the answer is still out may have won: nobody else gets the claim
/// then until it has ended.
#[async_trait]
pub trait Claims: Send + Sync {
    /// Takes the claim if nobody holds it, once.
    ///
    /// Asking again for the same holder, after an answer that was lost, gives the claim
    /// that the first attempt has won, with the end that it was given. One that has ended
    /// meanwhile, if nobody else has it, is granted anew.
    ///
    /// [`ClaimError::Held`] while somebody else has it; [`ClaimError::Lost`] never.
    async fn acquire(&self, bid: &Bid) -> Result<Claim, ClaimError>;

    /// Holds the claim until another time, later or sooner, also if it has ended and
    /// nobody has taken it over.
    ///
    /// After an answer that was lost the same may be asked again, with the same claim and
    /// any end.
    ///
    /// [`ClaimError::Lost`] once somebody else has taken it over, or it was given back or
    /// taken away; nothing is changed then.
    async fn renew(&self, claim: &Claim, until: u64) -> Result<Claim, ClaimError>;

    /// Gives the claim back, so that nobody has to wait for its end.
    ///
    /// After an answer that was lost, of this or of a renewal, the same claim may be
    /// given back again.
    ///
    /// [`ClaimError::Lost`] if it was no longer ours; nothing is changed then. So it may
    /// also be when the claim is given back a second time, and somebody else has it
    /// already.
    async fn release(&self, claim: &Claim) -> Result<(), ClaimError>;

    /// Returns how the claim stands, and changes nothing: `None` if nobody ever had it.
    ///
    /// Good for people alone: it may be otherwise by the time they read it.
    ///
    /// [`ClaimError::Store`] if the store cannot tell, and no other error.
    async fn look(&self) -> Result<Option<Standing>, ClaimError>;
}

impl RecordState {
    /// Names the state of a record: its version and its text, with what a renewal changes.
    #[must_use]
    pub fn new(version: Version, text: &[u8]) -> Self {
        let text = fnv(text.iter().copied());
        Self { version, text }
    }
}

/// How a claim stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Who holds it, or had it last, for people.
    pub owner: String,
    /// When it ends by its holder's clock, in seconds since 1970; `None` once it was given
    /// back. `u64::MAX` if the record makes no sense.
    pub until: Option<u64>,
    /// What is left beside it.
    pub note: Option<String>,
    /// Whether the record is not as authferry wrote it: it has no stamp, or makes no sense. Its
    /// owner is unknown then, and nobody renews it.
    pub is_foreign: bool,
}

/// What somebody asks for who wants a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bid {
    /// Who asks, for people: a CI job's address, or a host name. Not a secret.
    pub owner: String,
    /// Tells this asker from all others: drawn at random for each claim that is wanted.
    pub holder: u64,
    /// The time by the asker's clock, in seconds since 1970.
    pub now: u64,
    /// When the claim is to end by the asker's clock, in seconds since 1970.
    pub until: u64,
    /// A state of the record that the asker has seen unchanged for its term and
    /// [`CLOCK_SKEW`], by a monotonic clock. A holder renews long before that, so this state has
    /// expired, whatever end it names: its holder's clock was ahead, or nobody holds it.
    pub expired: Option<RecordState>,
}

/// One state of the record of a claim. A renewal makes another one, also where it makes no
/// version.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RecordState {
    version: Version,
    /// A digest of the text.
    text: u64,
}

/// A claim that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Who holds it, for people.
    pub owner: String,
    /// Which asker holds it.
    pub holder: u64,
    /// When it ends by its holder's clock, in seconds since 1970.
    pub until: u64,
    /// The store's name for this state of the claim.
    pub version: Version,
    /// What is left beside the claim for whoever has it next: a line for people and
    /// programs, not a secret. A claim begins with what was left before it, whether that
    /// was given back or has ended, and leaves what it holds when it is renewed or given
    /// back.
    pub note: Option<String>,
}

/// Why there is no claim.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Somebody else holds it.
    #[error("{owner} holds the claim")]
    Held {
        /// Who, for people.
        owner: String,
        /// When it ends by their clock, in seconds since 1970; at most [`CLOCK_SKEW`] after the
        /// end of the asker's own term, for by then its record has [expired](Bid::expired)
        /// unless it is renewed.
        until: u64,
        /// The state of the record, for [`Bid::expired`].
        state: RecordState,
    },
    /// It was ours, and is no longer.
    #[error("the claim was lost")]
    Lost,
    /// Unknown: the store failed, or somebody was at it at the same moment. The same call
    /// may be made again, and settles it.
    #[error(transparent)]
    Store(StoreError),
}

/// Claims in a place of their own: a store beside the one that holds the login, with an
/// atomic swap, and with stamps.
///
/// The record is a value like any other, in words that people can read: `held until`
/// with the seconds since 1970, or `released`, and on a second line the note. Its stamp holds
/// the rest: the writer is the owner, and the first half of the id is the holder. The count means
/// nothing. To acquire takes a read and a swap, to renew or to release a swap.
///
/// A record loses its stamp when its file is copied or a person writes it. Its text still
/// counts then. A record whose text makes no sense is held until its state has
/// [expired](Bid::expired).
///
/// Where reads may lag, an acquirer may be told [`ClaimError::Held`] of a claim that was
/// just released, and a holder whose answer was lost may be told [`ClaimError::Lost`] of a
/// claim that it has: never the other way round, since the swap decides. A store that
/// remembers all its writes may answer a renewal that is asked for again as done, as it
/// was, although the claim has ended since and somebody else has it.
#[derive(Clone, Copy, Debug)]
pub struct Beside<S>(pub S);

#[async_trait]
impl<S: SecretStore> Claims for Beside<S> {
    async fn acquire(&self, bid: &Bid) -> Result<Claim, ClaimError> {
        let (expected, note) = match self.turn(bid).await? {
            Turn::Ours(claim) => return Ok(claim),
            Turn::Theirs(held) => return Err(held),
            Turn::Free { expected, note } => (expected, note),
        };
        let record = Record {
            owner: bid.owner.clone(),
            holder: bid.holder,
            until: Some(bid.until),
            note,
        };
        if let Some(version) = self.write(expected.as_ref(), &record).await? {
            return Ok(record.claim(bid.until, version));
        }
        // Somebody was faster, if it was not an earlier attempt of ours that landed late.
        match self.turn(bid).await? {
            Turn::Ours(claim) => Ok(claim),
            Turn::Theirs(held) => Err(held),
            Turn::Free { .. } => Err(self.moving()),
        }
    }

    async fn renew(&self, claim: &Claim, until: u64) -> Result<Claim, ClaimError> {
        let (record, version) = self.replace(claim, Some(until)).await?;
        Ok(record.claim(until, version))
    }

    async fn release(&self, claim: &Claim) -> Result<(), ClaimError> {
        self.replace(claim, None).await.map(drop)
    }

    async fn look(&self) -> Result<Option<Standing>, ClaimError> {
        let found = self.found().await?;
        Ok(found.map(|found| Standing {
            owner: found.owner(),
            until: found.until(),
            is_foreign: found.by.is_none() || found.says.is_none(),
            note: found.says.and_then(|says| says.note),
        }))
    }
}

impl<S: SecretStore> Beside<S> {
    async fn turn(&self, bid: &Bid) -> Result<Turn, ClaimError> {
        let Some(found) = self.found().await? else {
            return Ok(Turn::Free {
                expected: None,
                note: None,
            });
        };
        let is_ours = found.is_of(bid.holder);
        let has_expired = bid.expired.as_ref() == Some(&found.state);
        Ok(match found.until() {
            Some(until) if is_ours && until > bid.now => Turn::Ours(found.claim(until)),
            Some(until)
                if !is_ours && !has_expired && until.saturating_add(CLOCK_SKEW) > bid.now =>
            {
                Turn::Theirs(ClaimError::Held {
                    owner: found.owner(),
                    until: until.min(bid.until.saturating_add(CLOCK_SKEW)),
                    state: found.state,
                })
            }
            Some(_) | None => Turn::Free {
                expected: Some(found.state.version),
                note: found.says.and_then(|says| says.note),
            },
        })
    }

    /// Writes the next record of a claim that is ours. `until` is `None` to release it.
    async fn replace(
        &self,
        claim: &Claim,
        until: Option<u64>,
    ) -> Result<(Record, Version), ClaimError> {
        let record = Record {
            owner: claim.owner.clone(),
            holder: claim.holder,
            until,
            note: claim.note.clone(),
        };
        if let Some(version) = self.write(Some(&claim.version), &record).await? {
            return Ok((record, version));
        }
        // Somebody wrote since. It may have been us, by a call whose answer was lost.
        let Some(found) = self.found().await? else {
            return Err(ClaimError::Lost);
        };
        if !found.is_of(claim.holder) {
            return Err(ClaimError::Lost);
        }
        let version = found.state.version;
        let Some(says) = found.says else {
            return Err(ClaimError::Lost);
        };
        if says.until == until {
            let note = says.note;
            return Ok((Record { note, ..record }, version));
        }
        if says.until.is_none() {
            return Err(ClaimError::Lost);
        }
        match self.write(Some(&version), &record).await? {
            Some(version) => Ok((record, version)),
            None => Err(self.moving()),
        }
    }

    /// Returns the version of the new record; `None` if the old one is not there any more.
    async fn write(
        &self,
        expected: Option<&Version>,
        record: &Record,
    ) -> Result<Option<Version>, ClaimError> {
        let text = Secret::new(record.text().into_bytes());
        match self
            .0
            .compare_and_swap(expected, &text, &record.stamp(expected))
            .await
        {
            Ok(version) => Ok(Some(version)),
            Err(CasError::Conflict) => Ok(None),
            Err(CasError::Ambiguous(error) | CasError::Refused(error)) => {
                Err(ClaimError::Store(error))
            }
        }
    }

    async fn found(&self) -> Result<Option<Found>, ClaimError> {
        let stored = self.0.read().await.map_err(ClaimError::Store)?;
        Ok(stored.map(Found::new))
    }

    /// It was free before the write and is free after it, and the write was too late.
    fn moving(&self) -> ClaimError {
        ClaimError::Store(StoreError {
            kind: ErrorKind::Unavailable,
            operation: "change the claim in",
            store: self.0.to_string(),
            source: Some("somebody else changed it at the same moment".into()),
        })
    }
}

/// What a look says to somebody who wants the claim.
enum Turn {
    /// It was won by this very asker.
    Ours(Claim),
    /// It is held, and this is how that is told.
    Theirs(ClaimError),
    /// It may be taken, from whoever had it last.
    Free {
        expected: Option<Version>,
        note: Option<String>,
    },
}

/// The record that was read.
struct Found {
    state: RecordState,
    /// The owner and the holder; `None` without a stamp.
    by: Option<(String, u64)>,
    /// `None` if the text makes no sense.
    says: Option<Says>,
}

/// What the text of a record says.
struct Says {
    /// `None` once it is released.
    until: Option<u64>,
    note: Option<String>,
}

/// The owner of a record that does not name one.
const UNKNOWN_OWNER: &str = "an unknown job";

impl Found {
    fn new(stored: Stored) -> Self {
        let text = core::str::from_utf8(stored.secret.expose());
        Self {
            state: RecordState::new(stored.version, stored.secret.expose()),
            by: stored.stamp.map(|stamp| (stamp.writer, stamp.id.trip)),
            says: text.ok().and_then(Says::parse),
        }
    }

    fn owner(&self) -> String {
        let owner = self.by.as_ref().map(|(owner, _)| owner.clone());
        owner.unwrap_or_else(|| UNKNOWN_OWNER.to_owned())
    }

    fn is_of(&self, holder: u64) -> bool {
        self.by.as_ref().is_some_and(|(_, it)| *it == holder)
    }

    /// When it ends: never if the record does not say.
    fn until(&self) -> Option<u64> {
        self.says.as_ref().map_or(Some(u64::MAX), |says| says.until)
    }

    /// Returns the claim, which is ours.
    fn claim(self, until: u64) -> Claim {
        let (owner, holder) = self.by.unwrap_or_default();
        Claim {
            owner,
            holder,
            until,
            version: self.state.version,
            note: self.says.and_then(|says| says.note),
        }
    }
}

impl Says {
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

/// The record that is written.
struct Record {
    owner: String,
    holder: u64,
    /// `None` to release it.
    until: Option<u64>,
    note: Option<String>,
}

const HELD_UNTIL: &str = "held until ";
const RELEASED: &str = "released";

impl Record {
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
                trip: self.holder,
                number: digest(&[over, &self.text()]),
            },
            count: 0,
            origin: Origin::Rotation,
            family: Family(Fingerprint::new([0; 8])),
            volatile_hints: false,
            writer: self.owner.clone(),
        }
    }

    fn claim(self, until: u64, version: Version) -> Claim {
        Claim {
            owner: self.owner,
            holder: self.holder,
            until,
            version,
            note: self.note,
        }
    }
}

/// FNV-1a, each part followed by a zero byte. It has to tell apart the few writes of one
/// holder, whose number is drawn at random, and nobody else chooses what they say.
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
