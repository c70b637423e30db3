//! The second store: one document that lists all copies.
//!
//! A store holds one value, and not every store keeps what is replaced. So a rescue never replaces
//! a copy: it reads the document, adds its copy, and swaps. Two jobs that are rescued one after the
//! other, or at once, are both in the document.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use authferry_core::{
    CasError, Family, Origin, Secret, SecretStore, Stamp, StoreError, Stored, Version, WriteId,
};
use tokio::time::{Instant, sleep, timeout_at};

use super::document::{self, KeptCopy};
use super::{Location, NotALogin, Record, Rescued, name};
use crate::{deadline, random};

/// Why the second store did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum SecondStoreError {
    /// The store failed.
    #[error("{}", with_causes(.0))]
    Store(StoreError),
    /// The store did not answer in time.
    #[error("{0} did not answer in time")]
    OutOfTime(String),
    /// It holds something that is not to be overwritten.
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
    let mut below = std::error::Error::source(error);
    while let Some(cause) = below {
        text = format!("{text}: {cause}");
        below = cause.source();
    }
    text
}

#[derive(Debug)]
pub(super) struct SecondStore {
    store: Arc<dyn SecretStore>,
    /// What it held when it was read or written last.
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
    pub(super) async fn look(&self, limit: Duration) -> Result<(), SecondStoreError> {
        let (copies, _) = self.read(deadline::after(limit)).await?;
        *self.known() = copies;
        Ok(())
    }

    /// Returns the copies that are known, newest first.
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
                seen: [None; 2],
            })
            .collect();
        let time = |rescued: &Rescued| rescued.record.as_ref().map_or(0, |record| record.time);
        found.sort_by_key(|rescued| std::cmp::Reverse(time(rescued)));
        found
    }

    /// Adds a copy to the document. Every other copy stays.
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
            let is_new = known.is_none_or(|known| !is_same(&known, &added));
            copies.push(added);
            is_new
        };
        self.write(change, limit).await?;
        Ok(self.location(secret))
    }

    /// Removes the copy of a store's login from the document.
    pub(super) async fn remove(
        &self,
        name: &str,
        store: &str,
        limit: Duration,
    ) -> Result<(), SecondStoreError> {
        let change = |copies: &mut Vec<KeptCopy>| {
            let before = copies.len();
            copies.retain(|copy| copy.record.store != store || super::name(&copy.secret) != name);
            copies.len() != before
        };
        self.write(change, limit).await
    }

    /// Changes the document by a swap, until it lands or the time is over. `change` tells whether
    /// there was anything to do; it is asked again after each conflict and each lost answer.
    async fn write(
        &self,
        change: impl Fn(&mut Vec<KeptCopy>) -> bool,
        limit: Duration,
    ) -> Result<(), SecondStoreError> {
        let deadline = deadline::after(limit);
        let trip = random()?;
        for number in 1.. {
            let error = match self.try_to_write(&change, deadline, trip, number).await {
                Ok(()) => return Ok(()),
                Err(Attempt::Failed(error)) => return Err(error),
                Err(Attempt::Again(error)) => error,
            };
            let pause = authferry_core::pause(number, trip);
            if deadline::after(pause) >= deadline {
                return Err(error.map_or_else(|| self.out_of_time(), SecondStoreError::Store));
            }
            sleep(pause).await;
        }
        Err(self.out_of_time())
    }

    async fn try_to_write(
        &self,
        change: &impl Fn(&mut Vec<KeptCopy>) -> bool,
        deadline: Instant,
        trip: u64,
        number: u32,
    ) -> Result<(), Attempt> {
        let (mut copies, stored) = self.read(deadline).await?;
        if !change(&mut copies) {
            *self.known() = copies;
            return Ok(());
        }
        let text = self.fitting(&mut copies)?;
        let id = WriteId {
            trip,
            number: number.into(),
        };
        let stamp = stamp(id, &text, stored.as_ref());
        let expected: Option<&Version> = stored.as_ref().map(|stored| &stored.version);
        let swap = self.store.compare_and_swap(expected, &text, &stamp);
        // A swap that is cut off may have landed: the copy is then in two places.
        let swapped = timeout_at(deadline, swap).await;
        match swapped.map_err(|_| self.out_of_time())? {
            Ok(_) => {
                *self.known() = copies;
                Ok(())
            }
            Err(CasError::Conflict) => Err(Attempt::Again(None)),
            Err(CasError::Ambiguous(error)) => Err(Attempt::Again(Some(error))),
            Err(CasError::Refused(error)) => Err(SecondStoreError::Store(error).into()),
        }
    }

    async fn read(
        &self,
        deadline: Instant,
    ) -> Result<(Vec<KeptCopy>, Option<Stored>), SecondStoreError> {
        let read = timeout_at(deadline, self.store.read()).await;
        let stored = read
            .map_err(|_| self.out_of_time())?
            .map_err(SecondStoreError::Store)?;
        let Some(stored) = stored else {
            return Ok((Vec::new(), None));
        };
        let copies = document::parse(&stored.secret)
            .map_err(|_| SecondStoreError::Foreign(self.store.to_string()))?;
        Ok((copies, Some(stored)))
    }

    /// Returns the text of a document that fits into the store. If all copies do not, those go
    /// first that are known ancestors of the last one: their refresh tokens are spent.
    fn fitting(&self, copies: &mut Vec<KeptCopy>) -> Result<Secret, SecondStoreError> {
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
            name: name(secret),
        }
    }

    fn out_of_time(&self) -> SecondStoreError {
        SecondStoreError::OutOfTime(self.store.to_string())
    }

    fn known(&self) -> MutexGuard<'_, Vec<KeptCopy>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How an attempt at a write failed.
enum Attempt {
    /// Nothing is wrong that a little time does not mend.
    Again(Option<StoreError>),
    Failed(SecondStoreError),
}

impl From<SecondStoreError> for Attempt {
    fn from(error: SecondStoreError) -> Self {
        match error {
            SecondStoreError::Store(error) if error.kind.is_transient() => Self::Again(Some(error)),
            SecondStoreError::Store(_)
            | SecondStoreError::OutOfTime(_)
            | SecondStoreError::Foreign(_)
            | SecondStoreError::NoRoom(_)
            | SecondStoreError::System(_) => Self::Failed(error),
        }
    }
}

fn is_same_login(copy: &KeptCopy, added: &KeptCopy) -> bool {
    copy.record.store == added.record.store && name(&copy.secret) == name(&added.secret)
}

/// Whether the document has this very copy, with as much known of its origin.
fn is_same(copy: &KeptCopy, added: &KeptCopy) -> bool {
    is_same_login(copy, added)
        && copy.record.base == added.record.base
        && copy.record.seen == added.record.seen
}

/// The known ancestors of a copy, each with the store that it belongs to.
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
        // A document is no login, and belongs to no family. A stamp has to name one.
        family: Family(authferry_codex::fingerprint_of_bytes(text)),
        volatile_hints: false,
        writer: String::new(),
    }
}

#[cfg(test)]
mod tests;
