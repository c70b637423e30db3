//! Dry runs: what a job would do on this machine, without starting one.

use std::{
    env,
    fs::{self, DirBuilder, File},
    io::{self, Read},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use authferry_codex::versions::CodexVersion;
use authferry_codex::{Home, error_line};
use authferry_core::copies::{self, Rules, Verdict};
use authferry_core::{Effect, Event, Goal, LeaseError, LeaseRequest, Leases, Outcome, Stored};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::copies::{auth_file, locations_elsewhere};
use crate::drive::store_io::held;
use crate::lease::Observation;
use crate::ownership::{holder, in_use, judge};
use crate::rotations::create_private_folder;
use crate::sanitized::sanitized_line;
use crate::users::{self, Admission};
use crate::{
    Codex, Job, Placement, Report, Start, StartError, lease, random, receipt, start, try_lock,
};

/// Predicts the outcome of a restore with this content of the store, and changes nothing.
///
/// The report's outcome is the refusal, or [`Outcome::Restored`] with the [`Report::placement`] of
/// the auth file.
pub fn preview_restore(job: &Job<'_>, stored: &Stored) -> Result<Report, StartError> {
    let locked = try_lock(job.home);
    match judge(job, holder(job.home, &locked)) {
        Admission::Refused(by) => {
            drop(locked?);
            let by = by.or_else(|| users::lock_holder(job.home));
            return Err(in_use(job.home, by));
        }
        // A watch hands the home over on request.
        Admission::Free | Admission::Nested | Admission::TakesOver => drop(locked),
    }
    let look = job.home.settled_look()?;
    // If the rescue folder cannot be listed, another check of the doctor reports that.
    let found = crate::find_read_only(&job.store.to_string(), job.rescue, job.rotations)
        .unwrap_or_default();
    let Start {
        step: (round_trip, _),
        copies: found,
        ..
    } = start(job, Goal::Restore, &look, &[], found)?;
    let (held, stored_unusable) = held(stored);
    let in_home = auth_file(job, &look, receipt(job).as_ref());
    let elsewhere = locations_elsewhere(&found, Some(&held));
    let found: Vec<_> = found.into_iter().map(|found| found.copy).collect();
    let in_home = copies::with_record(&in_home.copy, &found);
    let verdict = copies::judge(Some(&held), &in_home, &Rules::default());
    let is_adopted = matches!(verdict, Verdict::Later | Verdict::WrittenAfterHead);
    let (_, effects) = round_trip.step(Event::Read(Ok(Some(held))));
    let (outcome, placement) = match effects.into_iter().next() {
        Some(Effect::Finish(Outcome::Restored)) => (Outcome::Restored, Some(Placement::Kept)),
        Some(Effect::Finish(outcome)) => (outcome, None),
        Some(Effect::Place(_)) => (Outcome::Restored, Some(Placement::Placed)),
        // Another copy takes precedence: it is put into the store and placed.
        Some(Effect::Swap(_) | Effect::Rescue(_)) if !is_adopted => {
            (Outcome::Restored, Some(Placement::Placed))
        }
        // Here `Effect::Rescue` backs up the store's login before the swap.
        Some(Effect::Swap(_) | Effect::Rescue(_)) => (Outcome::Restored, Some(Placement::Adopted)),
        Some(Effect::Read | Effect::Run | Effect::Wait(_)) | None => {
            unreachable!("a restore that knows what the store holds decides at once")
        }
    };
    let file_unusable = match look {
        authferry_codex::Look::Unusable { why, .. } => Some(why),
        authferry_codex::Look::Missing | authferry_codex::Look::Usable { .. } => None,
    };
    Ok(Report {
        outcome,
        placement,
        copies: elsewhere,
        stored_unusable,
        file_unusable,
        ..Report::new()
    })
}

/// Acquires the lease and releases it, as a rotation does.
///
/// If this process dies in between, the lease expires a minute later. With `takes_over`, waits
/// until an abandoned record has expired.
pub async fn try_lease(
    leases: &dyn Leases,
    writer: &str,
    takes_over: bool,
) -> Result<Result<(), LeaseError>, StartError> {
    let holder = random()?;
    let mut observed = Observation::default();
    let tried = async {
        let lease = loop {
            let request = LeaseRequest {
                expired: observed.expired(),
                ..lease::new_request(writer, holder)
            };
            match leases.acquire(&request).await {
                Err(LeaseError::Held { state, .. }) if takes_over => observed.record(state),
                answer => break answer?,
            }
            tokio::time::sleep(RETRY_INTERVAL).await;
        };
        leases.release(&lease).await
    };
    Ok(tried.await)
}

/// How often to retry to take over a lease.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// How Codex answers `--version`.
#[derive(Debug)]
pub enum VersionAnswer {
    /// The version, as Codex prints it.
    Version(String),
    /// Codex failed with this exit code (128 + n for signal n) and this message, which may be
    /// empty.
    Failed(u8, String),
    /// Codex did not start.
    NotStarted(io::Error),
    /// Codex exceeded the timeout.
    TimedOut,
}

impl Codex {
    /// Returns the path of the program; looks a bare name up on `PATH`.
    #[must_use]
    pub fn locate(&self) -> Option<PathBuf> {
        if self.program.components().count() > 1 {
            return Some(self.program.clone());
        }
        let is_program = |path: &PathBuf| {
            let metadata = fs::metadata(path);
            metadata.is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
        };
        env::split_paths(self.path.as_ref()?)
            .map(|folder| folder.join(&self.program))
            .find(is_program)
    }

    /// Returns the version, if npm installed this Codex: from the manifest of its package, without a
    /// start of Codex.
    #[must_use]
    pub fn version(&self) -> Option<CodexVersion> {
        CodexVersion::of_program(&self.locate()?)
    }

    /// Runs `--version` the way a rotation runs Codex: in a private home in `temp`. Kills Codex if
    /// it does not answer within `timeout`.
    ///
    /// Fails if the private home cannot be created.
    pub fn query_version(
        &self,
        temp: &Path,
        timeout: Duration,
    ) -> Result<VersionAnswer, StartError> {
        let folder = create_private_folder(temp)?;
        let home = Home::new(&folder.path().join("home"))?;
        home.preflight()?;
        DirBuilder::new().mode(0o700).create(home.dir())?;
        // Files, not pipes: a leftover process could keep a pipe open.
        let output = |name| folder.path().join(name);
        // Without a supervisor: the program exits within `timeout`.
        let unsupervised = Self {
            supervisor: None,
            ..self.clone()
        };
        let mut command = unsupervised.command(home.dir(), None);
        command
            .arg("--version")
            .stdin(Stdio::null())
            .stdout(File::create(output("stdout"))?)
            .stderr(File::create(output("stderr"))?);
        Ok(match run_with_timeout(&mut command, timeout) {
            Err(error) => VersionAnswer::NotStarted(error),
            Ok(None) => VersionAnswer::TimedOut,
            Ok(Some(status)) if status.success() => {
                let text = first_part(&output("stdout"));
                let line = text.lines().map(str::trim).find(|line| !line.is_empty());
                VersionAnswer::Version(sanitized_line(line.unwrap_or_default(), []))
            }
            Ok(Some(status)) => {
                let text = first_part(&output("stderr"));
                let line = error_line(&text).unwrap_or_default();
                VersionAnswer::Failed(crate::child::code_of(status), sanitized_line(line, []))
            }
        })
    }
}

/// How often to check whether the program has exited.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Runs a program that leads a process group. At the timeout, kills the group and returns `None`.
fn run_with_timeout(command: &mut Command, timeout: Duration) -> io::Result<Option<ExitStatus>> {
    let started = Instant::now();
    let mut child = command.spawn()?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if started.elapsed() > timeout {
            let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            group.map(|group| kill_process_group(group, Signal::KILL));
            child.wait()?;
            return Ok(None);
        }
        sleep(POLL_INTERVAL);
    }
}

/// Returns the first part of a file: the output may be large.
pub(crate) fn first_part(file: &Path) -> String {
    let mut text = Vec::new();
    let read = File::open(file).and_then(|file| file.take(MAX_OUTPUT_BYTES).read_to_end(&mut text));
    read.ok();
    String::from_utf8_lossy(&text).into_owned()
}

/// How many bytes of the output are read.
const MAX_OUTPUT_BYTES: u64 = 1 << 16;

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;

    use authferry_conformance::{Fault, Faulty, MemoryStore};
    use authferry_core::SecretStore;

    use super::*;

    #[test]
    fn a_program_that_times_out_is_killed_with_its_process_group() {
        let folder = tempfile::tempdir().expect("a folder");
        let alive = folder.path().join("alive");
        let mut command = Command::new("sh");
        let script = "sh -c 'sleep 2; touch \"$0\"' \"$0\" & wait";
        command.args(["-c", script]).arg(&alive).process_group(0);
        let ended = run_with_timeout(&mut command, Duration::from_millis(100)).expect("a shell");
        assert_eq!(ended, None);
        sleep(Duration::from_secs(3));
        assert!(!alive.exists(), "its child is still running");
    }

    #[tokio::test]
    async fn try_lease_leaves_the_lease_free_and_its_note_unchanged() {
        let store = MemoryStore::new("tried");
        let leases = store.leases().expect("leases");
        let note = "dead 0707070707070707 reused since 1760000000 by a job";
        let mut theirs = leases
            .acquire(&lease::new_request("a job", 1))
            .await
            .expect("free");
        theirs.note = Some(note.to_owned());
        leases.release(&theirs).await.expect("theirs");
        for _ in 0..2 {
            let tried = try_lease(leases, "us", false).await.expect("random bytes");
            tried.expect("a free lease");
            let status = leases.look().await.expect("memory").expect("a record");
            assert_eq!((status.until, status.note.as_deref()), (None, Some(note)));
        }
        assert_eq!(store.history().len(), 0, "the login was written");
    }

    #[tokio::test(start_paused = true)]
    async fn an_abandoned_lease_is_taken_over_after_its_expiry() {
        let store = MemoryStore::new("expired");
        let leases = store.leases().expect("leases");
        store.put_lease_by_hand(b"made up");
        let tried = try_lease(leases, "us", false).await.expect("random bytes");
        assert!(matches!(tried, Err(LeaseError::Held { .. })), "{tried:?}");
        let started = tokio::time::Instant::now();
        let tried = try_lease(leases, "us", true).await.expect("random bytes");
        tried.expect("it has expired");
        let waited = started.elapsed();
        assert!(
            lease::EXPIRY <= waited && waited < lease::EXPIRY + 2 * RETRY_INTERVAL,
            "{waited:?}"
        );
    }

    #[tokio::test]
    async fn a_failed_release_is_reported() {
        let store = MemoryStore::new("kept");
        let faulty = Faulty::new(Box::new(store), [Fault::Pass, Fault::Lost]);
        let leases = faulty.leases().expect("leases");
        let tried = try_lease(leases, "us", false).await.expect("random bytes");
        assert!(matches!(tried, Err(LeaseError::Store(_))), "{tried:?}");
        let again = try_lease(leases, "another job", false)
            .await
            .expect("random bytes");
        assert!(matches!(again, Err(LeaseError::Held { .. })), "{again:?}");
    }
}
