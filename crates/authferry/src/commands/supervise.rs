//! `supervise`: the supervisor between a rotation and its Codex.
//!
//! A parent cannot start a child in a new session, or with a parent death signal, without `unsafe`.
//! So this program starts itself, sets both, and starts Codex. It runs as long as Codex does, and
//! completes the rotation if the rotating process ends first.

use std::{io, process};

use authferry_codex::Home;
use authferry_runner::{Job, Orphan, Signals, Supervised, take_over};
use rustix::process::setsid;

use crate::args::{Global, SuperviseArgs};
use crate::commands::{
    close, read_second_store, round_trips::install_signals, runtime, start_blocking_threads,
};
use crate::outcome::{Ending, Result};
use crate::plan::{self, JobTerms, Plan};
use crate::{exit, messages};

/// Runs the program, and exits with its exit code unless the rotating process ends first.
pub(crate) fn supervise(args: &SuperviseArgs, global: &Global) -> Result<Ending> {
    let runtime = runtime()?;
    start_blocking_threads(&runtime)?;
    let ended = runtime.block_on(async {
        // `setsid` fails only for a process group leader, and our parent does not make us one.
        setsid().ok();
        let mut signals = install_signals()?;
        let supervised =
            authferry_runner::supervise(&mut command(args), args.parent, &mut signals).await;
        match supervised.map_err(|error| failed(&error))? {
            Supervised::Ended(code) => Ok(Ending {
                code,
                ..Ending::default()
            }),
            Supervised::Orphaned(orphan) => complete(args, global, *orphan, &mut signals).await,
        }
    });
    runtime.shutdown_background();
    ended
}

fn command(args: &SuperviseArgs) -> process::Command {
    let (program, arguments) = args.command.split_at(1);
    let mut command = process::Command::new(&program[0]);
    command.args(arguments);
    for variable in &args.withhold {
        command.env_remove(variable);
    }
    command
}

fn failed(error: &io::Error) -> Ending {
    let code = if error.kind() == io::ErrorKind::NotFound {
        exit::NOT_FOUND
    } else {
        exit::NOT_EXECUTABLE
    };
    // The rotating process shows this line as the cause.
    Ending::bad(code, "failed", error.to_string())
}

/// Completes the rotation. Logs in to the store again: the rotating process may have revoked its
/// token of the store.
async fn complete(
    args: &SuperviseArgs,
    global: &Global,
    orphan: Orphan,
    signals: &mut Signals,
) -> Result<Ending> {
    let plan = Plan::new(global)?;
    let rescue = plan.rescue(global)?;
    let home = Home::new(&args.home).map_err(|error| failed(&error))?;
    let terms = JobTerms {
        policy: plan::policy(args.on_conflict),
        store_timeout: args.common.store_timeout,
        ..JobTerms::default()
    };
    // A copy can be added to the second store without reading it.
    read_second_store(&rescue, terms.store_timeout).await.ok();
    let job = Job {
        exit_grace: EXIT_GRACE,
        ..plan.job(&home, &rescue, &terms)
    };
    let report = Box::pin(take_over(&job, orphan, args.holder, signals)).await;
    close(&plan).await;
    let report = report.map_err(|error| messages::start_error(&error))?;
    Ok(messages::round_trip(&job, &report, None))
}

/// The grace period for processes that Codex leaves behind after the refresh.
const EXIT_GRACE: std::time::Duration = std::time::Duration::from_secs(5);
