//! The signals that end a job, as something to wait for.

use std::{fs, future::pending, io, io::IsTerminal};

use rustix::process::Signal;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// The signals by which somebody says that the job is to end.
const ENDS: [Signal; 4] = [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT];

/// The handlers: from here until the process ends none of these signals kills it.
///
/// They go in before the first secret byte touches the disk. A signal may end the
/// command, never the persist that follows it. One that was ignored when the process
/// started, as by `nohup`, stays ignored, and the command inherits that.
#[derive(Debug)]
pub struct Signals {
    ends: [Option<Stream>; ENDS.len()],
    child: Stream,
}

/// Something that a signal told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// The job is to end.
    End(Signal),
    /// Some child process changed its state.
    Child,
}

impl Signals {
    /// Installs the handlers. Fails as `sigaction` does. Needs a tokio runtime.
    pub fn install() -> io::Result<Self> {
        let ignored = ignored();
        let mut ends = [const { None }; ENDS.len()];
        for (stream, end) in ends.iter_mut().zip(ENDS) {
            if ignored & (1 << (end.as_raw() - 1)) == 0 {
                *stream = Some(signal(SignalKind::from_raw(end.as_raw()))?);
            }
        }
        Ok(Self {
            ends,
            child: signal(SignalKind::child())?,
        })
    }

    /// Waits for the next signal. Loses none when dropped half-way.
    pub(crate) async fn next(&mut self) -> Told {
        let [int, term, hup, quit] = &mut self.ends;
        tokio::select! {
            () = heard(int) => Told::End(Signal::INT),
            () = heard(term) => Told::End(Signal::TERM),
            () = heard(hup) => Told::End(Signal::HUP),
            () = heard(quit) => Told::End(Signal::QUIT),
            _ = self.child.recv() => Told::Child,
        }
    }
}

/// Returns whether the terminal has sent this signal to the command as well: keys do so
/// to the whole foreground group, of which both are members.
pub(crate) fn reaches_the_command_by_itself(signal: Signal) -> bool {
    let stdin = io::stdin();
    (signal == Signal::INT || signal == Signal::QUIT)
        && stdin.is_terminal()
        && rustix::termios::tcgetpgrp(&stdin).is_ok_and(|group| group == rustix::process::getpgrp())
}

async fn heard(stream: &mut Option<Stream>) {
    match stream {
        Some(stream) => {
            stream.recv().await;
        }
        None => pending().await,
    }
}

/// The signals that the process was started to ignore, as bits; none where the system does
/// not tell.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}
