//! `apart`: the step between us and a Codex that rotates.
//!
//! A session of its own cannot be had from outside without `unsafe`, and neither can the
//! kernel's word when a parent is gone. So this program starts itself, sees to both, and
//! starts Codex. It stays: npm's `codex` is a script that starts the real one, and who is
//! told of our end has to end both.

use std::{
    io,
    os::unix::process::ExitStatusExt,
    process::{self, Child},
};

use rustix::process::{Signal, getpgrp, getpid, getppid, kill_process_group, setsid};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::Apart;
use crate::ending::{Ending, Result};
use crate::{commands, exit};

/// Runs the program, and ends as it does.
pub(crate) fn apart(args: &Apart) -> Result<Ending> {
    let failed = |error: &io::Error| {
        let code = if error.kind() == io::ErrorKind::NotFound {
            exit::NOT_FOUND
        } else {
            exit::NOT_EXECUTABLE
        };
        Ending::refused(code, "the program cannot be started").caused_by(error)
    };
    let ran = commands::runtime()?.block_on(run(args));
    let code = ran.map_err(|error| failed(&error))?;
    Ok(Ending {
        code,
        ..Ending::default()
    })
}

async fn run(args: &Apart) -> io::Result<u8> {
    let mut orphaned = signal(SignalKind::terminate())?;
    let mut died = signal(SignalKind::child())?;
    // It fails for the leader of a group, who is apart from ours already.
    setsid().ok();
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
    // Of a parent that died before nobody would be told.
    if getppid().map(|parent| parent.as_raw_nonzero().get()) != Some(args.parent) {
        return Ok(exit::FAILED);
    }
    let (program, arguments) = args.command.split_at(1);
    let mut child = process::Command::new(&program[0]).args(arguments).spawn()?;
    loop {
        if let Some(status) = child.try_wait()? {
            let code = status.code().or_else(|| status.signal().map(|n| 128 + n));
            let code = code.and_then(|code| u8::try_from(code & 0xff).ok());
            return Ok(code.unwrap_or(u8::MAX));
        }
        tokio::select! {
            _ = died.recv() => {}
            _ = orphaned.recv() => end_all(&mut child),
        }
    }
}

/// Ends everything in the session, this process too.
fn end_all(child: &mut Child) {
    // Errors are of those who are dead already.
    if getpgrp() == getpid() {
        kill_process_group(getpgrp(), Signal::KILL).ok();
    }
    child.kill().ok();
}
