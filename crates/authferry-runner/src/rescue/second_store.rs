//! The second store: one document that lists all copies.
//!
//! A store holds one value, and not every store has a history. So a rescue never overwrites a copy:
//! it reads the document, adds its copy, and swaps. The document keeps the copies of two jobs even
//! if both write concurrently.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use authferry_core::{
    CasError, Family, Origin, Secret, SecretStore, Stamp, StoreError, Stored, Version, WriteId,
};
use tokio::time::{Instant, sleep, timeout_at};

use super::document::{self, KeptCopy};
use super::{Location, NotALogin, Record, Rescued, copy_name};
use crate::{deadline, random};

/// Why the second store failed.
#[derive(Debug, thiserror::Error)]
pub enum SecondStoreError {
    /// The store failed.
    #[error("{}", with_causes(.0))]
    Store(StoreError),
    /// The store did not answer in time.
    #[error("{0} did not answer in time")]
    TimedOut(String),
    /// The store holds other content, which must not be overwritten.
    #[error("{0} holds something other than rescued logins")]
    Foreign(String),
    /// The copies do not fit into one value.
    #[error("{0} has no room for one more login")]
    NoRoom(String),
    /// The system failed.
    #[error("the copy cannot be prepared: {0}")]
    System(#[from] std::io::Error),
}

fn with_causes(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut next_cause = std::error::Error::source(error);
    while let Some(cause) = next_cause {
        text = format!("{text}: {cause}");
        next_cause = cause.source();
    }
    text
}

#[derive(Debug)]
pub(super) struct SecondStore {
    store: Arc<dyn SecretStore>,
    /// The copies as of the last read or write.
    known: Mutex<Vec<KeptCopy>>,
}

impl SecondStore {
    pub(super) fn new(store: Arc<dyn SecretStore>) -> Self {
        Self {
            store,
            known: Mutex::new(Vec::new()),
        }
    }

    /// Reads the document.
    pub(super) async fn load(&self, limit: Duration) -> Result<(), SecondStoreError> {
        let (copies, _) = self.read(deadline::after(limit)).await?;
        *self.known() = copies;
        Ok(())
    }

    /// Returns the known copies, newest first.
    pub(super) fn list(&self) -> Vec<Rescued> {
        let mut found: Vec<Rescued> = self
            .known()
            .iter()
            .rev()
            .map(|copy| Rescued {
                location: self.location(&copy.secret),
                login: authferry_codex::parse(&copy.secret).map_err(NotALogin::from),
                secret: copy.secret.duplicate(),
                record: Some(copy.record.clone()),
                files: [None; 2],
            })
            .collect();
        let time = |rescued: &Rescued| rescued.record.as_ref().map_or(0, |record| record.time);
        found.sort_by_key(|rescued| std::cmp::Reverse(time(rescued)));
        found
    }

    /// Adds a copy to the document, and keeps every other copy.
    pub(super) async fn add(
        &self,
        secret: &Secret,
        record: &Record,
        limit: Duration,
    ) -> Result<Location, SecondStoreError> {
        let added = KeptCopy {
            secret: secret.duplicate(),
            record: record.clone(),
        };
        let change = |copies: &mut Vec<KeptCopy>| {
            let known = copies.iter().position(|copy| is_same_login(copy, &added));
            let known = known.map(|index| copies.remove(index));
            let mut added = added.duplicate();
            if let Some(known) = &known {
                added.record = added.record.with_family_of(&known.record);
            }
            let is_new = known.is_none_or(|known| !is_same_copy(&known, &added));
            copies.push(added);
            is_new
        };
        self.write(change, limit).await?;
        Ok(self.location(secret))
    }

    /// Removes the copy with this name from the document, if its record names `store`.
    pub(super) async fn remove(
        &self,
        name: &str,
        store: &str,
        limit: Duration,
    ) -> Result<(), SecondStoreError> {
        let change = |copies: &mut Vec<KeptCopy>| {
            let before = copies.len();
            copies.retain(|copy| copy.record.store != store || copy_name(&copy.secret) != name);
            copies.len() != before
        };
        self.write(change, limit).await
    }

    /// Changes the document by a swap, with retries until the timeout. `change` returns whether it
    /// changed anything; it runs again after each conflict and each lost answer.
    async fn write(
        &self,
        change: impl Fn(&mut Vec<KeptCopy>) -> bool,
        limit: Duration,
    ) -> Result<(), SecondStoreError> {
        let deadline = deadline::after(limit);
        let nonce = random()?;
        for number in 1.. {
            let error = match self.try_to_write(&change, deadline, nonce, number).await {
                Ok(()) => return Ok(()),
                Err(AttemptError::Permanent(error)) => return Err(error),
                Err(AttemptError::Retryable(error)) => error,
            };
            let pause = authferry_core::pause(number, nonce);
            if deadline::after(pause) >= deadline {
                return Err(error.map_or_else(|| self.timed_out(), SecondStoreError::Store));
            }
            sleep(pause).await;
        }
        Err(self.timed_out())
    }

    async fn try_to_write(
        &self,
        change: &impl Fn(&mut Vec<KeptCopy>) -> bool,
        deadline: Instant,
        nonce: u64,
        number: u32,
    ) -> Result<(), AttemptError> {
        let (mut copies, stored) = self.read(deadline).await?;
        if !change(&mut copies) {
            *self.known() = copies;
            return Ok(());
        }
        let text = self.fit_document(&mut copies)?;
        let id = WriteId {
            nonce,
            number: number.into(),
        };
        let stamp = stamp(id, &text, stored.as_ref());
        let expected: Option<&Version> = stored.as_ref().map(|stored| &stored.version);
        let swap = self.store.compare_and_swap(expected, &text, &stamp);
        // A swap that timed out may have landed: then the copy is in the second store and in the
        // rescue folder.
        let swapped = timeout_at(deadline, swap).await;
        match swapped.map_err(|_| self.timed_out())? {
            Ok(_) => {
                *self.known() = copies;
                Ok(())
            }
            Err(CasError::Conflict) => Err(AttemptError::Retryable(None)),
            Err(CasError::Ambiguous(error)) => Err(AttemptError::Retryable(Some(error))),
            Err(CasError::Refused(error)) => Err(SecondStoreError::Store(error).into()),
        }
    }

    async fn read(
        &self,
        deadline: Instant,
    ) -> Result<(Vec<KeptCopy>, Option<Stored>), SecondStoreError> {
        let read = timeout_at(deadline, self.store.read()).await;
        let stored = read
            .map_err(|_| self.timed_out())?
            .map_err(SecondStoreError::Store)?;
        let Some(stored) = stored else {
            return Ok((Vec::new(), None));
        };
        let copies = document::parse(&stored.secret)
            .map_err(|_| SecondStoreError::Foreign(self.store.to_string()))?;
        Ok((copies, Some(stored)))
    }

    /// Returns the text of a document that fits into the store. If not all copies fit, drops known
    /// ancestors of the last one: their refresh tokens are spent.
    fn fit_document(&self, copies: &mut Vec<KeptCopy>) -> Result<Secret, SecondStoreError> {
        let max_len = self.store.guarantees().max_len;
        let text = document::text(copies)?;
        if text.expose().len() <= max_len {
            return Ok(text);
        }
        let spent = copies.last().map_or_else(Vec::new, ancestors);
        copies.retain(|copy| {
            let login = authferry_codex::parse(&copy.secret);
            !login
                .is_ok_and(|login| spent.contains(&(copy.record.store.clone(), login.fingerprint)))
        });
        let text = document::text(copies)?;
        if text.expose().len() <= max_len {
            return Ok(text);
        }
        Err(SecondStoreError::NoRoom(self.store.to_string()))
    }

    fn location(&self, secret: &Secret) -> Location {
        Location::SecondStore {
            address: self.store.to_string(),
            name: copy_name(secret),
        }
    }

    fn timed_out(&self) -> SecondStoreError {
        SecondStoreError::TimedOut(self.store.to_string())
    }

    fn known(&self) -> MutexGuard<'_, Vec<KeptCopy>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How an attempt to write failed.
enum AttemptError {
    /// A retry may succeed.
    Retryable(Option<StoreError>),
    Permanent(SecondStoreError),
}

impl From<SecondStoreError> for AttemptError {
    fn from(error: SecondStoreError) -> Self {
        match error {
            SecondStoreError::Store(error) if error.kind.is_transient() => {
                Self::Retryable(Some(error))
            }
            SecondStoreError::Store(_)
            | SecondStoreError::TimedOut(_)
            | SecondStoreError::Foreign(_)
            | SecondStoreError::NoRoom(_)
            | SecondStoreError::System(_) => Self::Permanent(error),
        }
    }
}

fn is_same_login(copy: &KeptCopy, added: &KeptCopy) -> bool {
    copy.record.store == added.record.store && copy_name(&copy.secret) == copy_name(&added.secret)
}

/// Whether two copies are equal, including what their records say about the base.
fn is_same_copy(copy: &KeptCopy, added: &KeptCopy) -> bool {
    is_same_login(copy, added)
        && copy.record.base == added.record.base
        && copy.record.seen == added.record.seen
}

/// Returns the known ancestors of a copy, each with its store's address.
fn ancestors(copy: &KeptCopy) -> Vec<(String, authferry_core::Fingerprint)> {
    let store = &copy.record.store;
    let base = copy.record.base.iter();
    base.flat_map(|base| base.ancestors.iter().copied())
        .map(|ancestor| (store.clone(), ancestor))
        .collect()
}

fn stamp(id: WriteId, text: &Secret, before: Option<&Stored>) -> Stamp {
    let count = before
        .and_then(|it| it.stamp.as_ref())
        .map_or(0, |it| it.count);
    Stamp {
        id,
        count: count.saturating_add(1),
        origin: Origin::Seed,
        // A document belongs to no family, but a stamp has to name one.
        family: Family(authferry_codex::fingerprint_of_bytes(text)),
        volatile_hints: false,
        writer: String::new(),
    }
}

#[cfg(test)]
mod tests;
