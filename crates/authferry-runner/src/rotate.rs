//! Rotates a login that is due, at once and under the claim, outside of any job.

use std::{
    future::Future,
    io,
    path::{Path, PathBuf},
    pin::Pin,
    time::Duration,
};

use authferry_codex::Home;
use authferry_core::copies::Rules;
use authferry_core::rotation::{Effect, Event, Grant, Outcome, Proof, Rotation, Sight, Terms};
use authferry_core::{
    Bid, CasError, Claim, ClaimError, Fingerprint, Generation, Issued, Policy, SecretStore,
    StoreError, Stored, Trouble, Version, WriteId,
};
use tokio::time::{Instant, sleep, sleep_until};

use crate::deadline;
use crate::lease::{self, Lease, Observation};
use crate::own_time::TICK;
use crate::rescue::{Location, Rescue};
use crate::rotations::{Overdue, Private};
use crate::signals::Told;
use crate::{
    Codex, Entry, Job, Mark, NotBegun, Report, Signals, alone, before, copies, drive, random,
    restore,
};

mod next;
mod proof;
mod settle;
pub(crate) mod turn;

/// How long a bid may stay under way when nobody waits for the claim any more.
const RETRACT: Duration = Duration::from_secs(2);

/// What a rotation works with.
#[derive(Debug)]
pub struct Rotating<'a> {
    /// Where the login is kept.
    pub store: &'a dyn SecretStore,
    /// Who rotates it.
    pub codex: &'a Codex,
    /// The folder in which the home is made that only this step sees. One that is left there
    /// by a rotation which was killed is found by the next job.
    pub rotations: &'a Path,
    /// Where generations go that the store will not hold.
    pub rescue: &'a Rescue,
    /// Whose generation stays current after a conflict.
    pub policy: Policy,
    /// Who rotates and writes, for people.
    pub writer: &'a str,
    /// What Codex would rotate by then, in Unix seconds, is rotated now.
    pub due_by: i64,
    /// Whether a login stays as it is before half of its time is over: where the jobs take
    /// longer than any login is good for, each of them would rotate it.
    pub sparing: bool,
    /// How long the store may take before the claim, before the refresh, and again after it.
    pub patience: Duration,
    /// How long somebody else may hold the claim.
    pub wait: Duration,
    /// How long a refresh that is under way holds signals off.
    pub shield: Duration,
}

impl Rotating<'_> {
    /// Whether a login that was issued so is to be rotated.
    pub(crate) fn wants(&self, issued: &Issued) -> bool {
        issued.is_due(self.due_by) && (!self.sparing || issued.is_half_over(unix_now()))
    }
}

/// The time in Unix seconds.
pub(crate) fn unix_now() -> i64 {
    i64::try_from(lease::now()).unwrap_or(i64::MAX)
}

/// What became of a login that may have been due.
#[derive(Debug)]
pub struct Rotated {
    /// How it ended.
    pub outcome: Outcome,
    /// What the store held when it was looked at last, before anything was rotated.
    pub known: Option<Stored>,
    /// The generation in it.
    pub generation: Option<Generation>,
    /// How the trip ended, if it was made.
    pub trip: Option<Report>,
    /// Why the trip, or a second one, could not be begun.
    pub not_begun: Option<NotBegun>,
    /// The trip's home. It is gone, unless that has the only copy of a login.
    pub home: Option<Home>,
    /// That its refresh token is dead, as this rotation found, or an earlier one.
    pub dead: Option<Mark>,
    /// The copies that were tried in vain in place of a login that the provider refused.
    pub tried: Vec<Fingerprint>,
    /// The file in the rescue folder that keeps the login for which a copy was tried, if it could
    /// not be put back: the store holds the copy.
    pub not_put_back: Option<Location>,
    /// Whether somebody else has changed the login meanwhile, so that ours was spent in vain.
    pub moved: bool,
    /// Who held the claim, for people, and until when, in Unix seconds.
    pub held: Option<(String, u64)>,
    /// Whether somebody else took the claim over meanwhile.
    pub lost: bool,
    /// Whether the job's own home holds something else, so that nothing was begun.
    pub unsettled: bool,
    /// The home of a rotation on this machine that was waited for until the time was over.
    pub at_work: Option<PathBuf>,
    /// The last thing that the store complained of before the trip.
    pub store_error: Option<StoreError>,
    /// The number of the first signal that came before the trip.
    pub signal: Option<i32>,
}

/// Rotates the login before a job if it is due, under the claim, and persisted.
///
/// A login in the job's own home that the store does not hold is settled first: if an
/// earlier persist was lost, what the store holds is spent. `Err` in the end tells that the
/// restore did not succeed which that takes.
pub async fn rotate_first(
    rotating: &Rotating<'_>,
    job: &Job<'_>,
    signals: &mut Signals,
) -> Result<Result<Rotated, Report>, NotBegun> {
    // A file that an access-only one would replace keeps the job out.
    before(job, &job.home.settled_look()?)?;
    let mut rotated = {
        // Whoever is at work there keeps the job out: nothing is to be rotated for it.
        let _alone = alone(job, Entry::Job).await?;
        begin(rotating, Some(job), signals).await?
    };
    if rotated.unsettled {
        let report = restore(job, rotated.known.take(), signals).await?;
        if report.outcome != authferry_core::Outcome::Restored {
            return Ok(Err(report));
        }
        rotated = begin(rotating, Some(job), signals).await?;
    }
    Ok(Ok(rotated))
}

/// Looks whether the login is due, and if so rotates it: under the lease, and persisted.
///
/// A copy on this machine that counts more than what the store holds is put there first. `Err`
/// in the end tells that this did not succeed. Nothing was touched after an error.
pub async fn rotate(
    rotating: &Rotating<'_>,
    signals: &mut Signals,
) -> Result<Result<Rotated, Report>, NotBegun> {
    let mut rotated = begin(rotating, None, signals).await?;
    if rotated.unsettled {
        let refused = Mark::refused(rotating.store).await;
        let known = rotated.known.take();
        let report = settle::settle(rotating, None, known, &refused, signals).await?;
        if report.outcome != authferry_core::Outcome::Restored {
            return Ok(Err(report));
        }
        rotated = begin(rotating, None, signals).await?;
    }
    Ok(Ok(rotated))
}

/// Takes the claim for as long as a job needs it, whatever the login is like. The error in
/// the end tells why there is none.
pub async fn claim<'a>(
    rotating: &'a Rotating<'a>,
    signals: &mut Signals,
) -> Result<Result<Lease<'a>, Rotated>, NotBegun> {
    let (driver, rotation, effects) = Driver::new(rotating, None, true)?;
    let (rotated, lease) = driver.drive(rotation, effects, signals).await?;
    Ok(lease.ok_or(rotated))
}

/// `job`: the job that is to follow, whose home may hold a copy.
async fn begin(
    rotating: &Rotating<'_>,
    job: Option<&Job<'_>>,
    signals: &mut Signals,
) -> Result<Rotated, NotBegun> {
    let (mut driver, rotation, effects) = Driver::new(rotating, job, false)?;
    driver.rules = settle::rules(rotating, job).await?;
    let (rotated, _) = driver.drive(rotation, effects, signals).await?;
    Ok(rotated)
}

struct Driver<'a> {
    rotating: &'a Rotating<'a>,
    /// The job that is to follow.
    job: Option<&'a Job<'a>>,
    /// Nothing is to be rotated: the claim is all that is wanted.
    claim_only: bool,
    /// What a person allowed, and what the provider refused before.
    rules: Rules,
    holder: u64,
    /// When it began, or won the claim.
    began: Instant,
    lease: Option<Lease<'a>>,
    /// The lease of another job, as it was seen last.
    observed: Observation,
    /// The Codex of another rotation that is waited for.
    overdue: Overdue,
    /// Where the next trip has its home.
    folder: Option<Private>,
    request: Option<Request<'a>>,
    /// The write that was to prove that the login can be written, and the version that it
    /// expected.
    proving: Option<(Version, WriteId)>,
    /// When a bid is given up that nobody waits for any more.
    retract_by: Option<Instant>,
    rotated: Rotated,
}

/// Something that was begun and will be answered.
type Request<'a> = Pin<Box<dyn Future<Output = Answer> + 'a>>;

enum Answer {
    Looked(Result<Option<Stored>, StoreError>),
    Claimed(Result<Claim, ClaimError>),
    Proven(Result<Stored, CasError>),
    Woke,
}

impl<'a> Driver<'a> {
    fn new(
        rotating: &'a Rotating<'a>,
        job: Option<&'a Job<'a>>,
        claim_only: bool,
    ) -> io::Result<(Self, Rotation, Vec<Effect>)> {
        let holder = random()?;
        let claims = rotating.store.claims().is_some();
        let (rotation, effects) = Rotation::start(Terms {
            claims,
            salt: holder,
        });
        let driver = Self {
            rotating,
            job,
            claim_only,
            rules: Rules::default(),
            holder,
            began: Instant::now(),
            lease: None,
            observed: Observation::default(),
            overdue: Overdue::default(),
            folder: None,
            request: None,
            proving: None,
            retract_by: None,
            rotated: Rotated {
                outcome: Outcome::Fresh,
                known: None,
                generation: None,
                trip: None,
                not_begun: None,
                home: None,
                dead: None,
                tried: Vec::new(),
                not_put_back: None,
                moved: false,
                held: None,
                lost: false,
                unsettled: false,
                at_work: None,
                store_error: None,
                signal: None,
            },
        };
        Ok((driver, rotation, effects))
    }

    /// Returns what became of it, and the claim if that was all that was wanted.
    async fn drive(
        mut self,
        mut rotation: Rotation,
        mut effects: Vec<Effect>,
        signals: &mut Signals,
    ) -> Result<(Rotated, Option<Lease<'a>>), NotBegun> {
        loop {
            let mut event = None;
            for effect in std::mem::take(&mut effects) {
                match effect {
                    // Whatever it holds.
                    Effect::Look if self.claim_only => {
                        event = Some(Event::Looked(Sight::Due));
                    }
                    Effect::Look => self.look(),
                    Effect::Claim => self.claim(),
                    Effect::Prove if self.claim_only => {
                        event = Some(Event::Proven(Proof::Landed));
                    }
                    // The claim may have been won long after the look.
                    Effect::Prove if self.is_rotation_at_work() => {
                        event = Some(Event::Proven(Proof::Moved));
                    }
                    Effect::Prove if self.is_in_vain(signals).await => {
                        event = Some(Event::Proven(Proof::InVain));
                    }
                    Effect::Prove => self.prove(),
                    Effect::Wait(time) => {
                        let until = deadline::after(time);
                        self.request = Some(Box::pin(async move {
                            sleep_until(until).await;
                            Answer::Woke
                        }));
                    }
                    Effect::Turn if self.claim_only => {
                        self.rotated.outcome = Outcome::Turned;
                        return Ok((self.rotated, self.lease));
                    }
                    Effect::Turn => {
                        if let Err(error) = self.turn(signals).await {
                            self.rotated.not_begun = Some(error);
                        }
                        event = Some(if self.is_left() {
                            Event::Left
                        } else {
                            Event::Turned
                        });
                    }
                    Effect::Release => {
                        self.release().await;
                        event = Some(Event::Released);
                    }
                    Effect::Finish(outcome) => {
                        self.rotated.outcome = outcome;
                        if matches!(outcome, Outcome::Fresh | Outcome::Turned) {
                            self.sweep();
                        }
                        return Ok((self.rotated, None));
                    }
                }
            }
            let event = match event {
                Some(event) => event,
                None => self.next_event(&rotation, signals).await,
            };
            (rotation, effects) = rotation.step(event);
        }
    }

    async fn next_event(&mut self, rotation: &Rotation, signals: &mut Signals) -> Event {
        loop {
            let patience = if rotation.is_held_up() {
                self.rotating.wait
            } else {
                self.rotating.patience
            };
            let deadline = self
                .retract_by
                .unwrap_or(deadline::from(self.began, patience));
            let Some(request) = &mut self.request else {
                unreachable!("the machine asks for something until it is done");
            };
            tokio::select! {
                answer = request => {
                    self.request = None;
                    return self.answered(answer);
                }
                told = signals.next() => match told {
                    Told::Child => {}
                    Told::End(signal) | Told::Other(signal) => {
                        self.rotated.signal.get_or_insert(signal.as_raw());
                        if self.retract_by.is_none() {
                            self.retract_by = Some(deadline::after(RETRACT));
                            return Event::Deadline;
                        }
                    }
                },
                () = drive::renewed(self.lease.as_mut()) => {}
                // The store is asked more rarely than a clock of own time has to be read.
                () = sleep(TICK), if self.rotated.at_work.is_some() => {
                    if let Some(folder) = &self.rotated.at_work {
                        self.overdue.look(folder);
                    }
                }
                () = sleep_until(deadline) => {
                    if self.retract_by.is_some() {
                        // Whether it was won nobody will say; it ends by itself.
                        self.request = None;
                        return Event::Claimed(Grant::Trouble(Trouble::Transient));
                    }
                    self.retract_by = Some(deadline::after(RETRACT));
                    return Event::Deadline;
                }
            }
        }
    }

    /// Whether another rotation of the login is under way on this machine.
    fn is_rotation_at_work(&self) -> bool {
        let store = self.rotating.store.to_string();
        copies::rotation_at_work(&store, Some(self.rotating.rotations)).is_some()
    }

    /// Removes the private homes of earlier rotations whose login the store has, or had.
    fn sweep(&self) {
        let trip = self.rotated.trip.as_ref();
        let of_trip = trip
            .filter(|it| !it.writes.is_empty())
            .and_then(|it| it.base.clone());
        let known = self.rotated.known.as_ref();
        let known = known.and_then(|known| settle::base_of(self.rotating, self.job, known));
        if let Some(base) = of_trip.or(known) {
            settle::sweep(self.rotating, &base);
        }
    }

    fn look(&mut self) {
        let store = self.rotating.store;
        self.request = Some(Box::pin(async { Answer::Looked(store.read().await) }));
    }

    fn claim(&mut self) {
        let Some(claims) = self.rotating.store.claims() else {
            unreachable!("the machine was told that there are claims");
        };
        let bid = Bid {
            expired: self.observed.expired(),
            ..lease::bid(self.rotating.writer, self.holder)
        };
        self.request = Some(Box::pin(async move {
            Answer::Claimed(claims.acquire(&bid).await)
        }));
    }

    fn answered(&mut self, answer: Answer) -> Event {
        match answer {
            Answer::Woke => Event::Woke,
            Answer::Looked(Ok(stored)) => {
                let generation = stored
                    .as_ref()
                    .and_then(|stored| authferry_codex::parse(&stored.secret).ok());
                let sight = match &generation {
                    Some(it) if self.is_from_the_holder(it) => Sight::Fresh,
                    Some(it) if !self.rotating.wants(&it.issued) => Sight::Fresh,
                    due => self.compared(stored.as_ref(), due.is_some()),
                };
                self.rotated.known = stored;
                self.rotated.generation = generation;
                Event::Looked(sight)
            }
            Answer::Looked(Err(error)) => Event::Looked(Sight::Trouble(self.trouble(error))),
            Answer::Claimed(Ok(claim)) => {
                if let Some(claims) = self.rotating.store.claims() {
                    self.lease = Some(Lease::new(claims, claim));
                    self.began = Instant::now();
                }
                Event::Claimed(Grant::Won)
            }
            Answer::Claimed(Err(ClaimError::Held {
                owner,
                until,
                state,
            })) => {
                self.observed.note(state);
                self.rotated.held = Some((owner, until));
                Event::Claimed(Grant::Held)
            }
            // Somebody has taken the record away at the same moment: the next bid tells.
            Answer::Claimed(Err(ClaimError::Lost)) => {
                Event::Claimed(Grant::Trouble(Trouble::Transient))
            }
            Answer::Claimed(Err(ClaimError::Store(error))) => {
                Event::Claimed(Grant::Trouble(self.trouble(error)))
            }
            Answer::Proven(proven) => Event::Proven(self.proven(proven)),
        }
    }

    /// Compares what the store holds with the copies on this machine.
    fn compared(&mut self, stored: Option<&Stored>, is_login: bool) -> Sight {
        let found = settle::compare(self.rotating, self.job, stored, &self.rules);
        self.rotated.at_work = found.at_work;
        if let Some(folder) = &self.rotated.at_work {
            self.overdue.look(folder);
            // What its Codex writes is the next generation, or it was held up by its store.
            let owner = "a rotation on this machine".to_owned();
            self.rotated.held.get_or_insert((owner, lease::now()));
            Sight::Held
        } else if !found.is_settled {
            self.rotated.unsettled = true;
            Sight::Nothing
        } else if is_login {
            Sight::Due
        } else {
            Sight::Nothing
        }
    }

    /// Whether this login came while somebody else held the claim, and does not end at once.
    fn is_from_the_holder(&self, now: &Generation) -> bool {
        let before = self.rotated.generation.as_ref();
        self.rotated.held.is_some()
            && before.is_some_and(|before| before.fingerprint != now.fingerprint)
            && !now.issued.is_due(unix_now())
    }

    fn trouble(&mut self, error: StoreError) -> Trouble {
        let transient = error.kind.is_transient();
        self.rotated.store_error = Some(error);
        if transient {
            Trouble::Transient
        } else {
            Trouble::Permanent
        }
    }

    async fn release(&mut self) {
        if let Some(lease) = self.lease.take() {
            self.rotated.lost = lease.is_lost();
            lease.release().await;
        }
    }
}
