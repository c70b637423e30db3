//! The signals that end a job, as something to wait for.

use std::{io, io::IsTerminal};

use rustix::process::Signal;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// The handlers: from here until the process ends none of these signals kills it.
///
/// They go in before the first secret byte touches the disk. A signal may end the
/// command, never the persist that follows it.
#[derive(Debug)]
pub struct Signals {
    interrupt: Stream,
    terminate: Stream,
    hangup: Stream,
    quit: Stream,
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
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
            child: signal(SignalKind::child())?,
        })
    }

    /// Waits for the next signal. Loses none when dropped half-way.
    pub(crate) async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.interrupt.recv() => Told::End(Signal::INT),
            _ = self.terminate.recv() => Told::End(Signal::TERM),
            _ = self.hangup.recv() => Told::End(Signal::HUP),
            _ = self.quit.recv() => Told::End(Signal::QUIT),
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
