//! A home has one owner: the lock of a home, and who may take it.
//!
//! A `run`, a rotation and a watch hold the lock. A job that begins asks a watch to make way if the
//! watch belongs to the same job, or to one that is over. `persist` and `watch` follow the receipt that
//! they find.

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
use crate::rotations::OVERDUE_FOR;
use crate::supervise::SPENT_LIMIT;
use crate::users::{self, Admission, Holder, JobState, Leftover, User};
use crate::{InUse, Job, NotBegun, codex_process, deadline, receipt, sign};

/// Who wants the lock of a home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A job that begins. Nothing can be lost yet, so a home in use refuses it.
    Job,
    /// A watch, on the job of the receipt.
    Watch,
    /// A persist. It does not leave a login behind because a watch hangs: the store's swap rejects a
    /// later write of that watch. It waits for a `run` of the same job.
    Persist,
}

/// What a job that may begin finds in its home.
#[derive(Clone, Debug, Default)]
pub struct Admitted {
    /// A watch of the same job is running, so the login stays in the home.
    pub nested: bool,
    /// A running Codex of the same job, which may rotate the login.
    pub codex: Option<User>,
    /// A leftover process of an earlier job that was killed, and whether the login may be spent:
    /// nothing was written for 15 minutes.
    pub ended: Option<InUse>,
}

/// How long a Codex that may have spent a login is waited for at the end of a job.
pub(crate) const SPENT_TIMEOUT: Duration = Duration::from_secs(90);
/// How long a watch may take to make way: longer than it waits for the store then.
const MAKE_WAY: Duration = Duration::from_secs(10);
/// How long a lock may outlive its process: a process that is killed between fork and exec leaves the
/// lock with its child until the exec.
const LET_GO: Duration = Duration::from_secs(1);
/// How long a job must be over before its watch is asked to release the home: between two steps, a job
/// may have no process.
const OVER_FOR: Duration = Duration::from_secs(1);
/// How often to see whether the lock is free.
const GLANCE: Duration = Duration::from_millis(5);
/// How often to look at processes.
const PACE: Duration = Duration::from_millis(100);
/// Between asking a leftover to end and making it end.
const GRACE: Duration = Duration::from_secs(2);

/// Looks whether a job may begin in its home, and ends a Codex that an earlier job left there. Before
/// anything is spent.
///
/// A Codex that may be about to write the next login has 15 minutes from the last write, or from when
/// the login became due. The job waits for `wait` of them: [`NotBegun::LeftOver`] then.
pub async fn admit(job: &Job<'_>, wait: Duration) -> Result<Admitted, NotBegun> {
    let mut over_since = None;
    let admission = loop {
        let locked = lock(job.home);
        let holder = holder(job.home, &locked);
        // Others are to see the home as it is.
        drop(locked);
        match judge(job, holder) {
            Admission::TakesOver if !is_over_long_enough(&mut over_since) => sleep(PACE).await,
            admission @ (Admission::Free
            | Admission::Nested
            | Admission::TakesOver
            | Admission::Refused(_)) => break admission,
        }
    };
    if let Admission::Refused(by @ Some(_)) = admission {
        return Err(in_use(job.home, by));
    }
    // Where there is no auth file, a Codex has nothing to spend.
    let mut admitted = Admitted {
        nested: admission == Admission::Nested,
        ..Admitted::default()
    };
    if job.home.auth_file().exists() {
        settle_leftovers(job, wait, &mut admitted).await?;
    }
    Ok(admitted)
}

fn is_over_long_enough(since: &mut Option<Instant>) -> bool {
    since.get_or_insert_with(Instant::now).elapsed() >= OVER_FOR
}

/// Takes the lock of a home, for as long as the file lives. `None`: there is no home yet, or its file
/// system has no locks for folders, which is no reason to do without the login; or a watch hangs that
/// a persist does not wait for.
pub(crate) async fn alone(job: &Job<'_>, entry: Entry) -> Result<Option<File>, NotBegun> {
    let (home, began) = (job.home, Instant::now());
    let limit = match entry {
        Entry::Job | Entry::Watch => MAKE_WAY,
        // It leaves the persist half of the store's time.
        Entry::Persist => MAKE_WAY.min(job.patience / 2),
    };
    let until = deadline::from(began, limit);
    let mut asked = false;
    loop {
        let locked = lock(home);
        if entry == Entry::Job
            && let Admission::Refused(by @ Some(_)) = judge(job, holder(home, &locked))
        {
            return Err(in_use(home, by));
        }
        match locked {
            Err(NotBegun::Busy(_)) if sign::take_down(home) => asked = true,
            // The watch ended between our two checks, of the lock and of its sign.
            Err(NotBegun::Busy(_)) if std::mem::take(&mut asked) => {}
            Err(NotBegun::Busy(_)) if began.elapsed() < LET_GO => {}
            Err(NotBegun::Busy(_)) if entry == Entry::Persist && is_of_our_job(job) => {
                return after_run(job).await;
            }
            Ok(alone) => {
                sign::clear(home);
                return Ok(alone);
            }
            Err(NotBegun::Busy(_)) => return Err(in_use(home, users::lock_holder(home))),
            Err(error) => return Err(error),
        }
        if Instant::now() > until {
            return match entry {
                Entry::Job | Entry::Watch => Err(in_use(home, users::lock_holder(home))),
                Entry::Persist => {
                    sign::clear(home);
                    Ok(None)
                }
            };
        }
        sleep(GLANCE).await;
    }
}

/// Locks the folder itself, not a file of Codex. A missing home needs no lock.
pub(crate) fn lock(home: &Home) -> Result<Option<File>, NotBegun> {
    let folder = match File::open(home.dir()) {
        Ok(folder) => folder,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    match folder.try_lock() {
        Ok(()) => Ok(Some(folder)),
        Err(TryLockError::WouldBlock) => Err(NotBegun::Busy(home.dir().to_owned())),
        // A file system that has no locks for folders is no reason to do without the login.
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

/// Decides whether a job may begin in its home.
pub(crate) fn judge(job: &Job<'_>, holder: Holder) -> Admission {
    let state = || receipt(job).map_or(JobState::Unknown, |receipt| receipt.owner.state());
    match holder {
        Holder::Job => Admission::Refused(None),
        Holder::Nobody | Holder::Watch => users::admit(holder, state()),
    }
}

/// Who has the lock that we got, or did not get.
pub(crate) fn holder(home: &Home, locked: &Result<Option<File>, NotBegun>) -> Holder {
    match locked {
        Ok(_) => Holder::Nobody,
        Err(_) if sign::is_up(home) => Holder::Watch,
        Err(_) => Holder::Job,
    }
}

pub(crate) fn in_use(home: &Home, by: Option<User>) -> NotBegun {
    let home = home.dir().to_owned();
    match by {
        Some(user) => NotBegun::InUse(home, user),
        None => NotBegun::Busy(home),
    }
}

/// Whether a `run` of this job holds the lock, by its receipt, and does not wait for us.
fn is_of_our_job(job: &Job<'_>) -> bool {
    let is_ours = receipt(job).is_some_and(|receipt| receipt.owner.state() == JobState::Ours);
    is_ours && users::lock_holder(job.home).is_some_and(|holder| !holder.is_above_us())
}

/// Takes the lock when a `run` of the same job has ended. On GitLab, a script may still run when its
/// `after_script` begins.
async fn after_run(job: &Job<'_>) -> Result<Option<File>, NotBegun> {
    let mut clock = OwnClock::start();
    loop {
        match lock(job.home) {
            Err(NotBegun::Busy(_)) => {}
            locked => return locked,
        }
        // Which version the other `run` has started is not known.
        let look = job.home.settled_look();
        let is_due = look.map_or(true, |look| {
            codex_process::may_be_spent(&look, DueRule::Any)
        });
        if clock.read() >= end_timeout(job, is_due) {
            return Err(match users::lock_holder(job.home) {
                Some(user) => NotBegun::AtWork(job.home.auth_file().to_owned(), user, is_due),
                None => NotBegun::Busy(job.home.dir().to_owned()),
            });
        }
        sleep(PACE).await;
    }
}

/// How long a Codex is waited for at the end of a job.
pub(crate) fn end_timeout(job: &Job<'_>, is_due: bool) -> Duration {
    if is_due { SPENT_TIMEOUT } else { job.linger }
}

/// Waits for processes that an earlier job left in the home, and kills those that do not end.
async fn settle_leftovers(
    job: &Job<'_>,
    wait: Duration,
    admitted: &mut Admitted,
) -> Result<(), NotBegun> {
    for user in users::of(job.home).unwrap_or_default() {
        let mut clock = OwnClock::start();
        let mut written = Written::look(job.home);
        let mut idle = written.since.min(user.age());
        while user.uses(job.home) {
            let now = Written::look(job.home);
            if now.at != written.at {
                (written, idle, clock) = (now, Duration::ZERO, OwnClock::start());
            }
            let owner = receipt(job).map(|receipt| receipt.owner);
            let look = job.home.settled_look();
            // A file that cannot be read says nothing of the login that Codex has in memory.
            let is_due = look.as_ref().map_or(true, |look| user.may_have_spent(look));
            // It did not begin to refresh before the login was due.
            let since_due = look.map_or(Duration::MAX, |look| user.due_since(&look));
            let idle_now = (idle + clock.read()).min(since_due);
            // After a pause of the machine an answer may have arrived that Codex has not read yet.
            let grace = if is_due {
                job.linger.max(OVERDUE_FOR)
            } else {
                job.linger
            };
            match users::leftover(&user.found(owner.as_ref(), is_due, idle_now)) {
                Leftover::Ours => {
                    admitted.codex.get_or_insert_with(|| user.clone());
                    break;
                }
                Leftover::Foreign => return Err(in_use(job.home, Some(user))),
                Leftover::MayWrite if clock.last() >= wait => {
                    return Err(NotBegun::LeftOver(job.home.dir().to_owned(), user));
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
            // All that is known of it is looked up when that may decide, and once in a while.
            let longest = SPENT_LIMIT.saturating_sub(idle);
            let limits = [grace, wait, longest, clock.last() + LOOK_AGAIN];
            let until = limits.into_iter().filter(|it| *it > clock.last()).min();
            while user.is_there() && until.is_some_and(|until| clock.last() < until) {
                sleep(PACE).await;
                clock.read();
            }
        }
    }
    Ok(())
}

/// When the auth file was written.
struct Written {
    at: Option<SystemTime>,
    /// How long ago, by the clock of the machine.
    since: Duration,
}

impl Written {
    fn look(home: &Home) -> Self {
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

/// How often to look at everything that is known of a leftover.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Ends a process with SIGTERM, then SIGKILL.
async fn end(user: &User) {
    for signal in [Signal::TERM, Signal::KILL] {
        user.signal(signal);
        let mut clock = OwnClock::start();
        while user.is_there() && clock.read() < GRACE {
            sleep(PACE).await;
        }
    }
}
