//! Implements the store contract on the protocol of the module `place`.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use authferry_core::{
    CasError, Guarantees, Leases, Reads, Secret, SecretStore, Stamp, StoreBackedLeases, StoreError,
    Stored, Swap, Version,
};
use tokio::task::spawn_blocking;

use crate::{
    address::{Address, BadAddress},
    file_error::FileError,
    place::{FilePlace, MAX_LEN, SwapError},
};

/// A login in a file on this host. See the [crate] for its guarantees.
///
/// # Examples
///
/// ```
/// use authferry_core::SecretStore;
/// use std::{fs::Permissions, os::unix::fs::PermissionsExt};
///
/// let private = Permissions::from_mode(0o700);
/// let folder = tempfile::Builder::new().permissions(private).tempdir()?;
/// let path = folder.path().join("login.json");
/// let store = authferry_file::open(&format!("file://{}", path.display()))?;
///
/// let runtime = tokio::runtime::Builder::new_current_thread().build()?;
/// assert!(runtime.block_on(store.read())?.is_none());
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct FileStore {
    address: Address,
    place: Arc<FilePlace>,
    /// The store of the lease's file, which has no leases.
    leases: Option<Arc<StoreBackedLeases<Self>>>,
}

/// Opens the store at `address`: `file:///abs/path`. Does not access the disk: the first read or
/// swap reports a folder that is missing or open to others. Reads and swaps need a tokio runtime,
/// because they run on its blocking threads.
///
/// Fails with [`BadAddress`] if the address is invalid.
pub fn open(address: &str) -> Result<FileStore, BadAddress> {
    let address: Address = address.parse()?;
    let lease = address.of_lease();
    let leases = FileStore::new(FilePlace::of_lease(&lease), lease);
    Ok(FileStore {
        leases: Some(Arc::new(StoreBackedLeases(leases))),
        ..FileStore::new(FilePlace::new(&address), address)
    })
}

impl FileStore {
    fn new(place: FilePlace, address: Address) -> Self {
        Self {
            place: Arc::new(place),
            address,
            leases: None,
        }
    }

    fn error(&self, operation: &'static str, cause: FileError) -> StoreError {
        StoreError {
            kind: cause.kind(),
            operation,
            store: self.to_string(),
            source: Some(Box::new(cause)),
        }
    }

    fn cas_error(&self, error: SwapError) -> CasError {
        match error {
            SwapError::Conflict => CasError::Conflict,
            SwapError::NotWritten(cause) => CasError::Refused(self.error("write", cause)),
            SwapError::MaybeWritten(cause) => CasError::Ambiguous(self.error("write", cause)),
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

    fn notes(&self) -> Vec<String> {
        vec![
            "it is for the jobs of one host: on a network file system its lock and its versions may \
             fail"
                .to_owned(),
            "it keeps no history: a rotation replaces the login".to_owned(),
        ]
    }

    async fn read(&self) -> Result<Option<Stored>, StoreError> {
        let place = Arc::clone(&self.place);
        spawn_blocking(move || place.read())
            .await
            .unwrap_or_else(|failed| Err(FileError::Task(failed)))
            .map_err(|cause| self.error("read", cause))
    }

    /// A swap whose future is dropped still runs to its end.
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
            // The outcome is unknown.
            .unwrap_or_else(|failed| Err(SwapError::MaybeWritten(FileError::Task(failed))))
            .map_err(|error| self.cas_error(error))
    }

    fn leases(&self) -> Option<&dyn Leases> {
        let leases = self.leases.as_deref()?;
        Some(leases)
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use authferry_core::{ErrorKind, LeaseRequest};
    use tokio::runtime::Builder;

    use super::*;

    fn store() -> FileStore {
        open("file:///no/such/folder/login.json").expect("an address")
    }

    #[test]
    fn an_error_names_operation_store_and_cause() {
        let cause = store().place.read().expect_err("a missing folder");
        let error = store().error("read", cause);
        assert_eq!(
            error.to_string(),
            "cannot read file:///no/such/folder/login.json: no such place"
        );
        let source = error.source().expect("a cause");
        assert_eq!(source.to_string(), "folder /no/such/folder does not exist");
    }

    #[test]
    fn an_error_of_the_lease_names_the_lease_file() {
        let store = store();
        let leases = store.leases().expect("a file store has leases");
        let request = LeaseRequest {
            owner: "a test".into(),
            holder: 1,
            now: 1,
            until: 2,
            expired: None,
        };
        let runtime = Builder::new_current_thread().build().expect("a runtime");
        let error = runtime.block_on(leases.acquire(&request));
        assert_eq!(
            error.expect_err("a missing folder").to_string(),
            "cannot read file:///no/such/folder/login.json.lease: no such place"
        );
        let lease_store = &store.leases.as_ref().expect("the lease's store").0;
        assert!(lease_store.leases().is_none(), "a lease has no lease");
    }

    #[test]
    fn an_error_after_the_rename_is_ambiguous() {
        let cause = || FileError::Locked("login.json.lock".into());
        let convert = |error| store().cas_error(error);
        let is_ours =
            |error: &StoreError| error.kind == ErrorKind::Unavailable && error.operation == "write";
        assert!(matches!(convert(SwapError::Conflict), CasError::Conflict));
        let before = convert(SwapError::NotWritten(cause()));
        assert!(matches!(&before, CasError::Refused(error) if is_ours(error)));
        let after = convert(SwapError::MaybeWritten(cause()));
        assert!(matches!(&after, CasError::Ambiguous(error) if is_ours(error)));
    }
}
