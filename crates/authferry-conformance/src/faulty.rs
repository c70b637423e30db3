//! Injects network faults between a caller and a store.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use authferry_core::{
    CasError, ErrorKind, Guarantees, Lease, LeaseError, LeaseRequest, LeaseStatus, Leases, Secret,
    SecretStore, Stamp, StoreError, Stored, Version,
};

/// A fault of one swap or one lease call.
///
/// A failed swap returns [`CasError::Refused`] or [`CasError::Ambiguous`]. A failed lease call
/// returns [`LeaseError::Store`], which leaves the outcome unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No fault.
    Pass,
    /// The call is delayed by this time.
    Delay(Duration),
    /// The call does not reach the store, and the caller knows it.
    Refused(ErrorKind),
    /// The call does not reach the store, and the caller does not know it.
    Lost,
    /// The store executes the call, and the reply is lost.
    ReplyLost,
}

/// A store behind a network that fails by a script.
///
/// Each swap and each lease call takes the next fault of the script; after the last fault, all
/// calls pass. Reads always pass.
///
/// # Examples
///
/// ```
/// use authferry_conformance::{Fault, Faulty, MemoryStore};
///
/// let store = MemoryStore::new("example");
/// let faulty = Faulty::new(Box::new(store), [Fault::Lost, Fault::ReplyLost]);
/// assert_eq!(faulty.to_string(), "memory:example");
/// ```
pub struct Faulty {
    inner: Box<dyn SecretStore>,
    script: Mutex<Box<dyn Iterator<Item = Fault> + Send>>,
}

impl Faulty {
    /// Wraps `inner` with the faults of `script`.
    #[must_use]
    pub fn new(
        inner: Box<dyn SecretStore>,
        script: impl IntoIterator<Item = Fault, IntoIter: Send + 'static>,
    ) -> Self {
        Self {
            inner,
            script: Mutex::new(Box::new(script.into_iter())),
        }
    }

    fn next_fault(&self) -> Fault {
        self.script
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .next()
            .unwrap_or(Fault::Pass)
    }

    fn injected(&self, kind: ErrorKind) -> StoreError {
        StoreError {
            kind,
            operation: "write",
            store: self.to_string(),
            source: Some("injected fault".into()),
        }
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faulty({:?})", self.inner)
    }
}

#[async_trait]
impl SecretStore for Faulty {
    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }

    fn notes(&self) -> Vec<String> {
        self.inner.notes()
    }

    async fn read(&self) -> Result<Option<Stored>, StoreError> {
        self.inner.read().await
    }

    async fn compare_and_swap(
        &self,
        expected: Option<&Version>,
        new: &Secret,
        stamp: &Stamp,
    ) -> Result<Version, CasError> {
        let ambiguous = || CasError::Ambiguous(self.injected(ErrorKind::Unavailable));
        match self.next_fault() {
            Fault::Pass => {}
            Fault::Delay(time) => tokio::time::sleep(time).await,
            Fault::Refused(kind) => return Err(CasError::Refused(self.injected(kind))),
            Fault::Lost => return Err(ambiguous()),
            Fault::ReplyLost => {
                // The caller never sees this result.
                drop(self.inner.compare_and_swap(expected, new, stamp).await);
                return Err(ambiguous());
            }
        }
        self.inner.compare_and_swap(expected, new, stamp).await
    }

    async fn keeps_history(&self) -> bool {
        self.inner.keeps_history().await
    }

    fn leases(&self) -> Option<&dyn Leases> {
        self.inner.leases().map(|_| self as &dyn Leases)
    }
}

/// Each call passes or fails as a whole, even if it consists of several requests.
#[async_trait]
impl Leases for Faulty {
    async fn acquire(&self, request: &LeaseRequest) -> Result<Lease, LeaseError> {
        self.call(self.inner_leases()?.acquire(request)).await
    }

    async fn renew(&self, lease: &Lease, until: u64) -> Result<Lease, LeaseError> {
        self.call(self.inner_leases()?.renew(lease, until)).await
    }

    async fn release(&self, lease: &Lease) -> Result<(), LeaseError> {
        self.call(self.inner_leases()?.release(lease)).await
    }

    async fn look(&self) -> Result<Option<LeaseStatus>, LeaseError> {
        self.call(self.inner_leases()?.look()).await
    }
}

impl Faulty {
    fn inner_leases(&self) -> Result<&dyn Leases, LeaseError> {
        let none = || LeaseError::Store(self.injected(ErrorKind::NotFound));
        self.inner.leases().ok_or_else(none)
    }

    async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, LeaseError>> + Send,
    ) -> Result<T, LeaseError> {
        let unknown_outcome = |kind| LeaseError::Store(self.injected(kind));
        match self.next_fault() {
            Fault::Pass => {}
            Fault::Delay(time) => tokio::time::sleep(time).await,
            Fault::Refused(kind) => return Err(unknown_outcome(kind)),
            Fault::Lost => return Err(unknown_outcome(ErrorKind::Unavailable)),
            Fault::ReplyLost => {
                drop(call.await);
                return Err(unknown_outcome(ErrorKind::Unavailable));
            }
        }
        call.await
    }
}

#[cfg(test)]
mod tests {
    use authferry_core::{Origin, WriteId};

    use super::*;
    use crate::MemoryStore;

    #[tokio::test]
    async fn each_swap_takes_the_next_fault_and_only_reply_lost_lands() {
        let store = MemoryStore::new("faulty");
        let faulty = Faulty::new(
            Box::new(store.clone()),
            [
                Fault::Refused(ErrorKind::Throttled),
                Fault::Lost,
                Fault::ReplyLost,
                Fault::Pass,
            ],
        );
        let login = Secret::new(b"made-up".to_vec());
        let stamp = Stamp {
            id: WriteId {
                nonce: 1,
                number: 1,
            },
            count: 1,
            origin: Origin::Seed,
            family: authferry_core::Family(authferry_core::Fingerprint::new([5; 8])),
            volatile_hints: false,
            writer: "a test".into(),
        };
        let swap = || faulty.compare_and_swap(None, &login, &stamp);

        let refused = swap().await;
        assert!(
            matches!(&refused, Err(CasError::Refused(e)) if e.kind == ErrorKind::Throttled),
            "{refused:?}"
        );
        assert!(matches!(swap().await, Err(CasError::Ambiguous(_))));
        assert!(faulty.read().await.expect("reads pass").is_none());
        assert!(matches!(swap().await, Err(CasError::Ambiguous(_))));
        let landed = faulty.read().await.expect("reads pass").expect("it landed");
        assert_eq!(swap().await.expect("one write"), landed.version);
        assert_eq!(store.history().len(), 1);
    }
    #[tokio::test]
    async fn each_lease_call_takes_the_next_fault_and_only_reply_lost_lands() {
        let store = MemoryStore::new("faulty");
        let script = [
            Fault::Refused(ErrorKind::Throttled),
            Fault::Lost,
            Fault::ReplyLost,
        ];
        let faulty = Faulty::new(Box::new(store.clone()), script);
        let request = |holder: u64| LeaseRequest {
            owner: holder.to_string(),
            holder,
            now: 1,
            until: 2,
            expired: None,
        };
        let theirs = store.leases().expect("leases");
        for fault in script {
            let answer = faulty.acquire(&request(1)).await;
            assert!(matches!(answer, Err(LeaseError::Store(_))), "{answer:?}");
            let landed = match theirs.acquire(&request(2)).await {
                Ok(lease) => {
                    theirs.release(&lease).await.expect("its own lease");
                    false
                }
                Err(LeaseError::Held { owner, .. }) => owner == "1",
                Err(error @ (LeaseError::Lost | LeaseError::Store(_))) => panic!("{error}"),
            };
            assert_eq!(landed, fault == Fault::ReplyLost, "{fault:?}");
        }
        faulty.acquire(&request(1)).await.expect("its own lease");
    }

    #[test]
    fn notes_of_the_inner_store_pass_through() {
        let store = MemoryStore::new("noted");
        let notes = store.notes();
        assert!(!notes.is_empty());
        assert_eq!(Faulty::new(Box::new(store), []).notes(), notes);
    }
}
