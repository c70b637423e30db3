//! Puts a login into a store that has none, or over one that is dead.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use authferry_codex::Unusable;
use authferry_core::order::{self, Order};
use authferry_core::{
    Base, CasError, Family, Fingerprint, Generation, Origin, Secret, SecretStore, Stamp,
    StoreError, Stored, Version, WriteId,
};
use tokio::time::{Instant, sleep, timeout_at};

use crate::random;
use crate::rescue::{self, Reason, Record};

/// What a seed did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seeded {
    /// The login that is now in the store.
    pub generation: Generation,
    /// Its version.
    pub version: Version,
    /// Whether it was there before.
    pub unchanged: bool,
    /// The login that it replaced, if that was one.
    pub replaced: Option<Fingerprint>,
    /// The file that keeps what was replaced, if the store does not.
    pub rescued: Option<PathBuf>,
}

/// A login that was not put into the store, as far as is known.
#[derive(Debug)]
pub struct NotSeeded {
    /// Why.
    pub why: SeedError,
    /// The file that keeps a copy of what the store holds all the same.
    pub rescued: Option<PathBuf>,
    /// Whether a write was sent and never answered: the login may be there after all.
    pub doubtful: bool,
}

/// Why a login was not put into the store.
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
    /// The store did not answer in time.
    #[error("the store did not answer in time")]
    OutOfTime,
    /// The store did not do as asked. The only failure after which the login may be there
    /// all the same, if the store broke off in the middle.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What may be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replace {
    /// Nothing: the store has to be empty.
    Nothing,
    /// Anything but a later-issued login of the same account.
    NotNewer,
    /// Anything.
    Anything,
}

/// Puts `secret` into the store if that is empty, or over what `replace` allows.
///
/// What is replaced is kept in `rescue_dir` first where the store has no history.
pub async fn seed(
    store: &dyn SecretStore,
    secret: &Secret,
    replace: Replace,
    writer: &str,
    rescue_dir: &Path,
    patience: Duration,
) -> Result<Seeded, NotSeeded> {
    let mut seeding = Seeding {
        store,
        secret,
        replace,
        rescue_dir,
        writer,
        replaced: None,
        rescued: None,
        doubtful: false,
    };
    let seeded = seeding.run(writer, Instant::now() + patience).await;
    let Seeding {
        replaced,
        rescued,
        doubtful,
        ..
    } = seeding;
    match seeded {
        Ok((generation, version, unchanged)) => Ok(Seeded {
            generation,
            version,
            unchanged,
            replaced,
            rescued,
        }),
        Err(why) => Err(NotSeeded {
            why,
            rescued,
            doubtful,
        }),
    }
}

struct Seeding<'a> {
    store: &'a dyn SecretStore,
    secret: &'a Secret,
    replace: Replace,
    rescue_dir: &'a Path,
    writer: &'a str,
    replaced: Option<Fingerprint>,
    rescued: Option<PathBuf>,
    doubtful: bool,
}

impl Seeding<'_> {
    /// Returns the login, its version, and whether it was there before.
    async fn run(
        &mut self,
        writer: &str,
        deadline: Instant,
    ) -> Result<(Generation, Version, bool), SeedError> {
        let ours = authferry_codex::parse(self.secret).map_err(SeedError::Unusable)?;
        let stamp = Stamp {
            id: WriteId {
                trip: random().map_err(SeedError::System)?,
                number: 1,
            },
            count: 1,
            origin: Origin::Seed,
            family: Family(ours.fingerprint),
            volatile_hints: false,
            writer: writer.to_owned(),
        };
        let mut expected: Option<Option<Version>> = None;
        for attempt in 1.. {
            let read = timeout_at(deadline, self.store.read()).await;
            let error = match read.map_err(|_| SeedError::OutOfTime)? {
                Ok(held) => {
                    if let Some(held) = &held
                        && is_there(held, &stamp, ours.fingerprint)
                    {
                        let unchanged = held.stamp.as_ref().is_none_or(|s| s.id != stamp.id);
                        return Ok((ours, held.version.clone(), unchanged));
                    }
                    let version = held.as_ref().map(|held| held.version.clone());
                    if *expected.get_or_insert_with(|| version.clone()) != version {
                        return Err(SeedError::Moved);
                    }
                    if let Some(held) = &held {
                        self.make_way(held, &ours)?;
                    }
                    // Never cut short: whether it landed would then be unknown.
                    match self
                        .store
                        .compare_and_swap(version.as_ref(), self.secret, &stamp)
                        .await
                    {
                        Ok(version) => return Ok((ours, version, false)),
                        Err(CasError::Conflict) => None,
                        Err(CasError::Ambiguous(error)) => {
                            self.doubtful = true;
                            Some(error)
                        }
                        Err(CasError::Refused(error)) if error.kind.is_transient() => Some(error),
                        Err(CasError::Refused(error)) => return Err(error.into()),
                    }
                }
                Err(error) if error.kind.is_transient() => Some(error),
                Err(error) => return Err(error.into()),
            };
            if Instant::now() >= deadline {
                return Err(error.map_or(SeedError::OutOfTime, SeedError::Store));
            }
            sleep(authferry_core::pause(attempt, stamp.id.trip)).await;
        }
        Err(SeedError::OutOfTime)
    }

    /// Sees that what is there may be replaced, and is kept if the store does not keep it.
    fn make_way(&mut self, held: &Stored, ours: &Generation) -> Result<(), SeedError> {
        let theirs = authferry_codex::parse(&held.secret).ok();
        let newer = theirs.as_ref().filter(|theirs| {
            !theirs.identity.contradicts(&ours.identity)
                && order::by_times(&ours.issued, &theirs.issued) == Order::Earlier
        });
        match (self.replace, newer) {
            (Replace::Nothing, _) => return Err(SeedError::Filled),
            (Replace::NotNewer, Some(theirs)) => return Err(SeedError::Older(theirs.fingerprint)),
            (Replace::NotNewer, None) | (Replace::Anything, _) => {}
        }
        self.replaced = theirs.map(|theirs| theirs.fingerprint);
        if !self.store.guarantees().history && self.rescued.is_none() {
            let (there, _) = crate::drive::ask::held(held);
            let theirs = there.generation.as_ref();
            let base = theirs.map(|theirs| Base::of_head(&there, theirs, None));
            let store = self.store.to_string();
            let record = Record::new(store, Reason::Replaced, base, self.writer);
            let kept = rescue::keep(self.rescue_dir, &held.secret, &record);
            self.rescued = Some(kept.map_err(SeedError::NotKept)?);
        }
        Ok(())
    }
}

fn is_there(held: &Stored, stamp: &Stamp, fingerprint: Fingerprint) -> bool {
    held.stamp.as_ref().is_some_and(|s| s.id == stamp.id)
        || authferry_codex::parse(&held.secret)
            .is_ok_and(|theirs| theirs.fingerprint == fingerprint)
}
