//! Breaks the wire between a caller and a store.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use authferry_core::{
    Bid, CasError, Claim, ClaimError, Claims, ErrorKind, Guarantees, Secret, SecretStore, Stamp,
    Standing, StoreError, Stored, Version,
};

/// What happens to one swap, or to one call about a claim.
///
/// Of a swap the caller is told [`CasError::Refused`] or [`CasError::Ambiguous`]; of a
/// claim [`ClaimError::Store`], which leaves open what has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: the swap and its answer pass.
    Pass,
    /// The swap passes, this much later.
    Delay(Duration),
    /// The swap never reaches the store, and the caller is told so.
    Refused(ErrorKind),
    /// The swap never reaches the store, and the caller cannot know.
    Lost,
    /// The store does the swap and answers; the answer is lost.
    ReplyLost,
}

/// A store behind a wire that fails by a script.
///
/// Each swap and each call about a claim takes the next fault; after the last one all
/// pass. Reads always do.
pub struct Faulty {
    inner: Box<dyn SecretStore>,
    script: Mutex<Box<dyn Iterator<Item = Fault> + Send>>,
}

impl Faulty {
    /// Puts `script` between the caller and `inner`.
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
                // Whatever the answer was, nobody gets to see it.
                drop(self.inner.compare_and_swap(expected, new, stamp).await);
                return Err(ambiguous());
            }
        }
        self.inner.compare_and_swap(expected, new, stamp).await
    }

    async fn keeps_history(&self) -> bool {
        self.inner.keeps_history().await
    }

    fn claims(&self) -> Option<&dyn Claims> {
        self.inner.claims().map(|_| self as &dyn Claims)
    }
}

/// Each call passes or fails as a whole, whatever requests it is made of.
#[async_trait]
impl Claims for Faulty {
    async fn acquire(&self, bid: &Bid) -> Result<Claim, ClaimError> {
        self.ask(self.behind()?.acquire(bid)).await
    }

    async fn renew(&self, claim: &Claim, until: u64) -> Result<Claim, ClaimError> {
        self.ask(self.behind()?.renew(claim, until)).await
    }

    async fn release(&self, claim: &Claim) -> Result<(), ClaimError> {
        self.ask(self.behind()?.release(claim)).await
    }

    async fn look(&self) -> Result<Option<Standing>, ClaimError> {
        self.ask(self.behind()?.look()).await
    }
}

impl Faulty {
    fn behind(&self) -> Result<&dyn Claims, ClaimError> {
        let none = || ClaimError::Store(self.injected(ErrorKind::NotFound));
        self.inner.claims().ok_or_else(none)
    }

    async fn ask<T>(
        &self,
        call: impl Future<Output = Result<T, ClaimError>> + Send,
    ) -> Result<T, ClaimError> {
        let unclear = |kind| ClaimError::Store(self.injected(kind));
        match self.next_fault() {
            Fault::Pass => {}
            Fault::Delay(time) => tokio::time::sleep(time).await,
            Fault::Refused(kind) => return Err(unclear(kind)),
            Fault::Lost => return Err(unclear(ErrorKind::Unavailable)),
            Fault::ReplyLost => {
                drop(call.await);
                return Err(unclear(ErrorKind::Unavailable));
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
            id: WriteId { trip: 1, number: 1 },
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
    async fn each_call_about_a_claim_takes_the_next_fault_and_only_reply_lost_is_done() {
        let store = MemoryStore::new("faulty");
        let script = [
            Fault::Refused(ErrorKind::Throttled),
            Fault::Lost,
            Fault::ReplyLost,
        ];
        let faulty = Faulty::new(Box::new(store.clone()), script);
        let bid = |holder: u64| Bid {
            owner: holder.to_string(),
            holder,
            now: 1,
            until: 2,
            expired: None,
        };
        let theirs = store.claims().expect("claims");
        for fault in script {
            let answer = faulty.acquire(&bid(1)).await;
            assert!(matches!(answer, Err(ClaimError::Store(_))), "{answer:?}");
            let landed = match theirs.acquire(&bid(2)).await {
                Ok(claim) => {
                    theirs.release(&claim).await.expect("its own claim");
                    false
                }
                Err(ClaimError::Held { owner, .. }) => owner == "1",
                Err(error @ (ClaimError::Lost | ClaimError::Store(_))) => panic!("{error}"),
            };
            assert_eq!(landed, fault == Fault::ReplyLost, "{fault:?}");
        }
        faulty.acquire(&bid(1)).await.expect("its own claim");
    }

    #[test]
    fn the_wire_tells_what_the_store_behind_it_tells() {
        let store = MemoryStore::new("told");
        let notes = store.notes();
        assert!(!notes.is_empty());
        assert_eq!(Faulty::new(Box::new(store), []).notes(), notes);
    }
}
