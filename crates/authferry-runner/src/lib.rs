//! Does what the core asks: store, command, file, signals, time.
//!
//! [`run`], [`restore`] and [`persist`] each carry one trip to its end and tell what
//! became of the login; [`seed`] puts a first one into the store. The machine in the core
//! decides, `drive` is the only loop that awaits, and everything here that
//! touches a secret hands it on without looking.
//!
//! One process makes one trip at a time: it collects every child that the process has.

mod base_text;
mod bounded;
mod child;
mod codex_process;
mod copies;
mod deadline;
mod drive;
mod job_identity;
mod lease;
mod mark;
mod own_time;
mod ownership;
mod processes;
mod receipt;
mod refresher;
mod rehearse;
mod report;
pub mod rescue;
mod rotate;
mod rotations;
mod seed;
mod sign;
mod signals;
mod supervise;
mod surroundings;
mod unwound;
mod users;
mod watch;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use authferry_codex::{Home, Look, Unfit};
use authferry_core::copies::Copy;
use authferry_core::{
    Effect, Event, Fingerprint, Goal, Policy, Secret, SecretStore, Seen, Stored, Terms, Trip,
};

pub use copies::{FoundCopy, find, look};
pub use job_identity::{JOB_VARIABLES, name_job};
pub use lease::{Lease, LeaseDefect};
pub use mark::{Mark, NotAMark};
pub use ownership::{Admitted, admit};
#[doc(hidden)]
pub use processes::make_up_processes;
pub use receipt::Receipt;
pub use refresher::{Codex, Refreshed, Supervisor};
pub use rehearse::{Introduction, foresee, try_claim};
pub use report::{CommandEnd, InUse, Placement, Report, Written};
pub use rotate::{Rotated, Rotating, claim, rotate, rotate_first};
pub use seed::{NotSeeded, Replace, Seed, SeedError, Seeded, seed};
pub use sign::WATCH_LOG;
pub use signals::{Signals, survive_file_size_limit};
pub use supervise::{Orphan, Supervised, supervise, take_over};
pub use unwound::Panicked;
pub use users::User;

pub(crate) use ownership::{Entry, alone, lock};
use rescue::Rescue;
use sign::Sign;
use tokio::time::{Instant, sleep, timeout};
use watch::Watch;

/// What a trip works with.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a term of its own")]
pub struct Job<'a> {
    /// Where the login is kept.
    pub store: &'a dyn SecretStore,
    /// Where Codex looks for it. Has passed [`Home::preflight`].
    pub home: &'a Home,
    /// Where generations go that the store will not hold.
    pub rescue: &'a Rescue,
    /// The folder in which rotations have their private homes, if there is one that stays.
    pub rotations: Option<&'a Path>,
    /// Whose generation stays current after a conflict.
    pub policy: Policy,
    /// Whether restore may replace a file that is unusable, foreign or undecided.
    pub replace: bool,
    /// Whether persist may write a login of another account than was restored.
    pub allow_account_change: bool,
    /// Whether the command gets the login without its refresh token. Nothing that it does to
    /// the file is persisted then.
    pub access_only: bool,
    /// Who writes, for people.
    pub writer: &'a str,
    /// Whoever wants to know each login before the command can.
    pub witness: Option<&'a dyn Witness>,
    /// How long the store may take before the command, and again after it.
    pub patience: Duration,
    /// How long leftover processes of the command, or other processes that use the home, may run
    /// after the command has ended.
    pub linger: Duration,
    /// Whether a watch of the same job is running, so that the login stays in the home.
    pub nested: bool,
    /// How long the first signal is held back while a Codex in the home may have spent the refresh
    /// token.
    pub cancel_grace: Duration,
}

impl<'a> Job<'a> {
    /// A job with these parts: it replaces nothing, allows no change of account, and waits `patience`
    /// for the store, for leftover processes, and before it passes a signal on.
    #[must_use]
    pub fn new(
        store: &'a dyn SecretStore,
        home: &'a Home,
        rescue: &'a Rescue,
        writer: &'a str,
        patience: Duration,
    ) -> Self {
        Self {
            store,
            home,
            rescue,
            rotations: None,
            policy: Policy::Newest,
            replace: false,
            allow_account_change: false,
            access_only: false,
            writer,
            witness: None,
            patience,
            linger: patience,
            nested: false,
            cancel_grace: patience,
        }
    }
}

/// Sees each login that comes into the home, before the command or as soon as Codex has
/// written it.
pub trait Witness: fmt::Debug {
    /// Looks at a login. It may be one that was seen before.
    fn sees(&self, login: &Secret);
    /// The command is about to be started, and has our streams.
    fn command_begins(&self);
}

/// Why a trip did not begin. Nothing was touched.
#[derive(Debug, thiserror::Error)]
pub enum NotBegun {
    /// The auth file cannot be looked at.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// Another trip is under way in this home.
    #[error("another authferry is at work in {}", .0.display())]
    Busy(PathBuf),
    /// The home is in use: by this process, or by a job of which this process still runs.
    #[error("{} is in use by {}", .0.display(), .1)]
    InUse(PathBuf, User),
    /// A Codex that an earlier job left in the home may be about to write the next login.
    #[error("{} was left in {} by an earlier job, and may be writing the next login", .1, .0.display())]
    LeftOver(PathBuf, User),
    /// A `run` of the same job uses the home and will persist: the auth file, the process, and
    /// whether the login may be spent.
    #[error("{} is still at work with {}", .1, .0.display())]
    AtWork(PathBuf, User, bool),
    /// What was restored was persisted meanwhile, and was taken away.
    #[error("nothing is left to do in {}", .0.display())]
    NothingLeft(PathBuf),
    /// The home holds an auth file already, which an access-only one would replace.
    #[error("{} is there already", .0.display())]
    Occupied(PathBuf),
    /// A rotation of the login is under way on this machine: what it writes is the next
    /// generation.
    #[error("a rotation of the login is under way in {}", .0.display())]
    Rotating(PathBuf),
    /// There is no place for the home in which the login is rotated.
    #[error("cannot make a private folder in {}", .0.display())]
    NoPlace(PathBuf, #[source] io::Error),
    /// The rescue folder cannot be listed: the only live login may be there.
    #[error("the rescue folder {} cannot be used: {}", .0.display(), .1)]
    NoRescue(PathBuf, io::Error),
    /// The system does not give what every trip needs.
    #[error("cannot get random bytes from the system")]
    System(#[from] io::Error),
}

/// Restores the login, runs the command, writes through meanwhile and persists after it.
///
/// `known` is what was just read from the store, if anything was: it is not read again
/// then. A `lease` is renewed until the end. The report tells the outcome; an error means
/// that nothing was touched.
pub async fn run(
    job: &Job<'_>,
    command: Command,
    known: Option<Stored>,
    lease: Option<&mut Lease<'_>>,
    signals: &mut Signals,
) -> Result<Report, NotBegun> {
    let (driver, step) = begin(job, Goal::Run, Some(command), known).await?;
    Ok(Box::pin(driver.holding(lease).drive(step, signals)).await)
}

/// Restores the login and leaves a receipt beside it.
///
/// `known` is what was just read from the store, if anything was: it is not read again
/// then. The report tells the outcome; an error means that nothing was touched.
pub async fn restore(
    job: &Job<'_>,
    known: Option<Stored>,
    signals: &mut Signals,
) -> Result<Report, NotBegun> {
    let (driver, step) = begin(job, Goal::Restore, None, known).await?;
    Ok(Box::pin(driver.drive(step, signals)).await)
}

/// Persists what is in the home, which descends from what `receipt` tells.
///
/// The report tells the outcome; an error means that nothing was touched.
pub async fn persist(
    job: &Job<'_>,
    receipt: &Receipt,
    signals: &mut Signals,
) -> Result<Report, NotBegun> {
    let begin = Instant::now();
    if let Some(other) = receipt.owner.other_job() {
        return Err(NotBegun::InUse(job.home.dir().to_owned(), other));
    }
    let alone = alone(job, Entry::Persist).await?;
    recover(job).await?;
    // A watch that has made way for us may have moved it meanwhile.
    let moved = self::receipt(job);
    if moved.is_none() && job.home.auth_file().symlink_metadata().is_err() {
        return Err(NotBegun::NothingLeft(job.home.dir().to_owned()));
    }
    let receipt = moved.as_ref().unwrap_or(receipt);
    // A file that may not be opened is as unusable as one that makes no sense.
    let mut glimpse = None;
    let (look, unfit) = match job.home.settled_look_with(&mut glimpse) {
        Ok(look) => (look, None),
        Err(unfit) => (Look::Missing, Some(unfit)),
    };
    let seen = if unfit.is_some() {
        Seen::Unusable
    } else {
        seen(&look)
    };
    // What was lent comes back as it was, whatever became of the file.
    let seen = if receipt.access_only {
        Seen::Usable(receipt.base.generation.clone())
    } else {
        seen
    };
    let glimpse = glimpse.filter(|_| !matches!(seen, Seen::Usable(_)));
    let (terms, base) = (taking_over(job, &look).await?, receipt.base.clone());
    // A file without a refresh token is not rotated.
    let others = !receipt.access_only && users::of(job.home).is_some_and(|it| !it.is_empty());
    let step = match &glimpse {
        _ if others => Trip::join(
            terms,
            base,
            &records(job),
            self::seen(glimpse.as_ref().unwrap_or(&look)),
        ),
        None => Trip::resume(terms, base, &records(job), seen),
        Some(glimpse) => {
            let (trip, mut effects) = Trip::join(terms, base, &records(job), self::seen(glimpse));
            let (trip, more) = trip.step(Event::Exited(seen));
            effects.extend(more);
            (trip, effects)
        }
    };
    let driver = drive::Driver::new(job, alone, look, None, receipt.placed)
        .resumed(receipt, unfit)
        .since(begin)
        .with_glimpse(glimpse.as_ref());
    let driver = if others {
        driver.waiting_for_others()
    } else {
        driver
    };
    Ok(Box::pin(driver.drive(step, signals)).await)
}

/// Writes through what others do to the home, until a signal or somebody else who comes to
/// the home says that this is enough. `receipt` tells where it takes over, and `began` is
/// called once nothing can be missed any more.
///
/// It leaves everything where it is: [`persist`] has the last look.
pub async fn watch(
    job: &Job<'_>,
    receipt: &Receipt,
    signals: &mut Signals,
    began: impl FnOnce(),
) -> Result<Report, NotBegun> {
    let alone = alone(job, Entry::Watch).await?;
    recover(job).await?;
    let sign = Sign::put_up(job.home)?;
    // From here on a change is noticed; what was written before is there to be looked at.
    let watch = Watch::new(job.home.auth_file());
    let look = job.home.settled_look().unwrap_or(Look::Missing);
    let base = receipt.base.clone();
    let terms = taking_over(job, &look).await?;
    let step = Trip::join(terms, base, &records(job), seen(&look));
    let driver = drive::Driver::new(job, alone, look, None, receipt.placed).resumed(receipt, None);
    began();
    Ok(driver.stand_by(step, sign, watch, signals).await)
}

async fn begin<'a, 'l: 'a>(
    job: &'a Job<'a>,
    goal: Goal,
    command: Option<Command>,
    known: Option<Stored>,
) -> Result<(drive::Driver<'a, 'l>, (Trip, Vec<Effect>)), NotBegun> {
    let begin = Instant::now();
    let alone = alone(job, Entry::Job).await?;
    recover(job).await?;
    if known.as_ref().is_none_or(is_due) {
        no_rotation_at_work(job, begin).await?;
    }
    let look = job.home.settled_look()?;
    let refused = timeout(job.patience, refused(job, &look)).await;
    let refused = refused.unwrap_or_default();
    let found = copies::find(&job.store.to_string(), job.rescue, job.rotations)
        .map_err(|error| NotBegun::NoRescue(job.rescue.folder().to_owned(), error))?;
    let start = start(job, goal, &look, &refused, found)?;
    let outer = receipt(job).filter(|_| job.nested);
    let driver = drive::Driver::new(job, alone, look, command, start.placed)
        .owned_by(outer.map(|receipt| receipt.owner))
        .since(begin)
        .knowing(known)
        .with_copies(start.copies);
    Ok((driver, start.step))
}

/// Gives an auth file its name again that was being replaced or removed when a job was killed, or
/// that Codex was about to put in place when it was. If something else has the name, it is kept.
async fn recover(job: &Job<'_>) -> Result<(), NotBegun> {
    if let Some((aside, secret)) = job.home.recover()? {
        let store = job.store.to_string();
        let record = rescue::Record::new(store, rescue::Reason::SetAside, None, job.writer);
        let limit = rescue::SECOND_STORE_TIMEOUT.min(job.patience);
        let kept = job.rescue.keep(&secret, &record, limit).await;
        kept.location
            .map_err(|error| NotBegun::NoRescue(job.rescue.folder().to_owned(), error))?;
        std::fs::remove_file(aside)?;
    }
    // What a killed Codex wrote and did not rename is the next login of what is in place.
    if !job.home.all_unrenamed().is_empty()
        && let Some(receipt) = receipt(job)
    {
        let base = receipt.base.generation.fingerprint;
        let is_base = match job.home.look()? {
            Look::Missing => true,
            Look::Usable { generation, .. } => generation.fingerprint == base,
            Look::Unusable { .. } => false,
        };
        if is_base {
            job.home.rename_for_codex(Some(base));
        }
    }
    Ok(())
}

/// The first step of a trip that finds `look` in the home and `found` elsewhere, with the copies
/// that it begins with, and whether what is placed there is to be taken away again.
fn start(
    job: &Job<'_>,
    goal: Goal,
    look: &Look,
    refused: &[Fingerprint],
    found: Vec<FoundCopy>,
) -> Result<Start, NotBegun> {
    let receipt = receipt(job);
    let before = before(job, look)?;
    let placed = before == Seen::Missing || receipt.as_ref().is_some_and(|r| r.placed);
    let mut copies = vec![copies::auth_file(job, look, receipt.as_ref())];
    copies.extend(found);
    let terms = Terms {
        refused: refused.to_vec(),
        ..terms(job, goal)?
    };
    let step = Trip::start(
        terms,
        copies.iter().map(|found| found.copy.clone()).collect(),
    );
    Ok(Start {
        placed,
        copies,
        step,
    })
}

/// How a trip starts.
struct Start {
    placed: bool,
    copies: Vec<FoundCopy>,
    step: (Trip, Vec<Effect>),
}

/// The terms of a trip whose first half another process made. Where the file is not what that
/// placed, a cache may have brought it back: the second store and what the provider refused are
/// looked at. If they do not answer, the login is still persisted.
async fn taking_over(job: &Job<'_>, look: &Look) -> io::Result<Terms> {
    let settled = receipt(job).map(|receipt| receipt.base.generation.fingerprint);
    let mut terms = terms(job, Goal::Run)?;
    if let Look::Usable { generation, .. } = look
        && Some(generation.fingerprint) != settled
    {
        let limit = rescue::SECOND_STORE_TIMEOUT.min(job.patience / 4);
        job.rescue.look(limit).await.ok();
        let refused = timeout(limit, Mark::refused(job.store)).await;
        terms.refused = refused.unwrap_or_default();
    }
    Ok(terms)
}

/// What the records in the rescue folder say of the logins there, for a trip whose first half
/// another process made.
fn records(job: &Job<'_>) -> Vec<Copy> {
    // What Codex wrote is not left behind because of a folder that cannot be listed.
    let found = copies::look(&job.store.to_string(), job.rescue, None).unwrap_or_default();
    let here = found.into_iter().filter(|found| found.elsewhere.is_none());
    here.map(|found| found.copy).collect()
}

/// The receipt of an earlier trip, also one that names another address: the decision tells what
/// it is worth. A note that cannot be parsed counts as none, and is written anew.
fn receipt(job: &Job<'_>) -> Option<Receipt> {
    Receipt::read(job.home).ok().flatten()
}

/// Waits until no rotation of the login is under way on this machine: what the store holds may be
/// spent by then.
async fn no_rotation_at_work(job: &Job<'_>, begin: Instant) -> Result<(), NotBegun> {
    let store = job.store.to_string();
    let mut overdue = rotations::Overdue::default();
    loop {
        match copies::rotation_at_work(&store, job.rotations) {
            None => return Ok(()),
            Some(home) if begin.elapsed() > job.patience => return Err(NotBegun::Rotating(home)),
            Some(home) => overdue.look(&home),
        }
        sleep(ROTATION_PACE).await;
    }
}

/// How often to see whether a rotation is over.
const ROTATION_PACE: Duration = Duration::from_millis(50);

/// Whether Codex would rotate a login within five minutes.
fn is_due(stored: &Stored) -> bool {
    let soon = i64::try_from(lease::now()).map_or(i64::MAX, |now| now.saturating_add(300));
    let login = authferry_codex::parse(&stored.secret);
    login.map_or(true, |login| login.issued.is_due(soon))
}

/// What the provider refused, as far as it was noted with the lease. Looked at only if there
/// is a copy that is not what its receipt says the store had.
async fn refused(job: &Job<'_>, look: &Look) -> Vec<Fingerprint> {
    let receipt = receipt(job);
    let settled = receipt.map(|receipt| receipt.base.generation.fingerprint);
    let in_home = match look {
        Look::Usable { generation, .. } => Some(generation.fingerprint),
        Look::Missing | Look::Unusable { .. } => None,
    };
    let differs = in_home.is_some_and(|it| Some(it) != settled)
        || copies::look(&job.store.to_string(), job.rescue, job.rotations)
            .is_ok_and(|found| !found.is_empty());
    if differs {
        Mark::refused(job.store).await
    } else {
        Vec::new()
    }
}

/// What is in the home before anything is done. An access-only file is as good as none: there is
/// nothing in it to be kept.
fn before(job: &Job<'_>, look: &Look) -> Result<Seen, NotBegun> {
    match seen(look) {
        Seen::Unusable if is_lent(look) => Ok(Seen::Missing),
        Seen::Unusable | Seen::Usable(_) if job.access_only => {
            Err(NotBegun::Occupied(job.home.auth_file().to_owned()))
        }
        seen @ (Seen::Missing | Seen::Unusable | Seen::Usable(_)) => Ok(seen),
    }
}

/// Whether this is a file without a refresh token.
fn is_lent(look: &Look) -> bool {
    match look {
        Look::Unusable { why, .. } => authferry_codex::is_access_only(*why),
        Look::Missing | Look::Usable { .. } => false,
    }
}

fn terms(job: &Job<'_>, goal: Goal) -> io::Result<Terms> {
    Ok(Terms {
        goal,
        policy: job.policy,
        trip: random()?,
        refused: Vec::new(),
        history: job.store.guarantees().history,
        replace: job.replace,
        allow_account_change: job.allow_account_change,
        is_rotation: false,
    })
}

fn random() -> io::Result<u64> {
    getrandom::u64().map_err(io::Error::other)
}

fn seen(look: &Look) -> Seen {
    match look {
        Look::Missing => Seen::Missing,
        Look::Unusable { .. } => Seen::Unusable,
        Look::Usable { generation, .. } => Seen::Usable(generation.clone()),
    }
}
