//! The lease, in a separate secret.
//!
//! Acquiring and releasing are swaps, and each creates a version. Renewing creates none: the new
//! expiry is a tag, which is valid only for the version that it names.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use authferry_core::{
    CasError, Guarantees, Lease, LeaseError, LeaseRequest, LeaseStatus, Leases, Secret,
    SecretStore, Stamp, StoreBackedLeases, StoreError, Stored, Version,
};

use crate::store::{GUARANTEES, SecretPlace};

/// The leases of one login.
pub(crate) struct AwsLeases(StoreBackedLeases<LeaseSecret>);

impl AwsLeases {
    pub(crate) fn new(place: SecretPlace) -> Self {
        Self(StoreBackedLeases(LeaseSecret(place)))
    }
}

#[async_trait]
impl Leases for AwsLeases {
    async fn acquire(&self, request: &LeaseRequest) -> Result<Lease, LeaseError> {
        self.0.acquire(request).await
    }

    /// Setting a tag is unconditional. The renewal is valid if the tag is set before the lease
    /// expires by our clock: a client that read earlier saw a held lease, and one that reads later
    /// sees the tag. An expired lease, or one with another note, is renewed by a new version.
    async fn renew(&self, lease: &Lease, until: u64) -> Result<Lease, LeaseError> {
        let secret = &self.0.0;
        if !is_expired(lease) && secret.contains(lease).await? {
            secret.set_renewal_tag(lease, until).await?;
            if !is_expired(lease) && secret.contains(lease).await? {
                return Ok(Lease {
                    until,
                    ..lease.clone()
                });
            }
        }
        self.0.renew(lease, until).await
    }

    async fn release(&self, lease: &Lease) -> Result<(), LeaseError> {
        self.0.release(lease).await
    }

    async fn look(&self) -> Result<Option<LeaseStatus>, LeaseError> {
        self.0.look().await
    }
}

/// The lease's secret, as a store.
struct LeaseSecret(SecretPlace);

/// Returns whether the lease has expired by our clock. An expiry that overflows the clock counts
/// as expired, so that the renewal writes a version.
fn is_expired(lease: &Lease) -> bool {
    let expiry = UNIX_EPOCH.checked_add(Duration::from_secs(lease.until));
    expiry.is_none_or(|expiry| expiry <= SystemTime::now())
}

/// The tag of a renewal: a version, a space, and the new first line of that version's record.
const RENEWAL_TAG: &str = "authferry:renewed";

/// Separates a record from its writer's name, which the version ID cannot contain.
const WRITER_SEPARATOR: &str = "\nby ";

impl LeaseSecret {
    /// Returns whether the secret still contains this lease with the same note.
    async fn contains(&self, lease: &Lease) -> Result<bool, LeaseError> {
        let read = self.0.aws.read(self.0.name()).await;
        let held =
            read.map_err(|failure| LeaseError::Store(self.0.error("read the lease in", failure)))?;
        let Some(held) = held.filter(|held| held.version == lease.version.as_str()) else {
            return Ok(false);
        };
        let text = String::from_utf8_lossy(held.value.expose());
        let note = parse_record(&text).and_then(|(_, note, _)| note);
        Ok(note == lease.note.as_deref())
    }

    async fn set_renewal_tag(&self, lease: &Lease, until: u64) -> Result<(), LeaseError> {
        let value = format!("{} held until {until}", lease.version);
        let set = self.0.aws.set_tag(self.0.name(), RENEWAL_TAG, &value).await;
        set.map_err(|failure| LeaseError::Store(self.0.error("renew the lease in", failure)))
    }

    /// Returns the new first line of the record, if the tag renews this version.
    async fn renewal(&self, version: &Version) -> Result<Option<String>, StoreError> {
        let tag = self.0.aws.tag(self.0.name(), RENEWAL_TAG).await;
        let tag = tag.map_err(|failure| self.0.error("read the lease in", failure))?;
        Ok(tag.and_then(|tag| {
            let (renewed, state) = tag.split_once(' ')?;
            (renewed == version.as_str()).then(|| state.to_owned())
        }))
    }
}

/// Parses a record: its first line, its note, and its writer.
fn parse_record(text: &str) -> Option<(&str, Option<&str>, &str)> {
    let (content, writer) = text.rsplit_once(WRITER_SEPARATOR)?;
    Some(match content.split_once('\n') {
        Some((state, note)) => (state, Some(note), writer),
        None => (content, None, writer),
    })
}

#[async_trait]
impl SecretStore for LeaseSecret {
    fn guarantees(&self) -> Guarantees {
        GUARANTEES
    }

    async fn read(&self) -> Result<Option<Stored>, StoreError> {
        let Some(mut stored) = self.0.read().await? else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(stored.secret.expose()).into_owned();
        let Some((state, note, writer)) = parse_record(&text) else {
            return Ok(Some(stored));
        };
        if let Some(stamp) = &mut stored.stamp {
            writer.clone_into(&mut stamp.writer);
        }
        let renewal = self.renewal(&stored.version).await?;
        let state = renewal.as_deref().unwrap_or(state);
        let content = match note {
            Some(note) => format!("{state}\n{note}"),
            None => state.to_owned(),
        };
        stored.secret = Secret::new(content.into_bytes());
        Ok(Some(stored))
    }

    async fn compare_and_swap(
        &self,
        expected: Option<&Version>,
        new: &Secret,
        stamp: &Stamp,
    ) -> Result<Version, CasError> {
        let record = [
            new.expose(),
            WRITER_SEPARATOR.as_bytes(),
            stamp.writer.as_bytes(),
        ]
        .concat();
        self.0.swap(expected, &Secret::new(record), stamp).await
    }
}

impl fmt::Display for LeaseSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.address.fmt(f)
    }
}

impl fmt::Debug for LeaseSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LeaseSecret({self})")
    }
}

#[cfg(test)]
mod tests {
    use crate::canned::{Canned, current, error_response, success};

    use super::*;

    fn lease(until: u64, note: Option<&str>) -> Lease {
        Lease {
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

    /// The response to a read of our lease, without a note.
    fn our_lease() -> crate::canned::CannedResponse {
        current(
            "00000000000000010000000000000002-r1-0000000000000000",
            "held until 5\nby job 1",
        )
    }

    #[tokio::test]
    async fn a_renewal_tag_must_be_set_before_the_expiry() {
        let late = success("{}").after(Duration::from_millis(4100));
        for (tag, has_landed) in [(success("{}"), true), (late, false)] {
            let denied = error_response(400, "AccessDeniedException");
            let then = if has_landed { our_lease() } else { denied };
            let service = Canned::new([our_lease(), tag, then]);
            let store = service.store();
            let leases = store.leases().expect("leases");
            let now = seconds();
            let answer = leases.renew(&lease(now + 4, None), now + 600).await;
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
    async fn an_expired_lease_is_renewed_by_a_version() {
        // The last of these times overflows the clock; a version can still contain it.
        for until in [1, seconds(), u64::MAX] {
            let service = Canned::new([error_response(400, "AccessDeniedException")]);
            let store = service.store();
            let leases = store.leases().expect("leases");
            drop(leases.renew(&lease(until, None), seconds() + 600).await);
            assert_eq!(service.actions(), ["PutSecretValue"], "{until}");
        }
    }

    #[tokio::test]
    async fn another_note_needs_a_version() {
        let store = Canned::new([our_lease(), error_response(400, "AccessDeniedException")]);
        let now = seconds();
        let lease = lease(now + 600, Some("a note"));
        let leases = store.store();
        let leases = leases.leases().expect("leases");
        drop(leases.renew(&lease, now + 900).await.expect_err("denied"));
        let [_, put] = store.requests().try_into().expect("two calls");
        assert_eq!(put.action, "PutSecretValue");
        assert!(put.body.contains("a note"), "{}", put.body);
    }

    #[tokio::test]
    async fn a_renewal_tag_changes_only_the_expiry() {
        let version = "00000000000000010000000000000002-r7-0000000000000000";
        let until = seconds() + 600;
        let tag = |value: &str| {
            success(&format!(
                r#"{{"Tags":[{{"Key":"authferry:renewed","Value":"{value}"}}]}}"#
            ))
        };
        let record = "held until 5\na note\nby https://ci.example/by/1";
        for (tagged, expiry) in [(version, until), ("another", 5)] {
            let service = Canned::new([
                current(version, record),
                tag(&format!("{tagged} held until {until}")),
                error_response(400, "AccessDeniedException"),
            ]);
            let store = service.store();
            let request = LeaseRequest {
                owner: "job 2".to_owned(),
                holder: 2,
                now: 0,
                until: u64::MAX,
                expired: None,
            };
            let leases = store.leases().expect("leases");
            let answer = leases.acquire(&request).await;
            let Err(LeaseError::Held { owner, until, .. }) = answer else {
                panic!("{answer:?}");
            };
            assert_eq!((owner.as_str(), until), ("https://ci.example/by/1", expiry));
        }
    }
}
