//! The state of the login after a fault.

use std::{fmt, io};

use crate::{
    parts::Part,
    position::{Call, Fault, Position},
    scene::{JobResult, Scene},
    stand_in::{serial, token},
    store::Store,
};

/// The consequence of the fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    /// The store holds the live login after the next job.
    Stored,
    /// The live login is on the machine, and the next job did not put it into the store.
    Kept,
    /// The run did not reach the call.
    NotReached,
    /// A thread panicked, and authferry reported it with an exit code; the login was not lost.
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
    /// The live login does not exist any more.
    Lost,
}

/// One fault and its consequence for the login.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) call: Call,
    pub(crate) fault: Fault,
    pub(crate) verdict: Verdict,
    /// The exit codes of the job and of the next one.
    pub(crate) codes: [Option<i32>; 2],
    /// The output of both jobs.
    pub(crate) output: String,
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
            "{verdict:?}: {fault} at call {at} ({}); exit codes {codes:?}",
            self.call.name
        )
    }
}

/// Runs a part with one fault, and the next job; returns the finding.
pub(crate) fn judge(part: &Part, store: &Store, call: &Call, fault: Fault) -> io::Result<Finding> {
    run_with_fault(part, store, Some((&call.position, fault))).map(
        |(verdict, hit, codes, output)| Finding {
            call: Call {
                name: hit.unwrap_or_else(|| call.name.clone()),
                ..call.clone()
            },
            fault,
            verdict,
            codes,
            output,
        },
    )
}

/// The verdict, the call at which the fault happened, the exit codes, and the output.
type Seen = (Verdict, Option<String>, [Option<i32>; 2], String);

/// Runs a part with one fault or none, and the next job.
pub(crate) fn run_with_fault(
    part: &Part,
    store: &Store,
    fault: Option<(&Position, Fault)>,
) -> io::Result<Seen> {
    let scene = Scene::new(part, store)?;
    let before = serial(&scene.stored());
    let job = scene.faulted(part, fault)?;
    let (live, stored) = (scene.live(), scene.stored());
    // A read during a replacement returns either the old or the new file.
    let is_older = !stored.is_empty() && serial(&stored) < before;
    let is_false_success =
        part.promises && job.trace.code == Some(0) && token(&stored) != token(&live);
    let mut next = scene.next(part)?;
    if next.trace.code == Some(HELD) {
        scene.end_lease();
        let again = scene.next(part)?;
        next.output += &again.output;
        next.trace.code = again.trace.code;
        next.hung |= again.hung;
    }
    if next.trace.code == Some(REFUSED) && next.output.contains(LOCKED) {
        // A child between fork and exec may hold the lock of the killed process. Any other refusal
        // counts: it would keep the next job from starting.
        let again = scene.next(part)?;
        next.output += &again.output;
        next.trace.code = again.trace.code;
        next.hung |= again.hung;
    }
    let live = scene.live();
    let is_stored = token(&scene.stored()) == token(&live);
    let verdict = if fault.is_some() && job.trace.hit.is_none() {
        Verdict::NotReached
    } else if !is_stored && scene.find(&live).is_empty() {
        Verdict::Lost
    } else if is_older {
        Verdict::Older
    } else if !scene.refused().is_empty() {
        Verdict::Spent
    } else if is_false_success {
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
    let codes = [job.trace.code, next.trace.code];
    let output = format!("{}\n-- next job\n{}", job.output, next.output);
    Ok((verdict, job.trace.hit, codes, output))
}

/// The exit code of a job when another job has the lease.
const HELD: i32 = 123;
/// The exit code of a refusal, and its message if another process holds the lock of the home.
const REFUSED: i32 = 124;
const LOCKED: &str = "is locked by another authferry process";

fn has_aborted(ended: &JobResult) -> bool {
    !ended.trace.aborted.is_empty() || ended.trace.code == Some(ABORTED)
}

fn has_panicked(ended: &JobResult) -> bool {
    ended.output.contains("panicked at")
}

/// The exit code of a shell whose command was ended by SIGABRT.
const ABORTED: i32 = 128 + 6;
