//! Places in memory, each handle behind a wrapper of the test's choice.

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use authferry_conformance::{Fault, Faulty, Fixture, MemoryStore, Refusal};
use authferry_core::{ErrorKind, Guarantees, Reads, SecretStore, Swap};

/// What the reference store must declare.
pub(crate) const OF_THE_REFERENCE: Guarantees = Guarantees {
    swap: Swap::Atomic,
    stamps: true,
    reads: Reads::Strong,
    history: true,
    max_len: 64 * 1024,
};

/// A fixture on [`MemoryStore`].
pub(crate) struct Places {
    pub(crate) guarantees: Guarantees,
    pub(crate) claims: bool,
    stores: Mutex<HashMap<String, MemoryStore>>,
    opened: AtomicU64,
    wrap: Wrap,
    /// Puts the record of a claim where a wrapper keeps it instead.
    pub(crate) put_claim: Option<PutClaim>,
}

/// Takes the address of the place and the text.
pub(crate) type PutClaim = Box<dyn Fn(&str, &[u8]) + Send + Sync>;

/// Puts something around the handle with the given number.
type Wrap = Box<dyn Fn(Box<dyn SecretStore>, u64) -> Box<dyn SecretStore> + Send + Sync>;

impl Places {
    pub(crate) fn new(
        wrap: impl Fn(Box<dyn SecretStore>, u64) -> Box<dyn SecretStore> + Send + Sync + 'static,
    ) -> Self {
        Self {
            guarantees: OF_THE_REFERENCE,
            claims: true,
            stores: Mutex::default(),
            opened: AtomicU64::new(0),
            wrap: Box::new(wrap),
            put_claim: None,
        }
    }

    fn at(&self, place: &str) -> MemoryStore {
        self.stores
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(place.to_owned())
            .or_insert_with(|| MemoryStore::new(place))
            .clone()
    }

    fn wrapped(&self, store: impl SecretStore + 'static) -> Box<dyn SecretStore> {
        let number = self.opened.fetch_add(1, Ordering::Relaxed);
        (self.wrap)(Box::new(store), number)
    }
}

#[async_trait]
impl Fixture for Places {
    fn guarantees(&self) -> Guarantees {
        self.guarantees
    }

    fn claims(&self) -> bool {
        self.claims
    }

    async fn open(&self, place: &str) -> Box<dyn SecretStore> {
        self.wrapped(self.at(place))
    }

    async fn put_by_hand(&self, place: &str, login: &[u8]) {
        self.at(place).put_by_hand(login);
    }

    async fn put_claim_by_hand(&self, place: &str, text: &[u8]) {
        let store = self.at(place);
        match &self.put_claim {
            Some(put) => put(&store.to_string(), text),
            None => store.put_claim_by_hand(text),
        }
    }

    async fn look_by_hand(&self, place: &str) -> Option<Vec<u8>> {
        let stored = self.at(place).history().pop()?;
        Some(stored.secret.expose().to_vec())
    }

    async fn empty(&self, place: &str) {
        self.at(place).empty();
    }

    /// Nothing protects a place in memory, so a wire that always says no stands in.
    async fn refusals(&self, login: &[u8]) -> Vec<Refusal> {
        let place = self.at("refusing");
        place.put_by_hand(login);
        let no = std::iter::repeat(Fault::Refused(ErrorKind::PermissionDenied));
        vec![Refusal {
            name: "a store that says no to every write",
            place: "refusing".to_owned(),
            store: self.wrapped(Faulty::new(Box::new(place), no)),
            on_read: None,
            on_swap: ErrorKind::PermissionDenied,
        }]
    }
}
