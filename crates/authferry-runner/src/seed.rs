//! Seeds a store: puts a login into an empty store, or replaces a dead one.

use std::{io, time::Duration};

use authferry_codex::AuthFileError;
use authferry_core::copies::{self, Content, Copy, Origins, Place, Rules, Verdict};
use authferry_core::order::{self, Order};
use authferry_core::{
    Base, CasError, Family, Fingerprint, Generation, Held, LeaseError, Origin, Secret, SecretStore,
    Stamp, StoreError, Stored, Version, WriteId,
};
use tokio::time::{Instant, sleep, timeout_at};

use crate::drive::{cleanup::keeps_history, store_io};
use crate::lease::new_request;
use crate::refusal_note::Notes;
use crate::rescue::{Location, Reason, Record, Rescue, SECOND_STORE_TIMEOUT};
use crate::{deadline, random};

/// The result of a seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seeded {
    /// The login in the store now.
    pub generation: Generation,
    /// The store's version of it.
    pub version: Version,
    /// Whether the store already held this login.
    pub unchanged: bool,
    /// The login that was replaced, if any.
    pub replaced: Option<Fingerprint>,
    /// Where the replaced content was backed up, if the store has no history.
    pub rescued: Option<Location>,
    /// Why the second store did not accept that copy.
    pub not_in_second_store: Option<String>,
}

/// A seed that failed, as far as is known.
#[derive(Debug)]
pub struct NotSeeded {
    /// The cause.
    pub why: SeedError,
    /// Where a copy of the store's content was kept before the failure.
    pub rescued: Option<Location>,
    /// Whether the answer to a write was lost: the login may be in the store.
    pub may_have_landed: bool,
}

/// Why a login was not put into the store.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// The seed is not a login.
    #[error("the login to be seeded is unusable: {0}")]
    AuthFileError(AuthFileError),
    /// The store is not empty, and the user did not allow its content to be replaced.
    #[error("the store is not empty")]
    NotEmpty,
    /// The store holds a login of the same account that was issued later.
    #[error("the store holds login {0}, which was issued later")]
    Older(Fingerprint),
    /// The login is a known ancestor of what the store holds: its refresh token is spent.
    #[error("the login's refresh token is spent: login {0} in the store descends from it")]
    Spent(Fingerprint),
    /// The store's content could not be backed up.
    #[error("the store's content cannot be backed up before it is replaced")]
    NotKept(#[source] io::Error),
    /// A job holds the lease, which is needed to note that the replaced login is rejected.
    #[error("{owner} holds the lease to rotate the login")]
    LeaseHeld {
        /// The lease owner, human-readable.
        owner: String,
    },
    /// The system failed to return random bytes.
    #[error("cannot get random bytes from the system")]
    System(#[source] io::Error),
    /// The store did not answer in time.
    #[error("the store did not answer in time")]
    TimedOut,
    /// The store failed. [`NotSeeded::may_have_landed`] says whether the login may be in the store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Which content of the store may be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replace {
    /// None: the store has to be empty.
    Nothing,
    /// Any except a login of the same account that was issued later.
    NotNewer,
    /// Any.
    Anything,
}

/// The inputs of a seed.
#[derive(Debug)]
pub struct Seed<'a> {
    /// The store.
    pub store: &'a dyn SecretStore,
    /// The login.
    pub secret: &'a Secret,
    /// The origins from its rescue record: with them, the login stays in its family.
    pub origins: Option<Origins>,
    /// Which content of the store may be replaced.
    pub replace: Replace,
    /// Generations that the provider refused.
    pub refused: Vec<Fingerprint>,
    /// The writer, human-readable.
    pub writer: &'a str,
    /// Keeps the replaced content.
    pub rescue: &'a Rescue,
    /// The timeout for the store.
    pub store_timeout: Duration,
}

/// Puts a login into the store, if the store is empty or its content may be replaced.
///
/// A rescued login that is later than the store's login in the same family needs no permission.
/// Any other login starts a new family. Without a history in the store, the replaced content is
/// backed up first. After a conflict with another writer, reads and judges the store again until
/// the timeout.
pub async fn seed(seed: &Seed<'_>) -> Result<Seeded, NotSeeded> {
    let mut seeding = Seeding {
        seed,
        replaced: None,
        rescued: None,
        not_in_second_store: None,
        may_have_landed: false,
    };
    let seeded = seeding.run(deadline::after(seed.store_timeout)).await;
    let Seeding {
        replaced,
        rescued,
        not_in_second_store,
        may_have_landed,
        ..
    } = seeding;
    match seeded {
        Ok((generation, version, unchanged)) => Ok(Seeded {
            generation,
            version,
            unchanged,
            replaced,
            rescued,
            not_in_second_store,
        }),
        Err(why) => Err(NotSeeded {
            why,
            rescued,
            may_have_landed,
        }),
    }
}

struct Seeding<'a> {
    seed: &'a Seed<'a>,
    replaced: Option<Fingerprint>,
    rescued: Option<Location>,
    not_in_second_store: Option<String>,
    may_have_landed: bool,
}

impl Seeding<'_> {
    /// Returns the login, its version, and whether the store already held it.
    async fn run(&mut self, deadline: Instant) -> Result<(Generation, Version, bool), SeedError> {
        let Seed { store, secret, .. } = self.seed;
        let ours = authferry_codex::parse(secret).map_err(SeedError::AuthFileError)?;
        let nonce = random().map_err(SeedError::System)?;
        // One write id for each version to replace: retries are idempotent.
        let mut expected_versions: Vec<Option<Version>> = Vec::new();
        for attempt in 1.. {
            let read = timeout_at(deadline, store.read()).await;
            let error = match read.map_err(|_| SeedError::TimedOut)? {
                Ok(held) => {
                    if let Some(held) = &held
                        && let Some(unchanged) = self.find_landed(held, nonce, &ours)
                    {
                        return Ok((ours, held.version.clone(), unchanged));
                    }
                    let version = held.as_ref().map(|held| held.version.clone());
                    if expected_versions.last() != Some(&version) {
                        expected_versions.push(version.clone());
                    }
                    let number = u64::try_from(expected_versions.len()).unwrap_or(u64::MAX);
                    let id = WriteId { nonce, number };
                    let stamp = self.back_up_and_stamp(id, held.as_ref(), &ours).await?;
                    self.reject_descendant(held.as_ref(), &ours, deadline)
                        .await?;
                    // No timeout: a cancelled swap may or may not have landed.
                    match store
                        .compare_and_swap(version.as_ref(), secret, &stamp)
                        .await
                    {
                        Ok(version) => return Ok((ours, version, false)),
                        Err(CasError::Conflict) => None,
                        Err(CasError::Ambiguous(error)) => {
                            self.may_have_landed = true;
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
                return Err(error.map_or(SeedError::TimedOut, SeedError::Store));
            }
            sleep(authferry_core::pause(attempt, nonce)).await;
        }
        Err(SeedError::TimedOut)
    }

    /// Returns `Some` if the seed is done: the store holds the login, or a job has rotated the
    /// login since our write landed. The value: whether the store held the login before our write.
    fn find_landed(&self, held: &Stored, nonce: u64, ours: &Generation) -> Option<bool> {
        let stamp = held.stamp.as_ref();
        let by_us = stamp.is_some_and(|stamp| stamp.id.nonce == nonce);
        let rotated_since = self.may_have_landed
            && stamp.is_some_and(|it| it.family == Family(ours.fingerprint) && it.count > 1);
        let is_same = authferry_codex::parse(&held.secret)
            .is_ok_and(|theirs| theirs.fingerprint == ours.fingerprint);
        (by_us || is_same || rotated_since).then_some(!by_us && !rotated_since)
    }

    /// Judges the write, backs up the store's content, and returns the stamp.
    async fn back_up_and_stamp(
        &mut self,
        id: WriteId,
        stored: Option<&Stored>,
        ours: &Generation,
    ) -> Result<Stamp, SeedError> {
        let seed = self.seed;
        let origins = seed.origins.as_ref();
        let stamp = |family: Family, count: u64, volatile_hints: bool| Stamp {
            id,
            count,
            origin: Origin::Seed,
            family,
            volatile_hints,
            writer: seed.writer.to_owned(),
        };
        let Some(stored) = stored else {
            let origins = origins.filter(|origins| !origins.elsewhere);
            return Ok(origins.map_or_else(
                || stamp(Family(ours.fingerprint), 1, false),
                |it| {
                    let count = it.base.count.saturating_add(it.seen);
                    stamp(it.base.family, count, it.base.volatile_hints)
                },
            ));
        };
        let (held, _) = store_io::held(stored);
        let copy = Copy {
            place: Place::Rescue,
            content: Content::Usable(ours.clone()),
            origins: origins.cloned(),
        };
        let rules = Rules {
            refused: Vec::new(),
            replace: false,
        };
        let theirs = held.generation.as_ref();
        let is_refused = theirs.is_some_and(|it| seed.refused.contains(&it.fingerprint));
        let mut verdict = copies::judge(Some(&held), &copy, &rules);
        if verdict == Verdict::Elsewhere {
            // The copy's record names another store, but this family: the user's command makes the
            // copy a login of this store.
            verdict = copies::judge(Some(&held), &copy.here(), &rules);
        }
        if verdict == Verdict::Later {
            self.back_up(stored, &held).await?;
            let family = origins.map_or(Family(ours.fingerprint), |it| it.base.family);
            return Ok(stamp(
                family,
                held.count.saturating_add(1),
                held.volatile_hints,
            ));
        }
        let is_spent = matches!(verdict, Verdict::Ancestor | Verdict::Earlier);
        match (seed.replace, theirs) {
            (Replace::Nothing | Replace::NotNewer, Some(theirs)) if is_spent && !is_refused => {
                return Err(SeedError::Spent(theirs.fingerprint));
            }
            (Replace::Nothing, _) if !(is_refused && origins.is_some()) => {
                return Err(SeedError::NotEmpty);
            }
            (Replace::NotNewer, Some(theirs))
                if !is_refused && was_issued_earlier(ours, theirs) =>
            {
                return Err(SeedError::Older(theirs.fingerprint));
            }
            (Replace::Nothing | Replace::NotNewer | Replace::Anything, _) => {}
        }
        self.back_up(stored, &held).await?;
        Ok(stamp(Family(ours.fingerprint), 1, held.volatile_hints))
    }

    /// If the store's login descends from ours, notes in the lease that the store's login is
    /// refused. Otherwise every job with a copy of that login would adopt it again, as the later
    /// login of the family.
    async fn reject_descendant(
        &self,
        stored: Option<&Stored>,
        ours: &Generation,
        deadline: Instant,
    ) -> Result<(), SeedError> {
        let held = stored.map(|stored| store_io::held(stored).0);
        let theirs = held.filter(|held| held.family == Some(Family(ours.fingerprint)));
        let theirs = theirs.and_then(|held| held.generation);
        let (Some(theirs), Some(leases)) = (theirs, self.seed.store.leases()) else {
            return Ok(());
        };
        let holder = random().map_err(SeedError::System)?;
        for attempt in 1.. {
            let error = match leases.acquire(&new_request(self.seed.writer, holder)).await {
                Ok(mut lease) => {
                    let mut notes = Notes::parse(lease.note.as_deref());
                    notes.refuse(theirs.fingerprint);
                    lease.note = notes.to_text();
                    match leases.release(&lease).await {
                        Ok(()) => return Ok(()),
                        Err(LeaseError::Store(error)) if !error.kind.is_transient() => {
                            return Err(error.into());
                        }
                        Err(LeaseError::Store(_) | LeaseError::Lost | LeaseError::Held { .. }) => {
                            SeedError::TimedOut
                        }
                    }
                }
                Err(LeaseError::Held { owner, .. }) => SeedError::LeaseHeld { owner },
                Err(LeaseError::Lost) => SeedError::TimedOut,
                Err(LeaseError::Store(error)) if error.kind.is_transient() => error.into(),
                Err(LeaseError::Store(error)) => return Err(error.into()),
            };
            if Instant::now() >= deadline {
                return Err(error);
            }
            sleep(authferry_core::pause(attempt, holder)).await;
        }
        Err(SeedError::TimedOut)
    }

    /// Backs up the store's content, unless the store has a history.
    async fn back_up(&mut self, stored: &Stored, held: &Held) -> Result<(), SeedError> {
        let seed = self.seed;
        let theirs = held.generation.as_ref();
        self.replaced = theirs.map(|theirs| theirs.fingerprint);
        if !keeps_history(seed.store, None).await {
            let known = seed.origins.as_ref().map(|origins| &origins.base);
            let base = theirs.map(|theirs| Base::of_head(held, theirs, known));
            let record = Record::new(seed.store.to_string(), Reason::Replaced, base, seed.writer);
            let limit = SECOND_STORE_TIMEOUT.min(seed.store_timeout);
            let kept = seed.rescue.keep(&stored.secret, &record, limit).await;
            self.not_in_second_store = kept.not_in_second_store;
            self.rescued = Some(kept.location.map_err(SeedError::NotKept)?);
        }
        Ok(())
    }
}

/// Whether both logins may belong to the same account and ours was issued earlier.
fn was_issued_earlier(ours: &Generation, theirs: &Generation) -> bool {
    !theirs.identity.contradicts(&ours.identity)
        && order::by_times(&ours.issued, &theirs.issued) == Order::Earlier
}
