//! Places in memory; the test can wrap each handle.

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

/// The guarantees of the reference store.
pub(crate) const REFERENCE_GUARANTEES: Guarantees = Guarantees {
    swap: Swap::Atomic,
    stamps: true,
    reads: Reads::Strong,
    history: true,
    max_len: 64 * 1024,
};

/// A fixture on [`MemoryStore`].
pub(crate) struct Places {
    pub(crate) guarantees: Guarantees,
    pub(crate) leases: bool,
    stores: Mutex<HashMap<String, MemoryStore>>,
    opened: AtomicU64,
    wrap: Wrap,
    /// Writes the lease record into the wrapper's store, if the wrapper has one.
    pub(crate) put_lease: Option<PutLease>,
}

/// The arguments are the address of the place and the text.
pub(crate) type PutLease = Box<dyn Fn(&str, &[u8]) + Send + Sync>;

/// Wraps the handle with the given number.
type Wrap = Box<dyn Fn(Box<dyn SecretStore>, u64) -> Box<dyn SecretStore> + Send + Sync>;

impl Places {
    pub(crate) fn new(
        wrap: impl Fn(Box<dyn SecretStore>, u64) -> Box<dyn SecretStore> + Send + Sync + 'static,
    ) -> Self {
        Self {
            guarantees: REFERENCE_GUARANTEES,
            leases: true,
            stores: Mutex::default(),
            opened: AtomicU64::new(0),
            wrap: Box::new(wrap),
            put_lease: None,
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

    fn leases(&self) -> bool {
        self.leases
    }

    async fn open(&self, place: &str) -> Box<dyn SecretStore> {
        self.wrapped(self.at(place))
    }

    async fn put_by_hand(&self, place: &str, login: &[u8]) {
        self.at(place).put_by_hand(login);
    }

    async fn put_lease_by_hand(&self, place: &str, text: &[u8]) {
        let store = self.at(place);
        match &self.put_lease {
            Some(put) => put(&store.to_string(), text),
            None => store.put_lease_by_hand(text),
        }
    }

    async fn look_by_hand(&self, place: &str) -> Option<Vec<u8>> {
        let stored = self.at(place).history().pop()?;
        Some(stored.secret.expose().to_vec())
    }

    async fn empty(&self, place: &str) {
        self.at(place).empty();
    }

    /// A place in memory has no permissions, so a wrapper refuses every write.
    async fn refusals(&self, login: &[u8]) -> Vec<Refusal> {
        let place = self.at("refusing");
        place.put_by_hand(login);
        let refuse = std::iter::repeat(Fault::Refused(ErrorKind::PermissionDenied));
        vec![Refusal {
            name: "a store that refuses every write",
            place: "refusing".to_owned(),
            store: self.wrapped(Faulty::new(Box::new(place), refuse)),
            on_read: None,
            on_swap: ErrorKind::PermissionDenied,
        }]
    }
}
