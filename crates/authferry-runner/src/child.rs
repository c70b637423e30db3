//! The process tree of the command.
//!
//! The command shares our process group and our standard streams: Codex is a terminal program. It
//! may exit and leave descendants behind; an orphaned Codex goes on refreshing and rewriting the
//! auth file for minutes (seen on 0.169.0 after its npm launcher was killed). So this process is
//! the subreaper: it becomes the parent of orphaned descendants in any process group or session.
//! The job ends when the last of them has ended, or when the timeout for those that must not be
//! killed is over.

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

/// The time between SIGTERM and SIGKILL for leftover processes.
const TERM_GRACE: Duration = Duration::from_secs(2);
/// The time between SIGTERM and SIGKILL once the job was cancelled.
const CANCELLED_TERM_GRACE: Duration = Duration::from_millis(500);
/// The time between two rounds of SIGKILL: processes that a round orphans appear only after it.
const KILL_INTERVAL: Duration = Duration::from_millis(50);
/// After this many rounds the remaining processes cannot be killed: they belong to another user, or
/// are stuck.
const MAX_KILL_ROUNDS: u32 = 20;

/// How often a running command is checked without a signal. tokio forwards SIGCHLD through a
/// socket, and drops it if the write fails, as may happen without memory: the job would then hang.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// How long to wait, after the command has ended, for a Codex that may have spent the refresh
/// token. Where the platform kills Codex with the job, also the total limit of a refresh. Providers
/// answer within a second; Codex repeats a request after 15 or 20 seconds, or waits without a
/// timeout.
pub(crate) const FOREGROUND_LIMIT: Duration = Duration::from_secs(90);

/// Whether the process tree of a command has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TreeState {
    /// The command or a descendant is running.
    Running,
    /// No process is left.
    Ended,
    /// The timeout is over, and this many processes that must not be killed are running.
    TimedOut(usize),
}

/// The command and its descendants, and the progress of their termination.
#[derive(Debug)]
pub(crate) struct ProcessTree {
    child: Child,
    /// Children that this process had before the command.
    preexisting: HashSet<Pid>,
    /// The command's exit code, once it has ended.
    exit_code: Option<u8>,
    phase: Phase,
    /// The timeout for protected processes: those that must not be killed.
    protected: Option<Limit>,
    /// Whether unprotected processes are left, which are killed after the exit grace.
    has_unprotected: bool,
    is_cancelled: bool,
    /// How many leftover processes were terminated.
    terminated: usize,
    /// How many leftover processes could not be killed.
    unkillable: usize,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// The command is running.
    Running,
    /// The command has ended; its leftover processes may run until this limit.
    Lingering(Limit),
    /// Leftover processes got SIGTERM, and get SIGKILL from this time on. The number counts the
    /// rounds of SIGKILL.
    Killing(Instant, u32),
}

impl ProcessTree {
    /// Starts the command. Fails as [`Command::spawn`] does, and if this process cannot become the
    /// subreaper.
    pub(crate) fn spawn(command: &mut Command) -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let preexisting = children("self").into_iter().collect();
        let child = command.spawn()?;
        Ok(Self {
            child,
            preexisting,
            exit_code: None,
            phase: Phase::Running,
            protected: None,
            has_unprotected: true,
            is_cancelled: false,
            terminated: 0,
            unkillable: 0,
        })
    }

    /// Takes the ends of the command's pipes, once.
    pub(crate) fn pipes(
        &mut self,
    ) -> (Option<ChildStdin>, Option<ChildStdout>, Option<ChildStderr>) {
        let child = &mut self.child;
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    }

    /// Returns whether the command itself has ended. Its descendants may be running.
    pub(crate) fn has_command_ended(&mut self) -> bool {
        if self.exit_code.is_none() {
            self.exit_code = match self.child.try_wait() {
                Ok(None) => None,
                Ok(Some(status)) => Some(code_of(status)),
                // Another reaper has collected the child: it has ended, with an unknown exit code.
                Err(_) => Some(u8::MAX),
            };
        }
        self.exit_code.is_some()
    }

    /// Reaps ended processes, and returns the state of the tree.
    ///
    /// `exit_grace`: how long leftover processes may run before they are killed, except process
    /// trees for which `is_protected` holds. Call it after every `SIGCHLD` and at
    /// [`wake`](Self::wake), but not during a store request: a backend may wait for child processes
    /// too.
    pub(crate) fn reap(
        &mut self,
        exit_grace: Duration,
        is_protected: impl Fn(Pid) -> bool,
    ) -> TreeState {
        if !self.has_command_ended() {
            return TreeState::Running;
        }
        loop {
            // Reap processes of any process group: a job shell and a daemon give each process its
            // own.
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => break,
                // `ECHILD`: no child is left. No other error is possible.
                Err(_) => return TreeState::Ended,
            }
        }
        let (protected, unprotected) = self.reparented(is_protected);
        if unprotected.is_empty() && protected.is_empty() && !self.preexisting.is_empty() {
            return TreeState::Ended;
        }
        if let Phase::Running = self.phase {
            self.phase = Phase::Lingering(Limit::new(exit_grace));
        }
        self.has_unprotected = protected.is_empty() || !unprotected.is_empty();
        if self.has_unprotected {
            if self.end_unprotected(&unprotected) && protected.is_empty() {
                return TreeState::Ended;
            }
        } else if let Phase::Killing(..) = self.phase {
            // A process that is no longer protected gets SIGTERM first.
            self.phase = Phase::Lingering(Limit::new(Duration::ZERO));
        }
        if protected.is_empty() {
            self.protected = None;
            return TreeState::Running;
        }
        let limit = self
            .protected
            .get_or_insert_with(|| Limit::new(FOREGROUND_LIMIT));
        let is_over = limit.is_over();
        if is_over && (!self.has_unprotected || self.unkillable > 0) {
            return TreeState::TimedOut(protected.len());
        }
        TreeState::Running
    }

    /// Terminates leftover processes after the exit grace; returns whether nothing more can be
    /// done.
    fn end_unprotected(&mut self, unprotected: &[Pid]) -> bool {
        let now = Instant::now();
        match &mut self.phase {
            Phase::Lingering(limit) => {
                if limit.is_over() {
                    let grace = if self.is_cancelled {
                        CANCELLED_TERM_GRACE
                    } else {
                        TERM_GRACE
                    };
                    self.terminated += signal_all(unprotected, Signal::TERM);
                    self.phase = Phase::Killing(deadline::from(now, grace), 0);
                }
            }
            Phase::Killing(_, MAX_KILL_ROUNDS) => {
                self.unkillable = unprotected.len();
                return true;
            }
            Phase::Killing(from, round) if now >= *from => {
                signal_all(unprotected, Signal::KILL);
                self.phase = Phase::Killing(deadline::from(now, KILL_INTERVAL), *round + 1);
            }
            Phase::Running | Phase::Killing(..) => {}
        }
        false
    }

    /// When to call [`reap`](Self::reap) even if no process has ended.
    pub(crate) fn wake(&self) -> Option<Instant> {
        let of_unprotected = match &self.phase {
            Phase::Running => Some(deadline::after(CHECK_INTERVAL)),
            _ if !self.has_unprotected => None,
            Phase::Lingering(limit) => Some(limit.wake()),
            Phase::Killing(at, _) => Some(*at),
        };
        let of_protected = self.protected.as_ref().map(Limit::wake);
        of_unprotected.into_iter().chain(of_protected).min()
    }

    /// After the second end signal, stops waiting for protected processes: the platform kills this
    /// process next.
    pub(crate) fn stop_waiting_after(&mut self, signals_received: usize) {
        if let Some(limit) = self.protected.as_mut().filter(|_| signals_received > 1) {
            limit.shorten(Duration::ZERO);
        }
    }

    /// Forwards a signal to the command, if it has not ended.
    pub(crate) fn forward(&self, signal: Signal) {
        if let Some(pid) = self.command().filter(|_| self.exit_code.is_none()) {
            // The process may have ended already.
            rustix::process::kill_process(pid, signal).ok();
        }
    }

    /// Sends a signal to the command; `SIGKILL` to its descendants as well. Once the command has
    /// ended, its leftover processes get no more exit grace.
    pub(crate) fn signal(&mut self, signal: Signal) {
        self.is_cancelled = true;
        if self.exit_code.is_none() {
            let pid = self.command();
            let below = if signal == Signal::KILL {
                pid.map(descendants)
            } else {
                None
            };
            for pid in pid.into_iter().chain(below.unwrap_or_default()) {
                // The process may have ended already.
                rustix::process::kill_process(pid, signal).ok();
            }
        } else if let Phase::Lingering(limit) = &mut self.phase {
            limit.shorten(Duration::ZERO);
        }
    }

    /// The command's exit code, 128 + n for signal n; `None` while it is running.
    pub(crate) fn exit_code(&self) -> Option<u8> {
        self.exit_code
    }

    /// How many leftover processes were terminated.
    pub(crate) fn terminated(&self) -> usize {
        self.terminated
    }

    /// How many leftover processes could not be killed.
    pub(crate) fn unkillable(&self) -> usize {
        self.unkillable
    }

    /// The command's process. It keeps its pid until it is waited for: a signal cannot hit another
    /// process.
    fn command(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }

    /// All descendants of the command that are connected to us: those whose ancestors are all
    /// alive, and those reparented to us.
    pub(crate) fn processes(&self) -> Vec<Pid> {
        let ours = children("self").into_iter();
        let ours = ours.filter(|pid| !self.preexisting.contains(pid));
        ours.flat_map(|pid| [pid].into_iter().chain(descendants(pid)))
            .collect()
    }

    /// The processes reparented to us: those with a protected process in their tree, and the
    /// others. A protected process keeps its ancestors: npm's launcher ends its Codex when it gets
    /// a signal.
    fn reparented(&self, is_protected: impl Fn(Pid) -> bool) -> (Vec<Pid>, Vec<Pid>) {
        let ours = children("self").into_iter();
        let ours = ours.filter(|pid| !self.preexisting.contains(pid));
        ours.partition(|pid| {
            [*pid]
                .into_iter()
                .chain(descendants(*pid))
                .any(&is_protected)
        })
    }
}

/// Sends a signal to each process; returns how many it could be sent to.
fn signal_all(reparented: &[Pid], signal: Signal) -> usize {
    let signalled = reparented
        .iter()
        .filter(|pid| rustix::process::kill_process(**pid, signal).is_ok());
    signalled.count()
}

/// The exit code that a shell would report: 128 + n for signal n.
pub(crate) fn code_of(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|n| 128 + n));
    code.and_then(|code| u8::try_from(code & 0xff).ok())
        .unwrap_or(u8::MAX)
}

/// All descendants of a process.
fn descendants(pid: Pid) -> Vec<Pid> {
    let mut all = children(&pid.as_raw_nonzero().to_string());
    let mut next = 0;
    while let Some(pid) = all.get(next) {
        all.extend(children(&pid.as_raw_nonzero().to_string()));
        next += 1;
    }
    all
}

/// The children of a process, given by its pid or as `self`; empty where `/proc` does not show
/// them.
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
        let mut tree = ProcessTree::spawn(Command::new("sleep").arg("60")).expect("a program");
        let wake = tree.wake().expect("a time to check it");
        assert!(wake <= Instant::now() + CHECK_INTERVAL);
        tree.child.kill().expect("our child");
        tree.child.wait().expect("our child");
    }
}
