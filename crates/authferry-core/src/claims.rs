//! A short exclusive right to rotate, kept in the store.

use alloc::{borrow::ToOwned, boxed::Box, format, string::String};

use async_trait::async_trait;

use crate::{
    CasError, ErrorKind, Origin, Secret, SecretStore, Stamp, StoreError, Stored, Version, WriteId,
};

/// How far apart the clocks of two runners may be, in seconds.
///
/// A claim is taken over no sooner than this after it has ended by the taker's clock.
pub const CLOCK_SKEW: u64 = 30;

/// The claims of one place: at most one is held at a time.
///
/// A claim protects nothing by itself: whoever wins one reads the store again, for it is
/// worth nothing if the login moved meanwhile.
#[async_trait]
pub trait Claims: Send + Sync {
    /// Takes the claim if nobody holds it, once.
    ///
    /// Asking again with the same bid, after an answer that was lost, gives the claim that
    /// the first attempt has won. [`ClaimError::Held`] while somebody else has it.
    async fn acquire(&self, bid: &Bid) -> Result<Claim, ClaimError>;

    /// Holds the claim until another time.
    ///
    /// [`ClaimError::Lost`] once somebody else has taken it over, or it was taken away.
    async fn renew(&self, claim: &Claim, until: u64) -> Result<Claim, ClaimError>;

    /// Gives the claim back, so that nobody has to wait for its end.
    ///
    /// [`ClaimError::Lost`] if it was no longer ours; nothing is changed then.
    async fn release(&self, claim: &Claim) -> Result<(), ClaimError>;
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
}

/// A claim that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Who holds it, for people.
    pub owner: String,
    /// Which asker holds it.
    pub holder: u64,
    /// Grows with each claim that is granted at a place, as long as nobody deletes its
    /// record there by hand.
    pub fence: u64,
    /// When it ends by its holder's clock, in seconds since 1970.
    pub until: u64,
    /// The store's name for this state of the claim.
    pub version: Version,
}

/// Why there is no claim.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Somebody else holds it.
    #[error("{owner} holds the claim")]
    Held {
        /// Who, for people.
        owner: String,
        /// When it ends by their clock, in seconds since 1970.
        until: u64,
    },
    /// It was ours, and is no longer.
    #[error("the claim was lost")]
    Lost,
    /// Unknown: the store failed. The same call may be made again.
    #[error(transparent)]
    Store(StoreError),
}

/// Claims in a place of their own: a store beside the one that holds the login, with an
/// atomic swap.
///
/// The record is a value like any other, in words that people can read. Its stamp tells
/// who holds the claim: the id's first half is the holder and its second half counts the
/// records, so that no two share an id; the count is the fence.
#[derive(Clone, Copy, Debug)]
pub struct Beside<S>(pub S);

#[async_trait]
impl<S: SecretStore> Claims for Beside<S> {
    async fn acquire(&self, bid: &Bid) -> Result<Claim, ClaimError> {
        let found = self.look().await?;
        let (expected, fence, number) = match found {
            None => (None, 1, 1),
            Some(found) => {
                let claim = found.claim;
                if found.held && claim.holder == bid.holder {
                    return Ok(claim);
                }
                if found.held && claim.until.saturating_add(CLOCK_SKEW) > bid.now {
                    return Err(held_by(claim));
                }
                (Some(claim.version), claim.fence + 1, found.number + 1)
            }
        };
        let record = Record {
            owner: &bid.owner,
            id: WriteId {
                trip: bid.holder,
                number,
            },
            fence,
            until: Some(bid.until),
        };
        match self.write(expected.as_ref(), &record).await {
            Ok(version) => Ok(record.claim(bid.until, version)),
            Err(CasError::Conflict) => match self.look().await? {
                // An earlier attempt landed late.
                Some(found) if found.held && found.claim.holder == bid.holder => Ok(found.claim),
                // Somebody was faster, and may be done with it already.
                Some(found) => Err(held_by(found.claim)),
                None => Err(ClaimError::Lost),
            },
            Err(CasError::Ambiguous(error) | CasError::Refused(error)) => {
                Err(ClaimError::Store(error))
            }
        }
    }

    async fn renew(&self, claim: &Claim, until: u64) -> Result<Claim, ClaimError> {
        let version = self.replace(claim, Some(until)).await?;
        Ok(Claim {
            until,
            version,
            ..claim.clone()
        })
    }

    async fn release(&self, claim: &Claim) -> Result<(), ClaimError> {
        self.replace(claim, None).await.map(drop)
    }
}

impl<S: SecretStore> Beside<S> {
    async fn look(&self) -> Result<Option<Found>, ClaimError> {
        let stored = self.0.read().await.map_err(ClaimError::Store)?;
        stored.map(|stored| self.parse(&stored)).transpose()
    }

    /// Writes the next state of a claim that is ours.
    async fn replace(&self, claim: &Claim, until: Option<u64>) -> Result<Version, ClaimError> {
        let Some(found) = self.look().await? else {
            return Err(ClaimError::Lost);
        };
        if found.claim.holder != claim.holder || found.claim.fence != claim.fence {
            return Err(ClaimError::Lost);
        }
        match until {
            // An earlier attempt has landed.
            None if !found.held => return Ok(found.claim.version),
            Some(until) if found.held && until == found.claim.until => {
                return Ok(found.claim.version);
            }
            Some(_) if !found.held => return Err(ClaimError::Lost),
            Some(_) | None => {}
        }
        let record = Record {
            owner: &claim.owner,
            id: WriteId {
                trip: claim.holder,
                number: found.number + 1,
            },
            fence: claim.fence,
            until,
        };
        match self.write(Some(&found.claim.version), &record).await {
            Ok(version) => Ok(version),
            Err(CasError::Conflict) => Err(ClaimError::Lost),
            Err(CasError::Ambiguous(error) | CasError::Refused(error)) => {
                Err(ClaimError::Store(error))
            }
        }
    }

    async fn write(
        &self,
        expected: Option<&Version>,
        record: &Record<'_>,
    ) -> Result<Version, CasError> {
        let text = record.until.map_or_else(
            || RELEASED.to_owned(),
            |until| format!("{HELD_UNTIL}{until}"),
        );
        let stamp = Stamp {
            id: record.id,
            count: record.fence,
            origin: Origin::Rotation,
            writer: record.owner.to_owned(),
        };
        let text = Secret::new(text.into_bytes());
        self.0.compare_and_swap(expected, &text, &stamp).await
    }

    fn parse(&self, stored: &Stored) -> Result<Found, ClaimError> {
        let foreign = || {
            ClaimError::Store(StoreError {
                kind: ErrorKind::Malformed,
                operation: "read the claim in",
                store: format!("{}", self.0),
                source: Some("it is none that was written here".into()),
            })
        };
        let stamp = stored.stamp.as_ref().ok_or_else(foreign)?;
        let text = core::str::from_utf8(stored.secret.expose()).map_err(|_| foreign())?;
        let until = match text.strip_prefix(HELD_UNTIL) {
            Some(until) => Some(until.parse().map_err(|_| foreign())?),
            None if text == RELEASED => None,
            None => return Err(foreign()),
        };
        Ok(Found {
            claim: Claim {
                owner: stamp.writer.clone(),
                holder: stamp.id.trip,
                fence: stamp.count,
                until: until.unwrap_or_default(),
                version: stored.version.clone(),
            },
            number: stamp.id.number,
            held: until.is_some(),
        })
    }
}

const HELD_UNTIL: &str = "held until ";
const RELEASED: &str = "released";

/// What a place of claims shows.
struct Found {
    claim: Claim,
    /// How many records there were.
    number: u64,
    held: bool,
}

/// What is to be written.
struct Record<'a> {
    owner: &'a str,
    id: WriteId,
    fence: u64,
    until: Option<u64>,
}

impl Record<'_> {
    fn claim(&self, until: u64, version: Version) -> Claim {
        Claim {
            owner: self.owner.to_owned(),
            holder: self.id.trip,
            fence: self.fence,
            until,
            version,
        }
    }
}

fn held_by(claim: Claim) -> ClaimError {
    ClaimError::Held {
        owner: claim.owner,
        until: claim.until,
    }
}
