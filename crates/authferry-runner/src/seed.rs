//! Puts a login into a store that has none, or over one that is dead.

use std::{cmp::Ordering, io, path::Path, time::Duration};

use authferry_codex::Unusable;
use authferry_core::{
    CasError, Fingerprint, Generation, Origin, Secret, SecretStore, Stamp, StoreError, Stored,
    Version, WriteId,
};
use tokio::time::{Instant, sleep};

use crate::{random, rescue};

/// What a seed did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seeded {
    /// The login that is now in the store.
    pub generation: Generation,
    /// Its version.
    pub version: Version,
    /// Whether it was there before.
    pub unchanged: bool,
    /// The login that it replaced, and the file that keeps it if the store does not.
    pub replaced: Option<Fingerprint>,
    /// The file that keeps what was replaced, if the store does not.
    pub rescued: Option<std::path::PathBuf>,
}

/// Why a login was not put into the store, which is as it was before.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// What was to be seeded is not a login.
    #[error("the login to be seeded is unusable: {0}")]
    Unusable(Unusable),
    /// The store holds something, and it was not asked to be replaced.
    #[error("the store is not empty")]
    Filled,
    /// The store holds a login of the same account that was issued later.
    #[error("the store holds login {0}, which was issued later")]
    Older(Fingerprint),
    /// Somebody else wrote to the store meanwhile.
    #[error("the store was written to by somebody else at the same moment")]
    Moved,
    /// What would be replaced could not be kept first.
    #[error("what would be replaced cannot be kept first")]
    NotKept(#[source] io::Error),
    /// The system gives no random bytes.
    #[error("cannot get random bytes from the system")]
    System(#[source] io::Error),
    /// The store did not do as asked. The only failure after which the login may be there
    /// all the same, if the store broke off in the middle.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Puts `secret` into the store if that is empty, or also over something else if `replace`.
///
/// Never over a later-issued login of the same account. What is replaced is kept in
/// `rescue_dir` first where the store has no history.
pub async fn seed(
    store: &dyn SecretStore,
    secret: &Secret,
    replace: bool,
    writer: &str,
    rescue_dir: &Path,
    patience: Duration,
) -> Result<Seeded, SeedError> {
    let generation = authferry_codex::parse(secret).map_err(SeedError::Unusable)?;
    let stamp = Stamp {
        id: WriteId {
            trip: random().map_err(SeedError::System)?,
            number: 1,
        },
        count: 1,
        origin: Origin::Seed,
        writer: writer.to_owned(),
    };
    let deadline = Instant::now() + patience;
    let mut attempt = 0;
    let mut expected: Option<Option<Version>> = None;
    let mut seeded = Seeded {
        generation,
        version: Version::new(""),
        unchanged: false,
        replaced: None,
        rescued: None,
    };
    loop {
        let error = match store.read().await {
            Ok(held) => {
                let fingerprint = seeded.generation.fingerprint;
                if let Some(held) = &held
                    && is_there(held, &stamp, fingerprint)
                {
                    seeded.unchanged = held.stamp.as_ref().is_none_or(|s| s.id != stamp.id);
                    seeded.version = held.version.clone();
                    return Ok(seeded);
                }
                let version = held.as_ref().map(|held| held.version.clone());
                if *expected.get_or_insert_with(|| version.clone()) != version {
                    return Err(SeedError::Moved);
                }
                if let Some(held) = &held {
                    may_replace(held, &seeded.generation, replace)?;
                    keep(store, held, rescue_dir, &mut seeded)?;
                }
                match store
                    .compare_and_swap(version.as_ref(), secret, &stamp)
                    .await
                {
                    Ok(version) => return Ok(Seeded { version, ..seeded }),
                    Err(CasError::Conflict) => None,
                    Err(CasError::Ambiguous(error)) => Some(error),
                    Err(CasError::Refused(error)) if error.kind.is_transient() => Some(error),
                    Err(CasError::Refused(error)) => return Err(error.into()),
                }
            }
            Err(error) if error.kind.is_transient() => Some(error),
            Err(error) => return Err(error.into()),
        };
        attempt += 1;
        if let Some(error) = error
            && Instant::now() >= deadline
        {
            return Err(error.into());
        }
        sleep(authferry_core::pause(attempt, stamp.id.trip)).await;
    }
}

fn is_there(held: &Stored, stamp: &Stamp, fingerprint: Fingerprint) -> bool {
    held.stamp.as_ref().is_some_and(|s| s.id == stamp.id)
        || authferry_codex::parse(&held.secret)
            .is_ok_and(|theirs| theirs.fingerprint == fingerprint)
}

fn may_replace(held: &Stored, ours: &Generation, replace: bool) -> Result<(), SeedError> {
    if !replace {
        return Err(SeedError::Filled);
    }
    match authferry_codex::parse(&held.secret) {
        Ok(theirs)
            if theirs.account == ours.account
                && ours.issued.compare(&theirs.issued) == Some(Ordering::Less) =>
        {
            Err(SeedError::Older(theirs.fingerprint))
        }
        _ => Ok(()),
    }
}

fn keep(
    store: &dyn SecretStore,
    held: &Stored,
    directory: &Path,
    seeded: &mut Seeded,
) -> Result<(), SeedError> {
    let theirs = authferry_codex::parse(&held.secret).ok();
    seeded.replaced = theirs.map(|theirs| theirs.fingerprint);
    if !store.guarantees().history && seeded.rescued.is_none() {
        let name = rescue::name(seeded.replaced);
        seeded.rescued =
            Some(rescue::keep(directory, &name, &held.secret).map_err(SeedError::NotKept)?);
    }
    Ok(())
}
