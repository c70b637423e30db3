//! The signals that end a process, as something to wait for.

use std::{
    fs,
    future::poll_fn,
    io::{self, IsTerminal},
    task::Poll,
};

use rustix::process::Signal;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// The signals that ask a job to end.
const ENDS: [Signal; 4] = [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT];

/// The other signals that end a process by default: timers and limits that were set before the
/// program was loaded, a scheduler's warning, a power failure. What one of them means only the
/// command can know.
///
/// Not among them: job control, and what tells of a fault of our own. `SIGABRT` is, because
/// supervisors send it; `abort` ends this process all the same.
const OTHERS: &[Signal] = &[
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

/// The handlers: from here until the process ends none of these signals ends it.
///
/// Install them before the first secret byte is written to the disk. A signal may end the
/// command, never the persist that follows it. A signal that was ignored when the process
/// started, as by `nohup`, stays ignored, and the command inherits that.
///
/// Several real-time signals of one number that arrive at once count as one, and their values
/// are lost: the signal library keeps no queue.
#[derive(Debug)]
pub struct Signals {
    streams: Vec<(Signal, Stream)>,
    child: Stream,
}

/// Something that a signal told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// The job is to end.
    End(Signal),
    /// Another signal that would have ended this process, and is the command's affair.
    Other(Signal),
    /// Some child process changed its state.
    Child,
}

impl Signals {
    /// Installs the handlers. Fails as `sigaction` does. Needs a tokio runtime.
    pub fn install() -> io::Result<Self> {
        let ignored = Ignored::look();
        let mut streams = Vec::new();
        for end in ENDS.into_iter().filter(|end| !ignored.has(*end)) {
            streams.push((end, handler(end)?));
        }
        let others = OTHERS.iter().copied().chain(real_time());
        for other in others.filter(|other| !ignored.has(*other)) {
            // Emulators and debuggers keep one or the other for themselves.
            streams.extend(handler(other).map(|stream| (other, stream)));
        }
        Ok(Self {
            streams,
            child: signal(SignalKind::child())?,
        })
    }

    /// Waits for the next signal. Loses none when dropped half-way.
    pub(crate) async fn next(&mut self) -> Told {
        poll_fn(|context| {
            for (signal, stream) in &mut self.streams {
                if stream.poll_recv(context).is_ready() {
                    return Poll::Ready(if ENDS.contains(signal) {
                        Told::End(*signal)
                    } else {
                        Told::Other(*signal)
                    });
                }
            }
            self.child.poll_recv(context).map(|_| Told::Child)
        })
        .await
    }
}

/// Makes a write beyond the limit for the size of a file fail, where it would end this process.
/// The command gets the default back when it is loaded. Needs a tokio runtime.
pub fn survive_file_size_limit() {
    if !Ignored::look().has(Signal::XFSZ) {
        // Without a handler it is as it was.
        let _handler = handler(Signal::XFSZ);
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

/// Returns whether a person sits in front of the command.
pub(crate) fn is_on_a_terminal() -> bool {
    io::stdin().is_terminal()
}

/// A handler stays for as long as the process lives, whatever becomes of the stream.
fn handler(of: Signal) -> io::Result<Stream> {
    signal(SignalKind::from_raw(of.as_raw()))
}

/// The real-time signals that the C library does not need for itself.
#[cfg(target_os = "linux")]
fn real_time() -> impl Iterator<Item = Signal> {
    use rustix_libc_wrappers::process::SignalExt;
    (0..).map_while(Signal::rt)
}

#[cfg(not(target_os = "linux"))]
fn real_time() -> impl Iterator<Item = Signal> {
    std::iter::empty()
}

/// The signals that the process was started to ignore, as bits; none where the system does
/// not tell.
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
