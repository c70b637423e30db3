//! The call at which a fault happens.

use std::fmt;

use nix::errno::Errno;

/// One call of a run: the number of a call in a thread of a process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    /// The command of the process, such as `run` or `supervise`; `>1` for its first child between
    /// fork and exec.
    pub(crate) process: String,
    pub(crate) thread: usize,
    pub(crate) number: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.process, self.thread, self.number)
    }
}

/// The fault at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// SIGKILL before the call.
    Kill,
    /// The call is not made and fails.
    Fail(Errno),
}

/// One call that was made.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) position: Position,
    pub(crate) name: String,
}
