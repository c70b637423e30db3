//! The command and everything it starts.
//!
//! The command shares our process group and our standard streams: Codex is a terminal
//! program. It may die and leave others behind; an orphaned Codex goes on refreshing and
//! rewriting the auth file for minutes (seen on 0.169.0 after its npm launcher was
//! killed). So we are the one to whom orphans are given, and the job is not over before
//! the last of them is gone.

use std::{
    fs, io,
    os::unix::process::ExitStatusExt,
    process::{Child, Command, ExitStatus},
    time::Duration,
};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions};
use tokio::time::Instant;

/// Between asking what was left behind to end, and making it end.
const GRACE: Duration = Duration::from_secs(2);
/// Between two rounds of killing: each round's orphans only show up after it.
const ROUND: Duration = Duration::from_millis(50);

/// The command, its descendants, and how far their end has come.
#[derive(Debug)]
pub(crate) struct Family {
    child: Child,
    /// The command's exit code, once it is gone.
    end: Option<u8>,
    phase: Phase,
    /// How many processes that the command left behind were told to end.
    ended: usize,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// The command is alive.
    Running,
    /// The command is gone; what it left behind may finish until then.
    Lingering(Instant),
    /// What is left was asked to end, and is made to from then on.
    Killing(Instant),
}

impl Family {
    /// Starts the command. Fails as [`Command::spawn`] does, and when orphans cannot be had.
    pub(crate) fn spawn(command: &mut Command) -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let child = command.spawn()?;
        Ok(Self {
            child,
            end: None,
            phase: Phase::Running,
            ended: 0,
        })
    }

    /// Collects the dead, and returns whether nobody is left.
    ///
    /// `linger`: how long those may stay that the command leaves behind. To be called after
    /// every `SIGCHLD` and whenever [`wake`](Self::wake) has come; never while a backend is
    /// at work, for it may have helpers of its own to wait for.
    pub(crate) fn gone(&mut self, linger: Duration) -> bool {
        match (&self.end, self.child.try_wait()) {
            (None, Ok(None)) => return false,
            (None, Ok(Some(status))) => self.end = Some(exit_code(status)),
            // Somebody else has collected it: it is gone, and nobody will say how.
            (None, Err(_)) => self.end = Some(u8::MAX),
            (Some(_), _) => {}
        }
        loop {
            match rustix::process::waitpid(None, WaitOptions::NOHANG) {
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => break,
                // No child is left, and nothing else can be wrong with this question.
                Err(_) => return true,
            }
        }
        let now = Instant::now();
        match self.phase {
            Phase::Running => self.phase = Phase::Lingering(now + linger),
            Phase::Lingering(until) if now >= until => self.end_the_rest(Signal::TERM, now + GRACE),
            Phase::Killing(from) if now >= from => self.end_the_rest(Signal::KILL, now + ROUND),
            Phase::Lingering(_) | Phase::Killing(_) => {}
        }
        false
    }

    /// When [`gone`](Self::gone) has something to do even if nobody dies.
    pub(crate) fn wake(&self) -> Option<Instant> {
        match self.phase {
            Phase::Running => None,
            Phase::Lingering(at) | Phase::Killing(at) => Some(at),
        }
    }

    /// Passes a signal on to the command. Once it is gone, what it left behind gets no more time.
    pub(crate) fn signal(&mut self, signal: Signal) {
        if self.end.is_none() {
            // A child that is not yet waited for keeps its pid: this cannot hit another.
            let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
            if let Some(pid) = pid {
                // It may be dead already; then there is nobody to tell.
                rustix::process::kill_process(pid, signal).ok();
            }
        } else if let Phase::Lingering(_) = self.phase {
            self.phase = Phase::Lingering(Instant::now());
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

    fn end_the_rest(&mut self, signal: Signal, next: Instant) {
        let orphans = orphans();
        if signal == Signal::TERM {
            self.ended = orphans.len();
        }
        for pid in orphans {
            rustix::process::kill_process(pid, signal).ok();
        }
        self.phase = Phase::Killing(next);
    }
}

/// The exit code by which a shell would tell of this end: 128 + n for signal n.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|n| 128 + n));
    code.and_then(|code| u8::try_from(code & 0xff).ok())
        .unwrap_or(u8::MAX)
}

/// The processes whose parent we are: after the command's end, those it left behind.
fn orphans() -> Vec<Pid> {
    let Ok(threads) = fs::read_dir("/proc/self/task") else {
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
