//! What became of the login after a fault.

use std::{fmt, io};

use crate::{
    scene::{Ended, Part, Scene},
    stand_in::{serial, token},
    store::Store,
    tracer::{Call, Fault},
};

/// What the fault did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    /// The store holds the live login after the next job.
    Stored,
    /// The live login is on the machine, and the next job did not put it into the store.
    Kept,
    /// The call was not made in this run.
    NotReached,
    /// A thread panicked, and authferry said so with an exit code; the login was not lost.
    Panicked,
    /// The process aborted; the login was not lost.
    Aborted,
    /// The job did not end; the login was not lost.
    Hung,
    /// The exit code was 0, and the store did not hold the live login.
    Lied,
    /// A spent login was used.
    Spent,
    /// The store holds an older login than before.
    Older,
    /// The live login is nowhere.
    Lost,
}

/// One fault, and what became of the login.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) call: Call,
    pub(crate) fault: Fault,
    pub(crate) verdict: Verdict,
    /// The exit codes of the job and of the next one.
    pub(crate) codes: [Option<i32>; 2],
    /// What both jobs said.
    pub(crate) said: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = &self.call.position;
        let fault = match self.fault {
            Fault::Kill => "SIGKILL".to_owned(),
            Fault::Fail(errno) => format!("{errno:?}"),
        };
        let Self { verdict, codes, .. } = self;
        write!(
            f,
            "{verdict:?}: {fault} at call {} ({}) of thread {} of {}; exit codes {codes:?}",
            at.number, self.call.name, at.thread, at.process
        )
    }
}

/// Runs a part with one fault, and the next job; says what became of the login.
pub(crate) fn judge(part: &Part, store: &Store, call: &Call, fault: Fault) -> io::Result<Finding> {
    let scene = Scene::new(part, store)?;
    let before = serial(&scene.stored());
    let job = scene.faulted(part, Some((&call.position, fault)))?;
    let (live, stored) = (scene.live(), scene.stored());
    // A store that is being replaced shows one of both.
    let is_older = !stored.is_empty() && serial(&stored) < before;
    let lied = part.promises && job.trace.code == Some(0) && token(&stored) != token(&live);
    let mut next = scene.next(part)?;
    if next.trace.code == Some(HELD) {
        scene.end_lease();
        let again = scene.next(part)?;
        next.said += &again.said;
        next.trace.code = again.trace.code;
        next.hung |= again.hung;
    }
    let live = scene.live();
    let is_stored = token(&scene.stored()) == token(&live);
    let verdict = if job.trace.hit.is_none() {
        Verdict::NotReached
    } else if !is_stored && scene.find(&live).is_empty() {
        Verdict::Lost
    } else if is_older {
        Verdict::Older
    } else if !scene.refused().is_empty() {
        Verdict::Spent
    } else if lied {
        Verdict::Lied
    } else if job.hung || next.hung {
        Verdict::Hung
    } else if [&job, &next].into_iter().any(has_aborted) {
        Verdict::Aborted
    } else if [&job, &next].into_iter().any(has_panicked) {
        Verdict::Panicked
    } else if is_stored && next.trace.code == Some(0) {
        Verdict::Stored
    } else {
        Verdict::Kept
    };
    let call = Call {
        name: job.trace.hit.unwrap_or_else(|| call.name.clone()),
        ..call.clone()
    };
    Ok(Finding {
        call,
        fault,
        verdict,
        codes: [job.trace.code, next.trace.code],
        said: format!("{}\n-- next job\n{}", job.said, next.said),
    })
}

/// The exit code of a job for which another one has the lease.
const HELD: i32 = 123;

fn has_aborted(ended: &Ended) -> bool {
    !ended.trace.aborted.is_empty() || ended.trace.code == Some(ABORTED)
}

fn has_panicked(ended: &Ended) -> bool {
    ended.said.contains("panicked at")
}

/// The exit code of a shell whose command was ended by SIGABRT.
const ABORTED: i32 = 128 + 6;

/// What a process says that aborts or panics, and why that is no fault of ours.
const ARGUED: &[(&str, &str)] = &[
    ("memory allocation of", "no memory: Rust aborts"),
    (
        "fatal runtime error: initialization",
        "before `main`: Rust aborts, nothing was touched",
    ),
    (
        "OS can't spawn worker thread",
        "no thread: tokio panics before the store is read, we catch it and exit with 125",
    ),
    (
        "unexpected error when polling the I/O driver",
        "`epoll_wait` has no such error: tokio panics",
    ),
    (
        "inotify.rs",
        "`epoll_wait` has no such error: notify panics",
    ),
    (
        "unexpected error during closedir",
        "`close` of a folder has no such error: Rust panics",
    ),
    (
        "src/backend/linux_raw/conv.rs",
        "`uname` and its like have no error: rustix panics",
    ),
];

/// Why a finding that is no good one is as it has to be.
pub(crate) fn argued(finding: &Finding) -> Option<&'static str> {
    if !matches!(finding.verdict, Verdict::Aborted | Verdict::Panicked) {
        return None;
    }
    let mut known = ARGUED
        .iter()
        .filter(|(said, _)| finding.said.contains(said));
    known.next().map(|(_, why)| *why)
}
