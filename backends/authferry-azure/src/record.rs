//! A small value in a blob of its own, with its stamp: the place of a claim.

use std::fmt;

use async_trait::async_trait;
use authferry_core::{
    CasError, Guarantees, Reads, Secret, SecretStore, Stamp, StoreError, Stored, Swap, Version,
};
use serde::{Deserialize, Serialize};

use crate::{
    address::BlobAddress,
    classify,
    trouble::Trouble,
    wire::{Blob, Failure, Replaced},
};

/// The right that looking at a blob takes.
pub(crate) const READ: &str = "read the coordinator's blob";

/// The right that replacing one takes.
pub(crate) const WRITE: &str = "write the coordinator's blob";

/// A blob that holds one value. Its version is the `ETag`.
pub(crate) struct Record {
    pub(crate) address: BlobAddress,
    pub(crate) blob: Blob,
}

/// The longest value, and much more than a claim takes.
const MAX_LEN: usize = 64 * 1024;

/// What stands in the blob.
#[derive(Serialize, Deserialize)]
struct Content {
    value: String,
    id: String,
    count: u64,
    origin: String,
    family: String,
    volatile_hints: bool,
    writer: String,
}

impl Record {
    fn error(&self, operation: &'static str, trouble: Trouble) -> StoreError {
        StoreError {
            kind: trouble.kind(),
            operation,
            store: self.to_string(),
            source: Some(Box::new(trouble)),
        }
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Record({self})")
    }
}

#[async_trait]
impl SecretStore for Record {
    fn guarantees(&self) -> Guarantees {
        Guarantees {
            swap: Swap::Atomic,
            stamps: true,
            reads: Reads::Strong,
            history: false,
            max_len: MAX_LEN,
        }
    }

    async fn read(&self) -> Result<Option<Stored>, StoreError> {
        let found = self.blob.get().await;
        let found = found.map_err(|why| self.error("read", classify::of_blob(why, READ)))?;
        Ok(found.map(|(etag, bytes)| stored(&etag, bytes)))
    }

    async fn compare_and_swap(
        &self,
        expected: Option<&Version>,
        new: &Secret,
        stamp: &Stamp,
    ) -> Result<Version, CasError> {
        let refused = |trouble| CasError::Refused(self.error("write", trouble));
        let value = str::from_utf8(new.expose()).map_err(|_| refused(Trouble::NotUtf8))?;
        let content = Content {
            value: value.to_owned(),
            id: stamp.id.to_string(),
            count: stamp.count,
            origin: stamp.origin.to_string(),
            family: stamp.family.to_string(),
            volatile_hints: stamp.volatile_hints,
            writer: stamp.writer.clone(),
        };
        let bytes = serde_json::to_vec(&content).expect("texts and numbers alone");
        match self
            .blob
            .replace(expected.map(Version::as_str), bytes)
            .await
        {
            Ok(Replaced::As(etag)) => Ok(Version::new(&etag)),
            Ok(Replaced::Moved) => Err(CasError::Conflict),
            Err(failure) => {
                let is_certain = is_certain(&failure);
                let error = self.error("write", classify::of_blob(failure, WRITE));
                Err(if is_certain {
                    CasError::Refused(error)
                } else {
                    CasError::Ambiguous(error)
                })
            }
        }
    }
}

/// Whether a blob was certainly not replaced.
fn is_certain(failure: &Failure) -> bool {
    match failure {
        Failure::Silent(silence) => !silence.may_have_acted(),
        Failure::Answer(answer) => answer.status < 500 && answer.status != 408,
        Failure::Unintelligible => false,
        Failure::Impostor | Failure::NoToken(_) => true,
    }
}

/// Returns what the blob holds. One that was not written here comes as it is, without a stamp.
fn stored(etag: &str, bytes: Vec<u8>) -> Stored {
    let content: Option<Content> = serde_json::from_slice(&bytes).ok();
    let stamped = content.and_then(|content| {
        let stamp = Stamp {
            id: content.id.parse().ok()?,
            count: content.count,
            origin: content.origin.parse().ok()?,
            family: content.family.parse().ok()?,
            volatile_hints: content.volatile_hints,
            writer: content.writer,
        };
        Some((content.value, stamp))
    });
    let version = Version::new(etag);
    match stamped {
        Some((value, stamp)) => Stored {
            secret: Secret::new(value.into_bytes()),
            version,
            stamp: Some(stamp),
        },
        None => Stored {
            secret: Secret::new(bytes),
            version,
            stamp: None,
        },
    }
}
