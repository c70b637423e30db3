//! A blob that stores one small value with its stamp: the lease.

use std::fmt;

use async_trait::async_trait;
use authferry_core::{
    CasError, Guarantees, Reads, Secret, SecretStore, Stamp, StoreError, Stored, Swap, Version,
};
use serde::{Deserialize, Serialize};

use crate::{
    address::BlobAddress,
    azure_error::AzureError,
    classify,
    wire::{AzureFailure, Blob, BlobSwap},
};

/// The right that reading a blob needs.
pub(crate) const READ: &str = "read the coordinator's blob";

/// The right that replacing a blob needs.
pub(crate) const WRITE: &str = "write the coordinator's blob";

/// A blob that holds one value. Its version is the `ETag`.
pub(crate) struct LeaseBlob {
    pub(crate) address: BlobAddress,
    pub(crate) blob: Blob,
}

/// The longest value in bytes. A lease needs far less.
const MAX_LEN: usize = 64 * 1024;

/// The content of the blob.
#[derive(Serialize, Deserialize)]
struct LeaseContent {
    value: String,
    id: String,
    count: u64,
    origin: String,
    family: String,
    volatile_hints: bool,
    writer: String,
}

impl LeaseBlob {
    fn error(&self, operation: &'static str, cause: AzureError) -> StoreError {
        StoreError {
            kind: cause.kind(),
            operation,
            store: self.to_string(),
            source: Some(Box::new(cause)),
        }
    }
}

impl fmt::Display for LeaseBlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

impl fmt::Debug for LeaseBlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LeaseBlob({self})")
    }
}

#[async_trait]
impl SecretStore for LeaseBlob {
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
        let found =
            found.map_err(|failure| self.error("read", classify::blob_error(failure, READ)))?;
        Ok(found.map(|(etag, bytes)| stored(&etag, bytes)))
    }

    async fn compare_and_swap(
        &self,
        expected: Option<&Version>,
        new: &Secret,
        stamp: &Stamp,
    ) -> Result<Version, CasError> {
        let refused = |cause| CasError::Refused(self.error("write", cause));
        let value = str::from_utf8(new.expose()).map_err(|_| refused(AzureError::NotUtf8))?;
        let content = LeaseContent {
            value: value.to_owned(),
            id: stamp.id.to_string(),
            count: stamp.count,
            origin: stamp.origin.to_string(),
            family: stamp.family.to_string(),
            volatile_hints: stamp.volatile_hints,
            writer: stamp.writer.clone(),
        };
        let bytes = serde_json::to_vec(&content).expect("only strings and numbers");
        match self
            .blob
            .replace(expected.map(Version::as_str), bytes)
            .await
        {
            Ok(BlobSwap::Replaced(etag)) => Ok(Version::new(&etag)),
            Ok(BlobSwap::Changed) => Err(CasError::Conflict),
            Err(failure) => {
                let is_certain = is_certain(&failure);
                let error = self.error("write", classify::blob_error(failure, WRITE));
                Err(if is_certain {
                    CasError::Refused(error)
                } else {
                    CasError::Ambiguous(error)
                })
            }
        }
    }
}

/// Returns whether the blob was certainly not replaced.
fn is_certain(failure: &AzureFailure) -> bool {
    match failure {
        AzureFailure::Silent(silence) => !silence.may_have_acted(),
        AzureFailure::ErrorResponse(answer) => answer.status < 500 && answer.status != 408,
        AzureFailure::Unintelligible => false,
        AzureFailure::Impostor | AzureFailure::NoToken(_) => true,
    }
}

/// Parses the blob. Content that this store did not write is returned unchanged, without a stamp.
fn stored(etag: &str, bytes: Vec<u8>) -> Stored {
    let content: Option<LeaseContent> = serde_json::from_slice(&bytes).ok();
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
