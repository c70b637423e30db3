//! The store itself: the contract on one side, the disk on the other.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use authferry_core::{
    CasError, Guarantees, Reads, Secret, SecretStore, Stamp, StoreError, Stored, Swap, Version,
};
use tokio::task::spawn_blocking;

use crate::{
    address::{Address, BadAddress},
    place::{MAX_LEN, Place, Unswapped},
    trouble::Trouble,
};

/// A login in a file on this host. See the [crate] for what it promises.
#[derive(Clone)]
pub struct FileStore {
    address: Address,
    place: Arc<Place>,
}

/// Opens the store at `address`: `file:///abs/path`. Touches nothing: a folder that is
/// missing or open to others is told by the first read or swap.
///
/// [`BadAddress`] when the text is not such an address.
pub fn open(address: &str) -> Result<FileStore, BadAddress> {
    let address: Address = address.parse()?;
    Ok(FileStore {
        place: Arc::new(Place::new(&address)),
        address,
    })
}

impl FileStore {
    fn error(&self, operation: &'static str, trouble: Trouble) -> StoreError {
        StoreError {
            kind: trouble.kind(),
            operation,
            store: self.to_string(),
            source: Some(Box::new(trouble)),
        }
    }
}

impl fmt::Display for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

impl fmt::Debug for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileStore({self})")
    }
}

#[async_trait]
impl SecretStore for FileStore {
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
        let place = Arc::clone(&self.place);
        spawn_blocking(move || place.read())
            .await
            .unwrap_or_else(|broken_off| Err(Trouble::Task(broken_off)))
            .map_err(|trouble| self.error("read", trouble))
    }

    /// A swap that is no longer waited for is carried on to its end.
    async fn compare_and_swap(
        &self,
        expected: Option<&Version>,
        new: &Secret,
        stamp: &Stamp,
    ) -> Result<Version, CasError> {
        let place = Arc::clone(&self.place);
        let (expected, new, stamp) = (expected.cloned(), new.duplicate(), stamp.clone());
        spawn_blocking(move || place.swap(expected.as_ref(), &new, &stamp))
            .await
            // Nobody knows how far it came.
            .unwrap_or_else(|broken_off| Err(Unswapped::After(Trouble::Task(broken_off))))
            .map_err(|unswapped| match unswapped {
                Unswapped::Conflict => CasError::Conflict,
                Unswapped::Before(trouble) => CasError::Refused(self.error("write", trouble)),
                Unswapped::After(trouble) => CasError::Ambiguous(self.error("write", trouble)),
            })
    }
}
