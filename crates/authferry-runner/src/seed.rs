//! Puts a login into a store that has none, or over one that is dead.

use std::{io, time::Duration};

use authferry_codex::Unusable;
use authferry_core::copies::{self, Content, Copy, Origins, Place, Rules, Verdict};
use authferry_core::order::{self, Order};
use authferry_core::{
    Base, CasError, ClaimError, Family, Fingerprint, Generation, Held, Origin, Secret, SecretStore,
    Stamp, StoreError, Stored, Version, WriteId,
};
use tokio::time::{Instant, sleep, timeout_at};

use crate::drive::{ask, keep::keeps_history};
use crate::lease::bid;
use crate::mark::Notes;
use crate::rescue::{Location, Reason, Record, Rescue, SECOND_STORE_TIMEOUT};
use crate::{deadline, random};

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
    /// Where what was replaced is kept, if the store does not keep it.
    pub rescued: Option<Location>,
    /// Why the second store did not take it.
    pub not_in_second_store: Option<String>,
}

/// A login that was not put into the store, as far as is known.
#[derive(Debug)]
pub struct NotSeeded {
    /// Why.
    pub why: SeedError,
    /// Where a copy of what the store holds is kept all the same.
    pub rescued: Option<Location>,
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
    /// The login is a known ancestor of what the store holds: its refresh token is spent.
    #[error("the login was spent for login {0}, which the store holds")]
    Spent(Fingerprint),
    /// What would be replaced could not be kept first.
    #[error("what would be replaced cannot be kept first")]
    NotKept(#[source] io::Error),
    /// A job holds the lease that is needed to note the replaced login as rejected.
    #[error("{owner} holds the lease to rotate the login")]
    LeaseHeld {
        /// Who, for people.
        owner: String,
    },
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

/// What a person puts into a store.
#[derive(Debug)]
pub struct Seed<'a> {
    /// Where to.
    pub store: &'a dyn SecretStore,
    /// The login.
    pub secret: &'a Secret,
    /// What its record says, if it comes from the rescue folder: then it stays in its family.
    pub origins: Option<Origins>,
    /// What may be replaced.
    pub replace: Replace,
    /// Generations that the provider refused.
    pub refused: Vec<Fingerprint>,
    /// Who puts it there, for people.
    pub writer: &'a str,
    /// Where what is replaced is kept.
    pub rescue: &'a Rescue,
    /// How long the store may take.
    pub patience: Duration,
}

/// Puts a login into the store if that is empty, or over what may be replaced.
///
/// A login from the rescue folder that is later than what the store holds, in one family,
/// needs no permission. Any other one begins a new family. What is replaced is kept
/// first where the store has no history. If another writer is faster, the
/// store is looked at and judged again until the time is over.
pub async fn seed(seed: &Seed<'_>) -> Result<Seeded, NotSeeded> {
    let mut seeding = Seeding {
        seed,
        replaced: None,
        rescued: None,
        not_in_second_store: None,
        doubtful: false,
    };
    let seeded = seeding.run(deadline::after(seed.patience)).await;
    let Seeding {
        replaced,
        rescued,
        not_in_second_store,
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
            not_in_second_store,
        }),
        Err(why) => Err(NotSeeded {
            why,
            rescued,
            doubtful,
        }),
    }
}

struct Seeding<'a> {
    seed: &'a Seed<'a>,
    replaced: Option<Fingerprint>,
    rescued: Option<Location>,
    not_in_second_store: Option<String>,
    doubtful: bool,
}

impl Seeding<'_> {
    /// Returns the login, its version, and whether it was there before.
    async fn run(&mut self, deadline: Instant) -> Result<(Generation, Version, bool), SeedError> {
        let Seed { store, secret, .. } = self.seed;
        let ours = authferry_codex::parse(secret).map_err(SeedError::Unusable)?;
        let trip = random().map_err(SeedError::System)?;
        // One intent for each version that it is to replace.
        let mut intents: Vec<Option<Version>> = Vec::new();
        for attempt in 1.. {
            let read = timeout_at(deadline, store.read()).await;
            let error = match read.map_err(|_| SeedError::OutOfTime)? {
                Ok(held) => {
                    if let Some(held) = &held
                        && let Some(unchanged) = self.is_there(held, trip, &ours)
                    {
                        return Ok((ours, held.version.clone(), unchanged));
                    }
                    let version = held.as_ref().map(|held| held.version.clone());
                    if intents.last() != Some(&version) {
                        intents.push(version.clone());
                    }
                    let number = u64::try_from(intents.len()).unwrap_or(u64::MAX);
                    let id = WriteId { trip, number };
                    let stamp = self.stamp(id, held.as_ref(), &ours).await?;
                    self.reject_descendant(held.as_ref(), &ours, deadline)
                        .await?;
                    // Never cut short: whether it landed would then be unknown.
                    match store
                        .compare_and_swap(version.as_ref(), secret, &stamp)
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
            sleep(authferry_core::pause(attempt, trip)).await;
        }
        Err(SeedError::OutOfTime)
    }

    /// Returns whether the login was there before us, if it is there: also if a job has rotated
    /// it since a write of ours landed.
    fn is_there(&self, held: &Stored, trip: u64, ours: &Generation) -> Option<bool> {
        let stamp = held.stamp.as_ref();
        let by_us = stamp.is_some_and(|stamp| stamp.id.trip == trip);
        let rotated_since = self.doubtful
            && stamp.is_some_and(|it| it.family == Family(ours.fingerprint) && it.count > 1);
        let there = authferry_codex::parse(&held.secret)
            .is_ok_and(|theirs| theirs.fingerprint == ours.fingerprint);
        (by_us || there || rotated_since).then_some(!by_us && !rotated_since)
    }

    /// Returns the stamp of the write, once nothing is lost by it.
    async fn stamp(
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
        let (held, _) = ask::held(stored);
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
            // It is of this family: a person's word makes it one of this store's.
            verdict = copies::judge(Some(&held), &copy.here(), &rules);
        }
        if verdict == Verdict::Later {
            self.keep(stored, &held).await?;
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
                return Err(SeedError::Filled);
            }
            (Replace::NotNewer, Some(theirs)) if !is_refused && is_before(ours, theirs) => {
                return Err(SeedError::Older(theirs.fingerprint));
            }
            (Replace::Nothing | Replace::NotNewer | Replace::Anything, _) => {}
        }
        self.keep(stored, &held).await?;
        Ok(stamp(Family(ours.fingerprint), 1, held.volatile_hints))
    }

    /// Notes that the login in the store counts no more, if a job rotated the family that ours
    /// begins to it: in one family the later one would be adopted again wherever a copy of it is.
    async fn reject_descendant(
        &self,
        stored: Option<&Stored>,
        ours: &Generation,
        deadline: Instant,
    ) -> Result<(), SeedError> {
        let held = stored.map(|stored| ask::held(stored).0);
        let theirs = held.filter(|held| held.family == Some(Family(ours.fingerprint)));
        let theirs = theirs.and_then(|held| held.generation);
        let (Some(theirs), Some(claims)) = (theirs, self.seed.store.claims()) else {
            return Ok(());
        };
        let holder = random().map_err(SeedError::System)?;
        for attempt in 1.. {
            let error = match claims.acquire(&bid(self.seed.writer, holder)).await {
                Ok(mut claim) => {
                    let mut notes = Notes::read(claim.note.as_deref());
                    notes.refuse(theirs.fingerprint);
                    claim.note = notes.text();
                    match claims.release(&claim).await {
                        Ok(()) => return Ok(()),
                        Err(ClaimError::Store(error)) if !error.kind.is_transient() => {
                            return Err(error.into());
                        }
                        Err(ClaimError::Store(_) | ClaimError::Lost | ClaimError::Held { .. }) => {
                            SeedError::OutOfTime
                        }
                    }
                }
                Err(ClaimError::Held { owner, .. }) => SeedError::LeaseHeld { owner },
                Err(ClaimError::Lost) => SeedError::OutOfTime,
                Err(ClaimError::Store(error)) if error.kind.is_transient() => error.into(),
                Err(ClaimError::Store(error)) => return Err(error.into()),
            };
            if Instant::now() >= deadline {
                return Err(error);
            }
            sleep(authferry_core::pause(attempt, holder)).await;
        }
        Err(SeedError::OutOfTime)
    }

    /// Keeps what is there if the store does not keep it.
    async fn keep(&mut self, stored: &Stored, held: &Held) -> Result<(), SeedError> {
        let seed = self.seed;
        let theirs = held.generation.as_ref();
        self.replaced = theirs.map(|theirs| theirs.fingerprint);
        if !keeps_history(seed.store, None).await {
            let known = seed.origins.as_ref().map(|origins| &origins.base);
            let base = theirs.map(|theirs| Base::of_head(held, theirs, known));
            let record = Record::new(seed.store.to_string(), Reason::Replaced, base, seed.writer);
            let limit = SECOND_STORE_TIMEOUT.min(seed.patience);
            let kept = seed.rescue.keep(&stored.secret, &record, limit).await;
            self.not_in_second_store = kept.not_in_second_store;
            self.rescued = Some(kept.location.map_err(SeedError::NotKept)?);
        }
        Ok(())
    }
}

/// Whether a login of the same person was issued before another one, by what the two say.
fn is_before(ours: &Generation, theirs: &Generation) -> bool {
    !theirs.identity.contradicts(&ours.identity)
        && order::by_times(&ours.issued, &theirs.issued) == Order::Earlier
}
