//! Executes what the core decides: store requests, the command, files, signals, timers.
//!
//! [`run`], [`restore`] and [`persist`] each make one round trip and report what happened to the
//! login; [`seed()`] puts a first login into the store. The state machine in the core decides,
//! `drive` is the only event loop, and all code here that handles a secret passes it on without
//! inspecting it.
//!
//! One process makes one round trip at a time, because a round trip reaps all children of its
//! process.
//!
//! # Examples
//!
//! The command does not start without a login in the store.
//!
//! ```
//! use std::{process::Command, time::Duration};
//!
//! use authferry_codex::Home;
//! use authferry_conformance::MemoryStore;
//! use authferry_core::{Outcome, Refusal};
//! use authferry_runner::{Job, Signals, rescue::Rescue};
//!
//! let folder = tempfile::tempdir()?;
//! let home = Home::new(folder.path())?;
//! let rescue = Rescue::new(folder.path().join("rescue"));
//! let store = MemoryStore::new("example");
//! let job = Job::new(&store, &home, &rescue, "job 1", Duration::from_secs(10));
//! let mut runtime = tokio::runtime::Builder::new_current_thread();
//! let report = runtime.enable_all().build()?.block_on(async {
//!     let mut signals = Signals::install()?;
//!     authferry_runner::run(&job, Command::new("true"), None, None, &mut signals).await
//! })?;
//! assert_eq!(report.outcome, Outcome::Refused(Refusal::NothingStored));
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```

mod base_text;
mod bounded;
mod child;
mod codex_process;
mod copies;
mod deadline;
mod drive;
mod job_identity;
mod lease;
mod login_use;
mod own_time;
mod ownership;
mod processes;
mod receipt;
mod refresher;
mod refusal_note;
mod rehearse;
mod report;
pub mod rescue;
mod rotate;
mod rotations;
mod sanitized;
mod seed;
mod signals;
mod supervise;
mod surroundings;
mod unwound;
mod users;
mod watch;
mod watch_marker;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use authferry_codex::{Home, HomeError, Look};
use authferry_core::copies::Copy;
use authferry_core::{
    Effect, Event, Fingerprint, Goal, Policy, RoundTrip, Secret, SecretStore, Seen, Stored, Terms,
};

pub use copies::{FoundCopy, find, find_read_only};
pub use job_identity::{JOB_VARIABLES, name_job};
pub use lease::{LeaseDefect, LeaseKeeper};
pub use login_use::{LOGIN_STATUS_TIMEOUT, LoginAnswer};
pub use ownership::{Admitted, admit};
#[doc(hidden)]
pub use processes::make_up_processes;
pub use receipt::Receipt;
pub use refresher::{Codex, Refreshed, Supervisor};
pub use refusal_note::{NotARefusalNote, RefusalNote};
pub use rehearse::{VersionAnswer, preview_restore, try_lease};
pub use report::{CommandEnd, InUse, Placement, Report, Written};
pub use rotate::{Rotated, Rotating, lease, rotate, rotate_first};
pub use seed::{NotSeeded, Replace, Seed, SeedError, Seeded, seed};
pub use signals::{Signals, survive_file_size_limit};
pub use supervise::{Orphan, Supervised, supervise, take_over};
pub use unwound::Panicked;
pub use users::User;
pub use watch_marker::WATCH_LOG;

pub(crate) use ownership::{LockPurpose, lock_home, try_lock};
use rescue::Rescue;
use tokio::time::{Instant, sleep, timeout};
use watch::Watch;
use watch_marker::WatchMarker;

/// The parameters of a round trip.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an independent option"
)]
pub struct Job<'a> {
    /// The store of the login.
    pub store: &'a dyn SecretStore,
    /// The home in which Codex finds the login. It has passed [`Home::preflight`].
    pub home: &'a Home,
    /// Where generations are rescued that the store does not accept.
    pub rescue: &'a Rescue,
    /// The folder for the private homes of rotations, if a folder survives the job.
    pub rotations: Option<&'a Path>,
    /// Whose generation stays current after a conflict.
    pub policy: Policy,
    /// Whether restore may overwrite a file that is unusable, of another account, or of an unknown
    /// family.
    pub replace: bool,
    /// Whether persist may write a login of another account than was restored.
    pub allow_account_change: bool,
    /// Whether the command gets the login without its refresh token. Its changes to the file are
    /// not persisted.
    pub access_only: bool,
    /// The writer's name, human-readable.
    pub writer: &'a str,
    /// The observer of each login, called before the command starts and whenever Codex has written
    /// a login.
    pub observer: Option<&'a dyn LoginObserver>,
    /// The store timeout before the command, and again after it.
    pub store_timeout: Duration,
    /// How long leftover processes of the command, or other processes that use the home, may run
    /// after the command has ended.
    pub exit_grace: Duration,
    /// Whether a watch of the same job is running, so that the login stays in the home.
    pub nested: bool,
    /// How long the first signal is held back while a Codex in the home may have spent the refresh
    /// token.
    pub cancel_grace: Duration,
}

impl<'a> Job<'a> {
    /// Creates a job with defaults: it replaces nothing, allows no account change, and uses
    /// `store_timeout` for the store, for leftover processes, and for holding back a signal.
    #[must_use]
    pub fn new(
        store: &'a dyn SecretStore,
        home: &'a Home,
        rescue: &'a Rescue,
        writer: &'a str,
        store_timeout: Duration,
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
            observer: None,
            store_timeout,
            exit_grace: store_timeout,
            nested: false,
            cancel_grace: store_timeout,
        }
    }
}

/// Observes each login in the home, before the command starts and as soon as Codex has written one.
///
/// # Examples
///
/// ```
/// use std::cell::Cell;
///
/// use authferry_core::Secret;
/// use authferry_runner::LoginObserver;
///
/// #[derive(Debug, Default)]
/// struct LongestLogin(Cell<usize>);
///
/// impl LoginObserver for LongestLogin {
///     fn on_login(&self, login: &Secret) {
///         self.0.set(self.0.get().max(login.expose().len()));
///     }
///
///     fn on_command_start(&self) {}
/// }
///
/// let observer = LongestLogin::default();
/// observer.on_login(&Secret::new(b"{}".to_vec()));
/// assert_eq!(observer.0.get(), 2);
/// ```
pub trait LoginObserver: fmt::Debug {
    /// Called with each login. The same login may be passed again.
    fn on_login(&self, login: &Secret);
    /// Called just before the command is started with our standard streams.
    fn on_command_start(&self);
}

/// Why a round trip did not start. The round trip wrote nothing to the store and started no
/// command.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The auth file cannot be read.
    #[error(transparent)]
    HomeError(#[from] HomeError),
    /// Another round trip holds the lock of the home.
    #[error("{} is locked by another authferry process", .0.display())]
    Busy(PathBuf),
    /// The home is in use by this process, or belongs to a job of which this process is still
    /// running.
    #[error("{} is in use by {}", .0.display(), .1)]
    InUse(PathBuf, User),
    /// A Codex that an earlier job left in the home may be about to write the next login.
    #[error("{}, left in {} by an earlier job, may be writing the next login", .1, .0.display())]
    LeftoverCodex(PathBuf, User),
    /// A `run` of the same job uses the home and will persist: the auth file, the process, and
    /// whether the login may be spent.
    #[error("{} is still using {}", .1, .0.display())]
    StillRunning(PathBuf, User, bool),
    /// The restored login was persisted and removed meanwhile.
    #[error("nothing is left to do in {}", .0.display())]
    AlreadyPersisted(PathBuf),
    /// The home already holds an auth file, which an access-only file would overwrite.
    #[error("{} already exists", .0.display())]
    AuthFileExists(PathBuf),
    /// A rotation of the login is in progress on this machine, and writes the next generation.
    #[error("a rotation of the login is in progress in {}", .0.display())]
    Rotating(PathBuf),
    /// The private home for a rotation cannot be created.
    #[error("cannot create a private folder in {}", .0.display())]
    NoPrivateHome(PathBuf, #[source] io::Error),
    /// The rescue folder cannot be listed: the only live login may be there.
    #[error("the rescue folder {} cannot be used: {}", .0.display(), .1)]
    RescueFolder(PathBuf, io::Error),
    /// The system failed to return random bytes, or another system call failed before the round
    /// trip.
    #[error("the system refused a call that every round trip needs")]
    System(#[from] io::Error),
}

/// Restores the login, runs the command, writes rotations through, and persists at the end.
///
/// `known`: the result of a store read just before, which saves a request. A `lease` is renewed
/// until the end. The report holds the outcome; an error means that nothing was changed.
pub async fn run(
    job: &Job<'_>,
    command: Command,
    known: Option<Stored>,
    lease: Option<&mut LeaseKeeper<'_>>,
    signals: &mut Signals,
) -> Result<Report, StartError> {
    let (driver, step) = begin(job, Goal::Run, Some(command), known).await?;
    Ok(Box::pin(driver.with_lease(lease).drive(step, signals)).await)
}

/// Restores the login and writes a receipt into the home.
///
/// `known`: the result of a store read just before, which saves a request. The report holds the
/// outcome; an error means that nothing was changed.
pub async fn restore(
    job: &Job<'_>,
    known: Option<Stored>,
    signals: &mut Signals,
) -> Result<Report, StartError> {
    let (driver, step) = begin(job, Goal::Restore, None, known).await?;
    Ok(Box::pin(driver.drive(step, signals)).await)
}

/// Persists the login in the home, which descends from the base in `receipt`.
///
/// The report holds the outcome; an error means that nothing was changed.
pub async fn persist(
    job: &Job<'_>,
    receipt: &Receipt,
    signals: &mut Signals,
) -> Result<Report, StartError> {
    let begin = Instant::now();
    if let Some(other) = receipt.owner.other_job() {
        return Err(StartError::InUse(job.home.dir().to_owned(), other));
    }
    let home_lock = lock_home(job, LockPurpose::Persist).await?;
    recover(job).await?;
    // A watch that has handed the home over may have updated the receipt meanwhile.
    let current_receipt = self::receipt(job);
    if current_receipt.is_none() && job.home.auth_file().symlink_metadata().is_err() {
        return Err(StartError::AlreadyPersisted(job.home.dir().to_owned()));
    }
    let receipt = current_receipt.as_ref().unwrap_or(receipt);
    // A file that cannot be opened counts as unusable.
    let mut transient = None;
    let (look, home_error) = match job.home.settled_look_with(&mut transient) {
        Ok(look) => (look, None),
        Err(home_error) => (Look::Missing, Some(home_error)),
    };
    let seen = if home_error.is_some() {
        Seen::AuthFileError
    } else {
        seen(&look)
    };
    // An access-only login is unchanged, even if the file has changed.
    let seen = if receipt.access_only {
        Seen::Usable(receipt.base.generation.clone())
    } else {
        seen
    };
    let transient = transient.filter(|_| !matches!(seen, Seen::Usable(_)));
    let (terms, base) = (resume_terms(job, &look).await?, receipt.base.clone());
    // An access-only file is not rotated.
    let has_other_users =
        !receipt.access_only && users::of(job.home).is_some_and(|it| !it.is_empty());
    let step = match &transient {
        _ if has_other_users => RoundTrip::join(
            terms,
            base,
            &records(job),
            self::seen(transient.as_ref().unwrap_or(&look)),
        ),
        None => RoundTrip::resume(terms, base, &records(job), seen),
        Some(transient) => {
            let (round_trip, mut effects) =
                RoundTrip::join(terms, base, &records(job), self::seen(transient));
            let (round_trip, more) = round_trip.step(Event::Exited(seen));
            effects.extend(more);
            (round_trip, effects)
        }
    };
    let driver = drive::RoundTripDriver::new(job, home_lock, look, None, receipt.placed)
        .resumed(receipt, home_error)
        .since(begin)
        .with_transient(transient.as_ref());
    let driver = if has_other_users {
        driver.waiting_for_other_users()
    } else {
        driver
    };
    Ok(Box::pin(driver.drive(step, signals)).await)
}

/// Writes through what other steps of the job do to the home, until a signal or a handover request.
/// `receipt`: where the watch resumes. `began` is called once no change can be missed any more.
///
/// The watch leaves file and receipt in the home: [`persist`] makes the final read.
pub async fn watch(
    job: &Job<'_>,
    receipt: &Receipt,
    signals: &mut Signals,
    began: impl FnOnce(),
) -> Result<Report, StartError> {
    let home_lock = lock_home(job, LockPurpose::Watch).await?;
    recover(job).await?;
    let marker = WatchMarker::create(job.home)?;
    // From here on changes are noticed; earlier ones are in the file that is read next.
    let watch = Watch::new(job.home.auth_file());
    let look = job.home.settled_look().unwrap_or(Look::Missing);
    let base = receipt.base.clone();
    let terms = resume_terms(job, &look).await?;
    let step = RoundTrip::join(terms, base, &records(job), seen(&look));
    let driver = drive::RoundTripDriver::new(job, home_lock, look, None, receipt.placed)
        .resumed(receipt, None);
    began();
    Ok(driver.watch_loop(step, marker, watch, signals).await)
}

async fn begin<'a, 'l: 'a>(
    job: &'a Job<'a>,
    goal: Goal,
    command: Option<Command>,
    known: Option<Stored>,
) -> Result<(drive::RoundTripDriver<'a, 'l>, (RoundTrip, Vec<Effect>)), StartError> {
    let begin = Instant::now();
    let home_lock = lock_home(job, LockPurpose::Job).await?;
    recover(job).await?;
    if known.as_ref().is_none_or(is_due) {
        wait_for_rotation(job, begin).await?;
    }
    let look = job.home.settled_look()?;
    let refused = timeout(job.store_timeout, refused(job, &look)).await;
    let refused = refused.unwrap_or_default();
    let found = copies::find(&job.store.to_string(), job.rescue, job.rotations)
        .map_err(|error| StartError::RescueFolder(job.rescue.folder().to_owned(), error))?;
    let start = start(job, goal, &look, &refused, found)?;
    let outer = receipt(job).filter(|_| job.nested);
    let driver = drive::RoundTripDriver::new(job, home_lock, look, command, start.placed)
        .owned_by(outer.map(|receipt| receipt.owner))
        .since(begin)
        .with_stored(known)
        .with_copies(start.copies);
    Ok((driver, start.step))
}

/// Completes an interrupted rename: of an auth file that was being replaced or removed when a job
/// was killed, or that a killed Codex was about to put in place. If the auth file's path is taken,
/// the interrupted file is rescued.
async fn recover(job: &Job<'_>) -> Result<(), StartError> {
    if let Some((aside, secret)) = job.home.recover()? {
        let store = job.store.to_string();
        let record = rescue::Record::new(store, rescue::Reason::SetAside, None, job.writer);
        let limit = rescue::SECOND_STORE_TIMEOUT.min(job.store_timeout);
        let kept = job.rescue.keep(&secret, &record, limit).await;
        kept.location
            .map_err(|error| StartError::RescueFolder(job.rescue.folder().to_owned(), error))?;
        std::fs::remove_file(aside)?;
    }
    // What a killed Codex wrote and did not rename is the next generation of the auth file.
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

/// Starts the state machine of a round trip that finds `look` in the home and the copies `found`
/// elsewhere.
fn start(
    job: &Job<'_>,
    goal: Goal,
    look: &Look,
    refused: &[Fingerprint],
    found: Vec<FoundCopy>,
) -> Result<Start, StartError> {
    let receipt = receipt(job);
    let seen_before = seen_before(job, look)?;
    let placed = seen_before == Seen::Missing || receipt.as_ref().is_some_and(|r| r.placed);
    let mut copies = vec![copies::auth_file(job, look, receipt.as_ref())];
    copies.extend(found);
    let terms = Terms {
        refused: refused.to_vec(),
        ..terms(job, goal)?
    };
    let step = RoundTrip::start(
        terms,
        copies.iter().map(|found| found.copy.clone()).collect(),
    );
    Ok(Start {
        placed,
        copies,
        step,
    })
}

/// The start of a round trip.
struct Start {
    /// Whether the end of the round trip removes the auth file, because there was none before.
    placed: bool,
    copies: Vec<FoundCopy>,
    step: (RoundTrip, Vec<Effect>),
}

/// The terms of a round trip that another process began. If the file is not what that process
/// placed, a cache may have restored an older one: read the second store and the rejected logins.
/// If those reads fail, the login is still persisted.
async fn resume_terms(job: &Job<'_>, look: &Look) -> io::Result<Terms> {
    let settled = receipt(job).map(|receipt| receipt.base.generation.fingerprint);
    let mut terms = terms(job, Goal::Run)?;
    if let Look::Usable { generation, .. } = look
        && Some(generation.fingerprint) != settled
    {
        let limit = rescue::SECOND_STORE_TIMEOUT.min(job.store_timeout / 4);
        job.rescue.load_second_store(limit).await.ok();
        let refused = timeout(limit, RefusalNote::refused_generations(job.store)).await;
        terms.refused = refused.unwrap_or_default();
    }
    Ok(terms)
}

/// The records of the logins in the rescue folder, for a round trip that another process began.
fn records(job: &Job<'_>) -> Vec<Copy> {
    // Persist what Codex wrote even if the folder cannot be listed.
    let found =
        copies::find_read_only(&job.store.to_string(), job.rescue, None).unwrap_or_default();
    let here = found.into_iter().filter(|found| found.elsewhere.is_none());
    here.map(|found| found.copy).collect()
}

/// The receipt of an earlier round trip, also of another store: the state machine decides what it
/// is worth. An unreadable receipt counts as missing, and is overwritten.
fn receipt(job: &Job<'_>) -> Option<Receipt> {
    Receipt::read(job.home).ok().flatten()
}

/// Waits until no rotation of the login is in progress on this machine: such a rotation may spend
/// what the store holds.
async fn wait_for_rotation(job: &Job<'_>, begin: Instant) -> Result<(), StartError> {
    let store = job.store.to_string();
    let mut overdue = rotations::OverdueCodex::default();
    loop {
        match copies::running_rotation(&store, job.rotations) {
            None => return Ok(()),
            Some(home) if begin.elapsed() > job.store_timeout => {
                return Err(StartError::Rotating(home));
            }
            Some(home) => overdue.check(&home),
        }
        sleep(ROTATION_POLL_INTERVAL).await;
    }
}

/// How often to check whether a rotation has ended.
const ROTATION_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Whether Codex would rotate the login within five minutes.
fn is_due(stored: &Stored) -> bool {
    let soon = i64::try_from(lease::now()).map_or(i64::MAX, |now| now.saturating_add(300));
    let login = authferry_codex::parse(&stored.secret);
    login.map_or(true, |login| login.issued.is_due(soon))
}

/// Reads from the note in the lease which generations the provider refused. Saves the request, and
/// returns none, unless the auth file differs from the receipt's base or another copy exists.
async fn refused(job: &Job<'_>, look: &Look) -> Vec<Fingerprint> {
    let receipt = receipt(job);
    let settled = receipt.map(|receipt| receipt.base.generation.fingerprint);
    let in_home = match look {
        Look::Usable { generation, .. } => Some(generation.fingerprint),
        Look::Missing | Look::Unusable { .. } => None,
    };
    let differs = in_home.is_some_and(|it| Some(it) != settled)
        || copies::find_read_only(&job.store.to_string(), job.rescue, job.rotations)
            .is_ok_and(|found| !found.is_empty());
    if differs {
        RefusalNote::refused_generations(job.store).await
    } else {
        Vec::new()
    }
}

/// The content of the home before the round trip. An access-only file counts as missing: it holds
/// nothing to keep.
fn seen_before(job: &Job<'_>, look: &Look) -> Result<Seen, StartError> {
    match seen(look) {
        Seen::AuthFileError if is_access_only(look) => Ok(Seen::Missing),
        Seen::AuthFileError | Seen::Usable(_) if job.access_only => {
            Err(StartError::AuthFileExists(job.home.auth_file().to_owned()))
        }
        seen @ (Seen::Missing | Seen::AuthFileError | Seen::Usable(_)) => Ok(seen),
    }
}

/// Whether this is an access-only file, without a refresh token.
fn is_access_only(look: &Look) -> bool {
    match look {
        Look::Unusable { why, .. } => authferry_codex::is_access_only(*why),
        Look::Missing | Look::Usable { .. } => false,
    }
}

fn terms(job: &Job<'_>, goal: Goal) -> io::Result<Terms> {
    Ok(Terms {
        goal,
        policy: job.policy,
        nonce: random()?,
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
        Look::Unusable { .. } => Seen::AuthFileError,
        Look::Usable { generation, .. } => Seen::Usable(generation.clone()),
    }
}
