//! The reference store: the shortest implementation of the contract.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use authferry_core::{
    CasError, ErrorKind, Guarantees, Leases, Reads, Secret, SecretStore, Stamp, StoreBackedLeases,
    StoreError, Stored, Swap, Version,
};

/// A store in memory, for tests. A clone is another handle on the same place.
///
/// The store keeps every generation, so it always knows whether a write has landed. A repeated
/// write returns the version of the first one, even if another writer has replaced it since.
/// `Conflict` would wrongly mean "not written".
///
/// The leases are in a second memory store, which has no leases.
#[derive(Clone)]
pub struct MemoryStore {
    name: Arc<str>,
    held: Arc<Mutex<Held>>,
    leases: Option<Arc<StoreBackedLeases<Self>>>,
}

impl MemoryStore {
    /// The largest value that fits, in bytes.
    pub const MAX_LEN: usize = 64 * 1024;

    /// Returns a handle on a new, empty place. The name appears only in its address.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            leases: Some(Arc::new(StoreBackedLeases(Self::without_leases(&format!(
                "{name}.lease"
            ))))),
            ..Self::without_leases(name)
        }
    }

    fn without_leases(name: &str) -> Self {
        Self {
            name: name.into(),
            held: Arc::default(),
            leases: None,
        }
    }

    /// Writes `login` without metadata, as a person does.
    pub fn put_by_hand(&self, login: &[u8]) {
        self.lock().push(Secret::new(login.to_vec()), None);
    }

    /// Writes `text` as the lease record, without a stamp.
    pub fn put_lease_by_hand(&self, text: &[u8]) {
        if let Some(leases) = &self.leases {
            leases.0.put_by_hand(text);
        }
    }

    /// Deletes the value and its history, as a person does. Version numbers are not reused.
    pub fn empty(&self) {
        self.lock().history.clear();
    }

    /// Returns every generation since the place was last emptied, oldest first.
    #[must_use]
    pub fn history(&self) -> Vec<Stored> {
        self.lock().history.iter().map(duplicate).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "memory:{}", self.name)
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryStore({self})")
    }
}

#[async_trait]
impl SecretStore for MemoryStore {
    fn guarantees(&self) -> Guarantees {
        Guarantees {
            swap: Swap::Atomic,
            stamps: true,
            reads: Reads::Strong,
            history: true,
            max_len: Self::MAX_LEN,
        }
    }

    fn notes(&self) -> Vec<String> {
        vec!["the login is lost when this process ends".to_owned()]
    }

    async fn read(&self) -> Result<Option<Stored>, StoreError> {
        Ok(self.lock().history.last().map(duplicate))
    }

    async fn compare_and_swap(
        &self,
        expected: Option<&Version>,
        new: &Secret,
        stamp: &Stamp,
    ) -> Result<Version, CasError> {
        if new.expose().len() > Self::MAX_LEN {
            return Err(CasError::Refused(StoreError {
                kind: ErrorKind::TooLarge,
                operation: "write",
                store: self.to_string(),
                source: None,
            }));
        }
        let mut held = self.lock();
        if let Some(landed) = held.landed(new, stamp) {
            return Ok(landed.clone());
        }
        if held.history.last().map(|stored| &stored.version) != expected {
            return Err(CasError::Conflict);
        }
        Ok(held.push(new.duplicate(), Some(stamp.clone())))
    }

    fn leases(&self) -> Option<&dyn Leases> {
        let leases = self.leases.as_deref()?;
        Some(leases)
    }
}

#[derive(Default)]
struct Held {
    /// The last entry is the current value.
    history: Vec<Stored>,
    /// The number of versions so far, including those before the last `empty`.
    versions: u64,
}

impl Held {
    fn push(&mut self, secret: Secret, stamp: Option<Stamp>) -> Version {
        self.versions += 1;
        let version = Version::new(&self.versions.to_string());
        self.history.push(Stored {
            secret,
            version: version.clone(),
            stamp,
        });
        version
    }

    /// Returns the version of this write if it has landed.
    fn landed(&self, new: &Secret, stamp: &Stamp) -> Option<&Version> {
        self.history
            .iter()
            .find(|stored| {
                stored.stamp.as_ref().is_some_and(|s| s.id == stamp.id)
                    && stored.secret.expose() == new.expose()
            })
            .map(|stored| &stored.version)
    }
}

fn duplicate(stored: &Stored) -> Stored {
    Stored {
        secret: stored.secret.duplicate(),
        version: stored.version.clone(),
        stamp: stored.stamp.clone(),
    }
}
