//! Handlers for the signals that end a process.

use std::{
    fs,
    future::poll_fn,
    io::{self, IsTerminal},
    task::Poll,
};

use rustix::process::Signal;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// The signals that ask a job to end.
const END_SIGNALS: [Signal; 4] = [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT];

/// The other signals that end a process by default: timers and limits that were set before the
/// program was loaded, a scheduler's warning, a power failure. Only the command knows what one of
/// them means.
///
/// Excluded: job control, and the signals of a fault in this process. `SIGABRT` is included,
/// because supervisors send it; `abort` still ends this process.
const COMMAND_SIGNALS: &[Signal] = &[
    Signal::ABORT,
    Signal::ALARM,
    Signal::PROF,
    Signal::USR1,
    Signal::USR2,
    Signal::VTALARM,
    Signal::XCPU,
    #[cfg(target_os = "linux")]
    Signal::IO,
    #[cfg(target_os = "linux")]
    Signal::POWER,
    #[cfg(target_os = "linux")]
    Signal::STKFLT,
];

/// The signal handlers: once they are installed, none of these signals ends this process.
///
/// Install them before the first secret byte is written to the disk. A signal may end the command,
/// never the persist that follows. A signal that was ignored when the process started, as by
/// `nohup`, stays ignored, and the command inherits that.
///
/// Several real-time signals of one number that arrive at once count as one, and their values are
/// lost: the signal library keeps no queue.
#[derive(Debug)]
pub struct Signals {
    streams: Vec<(Signal, Stream)>,
    child: Stream,
}

/// A signal that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SignalEvent {
    /// The job must end.
    End(Signal),
    /// Another signal that ends a process by default: it is forwarded to the command.
    Other(Signal),
    /// Some child process changed its state.
    Child,
}

impl Signals {
    /// Installs the handlers. Fails as `sigaction` does. Needs a tokio runtime.
    pub fn install() -> io::Result<Self> {
        let ignored = Ignored::look();
        let mut streams = Vec::new();
        for end in END_SIGNALS.into_iter().filter(|end| !ignored.has(*end)) {
            streams.push((end, handler(end)?));
        }
        let others = COMMAND_SIGNALS.iter().copied().chain(real_time());
        for other in others.filter(|other| !ignored.has(*other)) {
            // Emulators and debuggers reserve some signals for themselves.
            streams.extend(handler(other).map(|stream| (other, stream)));
        }
        Ok(Self {
            streams,
            child: signal(SignalKind::child())?,
        })
    }

    /// Waits for the next signal. Cancel-safe.
    pub(crate) async fn next(&mut self) -> SignalEvent {
        poll_fn(|context| {
            for (signal, stream) in &mut self.streams {
                if stream.poll_recv(context).is_ready() {
                    return Poll::Ready(if END_SIGNALS.contains(signal) {
                        SignalEvent::End(*signal)
                    } else {
                        SignalEvent::Other(*signal)
                    });
                }
            }
            self.child.poll_recv(context).map(|_| SignalEvent::Child)
        })
        .await
    }
}

/// Catches SIGXFSZ: a write beyond the file size limit then fails with EFBIG instead of ending this
/// process. Exec restores the default for the command. Needs a tokio runtime.
pub fn survive_file_size_limit() {
    if !Ignored::look().has(Signal::XFSZ) {
        // If the handler cannot be installed, the default stays.
        let _handler = handler(Signal::XFSZ);
    }
}

/// Returns whether the terminal has sent this signal to the command as well: a key sends the signal
/// to the whole foreground process group, to which authferry and the command belong.
pub(crate) fn reaches_command_via_terminal(signal: Signal) -> bool {
    let stdin = io::stdin();
    (signal == Signal::INT || signal == Signal::QUIT)
        && stdin.is_terminal()
        && rustix::termios::tcgetpgrp(&stdin).is_ok_and(|group| group == rustix::process::getpgrp())
}

/// Returns whether standard input is a terminal.
pub(crate) fn is_interactive() -> bool {
    io::stdin().is_terminal()
}

/// Installs a handler. It stays until the process ends, even if the stream is dropped.
fn handler(of: Signal) -> io::Result<Stream> {
    signal(SignalKind::from_raw(of.as_raw()))
}

/// The real-time signals that the C library does not reserve.
#[cfg(target_os = "linux")]
fn real_time() -> impl Iterator<Item = Signal> {
    use rustix_libc_wrappers::process::SignalExt;
    (0..).map_while(Signal::rt)
}

#[cfg(not(target_os = "linux"))]
fn real_time() -> impl Iterator<Item = Signal> {
    std::iter::empty()
}

/// The signals that the process was started to ignore, as bits; none where `/proc` does not show
/// them.
struct Ignored(u64);

impl Ignored {
    fn look() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        Self(mask.unwrap_or(0))
    }

    fn has(&self, signal: Signal) -> bool {
        self.0 & (1 << (signal.as_raw() - 1)) != 0
    }
}
