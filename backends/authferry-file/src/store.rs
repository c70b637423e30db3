//! The store itself: the contract on one side, the disk on the other.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use authferry_core::{
    Beside, CasError, Claims, Guarantees, Reads, Secret, SecretStore, Stamp, StoreError, Stored,
    Swap, Version,
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
    /// A file like this one, which has none of its own.
    claims: Option<Arc<Beside<Self>>>,
}

/// Opens the store at `address`: `file:///abs/path`. Touches nothing: a folder that is
/// missing or open to others is told by the first read or swap. Those need a tokio
/// runtime, whose blocking threads they wait on.
///
/// [`BadAddress`] when the text is not such an address.
pub fn open(address: &str) -> Result<FileStore, BadAddress> {
    let address: Address = address.parse()?;
    let claim = address.of_the_claim();
    let claims = FileStore::new(Place::of_lease(&claim), claim);
    Ok(FileStore {
        claims: Some(Arc::new(Beside(claims))),
        ..FileStore::new(Place::new(&address), address)
    })
}

impl FileStore {
    fn new(place: Place, address: Address) -> Self {
        Self {
            place: Arc::new(place),
            address,
            claims: None,
        }
    }

    fn error(&self, operation: &'static str, trouble: Trouble) -> StoreError {
        StoreError {
            kind: trouble.kind(),
            operation,
            store: self.to_string(),
            source: Some(Box::new(trouble)),
        }
    }

    fn unswapped(&self, unswapped: Unswapped) -> CasError {
        match unswapped {
            Unswapped::Conflict => CasError::Conflict,
            Unswapped::Before(trouble) => CasError::Refused(self.error("write", trouble)),
            Unswapped::After(trouble) => CasError::Ambiguous(self.error("write", trouble)),
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
            "it serves the jobs of one host: a network file system may keep neither its lock nor \
             its versions"
                .to_owned(),
            "a rotation leaves nothing behind: only the last login is kept".to_owned(),
        ]
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
            .map_err(|unswapped| self.unswapped(unswapped))
    }

    fn claims(&self) -> Option<&dyn Claims> {
        let claims = self.claims.as_deref()?;
        Some(claims)
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use authferry_core::{Bid, ErrorKind};
    use tokio::runtime::Builder;

    use super::*;

    fn store() -> FileStore {
        open("file:///no/such/folder/login.json").expect("an address")
    }

    #[test]
    fn an_error_says_what_where_and_why() {
        let trouble = store().place.read().expect_err("a missing folder");
        let error = store().error("read", trouble);
        assert_eq!(
            error.to_string(),
            "cannot read file:///no/such/folder/login.json: no such place"
        );
        let below = error.source().expect("a reason");
        assert_eq!(below.to_string(), "there is no folder /no/such/folder");
    }

    #[test]
    fn an_error_about_the_claim_names_its_own_file() {
        let store = store();
        let claims = store.claims().expect("a file store has claims");
        let bid = Bid {
            owner: "a test".into(),
            holder: 1,
            now: 1,
            until: 2,
            expired: None,
        };
        let runtime = Builder::new_current_thread().build().expect("a runtime");
        let error = runtime.block_on(claims.acquire(&bid));
        assert_eq!(
            error.expect_err("a missing folder").to_string(),
            "cannot read file:///no/such/folder/login.json.claim: no such place"
        );
        let beside = store.claims.as_ref().expect("the same");
        assert!(beside.0.claims().is_none(), "a claim has no claim");
    }

    #[test]
    fn what_came_after_the_login_was_replaced_is_ambiguous() {
        let trouble = || Trouble::Locked("login.json.lock".into());
        let told = |unswapped| store().unswapped(unswapped);
        let is_ours =
            |error: &StoreError| error.kind == ErrorKind::Unavailable && error.operation == "write";
        assert!(matches!(told(Unswapped::Conflict), CasError::Conflict));
        let before = told(Unswapped::Before(trouble()));
        assert!(matches!(&before, CasError::Refused(error) if is_ours(error)));
        let after = told(Unswapped::After(trouble()));
        assert!(matches!(&after, CasError::Ambiguous(error) if is_ours(error)));
    }
}
