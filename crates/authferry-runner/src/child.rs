//! The command and everything it starts.
//!
//! The command shares our process group and our standard streams: Codex is a terminal
//! program. It may die and leave others behind; an orphaned Codex goes on refreshing and
//! rewriting the auth file for minutes (seen on 0.169.0 after its npm launcher was
//! killed). So this process is the subreaper: it becomes the parent of orphans in any process
//! group or session. The job ends when the last of them has ended, or when the timeout for those
//! that must not be killed is over.

use std::{
    collections::HashSet,
    fs, io,
    os::unix::process::ExitStatusExt,
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus},
    time::Duration,
};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions};
use tokio::time::Instant;

use crate::deadline;
use crate::own_time::Limit;

/// Between asking what was left behind to end, and making it end.
const GRACE: Duration = Duration::from_secs(2);
/// The same, once somebody wants the job to end.
const HURRIED_GRACE: Duration = Duration::from_millis(500);
/// Between two rounds of killing: each round's orphans only show up after it.
const ROUND: Duration = Duration::from_millis(50);
/// After so many rounds what is left cannot be killed: it is another user's, or stuck.
const ROUNDS: u32 = 20;

/// How often a running command is checked without a signal. tokio hands SIGCHLD on through a socket,
/// and drops it if the write fails, as it may without memory: the job would then wait for ever.
const CHECK: Duration = Duration::from_secs(10);

/// How long a Codex that may have spent the refresh token is waited for after its command, and in
/// all where the platform ends it with the job. Providers answer within a second; Codex
/// repeats a request after 15 or 20 seconds, or waits for as long as it takes.
pub(crate) const FOREGROUND_LIMIT: Duration = Duration::from_secs(90);

/// What is left of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// The command is alive, or something that it left behind and that is waited for.
    Alive,
    /// Nothing.
    Gone,
    /// This many processes that must not be ended, and the time limit for them is over.
    Spared(usize),
}

/// The command, its descendants, and how far their end has come.
#[derive(Debug)]
pub(crate) struct Family {
    child: Child,
    /// Children that this process had before, and which are none of the command's.
    strangers: HashSet<Pid>,
    /// The command's exit code, once it is gone.
    end: Option<u8>,
    phase: Phase,
    /// Until when those are waited for that must not be ended.
    spared: Option<Limit>,
    /// Whether there are some that are ended when their time is over.
    are_there_others: bool,
    hurried: bool,
    /// How many of those that the command left behind were told to end.
    ended: usize,
    /// How many of those that the command left behind could not be ended.
    left: usize,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// The command is alive.
    Running,
    /// The command is gone; what it left behind may finish until then.
    Lingering(Limit),
    /// What is left was asked to end, and is made to from then on; and the round.
    Killing(Instant, u32),
}

impl Family {
    /// Starts the command. Fails as [`Command::spawn`] does, and when orphans cannot be had.
    pub(crate) fn spawn(command: &mut Command) -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let strangers = children("self").into_iter().collect();
        let child = command.spawn()?;
        Ok(Self {
            child,
            strangers,
            end: None,
            phase: Phase::Running,
            spared: None,
            are_there_others: true,
            hurried: false,
            ended: 0,
            left: 0,
        })
    }

    /// Hands over those of the command's streams that lead to us, once.
    pub(crate) fn pipes(
        &mut self,
    ) -> (Option<ChildStdin>, Option<ChildStdout>, Option<ChildStderr>) {
        let child = &mut self.child;
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    }

    /// Returns whether the command itself is gone. Its descendants may not be.
    pub(crate) fn command_is_gone(&mut self) -> bool {
        if self.end.is_none() {
            self.end = match self.child.try_wait() {
                Ok(None) => None,
                Ok(Some(status)) => Some(exit_code(status)),
                // Somebody else has collected it: it is gone, and nobody will say how.
                Err(_) => Some(u8::MAX),
            };
        }
        self.end.is_some()
    }

    /// Collects the dead, and returns what is left.
    ///
    /// `linger`: how long leftover processes may run before they are killed, except process trees
    /// for which `is_spared` holds. Call it after every `SIGCHLD` and at [`wake`](Self::wake), but
    /// not during a store request: a backend may wait for child processes too.
    pub(crate) fn rest(&mut self, linger: Duration, is_spared: impl Fn(Pid) -> bool) -> Rest {
        if !self.command_is_gone() {
            return Rest::Alive;
        }
        loop {
            // Of any process group: a job shell and a daemon give each its own.
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => break,
                // No child is left, and nothing else can be wrong with this question.
                Err(_) => return Rest::Gone,
            }
        }
        let (spared, others) = self.orphans(is_spared);
        if others.is_empty() && spared.is_empty() && !self.strangers.is_empty() {
            return Rest::Gone;
        }
        if let Phase::Running = self.phase {
            self.phase = Phase::Lingering(Limit::new(linger));
        }
        self.are_there_others = spared.is_empty() || !others.is_empty();
        if self.are_there_others {
            if self.end_others(&others) && spared.is_empty() {
                return Rest::Gone;
            }
        } else if let Phase::Killing(..) = self.phase {
            // One that is not spared any more is asked to end first.
            self.phase = Phase::Lingering(Limit::new(Duration::ZERO));
        }
        if spared.is_empty() {
            self.spared = None;
            return Rest::Alive;
        }
        let limit = self
            .spared
            .get_or_insert_with(|| Limit::new(FOREGROUND_LIMIT));
        let is_over = limit.is_over();
        if is_over && (!self.are_there_others || self.left > 0) {
            return Rest::Spared(spared.len());
        }
        Rest::Alive
    }

    /// Ends what the command left behind when its time is over; returns whether nothing more can
    /// be done about it.
    fn end_others(&mut self, others: &[Pid]) -> bool {
        let now = Instant::now();
        match &mut self.phase {
            Phase::Lingering(limit) => {
                if limit.is_over() {
                    let grace = if self.hurried { HURRIED_GRACE } else { GRACE };
                    self.ended += end_all(others, Signal::TERM);
                    self.phase = Phase::Killing(deadline::from(now, grace), 0);
                }
            }
            Phase::Killing(_, ROUNDS) => {
                self.left = others.len();
                return true;
            }
            Phase::Killing(from, round) if now >= *from => {
                end_all(others, Signal::KILL);
                self.phase = Phase::Killing(deadline::from(now, ROUND), *round + 1);
            }
            Phase::Running | Phase::Killing(..) => {}
        }
        false
    }

    /// When to call [`rest`](Self::rest) even if no process has ended.
    pub(crate) fn wake(&self) -> Option<Instant> {
        let of_others = match &self.phase {
            Phase::Running => Some(deadline::after(CHECK)),
            _ if !self.are_there_others => None,
            Phase::Lingering(limit) => Some(limit.wake()),
            Phase::Killing(at, _) => Some(*at),
        };
        let of_spared = self.spared.as_ref().map(Limit::wake);
        of_others.into_iter().chain(of_spared).min()
    }

    /// Once the job was asked to end for the second time, those that must not be ended are not
    /// waited for any longer: the platform ends this process next.
    pub(crate) fn stop_waiting_after(&mut self, told: usize) {
        if let Some(limit) = self.spared.as_mut().filter(|_| told > 1) {
            limit.shorten(Duration::ZERO);
        }
    }

    /// Passes a signal on to the command, if it is not gone.
    pub(crate) fn pass_on(&self, signal: Signal) {
        if let Some(pid) = self.command().filter(|_| self.end.is_none()) {
            // It may be dead already; then there is nobody to tell.
            rustix::process::kill_process(pid, signal).ok();
        }
    }

    /// Passes a signal on to the command; `SIGKILL` to its descendants as well. Once the
    /// command is gone, what it left behind gets no more time.
    pub(crate) fn signal(&mut self, signal: Signal) {
        self.hurried = true;
        if self.end.is_none() {
            let pid = self.command();
            let below = if signal == Signal::KILL {
                pid.map(descendants)
            } else {
                None
            };
            for pid in pid.into_iter().chain(below.unwrap_or_default()) {
                // It may be dead already; then there is nobody to tell.
                rustix::process::kill_process(pid, signal).ok();
            }
        } else if let Phase::Lingering(limit) = &mut self.phase {
            limit.shorten(Duration::ZERO);
        }
    }

    /// The command's exit code, 128 + n for signal n; `None` while it runs.
    pub(crate) fn end(&self) -> Option<u8> {
        self.end
    }

    /// How many processes that the command left behind had to be ended.
    pub(crate) fn ended(&self) -> usize {
        self.ended
    }

    /// How many processes that the command left behind could not be ended.
    pub(crate) fn left(&self) -> usize {
        self.left
    }

    /// The command's process. Until it is waited for it keeps its pid: no other can be hit.
    fn command(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }

    /// The processes that descend from the command and whose ancestors are all alive, or that
    /// were given to us because their parents died.
    pub(crate) fn processes(&self) -> Vec<Pid> {
        let ours = children("self").into_iter();
        let ours = ours.filter(|pid| !self.strangers.contains(pid));
        ours.flat_map(|pid| [pid].into_iter().chain(descendants(pid)))
            .collect()
    }

    /// The orphans that this process adopted: those with a spared process in their tree, and the
    /// others. A spared process keeps its parents: npm's launcher ends its Codex when it gets a
    /// signal.
    fn orphans(&self, is_spared: impl Fn(Pid) -> bool) -> (Vec<Pid>, Vec<Pid>) {
        let ours = children("self").into_iter();
        let ours = ours.filter(|pid| !self.strangers.contains(pid));
        ours.partition(|pid| [*pid].into_iter().chain(descendants(*pid)).any(&is_spared))
    }
}

/// Sends a signal to each, and returns how many may be sent one.
fn end_all(orphans: &[Pid], signal: Signal) -> usize {
    let told = orphans
        .iter()
        .filter(|pid| rustix::process::kill_process(**pid, signal).is_ok());
    told.count()
}

/// The exit code by which a shell would tell of this end: 128 + n for signal n.
pub(crate) fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|n| 128 + n));
    code.and_then(|code| u8::try_from(code & 0xff).ok())
        .unwrap_or(u8::MAX)
}

/// Everything below a process.
fn descendants(pid: Pid) -> Vec<Pid> {
    let mut all = children(&pid.as_raw_nonzero().to_string());
    let mut next = 0;
    while let Some(pid) = all.get(next) {
        all.extend(children(&pid.as_raw_nonzero().to_string()));
        next += 1;
    }
    all
}

/// The children of a process, given by its number or as `self`; none where the system does
/// not tell.
fn children(process: &str) -> Vec<Pid> {
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else {
        return Vec::new();
    };
    let lists = threads
        .flatten()
        .filter_map(|t| fs::read_to_string(t.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<i32>>()
        })
        .filter_map(Pid::from_raw)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_running_command_is_checked_without_a_signal() {
        let mut family = Family::spawn(Command::new("sleep").arg("60")).expect("a program");
        let wake = family.wake().expect("a time to check it");
        assert!(wake <= Instant::now() + CHECK);
        family.child.kill().expect("our child");
        family.child.wait().expect("our child");
    }
}
