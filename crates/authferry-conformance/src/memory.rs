//! The reference store: the contract in its shortest form.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use authferry_core::{
    Beside, CasError, Claims, ErrorKind, Guarantees, Reads, Secret, SecretStore, Stamp, StoreError,
    Stored, Swap, Version,
};

/// A store in memory, for tests. A clone is another handle on the same place.
///
/// It keeps every generation, so it always knows whether a write has landed: the same
/// write again gets the version that the first one got, also when another writer has
/// replaced it since. `Conflict` would say "not written", and that would be false.
///
/// Its claims are in a second place like the first one, which has none of its own.
#[derive(Clone)]
pub struct MemoryStore {
    name: Arc<str>,
    held: Arc<Mutex<Held>>,
    claims: Option<Arc<Beside<Self>>>,
}

impl MemoryStore {
    /// The largest value that fits, in bytes.
    pub const MAX_LEN: usize = 64 * 1024;

    /// Returns a handle on a new, empty place. The name shows in its address alone.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            claims: Some(Arc::new(Beside(Self::without_claims(&format!(
                "{name}.claim"
            ))))),
            ..Self::without_claims(name)
        }
    }

    fn without_claims(name: &str) -> Self {
        Self {
            name: name.into(),
            held: Arc::default(),
            claims: None,
        }
    }

    /// Puts `login` there without metadata, as a person would.
    pub fn put_by_hand(&self, login: &[u8]) {
        self.lock().push(Secret::new(login.to_vec()), None);
    }

    /// Puts `text` where the record of the claim is, without a stamp.
    pub fn put_claim_by_hand(&self, text: &[u8]) {
        if let Some(claims) = &self.claims {
            claims.0.put_by_hand(text);
        }
    }

    /// Empties the place and forgets its history, as a person would. Its versions
    /// stay used up.
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
        vec!["what it holds ends with this process".to_owned()]
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

    fn claims(&self) -> Option<&dyn Claims> {
        let claims = self.claims.as_deref()?;
        Some(claims)
    }
}

#[derive(Default)]
struct Held {
    /// The last one is what the place holds.
    history: Vec<Stored>,
    /// How many versions were given out, also before the place was emptied.
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

    /// Returns the version that this very write got when it landed.
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
