//! The supervisor of a rotation's Codex.
//!
//! Between the provider's spend and Codex's write, only Codex has the login, for as long as the
//! provider takes. The rotating process may end earlier, by a signal or a timeout. So a supervisor
//! starts Codex in a new session and runs as long as Codex. If the rotating process ends first, the
//! supervisor completes the rotation: it logs in to the store, renews the lease, waits for Codex, and
//! persists the login that Codex writes.

use std::{ffi::OsString, fs, io, path::Path, process::Command, time::Duration};

use authferry_codex::{Home, Look};
use authferry_core::{Goal, Outcome, Policy, SecretStore, Terms, Trip};
use rustix::process::{Pid, Signal, getppid};
use tokio::time::timeout;

use crate::child::Family;
use crate::lease::{self, Lease};
use crate::own_time::Limit;
use crate::signals::Told;
use crate::watch::Watch;
use crate::{Job, NotBegun, Receipt, Report, Rotating, Signals, drive, records, seen, terms};

/// After this time without a write no refresh can be under way any more, in the time that this
/// process has run: no network keeps a silent connection for longer.
pub(crate) const SPENT_LIMIT: Duration = Duration::from_mins(15);

/// How long the store may take to say that the claim is still ours.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(20);

/// The longest time for the store that can be written down: longer than any job takes.
const LONGEST: Duration = Duration::from_hours(24 * 365);

/// The name of the command, and its options.
pub(crate) fn arguments(rotating: &Rotating<'_>, home: &Path, holder: u64) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = ["apart", "--parent"].map(OsString::from).into();
    arguments.push(std::process::id().to_string().into());
    arguments.extend(["--home".into(), home.into()]);
    arguments.extend(["--holder".into(), holder.to_string().into()]);
    let policy = match rotating.policy {
        Policy::Newest => "newest",
        Policy::Theirs => "theirs",
    };
    arguments.extend(["--on-conflict".into(), policy.into()]);
    let patience = rotating.patience.min(LONGEST).as_millis();
    let patience = format!("{patience}ms");
    arguments.extend(["--patience".into(), patience.into()]);
    for variable in &rotating.codex.withheld {
        arguments.extend(["--withhold".into(), variable.clone()]);
    }
    arguments
}

/// What became of a supervised Codex.
#[derive(Debug)]
pub enum Supervised {
    /// It has ended with this code; 128 + n for signal n.
    Ended(u8),
    /// The rotating process has ended; Codex is still running.
    Orphaned(Box<Orphan>),
}

/// A Codex whose rotation has ended before it.
#[derive(Debug)]
pub struct Orphan {
    pub(crate) family: Family,
    /// Until when it may have spent the token.
    pub(crate) limit: Limit,
}

/// Runs Codex until it ends, or until the parent of this process does. No signal ends this process.
pub async fn supervise(
    command: &mut Command,
    parent: i32,
    signals: &mut Signals,
) -> io::Result<Supervised> {
    // Its signal wakes us up; what counts is who the parent is.
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
    let is_orphan = || getppid().map(Pid::as_raw_nonzero).map(i32::from) != Some(parent);
    if is_orphan() {
        return Err(io::Error::other("the process that rotates is gone"));
    }
    let mut family = Family::spawn(command)?;
    let mut limit = Limit::new(SPENT_LIMIT);
    while !family.command_is_gone() {
        if is_orphan() {
            return Ok(Supervised::Orphaned(Box::new(Orphan { family, limit })));
        }
        // Where the parent's end sends no signal, each tick looks for it.
        let tick = limit.wake();
        tokio::select! {
            told = signals.next() => match told {
                Told::Child | Told::End(_) | Told::Other(_) => {}
            },
            () = tokio::time::sleep_until(tick) => {}
        }
        limit.run();
    }
    Ok(Supervised::Ended(family.end().unwrap_or(u8::MAX)))
}

/// Completes a rotation whose process has ended: waits for Codex, persists what it wrote, and removes
/// the private home unless the next job needs it. `holder`: the holder of the lease.
///
/// A home in which Codex wrote nothing is kept too: the next job says that the login may be spent.
pub async fn take_over(
    job: &Job<'_>,
    orphan: Orphan,
    holder: u64,
    signals: &mut Signals,
) -> Result<Report, NotBegun> {
    let receipt = Receipt::read(job.home)?;
    let receipt = receipt.ok_or(io::Error::from(io::ErrorKind::NotFound))?;
    let mut lease = regain(job.store, job.writer, holder).await;
    let watch = Watch::new(job.home.auth_file());
    let look = job.home.settled_look().unwrap_or(Look::Missing);
    let base = receipt.base.clone();
    let terms = Terms {
        is_rotation: true,
        ..terms(job, Goal::Run)?
    };
    let step = Trip::join(terms, base, &records(job), seen(&look));
    let driver = drive::Driver::new(job, None, look, None, true)
        .resumed(&receipt, None)
        .supervising(orphan, watch)
        .holding(lease.as_mut());
    let report = Box::pin(driver.drive(step, signals)).await;
    if let Some(lease) = lease {
        lease.release().await;
    }
    if is_done(&report) {
        remove(job.home);
    }
    Ok(report)
}

/// The lease, if it is still ours. Without it, the store's swap still protects the login.
async fn regain<'a>(store: &'a dyn SecretStore, writer: &str, holder: u64) -> Option<Lease<'a>> {
    let claims = store.claims()?;
    let bid = lease::bid(writer, holder);
    let claim = timeout(CLAIM_TIMEOUT, claims.acquire(&bid)).await;
    Some(Lease::new(claims, claim.ok()?.ok()?))
}

/// Whether nothing in the private home is needed any more.
fn is_done(report: &Report) -> bool {
    let settled = match report.outcome {
        Outcome::Persisted { .. } => true,
        Outcome::Superseded { rescued, .. } | Outcome::Stranded { rescued, .. } => rescued,
        Outcome::Unchanged | Outcome::Unsettled | Outcome::Restored | Outcome::Refused(_) => false,
    };
    settled && report.left == 0 && report.left_running == 0
}

/// Removes the folder of the rotation. What cannot be removed is found by the next job.
fn remove(home: &Home) {
    if let Some(folder) = home.dir().parent() {
        fs::remove_dir_all(folder).ok();
    }
}
