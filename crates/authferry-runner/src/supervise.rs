//! The supervisor of a rotation's Codex.
//!
//! Between the provider's spend and Codex's write, only Codex has the login, for as long as the
//! provider takes. The rotating process may end earlier, by a signal or a timeout. So a supervisor
//! starts Codex in a new session and runs as long as Codex. If the rotating process ends first, the
//! supervisor completes the rotation: it logs in to the store, renews the lease, waits for Codex,
//! and persists the login that Codex writes.

use std::{ffi::OsString, fs, io, path::Path, process::Command, time::Duration};

use authferry_codex::{Home, Look};
use authferry_core::{Goal, Outcome, Policy, RoundTrip, SecretStore, Terms};
use rustix::process::{Pid, Signal, getppid};
use tokio::time::timeout;

use crate::child::ProcessTree;
use crate::lease::{self, LeaseKeeper};
use crate::own_time::Limit;
use crate::signals::SignalEvent;
use crate::watch::Watch;
use crate::{Job, Receipt, Report, Rotating, Signals, StartError, drive, records, seen, terms};

/// After this time without a write, no refresh can be in flight any more: no network keeps a silent
/// connection longer. A [`Limit`] counts only the time in which this process has run.
pub(crate) const SPENT_LIMIT: Duration = Duration::from_mins(15);

/// The timeout for acquiring the lease again.
const LEASE_TIMEOUT: Duration = Duration::from_secs(20);

/// The longest store timeout that is passed on: longer than any job runs.
const MAX_STORE_TIMEOUT: Duration = Duration::from_hours(24 * 365);

/// Returns the subcommand that starts the supervisor, and its options.
pub(crate) fn arguments(rotating: &Rotating<'_>, home: &Path, holder: u64) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = ["supervise", "--parent"].map(OsString::from).into();
    arguments.push(std::process::id().to_string().into());
    arguments.extend(["--home".into(), home.into()]);
    arguments.extend(["--holder".into(), holder.to_string().into()]);
    let policy = match rotating.policy {
        Policy::Newest => "newest",
        Policy::Theirs => "theirs",
    };
    arguments.extend(["--on-conflict".into(), policy.into()]);
    let store_timeout = rotating.store_timeout.min(MAX_STORE_TIMEOUT).as_millis();
    let store_timeout = format!("{store_timeout}ms");
    arguments.extend(["--store-timeout".into(), store_timeout.into()]);
    for variable in &rotating.codex.withheld {
        arguments.extend(["--withhold".into(), variable.clone()]);
    }
    arguments
}

/// The result of a supervised Codex.
#[derive(Debug)]
pub enum Supervised {
    /// Codex has exited with this code; 128 + n for signal n.
    Ended(u8),
    /// The rotating process has ended; Codex is still running.
    Orphaned(Box<Orphan>),
}

/// A Codex that outlives its rotating process.
#[derive(Debug)]
pub struct Orphan {
    pub(crate) tree: ProcessTree,
    /// Until when Codex may spend the token.
    pub(crate) limit: Limit,
}

/// Starts Codex and waits until Codex exits or our parent process ends. In the second case Codex is
/// still running. No signal that can be caught ends this process.
pub async fn supervise(
    command: &mut Command,
    parent: i32,
    signals: &mut Signals,
) -> io::Result<Supervised> {
    // The parent's death signal only wakes us up; the parent's pid decides.
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
    let is_orphan = || getppid().map(Pid::as_raw_nonzero).map(i32::from) != Some(parent);
    if is_orphan() {
        return Err(io::Error::other("the rotating process has ended"));
    }
    let mut tree = ProcessTree::spawn(command)?;
    let mut limit = Limit::new(SPENT_LIMIT);
    while !tree.has_command_ended() {
        if is_orphan() {
            return Ok(Supervised::Orphaned(Box::new(Orphan { tree, limit })));
        }
        // Not every system sends a signal when the parent dies: check at each tick too.
        let tick = limit.wake();
        tokio::select! {
            event = signals.next() => match event {
                SignalEvent::Child | SignalEvent::End(_) | SignalEvent::Other(_) => {}
            },
            () = tokio::time::sleep_until(tick) => {}
        }
        limit.elapsed();
    }
    Ok(Supervised::Ended(tree.exit_code().unwrap_or(u8::MAX)))
}

/// Completes a rotation whose process has ended: waits for Codex, persists what it wrote, and
/// removes the private home unless the next job needs it. `holder`: the holder of the lease.
///
/// A home in which Codex wrote nothing is kept too: the next job reports that the login may be
/// spent.
pub async fn take_over(
    job: &Job<'_>,
    orphan: Orphan,
    holder: u64,
    signals: &mut Signals,
) -> Result<Report, StartError> {
    let receipt = Receipt::read(job.home)?;
    let receipt = receipt.ok_or(io::Error::from(io::ErrorKind::NotFound))?;
    let mut lease = reacquire_lease(job.store, job.writer, holder).await;
    let watch = Watch::new(job.home.auth_file());
    let look = job
        .home
        .settled_look()
        .map_or(Look::Missing, Look::restored);
    let base = receipt.base.clone();
    let terms = Terms {
        is_rotation: true,
        ..terms(job, Goal::Run)?
    };
    let step = RoundTrip::join(terms, base, &records(job), seen(&look));
    let driver = drive::RoundTripDriver::new(job, None, look, None, true)
        .resumed(&receipt, None)
        .supervising(orphan, watch)
        .with_lease(lease.as_mut());
    let report = Box::pin(driver.drive(step, signals)).await;
    if let Some(lease) = lease {
        lease.release().await;
    }
    if is_home_disposable(&report) {
        remove(job.home);
    }
    Ok(report)
}

/// Acquires the lease again, if it is still ours. Without it, the store's swap still protects the
/// login.
async fn reacquire_lease<'a>(
    store: &'a dyn SecretStore,
    writer: &str,
    holder: u64,
) -> Option<LeaseKeeper<'a>> {
    let leases = store.leases()?;
    let request = lease::new_request(writer, holder);
    let lease = timeout(LEASE_TIMEOUT, leases.acquire(&request)).await;
    Some(LeaseKeeper::new(leases, lease.ok()?.ok()?))
}

/// Whether nothing in the private home is needed any more.
fn is_home_disposable(report: &Report) -> bool {
    let settled = match report.outcome {
        Outcome::Persisted { .. } => true,
        Outcome::Superseded { rescued, .. } | Outcome::NotPersisted { rescued, .. } => rescued,
        Outcome::Unchanged | Outcome::Unsettled | Outcome::Restored | Outcome::Refused(_) => false,
    };
    settled && report.unkillable == 0 && report.left_running == 0
}

/// Removes the folder of the rotation. If that fails, the next job finds the folder.
fn remove(home: &Home) {
    if let Some(folder) = home.dir().parent() {
        fs::remove_dir_all(folder).ok();
    }
}
