//! A home has one owner: the lock of a home, and who may acquire it.
//!
//! A `run`, a rotation and a watch hold the lock. A job that begins requests the home from a watch
//! if the watch belongs to the same job, or to a job that is over. `persist` and `watch` follow the
//! receipt in the home.

use std::{
    fs::{File, TryLockError},
    io,
    time::{Duration, SystemTime},
};

use authferry_codex::Home;
use authferry_core::DueRule;
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use crate::own_time::OwnClock;
use crate::rotations::OVERDUE_GRACE;
use crate::supervise::SPENT_LIMIT;
use crate::users::{self, Admission, Holder, JobState, Leftover, User};
use crate::{InUse, Job, StartError, codex_process, deadline, receipt, watch_marker};

/// Who acquires the lock of a home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LockPurpose {
    /// A job that begins. Nothing can be lost yet, so a home in use refuses the job.
    Job,
    /// A watch, for the job of the receipt.
    Watch,
    /// A persist. If a watch hangs, the persist goes on without the lock: the store's swap rejects
    /// a later write of that watch. For a `run` of the same job, the persist waits.
    Persist,
}

/// What a job that may begin finds in its home.
#[derive(Clone, Debug, Default)]
pub struct Admitted {
    /// A watch of the same job is running, so the login stays in the home.
    pub nested: bool,
    /// A running Codex of the same job, which may rotate the login.
    pub codex: Option<User>,
    /// A leftover process of an earlier job that was killed, and whether the login may be spent. In
    /// that case the auth file had not changed for 15 minutes, or since the login became due.
    pub ended: Option<InUse>,
}

/// How long the end of a job waits for a Codex that may have spent the login.
pub(crate) const SPENT_TIMEOUT: Duration = Duration::from_secs(90);
/// How long a watch may take to hand the home over: longer than the watch's store timeout after a
/// handover request.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a lock may outlive its process: a process that is killed between fork and exec leaves
/// the lock with its child until the exec.
const LOCK_RELEASE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a job must be over before its home is requested from its watch: between two steps, a
/// job may have no process.
const JOB_OVER_DELAY: Duration = Duration::from_secs(1);
/// How often to try the lock.
const LOCK_POLL_INTERVAL: Duration = Duration::from_millis(5);
/// How often to check processes.
const PROCESS_POLL_INTERVAL: Duration = Duration::from_millis(100);
/// The time between SIGTERM and SIGKILL for a leftover process.
const TERM_GRACE: Duration = Duration::from_secs(2);

/// Checks whether a job may begin in its home, and ends a Codex that an earlier job left there.
/// Call it before anything is spent.
///
/// A Codex that may be about to write the next login has 15 minutes from its last write, or from
/// when the login became due. The job waits for at most `leftover_timeout` of them, and then fails
/// with [`StartError::LeftoverCodex`].
pub async fn admit(job: &Job<'_>, leftover_timeout: Duration) -> Result<Admitted, StartError> {
    let mut over_since = None;
    let admission = loop {
        let locked = try_lock(job.home);
        let holder = holder(job.home, &locked);
        // Release the lock at once: other processes check it too.
        drop(locked);
        match judge(job, holder) {
            Admission::TakesOver if !has_been_over_long_enough(&mut over_since) => {
                sleep(PROCESS_POLL_INTERVAL).await;
            }
            admission @ (Admission::Free
            | Admission::Nested
            | Admission::TakesOver
            | Admission::Refused(_)) => break admission,
        }
    };
    if let Admission::Refused(by @ Some(_)) = admission {
        return Err(in_use(job.home, by));
    }
    // Without an auth file, a Codex has nothing to spend.
    let mut admitted = Admitted {
        nested: admission == Admission::Nested,
        ..Admitted::default()
    };
    if job.home.auth_file().exists() {
        settle_leftovers(job, leftover_timeout, &mut admitted).await?;
    }
    Ok(admitted)
}

fn has_been_over_long_enough(since: &mut Option<Instant>) -> bool {
    since.get_or_insert_with(Instant::now).elapsed() >= JOB_OVER_DELAY
}

/// Acquires the lock of a home; dropping the file releases the lock. `None`: the home does not
/// exist yet; or its file system has no locks for folders, which must not stop the job; or a watch
/// hangs and the persist goes on without the lock.
pub(crate) async fn lock_home(
    job: &Job<'_>,
    purpose: LockPurpose,
) -> Result<Option<File>, StartError> {
    let (home, began) = (job.home, Instant::now());
    let limit = match purpose {
        LockPurpose::Job | LockPurpose::Watch => HANDOVER_TIMEOUT,
        // Leave the persist half of the store timeout.
        LockPurpose::Persist => HANDOVER_TIMEOUT.min(job.store_timeout / 2),
    };
    let until = deadline::from(began, limit);
    let mut requested = false;
    loop {
        let locked = try_lock(home);
        if purpose == LockPurpose::Job
            && let Admission::Refused(by @ Some(_)) = judge(job, holder(home, &locked))
        {
            return Err(in_use(home, by));
        }
        match locked {
            Err(StartError::Busy(_)) if watch_marker::request_handover(home) => requested = true,
            // The watch ended between our checks of the lock and of its marker.
            Err(StartError::Busy(_)) if std::mem::take(&mut requested) => {}
            Err(StartError::Busy(_)) if began.elapsed() < LOCK_RELEASE_TIMEOUT => {}
            Err(StartError::Busy(_)) if purpose == LockPurpose::Persist && is_of_our_job(job) => {
                return lock_after_run(job).await;
            }
            Ok(home_lock) => {
                watch_marker::clear(home);
                return Ok(home_lock);
            }
            Err(StartError::Busy(_)) => return Err(in_use(home, users::lock_holder(home))),
            Err(error) => return Err(error),
        }
        if Instant::now() > until {
            return match purpose {
                LockPurpose::Job | LockPurpose::Watch => {
                    Err(in_use(home, users::lock_holder(home)))
                }
                LockPurpose::Persist => {
                    watch_marker::clear(home);
                    Ok(None)
                }
            };
        }
        sleep(LOCK_POLL_INTERVAL).await;
    }
}

/// Tries to lock the folder itself, not a file of Codex. A missing home needs no lock.
pub(crate) fn try_lock(home: &Home) -> Result<Option<File>, StartError> {
    let folder = match File::open(home.dir()) {
        Ok(folder) => folder,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    match folder.try_lock() {
        Ok(()) => Ok(Some(folder)),
        Err(TryLockError::WouldBlock) => Err(StartError::Busy(home.dir().to_owned())),
        // A file system without locks for folders must not stop the job.
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

/// Decides whether a job may begin in its home.
pub(crate) fn judge(job: &Job<'_>, holder: Holder) -> Admission {
    let state = || receipt(job).map_or(JobState::Unknown, |receipt| receipt.owner.state());
    match holder {
        Holder::Job => Admission::Refused(None),
        Holder::None | Holder::Watch => users::admit(holder, state()),
    }
}

/// Who holds the lock, given the result of our attempt to lock.
pub(crate) fn holder(home: &Home, locked: &Result<Option<File>, StartError>) -> Holder {
    match locked {
        Ok(_) => Holder::None,
        Err(_) if watch_marker::is_watched(home) => Holder::Watch,
        Err(_) => Holder::Job,
    }
}

pub(crate) fn in_use(home: &Home, by: Option<User>) -> StartError {
    let home = home.dir().to_owned();
    match by {
        Some(user) => StartError::InUse(home, user),
        None => StartError::Busy(home),
    }
}

/// Whether the receipt names our job as the owner, and a process other than our ancestors holds the
/// lock. Waiting for an ancestor would be a deadlock: the ancestor waits for us.
fn is_of_our_job(job: &Job<'_>) -> bool {
    let is_ours = receipt(job).is_some_and(|receipt| receipt.owner.state() == JobState::Ours);
    is_ours && users::lock_holder(job.home).is_some_and(|holder| !holder.is_above_us())
}

/// Acquires the lock when a `run` of the same job has ended. On GitLab, a script may still be
/// running when its `after_script` begins.
async fn lock_after_run(job: &Job<'_>) -> Result<Option<File>, StartError> {
    let mut clock = OwnClock::start();
    loop {
        match try_lock(job.home) {
            Err(StartError::Busy(_)) => {}
            locked => return locked,
        }
        // The Codex version of the other `run` is unknown, so any version's rule counts.
        let look = job.home.settled_look();
        let is_due = look.map_or(true, |look| {
            codex_process::may_be_spent(&look, DueRule::Any)
        });
        if clock.read() >= end_timeout(job, is_due) {
            return Err(match users::lock_holder(job.home) {
                Some(user) => {
                    StartError::StillRunning(job.home.auth_file().to_owned(), user, is_due)
                }
                None => StartError::Busy(job.home.dir().to_owned()),
            });
        }
        sleep(PROCESS_POLL_INTERVAL).await;
    }
}

/// How long the end of a job waits for a Codex.
pub(crate) fn end_timeout(job: &Job<'_>, is_due: bool) -> Duration {
    if is_due {
        SPENT_TIMEOUT
    } else {
        job.exit_grace
    }
}

/// Waits for processes that an earlier job left in the home, and kills those that do not end.
async fn settle_leftovers(
    job: &Job<'_>,
    leftover_timeout: Duration,
    admitted: &mut Admitted,
) -> Result<(), StartError> {
    for user in users::of(job.home).unwrap_or_default() {
        let mut clock = OwnClock::start();
        let mut written = LastWrite::read(job.home);
        let mut idle = written.since.min(user.age());
        while user.uses(job.home) {
            let now = LastWrite::read(job.home);
            if now.at != written.at {
                (written, idle, clock) = (now, Duration::ZERO, OwnClock::start());
            }
            let owner = receipt(job).map(|receipt| receipt.owner);
            let look = job.home.settled_look();
            // An unreadable file says nothing about the login that Codex has in memory.
            let is_due = look.as_ref().map_or(true, |look| user.may_have_spent(look));
            // Codex did not begin to refresh before the login was due.
            let since_due = look.map_or(Duration::MAX, |look| user.due_since(&look));
            let idle_now = (idle + clock.read()).min(since_due);
            // After a pause of the machine an answer may have arrived that Codex has not read yet.
            let grace = if is_due {
                job.exit_grace.max(OVERDUE_GRACE)
            } else {
                job.exit_grace
            };
            match users::leftover(&user.observe(owner.as_ref(), is_due, idle_now)) {
                Leftover::Ours => {
                    admitted.codex.get_or_insert_with(|| user.clone());
                    break;
                }
                Leftover::Foreign => return Err(in_use(job.home, Some(user))),
                Leftover::MayWrite if clock.last() >= leftover_timeout => {
                    return Err(StartError::LeftoverCodex(job.home.dir().to_owned(), user));
                }
                Leftover::Ordinary if clock.last() >= grace => {
                    end(&user).await;
                    admitted.ended = Some(InUse {
                        by: user,
                        may_be_spent: is_due,
                    });
                    break;
                }
                Leftover::MayWrite | Leftover::Ordinary => {}
            }
            // A full check reads much of `/proc`: do it only when it may change the decision, and
            // at intervals.
            let longest = SPENT_LIMIT.saturating_sub(idle);
            let limits = [
                grace,
                leftover_timeout,
                longest,
                clock.last() + FULL_CHECK_INTERVAL,
            ];
            let until = limits.into_iter().filter(|it| *it > clock.last()).min();
            while user.is_there() && until.is_some_and(|until| clock.last() < until) {
                sleep(PROCESS_POLL_INTERVAL).await;
                clock.read();
            }
        }
    }
    Ok(())
}

/// The last write of the auth file.
struct LastWrite {
    at: Option<SystemTime>,
    /// How long ago the write was, by the wall clock; zero if unknown.
    since: Duration,
}

impl LastWrite {
    fn read(home: &Home) -> Self {
        let at = home
            .auth_file()
            .metadata()
            .and_then(|it| it.modified())
            .ok();
        let since = at.and_then(|at| at.elapsed().ok());
        Self {
            at,
            since: since.unwrap_or_default(),
        }
    }
}

/// How often to check everything about a leftover process.
const FULL_CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Ends a process with SIGTERM, then SIGKILL.
async fn end(user: &User) {
    for signal in [Signal::TERM, Signal::KILL] {
        user.signal(signal);
        let mut clock = OwnClock::start();
        while user.is_there() && clock.read() < TERM_GRACE {
            sleep(PROCESS_POLL_INTERVAL).await;
        }
    }
}
