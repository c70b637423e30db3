//! `apart`: the step between us and a Codex that rotates.
//!
//! A session of its own cannot be had from outside without `unsafe`, and neither can the
//! kernel's promise to end a process with its parent. So this program starts itself, sets
//! both for itself, and becomes Codex.

use std::{io, os::unix::process::CommandExt, process};

use rustix::process::{getppid, setsid};

use crate::args::Apart;
use crate::ending::Ending;
use crate::exit;

/// Becomes the program. Returns only if that fails.
pub(crate) fn become_it(args: &Apart) -> Ending {
    // It fails for the leader of a group, who is apart from ours already.
    setsid().ok();
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).ok();
    // A parent that died before would never be noticed.
    if getppid().map(|parent| parent.as_raw_nonzero().get()) != Some(args.parent) {
        return Ending::refused(exit::FAILED, "the parent is gone");
    }
    let (program, arguments) = args.command.split_at(1);
    let mut command = process::Command::new(&program[0]);
    let error = command.args(arguments).exec();
    let code = if error.kind() == io::ErrorKind::NotFound {
        exit::NOT_FOUND
    } else {
        exit::NOT_EXECUTABLE
    };
    Ending::refused(code, "the program cannot be started").caused_by(&error)
}
