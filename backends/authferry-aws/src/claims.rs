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
    Standing, StoreError, Stored, Version,
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

    /// A tag has no condition. It counts if it is there before the claim ends by our clock:
    /// whoever looked before that saw it held, and whoever looks later sees the tag. What has
    /// ended is renewed by a version, and so is what leaves another note.
    async fn renew(&self, claim: &Claim, until: u64) -> Result<Claim, ClaimError> {
        let record = &self.0.0;
        if !has_ended(claim) && record.shows(claim).await? {
            record.extend(claim, until).await?;
            if !has_ended(claim) && record.shows(claim).await? {
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

    async fn look(&self) -> Result<Option<Standing>, ClaimError> {
        self.0.look().await
    }
}

/// The secret beside the login's, as a store of its own.
struct Record(Place);

/// Returns whether the claim has ended by this clock. One without an end that a clock can mean
/// has, so that a version is written for it.
fn has_ended(claim: &Claim) -> bool {
    let end = UNIX_EPOCH.checked_add(Duration::from_secs(claim.until));
    end.is_none_or(|end| end <= SystemTime::now())
}

/// The tag with a later end: a version, a space, and the first line of its record instead.
const RENEWED: &str = "authferry:renewed";

/// Stands between what a record says and who wrote it: a version has no room for the latter.
const BY: &str = "\nby ";

impl Record {
    /// Returns whether the record is that of a claim still, and says the same but for the end.
    async fn shows(&self, claim: &Claim) -> Result<bool, ClaimError> {
        let read = self.0.aws.read(self.0.name()).await;
        let held =
            read.map_err(|failure| ClaimError::Store(self.0.error("read the claim in", failure)))?;
        let Some(held) = held.filter(|held| held.version == claim.version.as_str()) else {
            return Ok(false);
        };
        let text = String::from_utf8_lossy(held.value.expose());
        let note = parts(&text).and_then(|(_, note, _)| note);
        Ok(note == claim.note.as_deref())
    }

    async fn extend(&self, claim: &Claim, until: u64) -> Result<(), ClaimError> {
        let value = format!("{} held until {until}", claim.version);
        let set = self.0.aws.set_tag(self.0.name(), RENEWED, &value).await;
        set.map_err(|failure| ClaimError::Store(self.0.error("renew the claim in", failure)))
    }

    /// Returns the first line of a record since it was renewed.
    async fn renewed(&self, version: &Version) -> Result<Option<String>, StoreError> {
        let tag = self.0.aws.tag(self.0.name(), RENEWED).await;
        let tag = tag.map_err(|failure| self.0.error("read the claim in", failure))?;
        Ok(tag.and_then(|tag| {
            let (of, state) = tag.split_once(' ')?;
            (of == version.as_str()).then(|| state.to_owned())
        }))
    }
}

/// Takes a record apart: its first line, what is left as a note, and who wrote it.
fn parts(text: &str) -> Option<(&str, Option<&str>, &str)> {
    let (says, writer) = text.rsplit_once(BY)?;
    Some(match says.split_once('\n') {
        Some((state, note)) => (state, Some(note), writer),
        None => (says, None, writer),
    })
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
        let Some((state, note, writer)) = parts(&text) else {
            return Ok(Some(stored));
        };
        if let Some(stamp) = &mut stored.stamp {
            writer.clone_into(&mut stamp.writer);
        }
        let renewed = self.renewed(&stored.version).await?;
        let state = renewed.as_deref().unwrap_or(state);
        let says = match note {
            Some(note) => format!("{state}\n{note}"),
            None => state.to_owned(),
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
    use crate::canned::{Canned, held, no, yes};

    use super::*;

    fn claim(until: u64, note: Option<&str>) -> Claim {
        Claim {
            owner: "job 1".to_owned(),
            holder: 1,
            until,
            version: Version::new("00000000000000010000000000000002-r1-0000000000000000"),
            note: note.map(str::to_owned),
        }
    }

    fn seconds() -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.expect("after 1970").as_secs()
    }

    /// What a job finds that renews its claim, which says nothing of a note.
    fn of_ours() -> crate::canned::Answer {
        held(
            "00000000000000010000000000000002-r1-0000000000000000",
            "held until 5\nby job 1",
        )
    }

    #[tokio::test]
    async fn a_tag_counts_if_it_is_there_before_the_end() {
        let late = yes("{}").after(Duration::from_millis(4100));
        for (tag, has_landed) in [(yes("{}"), true), (late, false)] {
            let denied = no(400, "AccessDeniedException");
            let then = if has_landed { of_ours() } else { denied };
            let service = Canned::new([of_ours(), tag, then]);
            let store = service.store();
            let claims = store.claims().expect("claims");
            let now = seconds();
            let answer = claims.renew(&claim(now + 4, None), now + 600).await;
            assert_eq!(answer.is_ok(), has_landed, "{answer:?}");
            let last = if has_landed {
                "GetSecretValue"
            } else {
                "PutSecretValue"
            };
            assert_eq!(service.actions(), ["GetSecretValue", "TagResource", last]);
        }
    }

    #[tokio::test]
    async fn what_has_ended_is_renewed_by_a_version() {
        // No clock can tell the last of these times; a version can be written for it.
        for until in [1, seconds(), u64::MAX] {
            let service = Canned::new([no(400, "AccessDeniedException")]);
            let store = service.store();
            let claims = store.claims().expect("claims");
            drop(claims.renew(&claim(until, None), seconds() + 600).await);
            assert_eq!(service.actions(), ["PutSecretValue"], "{until}");
        }
    }

    #[tokio::test]
    async fn another_note_is_left_by_a_version() {
        let store = Canned::new([of_ours(), no(400, "AccessDeniedException")]);
        let now = seconds();
        let claim = claim(now + 600, Some("a note"));
        let claims = store.store();
        let claims = claims.claims().expect("claims");
        drop(claims.renew(&claim, now + 900).await.expect_err("denied"));
        let [_, put] = store.asked().try_into().expect("two calls");
        assert_eq!(put.action, "PutSecretValue");
        assert!(put.body.contains("a note"), "{}", put.body);
    }

    #[tokio::test]
    async fn what_a_tag_says_counts_for_the_end_alone() {
        let version = "00000000000000010000000000000002-r7-0000000000000000";
        let until = seconds() + 600;
        let tag = |says: &str| {
            yes(&format!(
                r#"{{"Tags":[{{"Key":"authferry:renewed","Value":"{says}"}}]}}"#
            ))
        };
        let record = "held until 5\na note\nby https://ci.example/by/1";
        for (of, ends) in [(version, until), ("another", 5)] {
            let service = Canned::new([
                held(version, record),
                tag(&format!("{of} held until {until}")),
                no(400, "AccessDeniedException"),
            ]);
            let store = service.store();
            let bid = Bid {
                owner: "job 2".to_owned(),
                holder: 2,
                now: 0,
                until: u64::MAX,
                expired: None,
            };
            let claims = store.claims().expect("claims");
            let answer = claims.acquire(&bid).await;
            let Err(ClaimError::Held { owner, until, .. }) = answer else {
                panic!("{answer:?}");
            };
            assert_eq!((owner.as_str(), until), ("https://ci.example/by/1", ends));
        }
    }
}
