//! What a job would meet here, without beginning one.

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

use authferry_codex::Home;
use authferry_core::copies::{self, Rules, Verdict};
use authferry_core::{Bid, ClaimError, Claims, Effect, Event, Goal, Outcome, Stored};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::copies::{auth_file, locations_elsewhere};
use crate::drive::ask::held;
use crate::lease::Observation;
use crate::ownership::{holder, in_use, judge};
use crate::rotations::private;
use crate::users::{self, Admission};
use crate::{Codex, Job, NotBegun, Placement, Report, Start, lease, lock, random, receipt, start};

/// Tells how a trip would begin with what the store holds, and touches nothing.
///
/// The outcome of the report is the refusal, or [`Outcome::Restored`] with what would become
/// of the auth file for a [`Report::placement`].
pub fn foresee(job: &Job<'_>, stored: &Stored) -> Result<Report, NotBegun> {
    let locked = lock(job.home);
    match judge(job, holder(job.home, &locked)) {
        Admission::Refused(by) => {
            drop(locked?);
            let by = by.or_else(|| users::lock_holder(job.home));
            return Err(in_use(job.home, by));
        }
        // A watch makes way.
        Admission::Free | Admission::Nested | Admission::TakesOver => drop(locked),
    }
    let look = job.home.settled_look()?;
    // A rescue folder that cannot be listed is another finding.
    let found = crate::look(&job.store.to_string(), job.rescue, job.rotations).unwrap_or_default();
    let Start {
        step: (trip, _),
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
    let (_, effects) = trip.step(Event::Read(Ok(Some(held))));
    let (outcome, placement) = match effects.into_iter().next() {
        Some(Effect::Finish(Outcome::Restored)) => (Outcome::Restored, Some(Placement::Kept)),
        Some(Effect::Finish(outcome)) => (outcome, None),
        Some(Effect::Place(_)) => (Outcome::Restored, Some(Placement::Placed)),
        // Another copy counts, and is put into the store and placed.
        Some(Effect::Swap(_) | Effect::Rescue(_)) if !is_adopted => {
            (Outcome::Restored, Some(Placement::Placed))
        }
        // Theirs may have to be kept first.
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

/// Takes the claim and gives it back, which is what a rotation begins and ends with.
///
/// Whoever dies half-way leaves a claim that ends by itself, a minute later. With `takes_over`
/// it waits until a record that nobody renews has expired.
pub async fn try_claim(
    claims: &dyn Claims,
    writer: &str,
    takes_over: bool,
) -> Result<Result<(), ClaimError>, NotBegun> {
    let holder = random()?;
    let mut observed = Observation::default();
    let tried = async {
        let claim = loop {
            let bid = Bid {
                expired: observed.expired(),
                ..lease::bid(writer, holder)
            };
            match claims.acquire(&bid).await {
                Err(ClaimError::Held { state, .. }) if takes_over => observed.note(state),
                answer => break answer?,
            }
            tokio::time::sleep(RETRY_PACE).await;
        };
        claims.release(&claim).await
    };
    Ok(tried.await)
}

/// How often a lease that is to be taken over is tried.
const RETRY_PACE: Duration = Duration::from_secs(2);

/// How a Codex answers when it is asked who it is.
#[derive(Debug)]
pub enum Introduction {
    /// By its version, in its own words.
    Version(String),
    /// It ends with this code; 128 + n for signal n. What it says of that is in its own words,
    /// and may be nothing.
    Failed(u8, String),
    /// Not at all: it cannot be started.
    NotStarted(io::Error),
    /// Not in time.
    OutOfTime,
}

impl Codex {
    /// Returns where the program is, if a name was given that is found on `PATH`.
    #[must_use]
    pub fn place(&self) -> Option<PathBuf> {
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

    /// Asks the program for its version, where and as it would be asked to rotate a login: in
    /// a home of its own in `temp`. It is ended if it does not answer within `limit`.
    ///
    /// An error tells why it cannot have such a home.
    pub fn introduction(&self, temp: &Path, limit: Duration) -> Result<Introduction, NotBegun> {
        let folder = private(temp)?;
        let home = Home::new(&folder.path().join("home"))?;
        home.preflight()?;
        DirBuilder::new().mode(0o700).create(home.dir())?;
        // Files, and not pipes: somebody may stay who holds the other end.
        let said = |name| folder.path().join(name);
        // It is soon over: nobody needs to end it with us.
        let alone = Self {
            supervisor: None,
            ..self.clone()
        };
        let mut command = alone.command(home.dir(), None);
        command
            .arg("--version")
            .stdin(Stdio::null())
            .stdout(File::create(said("stdout"))?)
            .stderr(File::create(said("stderr"))?);
        Ok(match end(&mut command, limit) {
            Err(error) => Introduction::NotStarted(error),
            Ok(None) => Introduction::OutOfTime,
            Ok(Some(end)) if end.success() => Introduction::Version(words(&said("stdout"))),
            Ok(Some(end)) => {
                Introduction::Failed(crate::child::exit_code(end), words(&said("stderr")))
            }
        })
    }
}

/// How often to see whether a program has ended.
const GLANCE: Duration = Duration::from_millis(5);

/// Runs a program that leads a process group to its end, or ends the group.
fn end(command: &mut Command, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let begin = Instant::now();
    let mut child = command.spawn()?;
    loop {
        if let Some(end) = child.try_wait()? {
            return Ok(Some(end));
        }
        if begin.elapsed() > limit {
            let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            group.map(|group| kill_process_group(group, Signal::KILL));
            child.wait()?;
            return Ok(None);
        }
        sleep(GLANCE);
    }
}

/// What is told of somebody else's words: the first line that says anything, not too long, and
/// nothing that a terminal obeys.
fn words(file: &Path) -> String {
    let mut text = Vec::new();
    // It may say a lot within its time.
    let read = File::open(file).and_then(|file| file.take(MAX_WORDS).read_to_end(&mut text));
    read.ok();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty());
    let plain = line.unwrap_or_default().chars().filter(|c| !c.is_control());
    plain.take(LONGEST).collect()
}

/// As many bytes as are looked at.
const MAX_WORDS: u64 = 1 << 16;

/// As many characters as are told.
const LONGEST: usize = 200;

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;

    use authferry_conformance::{Fault, Faulty, MemoryStore};
    use authferry_core::SecretStore;

    use super::*;

    #[test]
    fn a_program_that_does_not_end_is_ended_with_what_it_started() {
        let folder = tempfile::tempdir().expect("a folder");
        let alive = folder.path().join("alive");
        let mut command = Command::new("sh");
        let script = "sh -c 'sleep 2; touch \"$0\"' \"$0\" & wait";
        command.args(["-c", script]).arg(&alive).process_group(0);
        let ended = end(&mut command, Duration::from_millis(100)).expect("a shell");
        assert_eq!(ended, None);
        sleep(Duration::from_secs(3));
        assert!(!alive.exists(), "what it started went on");
    }

    #[test]
    fn of_what_a_program_says_one_plain_line_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("said");
        for (said, told) in [
            ("", ""),
            ("\n \n", ""),
            ("codex-cli 0.169.0\n", "codex-cli 0.169.0"),
            ("\n  one\x1b[31m two\r\nthree", "one[31m two"),
        ] {
            fs::write(&file, said).expect("room");
            assert_eq!(words(&file), told, "{said:?}");
        }
        fs::write(&file, "a".repeat(LONGEST + 1)).expect("room");
        assert_eq!(words(&file).len(), LONGEST);
        assert_eq!(words(Path::new("/nowhere")), "");
    }

    #[tokio::test]
    async fn a_claim_that_was_tried_is_free_again_and_its_note_stays() {
        let store = MemoryStore::new("tried");
        let claims = store.claims().expect("claims");
        let mark = "dead 0707070707070707 reused since 1760000000 by a job";
        let mut theirs = claims.acquire(&lease::bid("a job", 1)).await.expect("free");
        theirs.note = Some(mark.to_owned());
        claims.release(&theirs).await.expect("theirs");
        for _ in 0..2 {
            let tried = try_claim(claims, "us", false).await.expect("random bytes");
            tried.expect("a free claim");
            let standing = claims.look().await.expect("memory").expect("a record");
            assert_eq!(
                (standing.until, standing.note.as_deref()),
                (None, Some(mark))
            );
        }
        assert_eq!(store.history().len(), 0, "the login was touched");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_nobody_renews_is_taken_over_after_its_term() {
        let store = MemoryStore::new("expired");
        let claims = store.claims().expect("claims");
        store.put_claim_by_hand(b"made up");
        let tried = try_claim(claims, "us", false).await.expect("random bytes");
        assert!(matches!(tried, Err(ClaimError::Held { .. })), "{tried:?}");
        let begin = tokio::time::Instant::now();
        let tried = try_claim(claims, "us", true).await.expect("random bytes");
        tried.expect("it has expired");
        let waited = begin.elapsed();
        assert!(
            lease::EXPIRY <= waited && waited < lease::EXPIRY + 2 * RETRY_PACE,
            "{waited:?}"
        );
    }

    #[tokio::test]
    async fn a_claim_that_cannot_be_given_back_is_told() {
        let store = MemoryStore::new("kept");
        let faulty = Faulty::new(Box::new(store), [Fault::Pass, Fault::Lost]);
        let claims = faulty.claims().expect("claims");
        let tried = try_claim(claims, "us", false).await.expect("random bytes");
        assert!(matches!(tried, Err(ClaimError::Store(_))), "{tried:?}");
        let again = try_claim(claims, "somebody else", false)
            .await
            .expect("random bytes");
        assert!(matches!(again, Err(ClaimError::Held { .. })), "{again:?}");
    }
}
