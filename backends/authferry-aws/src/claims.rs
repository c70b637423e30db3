//! The claim, in a secret beside the login's.
//!
//! It is taken and given back as a login is swapped, and each costs a version. To renew it
//! costs none: the new end is a tag, which counts for the version that it names alone.

use std::fmt;

use async_trait::async_trait;
use authferry_core::{
    Beside, Bid, CasError, Claim, ClaimError, Claims, Guarantees, Secret, SecretStore, Stamp,
    StoreError, Stored, Version,
};

use crate::store::{GUARANTEES, Place};

/// The claims of one login.
pub(crate) struct AwsClaims(Beside<Record>);

impl AwsClaims {
    pub(crate) fn new(place: Place) -> Self {
        Self(Beside(Record(place)))
    }
}

#[async_trait]
impl Claims for AwsClaims {
    async fn acquire(&self, bid: &Bid) -> Result<Claim, ClaimError> {
        self.0.acquire(bid).await
    }

    /// A tag has no condition, so it is set between two looks at the version. Somebody who
    /// has looked before may still take the claim over after the second one; but that is only
    /// somebody to whom the claim had ended by then, and a holder renews before that.
    async fn renew(&self, claim: &Claim, until: u64) -> Result<Claim, ClaimError> {
        let record = &self.0.0;
        record.is_still(claim).await?;
        record
            .extend(claim, until)
            .await
            .map_err(ClaimError::Store)?;
        record.is_still(claim).await?;
        Ok(Claim {
            until,
            ..claim.clone()
        })
    }

    async fn release(&self, claim: &Claim) -> Result<(), ClaimError> {
        self.0.release(claim).await
    }
}

/// The secret beside the login's, as a store of its own.
struct Record(Place);

/// The tag with a later end: a version, a space, and what its record says instead.
const RENEWED: &str = "authferry:renewed";

/// Stands between what a record says and who wrote it: a version has no room for the latter.
const BY: &str = "\nby ";

impl Record {
    async fn is_still(&self, claim: &Claim) -> Result<(), ClaimError> {
        let read = self.0.aws.read(self.0.name()).await;
        let held =
            read.map_err(|failure| ClaimError::Store(self.0.error("read the claim in", failure)))?;
        if held.is_some_and(|held| held.version == claim.version.as_str()) {
            Ok(())
        } else {
            Err(ClaimError::Lost)
        }
    }

    async fn extend(&self, claim: &Claim, until: u64) -> Result<(), StoreError> {
        let value = format!("{} held until {until}", claim.version);
        let set = self.0.aws.set_tag(self.0.name(), RENEWED, &value).await;
        set.map_err(|failure| self.0.error("renew the claim in", failure))
    }

    /// Returns what a record says since it was renewed.
    async fn renewed(&self, version: &Version) -> Result<Option<String>, StoreError> {
        let tag = self.0.aws.tag(self.0.name(), RENEWED).await;
        let tag = tag.map_err(|failure| self.0.error("read the claim in", failure))?;
        Ok(tag.and_then(|tag| {
            let (of, says) = tag.split_once(' ')?;
            (of == version.as_str()).then(|| says.to_owned())
        }))
    }
}

#[async_trait]
impl SecretStore for Record {
    fn guarantees(&self) -> Guarantees {
        GUARANTEES
    }

    async fn read(&self) -> Result<Option<Stored>, StoreError> {
        let Some(mut stored) = self.0.read().await? else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(stored.secret.expose()).into_owned();
        let Some((says, writer)) = text.split_once(BY) else {
            return Ok(Some(stored));
        };
        if let Some(stamp) = &mut stored.stamp {
            writer.clone_into(&mut stamp.writer);
        }
        let says = match self.renewed(&stored.version).await? {
            Some(renewed) => renewed,
            None => says.to_owned(),
        };
        stored.secret = Secret::new(says.into_bytes());
        Ok(Some(stored))
    }

    async fn compare_and_swap(
        &self,
        expected: Option<&Version>,
        new: &Secret,
        stamp: &Stamp,
    ) -> Result<Version, CasError> {
        let record = [new.expose(), BY.as_bytes(), stamp.writer.as_bytes()].concat();
        self.0.swap(expected, &Secret::new(record), stamp).await
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.address.fmt(f)
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Record({self})")
    }
}
