//! `apart`: the supervisor between a rotation and its Codex.
//!
//! A parent cannot start a child in a new session, or with a parent death signal, without `unsafe`.
//! So this program starts itself, sets both, and starts Codex. It runs as long as Codex does, and
//! completes the rotation if the rotating process ends first.

use std::{io, process};

use authferry_codex::Home;
use authferry_runner::{Job, Orphan, Signals, Supervised, supervise, take_over};
use rustix::process::setsid;

use crate::args::{Apart, Global};
use crate::commands::{begin_threads, close, look_into_second_store, runtime, trips::install};
use crate::ending::{Ending, Result};
use crate::plan::{self, JobTerms, Plan};
use crate::{exit, telling};

/// Runs the program, and ends as it does, unless the process that rotates ends first.
pub(crate) fn apart(args: &Apart, global: &Global) -> Result<Ending> {
    let runtime = runtime()?;
    begin_threads(&runtime)?;
    let ended = runtime.block_on(async {
        // It fails for the leader of a group, who is apart already.
        setsid().ok();
        let mut signals = install()?;
        let supervised = supervise(&mut command(args), args.parent, &mut signals).await;
        match supervised.map_err(|error| failed(&error))? {
            Supervised::Ended(code) => Ok(Ending {
                code,
                ..Ending::default()
            }),
            Supervised::Orphaned(orphan) => go_on(args, global, *orphan, &mut signals).await,
        }
    });
    runtime.shutdown_background();
    ended
}

fn command(args: &Apart) -> process::Command {
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
    Ending::refused(code, "the program cannot be started").caused_by(error)
}

/// Logs in to the store by itself: the process that rotated may have ended its login.
async fn go_on(
    args: &Apart,
    global: &Global,
    orphan: Orphan,
    signals: &mut Signals,
) -> Result<Ending> {
    let plan = Plan::new(global)?;
    let rescue = plan.rescue(global)?;
    let home = Home::new(&args.home).map_err(|error| failed(&error))?;
    let terms = JobTerms {
        policy: plan::policy(args.on_conflict),
        patience: args.common.patience,
        ..JobTerms::default()
    };
    // What the second store holds is not needed to add to it.
    look_into_second_store(&rescue, terms.patience).await.ok();
    let job = Job {
        linger: GRACE,
        ..plan.job(&home, &rescue, &terms)
    };
    let report = Box::pin(take_over(&job, orphan, args.holder, signals)).await;
    close(&plan).await;
    let report = report.map_err(|error| telling::not_begun(&error))?;
    Ok(telling::trip(&job, &report, None))
}

/// How long processes may stay that Codex leaves behind when it has refreshed.
const GRACE: std::time::Duration = std::time::Duration::from_secs(5);
