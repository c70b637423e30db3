//! Rotates a login that is due: under the lease, outside of any job.

use std::{
    future::Future,
    io,
    path::{Path, PathBuf},
    pin::Pin,
    time::Duration,
};

use authferry_codex::{Home, SettingSources};
use authferry_core::copies::Rules;
use authferry_core::rotation::{
    AcquireResult, DueState, Proof, Rotation, RotationEffect, RotationEvent, RotationOutcome,
    RotationTerms,
};
use authferry_core::{
    CasError, Fingerprint, Generation, Issued, Lease, LeaseError, LeaseRequest, Policy, Retryable,
    SecretStore, StoreError, Stored, Version, WriteId,
};
use tokio::time::{Instant, sleep, sleep_until};

use crate::deadline;
use crate::lease::{self, LeaseKeeper, Observation};
use crate::own_time::TICK;
use crate::rescue::{Location, Rescue};
use crate::rotations::{OverdueCodex, PrivateFolder};
use crate::signals::SignalEvent;
use crate::{
    Codex, Job, LockPurpose, RefusalNote, Report, Signals, StartError, copies, drive, lock_home,
    login_use, random, restore, seen_before,
};

mod next;
mod proof;
mod reason;
pub(crate) mod refresh;
mod settle;

/// How long to wait for the answer to a lease request after a signal or the deadline.
const CANCELLED_LEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// The inputs of a rotation.
#[derive(Debug)]
pub struct Rotating<'a> {
    /// The store of the login.
    pub store: &'a dyn SecretStore,
    /// The Codex that rotates the login.
    pub codex: &'a Codex,
    /// The folder for the private home of the rotation. If the rotation is killed, the next job
    /// finds that home here.
    pub rotations: &'a Path,
    /// Keeps generations that the store does not hold.
    pub rescue: &'a Rescue,
    /// Which generation stays current after a conflict.
    pub policy: Policy,
    /// The settings under which Codex has to use the login; `None` to ask nothing before a refresh.
    pub settings: Option<&'a SettingSources>,
    /// The name of the writer and lease owner, human-readable.
    pub writer: &'a str,
    /// A login that Codex would rotate by this time, in Unix seconds, is rotated now.
    pub due_by: i64,
    /// Whether a login is kept until half of its lifetime is over. Without this, jobs that take
    /// longer than the lifetime of a login would rotate it each time.
    pub only_after_half_life: bool,
    /// The store's timeout, which counts anew before the lease, before the refresh, and after the
    /// refresh.
    pub store_timeout: Duration,
    /// How long to wait while another owner holds the lease.
    pub lease_timeout: Duration,
    /// How long signals are held back while a refresh is running.
    pub cancel_grace: Duration,
}

impl Rotating<'_> {
    /// Whether a login with these times has to be rotated.
    pub(crate) fn is_due(&self, issued: &Issued) -> bool {
        issued.is_due(self.due_by)
            && (!self.only_after_half_life || issued.is_half_over(unix_now()))
    }
}

/// The current time in Unix seconds.
pub(crate) fn unix_now() -> i64 {
    i64::try_from(lease::now()).unwrap_or(i64::MAX)
}

/// The result of a rotation.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one fact of the rotation"
)]
#[derive(Debug)]
pub struct Rotated {
    /// The outcome.
    pub outcome: RotationOutcome,
    /// The last content read from the store before the refresh.
    pub last_read: Option<Stored>,
    /// The generation in `last_read`.
    pub generation: Option<Generation>,
    /// The report of the last round trip, if one started.
    pub round_trip: Option<Report>,
    /// Why a round trip did not start.
    pub start_error: Option<StartError>,
    /// The private home of the round trip. It still exists only if it has the only copy of a login.
    pub home: Option<Home>,
    /// The note that the provider refuses the login, from this rotation or an earlier one.
    pub refusal: Option<RefusalNote>,
    /// The copies that were tried in place of a refused login, and failed.
    pub tried_copies: Vec<Fingerprint>,
    /// Where the rescue keeps the login for which a copy was tried, if the login could not be put
    /// back. The store then holds the copy.
    pub not_put_back: Option<Location>,
    /// Whether another writer replaced the login during the rotation, so that ours was stale.
    pub superseded: bool,
    /// The owner of the lease, human-readable, and its expiry in Unix seconds.
    pub lease_holder: Option<(String, u64)>,
    /// Whether another owner took the lease over during the rotation.
    pub lease_lost: bool,
    /// Whether a copy on this machine has to be settled first, so that nothing was rotated.
    pub has_unsettled_copies: bool,
    /// Whether an earlier rotation of the store's login on this machine ended without an answer:
    /// the refresh token may be spent. That rotation's private home is removed.
    pub unfinished_rotation: bool,
    /// The folder of another rotation on this machine that was still running at the deadline.
    pub running_rotation: Option<PathBuf>,
    /// The last error of the store before the round trip.
    pub store_error: Option<StoreError>,
    /// The number of the first signal before the round trip.
    pub signal: Option<i32>,
}

/// Before a job, rotates the login under the lease if it is due, and persists it.
///
/// First settles a login in the job's home that the store does not hold: if an earlier persist was
/// lost, the store's login is spent. The inner `Err` is the report of a restore that failed.
pub async fn rotate_first(
    rotating: &Rotating<'_>,
    job: &Job<'_>,
    signals: &mut Signals,
) -> Result<Result<Rotated, Report>, StartError> {
    // Fails if an access-only auth file would replace an existing one.
    seen_before(job, &job.home.settled_look()?)?;
    let mut rotated = {
        // Fails if another process uses the home: the job would not start, so rotate nothing.
        let _home_lock = lock_home(job, LockPurpose::Job).await?;
        run_rotation(rotating, Some(job), signals).await?
    };
    if rotated.has_unsettled_copies {
        let report = restore(job, rotated.last_read.take(), signals).await?;
        if report.outcome != authferry_core::Outcome::Restored {
            return Ok(Err(report));
        }
        rotated = run_rotation(rotating, Some(job), signals).await?;
    }
    Ok(Ok(rotated))
}

/// Rotates the login under the lease if it is due, and persists it.
///
/// If a copy on this machine takes precedence over the store's login, puts that copy into the
/// store first. The inner `Err` is the report if that fails. The outer error means that no refresh
/// was started.
pub async fn rotate(
    rotating: &Rotating<'_>,
    signals: &mut Signals,
) -> Result<Result<Rotated, Report>, StartError> {
    let mut rotated = run_rotation(rotating, None, signals).await?;
    if rotated.has_unsettled_copies {
        let refused = RefusalNote::refused_generations(rotating.store).await;
        let known = rotated.last_read.take();
        let report = settle::settle(rotating, None, known, &refused, signals).await?;
        if report.outcome != authferry_core::Outcome::Restored {
            return Ok(Err(report));
        }
        rotated = run_rotation(rotating, None, signals).await?;
    }
    Ok(Ok(rotated))
}

/// Acquires the lease for a job, due or not. The inner error says why it was not acquired.
pub async fn lease<'a>(
    rotating: &'a Rotating<'a>,
    signals: &mut Signals,
) -> Result<Result<LeaseKeeper<'a>, Rotated>, StartError> {
    let (driver, rotation, effects) = RotationDriver::new(rotating, None, true)?;
    let (rotated, lease) = driver.drive(rotation, effects, signals).await?;
    Ok(lease.ok_or(rotated))
}

/// `job`: the job that follows; its home may hold a copy.
async fn run_rotation(
    rotating: &Rotating<'_>,
    job: Option<&Job<'_>>,
    signals: &mut Signals,
) -> Result<Rotated, StartError> {
    let (mut driver, rotation, effects) = RotationDriver::new(rotating, job, false)?;
    driver.rules = settle::rules(rotating, job).await?;
    let (rotated, _) = driver.drive(rotation, effects, signals).await?;
    Ok(rotated)
}

struct RotationDriver<'a> {
    rotating: &'a Rotating<'a>,
    /// The job that follows the rotation.
    job: Option<&'a Job<'a>>,
    /// Whether to acquire the lease and rotate nothing.
    lease_only: bool,
    /// Whether Codex was found to use the login.
    is_login_used: bool,
    /// What the user allowed, and the generations that the provider refused earlier.
    rules: Rules,
    holder: u64,
    /// When the driver started, or acquired the lease: the timeout counts from here.
    started_at: Instant,
    lease: Option<LeaseKeeper<'a>>,
    /// The last seen lease of another owner.
    observed: Observation,
    /// Watches the Codex of the other rotation that this one waits for.
    overdue: OverdueCodex,
    /// The folder for the home of the next round trip.
    folder: Option<PrivateFolder>,
    request: Option<RotationRequest<'a>>,
    /// The last proof write and the version that it expected.
    proof_write: Option<(Version, WriteId)>,
    /// When to abandon the pending request, once a signal or the deadline has cancelled it.
    abandon_at: Option<Instant>,
    rotated: Rotated,
}

/// A pending request of the driver.
type RotationRequest<'a> = Pin<Box<dyn Future<Output = RotationAnswer> + 'a>>;

enum RotationAnswer {
    Read(Result<Option<Stored>, StoreError>),
    Acquired(Result<Lease, LeaseError>),
    Proven(Result<Stored, CasError>),
    Waited,
}

impl<'a> RotationDriver<'a> {
    fn new(
        rotating: &'a Rotating<'a>,
        job: Option<&'a Job<'a>>,
        lease_only: bool,
    ) -> io::Result<(Self, Rotation, Vec<RotationEffect>)> {
        let holder = random()?;
        let leases = rotating.store.leases().is_some();
        let (rotation, effects) = Rotation::start(RotationTerms {
            leases,
            salt: holder,
        });
        let driver = Self {
            rotating,
            job,
            lease_only,
            is_login_used: false,
            rules: Rules::default(),
            holder,
            started_at: Instant::now(),
            lease: None,
            observed: Observation::default(),
            overdue: OverdueCodex::default(),
            folder: None,
            request: None,
            proof_write: None,
            abandon_at: None,
            rotated: Rotated {
                outcome: RotationOutcome::Fresh,
                last_read: None,
                generation: None,
                round_trip: None,
                start_error: None,
                home: None,
                refusal: None,
                tried_copies: Vec::new(),
                not_put_back: None,
                superseded: false,
                lease_holder: None,
                lease_lost: false,
                has_unsettled_copies: false,
                unfinished_rotation: false,
                running_rotation: None,
                store_error: None,
                signal: None,
            },
        };
        Ok((driver, rotation, effects))
    }

    /// Drives the rotation to its end. Returns the lease if `lease_only`.
    async fn drive(
        mut self,
        mut rotation: Rotation,
        mut effects: Vec<RotationEffect>,
        signals: &mut Signals,
    ) -> Result<(Rotated, Option<LeaseKeeper<'a>>), StartError> {
        loop {
            let mut event = None;
            for effect in std::mem::take(&mut effects) {
                match effect {
                    // For the lease alone, the content of the store does not matter.
                    RotationEffect::Read if self.lease_only => {
                        event = Some(RotationEvent::Read(DueState::Due));
                    }
                    RotationEffect::Read => self.start_read(),
                    RotationEffect::Acquire => self.start_acquire(),
                    RotationEffect::Prove if self.lease_only => {
                        event = Some(RotationEvent::Proven(Proof::Landed));
                    }
                    // The last read may be older than a rotation that is running now.
                    RotationEffect::Prove if self.is_rotation_running() => {
                        event = Some(RotationEvent::Proven(Proof::Conflict));
                    }
                    RotationEffect::Prove if self.skips_proof(signals).await => {
                        event = Some(RotationEvent::Proven(Proof::Skipped));
                    }
                    RotationEffect::Prove => self.start_proof(),
                    RotationEffect::Wait(time) => {
                        let until = deadline::after(time);
                        self.request = Some(Box::pin(async move {
                            sleep_until(until).await;
                            RotationAnswer::Waited
                        }));
                    }
                    RotationEffect::Refresh if self.lease_only => {
                        self.rotated.outcome = RotationOutcome::Refreshed;
                        return Ok((self.rotated, self.lease));
                    }
                    RotationEffect::Refresh => {
                        if let Err(error) = self.refresh(signals).await {
                            self.rotated.start_error = Some(error);
                        }
                        event = Some(if self.is_codex_running() {
                            RotationEvent::CodexRunning
                        } else {
                            RotationEvent::Refreshed
                        });
                    }
                    RotationEffect::Release => {
                        self.release().await;
                        event = Some(RotationEvent::Released);
                    }
                    RotationEffect::Finish(outcome) => {
                        self.rotated.outcome = outcome;
                        if matches!(outcome, RotationOutcome::Fresh | RotationOutcome::Refreshed) {
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
            if matches!(event, RotationEvent::Read(DueState::Due)) {
                self.check_login_use()?;
            }
            (rotation, effects) = rotation.step(event);
        }
    }

    async fn next_event(&mut self, rotation: &Rotation, signals: &mut Signals) -> RotationEvent {
        loop {
            let timeout = if rotation.is_waiting_for_holder() {
                self.rotating.lease_timeout
            } else {
                self.rotating.store_timeout
            };
            let deadline = self
                .abandon_at
                .unwrap_or(deadline::from(self.started_at, timeout));
            let Some(request) = &mut self.request else {
                unreachable!("the machine has a pending request until it finishes");
            };
            tokio::select! {
                answer = request => {
                    self.request = None;
                    return self.handle_answer(answer);
                }
                event = signals.next() => match event {
                    SignalEvent::Child => {}
                    SignalEvent::End(signal) | SignalEvent::Other(signal) => {
                        self.rotated.signal.get_or_insert(signal.as_raw());
                        if self.abandon_at.is_none() {
                            self.abandon_at = Some(deadline::after(CANCELLED_LEASE_TIMEOUT));
                            return RotationEvent::Deadline;
                        }
                    }
                },
                () = drive::renewed(self.lease.as_mut()) => {}
                // `OverdueCodex` needs a check once per tick; the store is read less often.
                () = sleep(TICK), if self.rotated.running_rotation.is_some() => {
                    if let Some(folder) = &self.rotated.running_rotation {
                        self.overdue.check(folder);
                    }
                }
                () = sleep_until(deadline) => {
                    if self.abandon_at.is_some() {
                        // The request may have acquired the lease; that lease then expires.
                        self.request = None;
                        return RotationEvent::Acquired(AcquireResult::Failed(Retryable::Yes));
                    }
                    self.abandon_at = Some(deadline::after(CANCELLED_LEASE_TIMEOUT));
                    return RotationEvent::Deadline;
                }
            }
        }
    }

    /// Refuses a login that Codex would ignore or delete, before the lease is acquired and a token
    /// is spent.
    fn check_login_use(&mut self) -> Result<(), StartError> {
        let stored = self.rotated.last_read.as_ref();
        let checked = stored.zip(self.rotating.settings);
        if let (false, false, Some((stored, sources))) =
            (self.lease_only, self.is_login_used, checked)
        {
            let Rotating {
                codex, rotations, ..
            } = self.rotating;
            login_use::check(codex, rotations, sources, &stored.secret)?;
            self.is_login_used = true;
            // The answer of Codex took none of the store's time.
            self.started_at = Instant::now();
        }
        Ok(())
    }

    /// Whether another rotation of the login is running on this machine.
    fn is_rotation_running(&self) -> bool {
        let store = self.rotating.store.to_string();
        copies::running_rotation(&store, Some(self.rotating.rotations)).is_some()
    }

    /// Removes the private homes of earlier rotations whose login the store holds or held.
    fn sweep(&mut self) {
        let round_trip = self.rotated.round_trip.as_ref();
        let rotated_base = round_trip
            .filter(|it| !it.writes.is_empty())
            .and_then(|it| it.base.clone());
        let stored = self.rotated.last_read.as_ref();
        let stored_base = stored.and_then(|it| settle::base_of(self.rotating, self.job, it));
        if let Some(base) = rotated_base.or(stored_base) {
            self.rotated.unfinished_rotation = settle::sweep(self.rotating, &base);
        }
    }

    fn start_read(&mut self) {
        let store = self.rotating.store;
        self.request = Some(Box::pin(async { RotationAnswer::Read(store.read().await) }));
    }

    fn start_acquire(&mut self) {
        let Some(leases) = self.rotating.store.leases() else {
            unreachable!("the machine acquires only if the store has leases");
        };
        let request = LeaseRequest {
            expired: self.observed.expired(),
            ..lease::new_request(self.rotating.writer, self.holder)
        };
        self.request = Some(Box::pin(async move {
            RotationAnswer::Acquired(leases.acquire(&request).await)
        }));
    }

    fn handle_answer(&mut self, answer: RotationAnswer) -> RotationEvent {
        match answer {
            RotationAnswer::Waited => RotationEvent::Waited,
            RotationAnswer::Read(Ok(stored)) => {
                let generation = stored
                    .as_ref()
                    .and_then(|stored| authferry_codex::parse(&stored.secret).ok());
                let due_state = match &generation {
                    Some(it) if self.is_from_lease_holder(it) => DueState::Fresh,
                    Some(it) if !self.rotating.is_due(&it.issued) => DueState::Fresh,
                    due => self.compare_with_copies(stored.as_ref(), due.is_some()),
                };
                self.rotated.last_read = stored;
                self.rotated.generation = generation;
                RotationEvent::Read(due_state)
            }
            RotationAnswer::Read(Err(error)) => {
                RotationEvent::Read(DueState::Failed(self.record_store_error(error)))
            }
            RotationAnswer::Acquired(Ok(lease)) => {
                if let Some(leases) = self.rotating.store.leases() {
                    self.lease = Some(LeaseKeeper::new(leases, lease));
                    self.started_at = Instant::now();
                }
                RotationEvent::Acquired(AcquireResult::Acquired)
            }
            RotationAnswer::Acquired(Err(LeaseError::Held {
                owner,
                until,
                state,
            })) => {
                self.observed.record(state);
                self.rotated.lease_holder = Some((owner, until));
                RotationEvent::Acquired(AcquireResult::Held)
            }
            // Another process removed the record at the same moment: retry.
            RotationAnswer::Acquired(Err(LeaseError::Lost)) => {
                RotationEvent::Acquired(AcquireResult::Failed(Retryable::Yes))
            }
            RotationAnswer::Acquired(Err(LeaseError::Store(error))) => {
                RotationEvent::Acquired(AcquireResult::Failed(self.record_store_error(error)))
            }
            RotationAnswer::Proven(proven) => RotationEvent::Proven(self.check_proof(proven)),
        }
    }

    /// Compares the store's content with the copies on this machine.
    fn compare_with_copies(&mut self, stored: Option<&Stored>, is_login: bool) -> DueState {
        let found = settle::compare(self.rotating, self.job, stored, &self.rules);
        self.rotated.running_rotation = found.running_rotation;
        if let Some(folder) = &self.rotated.running_rotation {
            self.overdue.check(folder);
            // The other rotation's Codex is about to write the next generation, or the store is
            // slow.
            let owner = "a rotation on this machine".to_owned();
            self.rotated
                .lease_holder
                .get_or_insert((owner, lease::now()));
            DueState::Busy
        } else if !found.is_settled {
            self.rotated.has_unsettled_copies = true;
            DueState::NoLogin
        } else if is_login {
            DueState::Due
        } else {
            DueState::NoLogin
        }
    }

    /// Whether the holder of the lease wrote this login, and no Codex would rotate it right now.
    fn is_from_lease_holder(&self, now: &Generation) -> bool {
        let before = self.rotated.generation.as_ref();
        self.rotated.lease_holder.is_some()
            && before.is_some_and(|before| before.fingerprint != now.fingerprint)
            && !now.issued.is_due(unix_now())
    }

    fn record_store_error(&mut self, error: StoreError) -> Retryable {
        let transient = error.kind.is_transient();
        self.rotated.store_error = Some(error);
        if transient {
            Retryable::Yes
        } else {
            Retryable::No
        }
    }

    async fn release(&mut self) {
        if let Some(lease) = self.lease.take() {
            self.rotated.lease_lost = lease.is_lost();
            lease.release().await;
        }
    }
}
