//! The claim, in a secret beside the login's.
//!
//! It is taken and given back as a login is swapped, and each costs a version. To renew it
//! costs none: the new end is a tag, which counts for the version that it names alone.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use authferry_core::{
    Beside, Bid, CasError, Claim, ClaimError, Claims, Guarantees, Secret, SecretStore, Stamp,
    StoreError, Stored, Version,
};

use crate::{
    aws::WHOLE,
    store::{GUARANTEES, Place},
};

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

    /// A tag has no condition. It is set between two looks at the version, and only while
    /// nobody can have seen the claim end: who looks later sees the tag. What has ended, or
    /// is about to, is renewed by a version.
    async fn renew(&self, claim: &Claim, until: u64) -> Result<Claim, ClaimError> {
        let record = &self.0.0;
        if has_time(claim, SystemTime::now()) && record.is_still(claim).await? {
            record.extend(claim, until).await?;
            if record.is_still(claim).await? {
                return Ok(Claim {
                    until,
                    ..claim.clone()
                });
            }
        }
        self.0.renew(claim, until).await
    }

    async fn release(&self, claim: &Claim) -> Result<(), ClaimError> {
        self.0.release(claim).await
    }
}

/// The secret beside the login's, as a store of its own.
struct Record(Place);

/// Returns whether a call that begins now is over before the claim ends by this clock.
fn has_time(claim: &Claim, now: SystemTime) -> bool {
    let end = UNIX_EPOCH.checked_add(Duration::from_secs(claim.until));
    let left = end.and_then(|end| end.duration_since(now).ok());
    left.is_some_and(|left| left > WHOLE)
}

/// The tag with a later end: a version, a space, and what its record says instead.
const RENEWED: &str = "authferry:renewed";

/// Stands between what a record says and who wrote it: a version has no room for the latter.
const BY: &str = "\nby ";

impl Record {
    async fn is_still(&self, claim: &Claim) -> Result<bool, ClaimError> {
        let read = self.0.aws.read(self.0.name()).await;
        let held =
            read.map_err(|failure| ClaimError::Store(self.0.error("read the claim in", failure)))?;
        Ok(held.is_some_and(|held| held.version == claim.version.as_str()))
    }

    async fn extend(&self, claim: &Claim, until: u64) -> Result<(), ClaimError> {
        let value = format!("{} held until {until}", claim.version);
        let set = self.0.aws.set_tag(self.0.name(), RENEWED, &value).await;
        set.map_err(|failure| ClaimError::Store(self.0.error("renew the claim in", failure)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_enough_only_while_nobody_can_have_seen_the_end() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let claim = |until| Claim {
            owner: "job 1".to_owned(),
            holder: 1,
            fence: 1,
            until,
            version: Version::new("v"),
        };
        for (left, has) in [(41, true), (40, false), (0, false)] {
            assert_eq!(
                has_time(&claim(1_000_000 + left), now),
                has,
                "{left} s are left"
            );
        }
        assert!(!has_time(&claim(1), now));
        // No clock can tell that time; a version can be written for it.
        assert!(!has_time(&claim(u64::MAX), now));
    }
}
