//! The command: arguments and environment become a plan, the plan is carried out, and
//! what became of the login is told.

mod args;
mod commands;
mod copies;
mod ending;
mod env;
pub mod exit;
mod github;
mod own_files;
mod plan;
mod report;
mod seal;
mod stores;
mod telling;
mod trust;

use std::process::ExitCode;

use clap::Parser;

use report::ReportFile;

/// Runs the command line that this process was started with, and returns its exit code.
#[must_use]
pub fn main() -> ExitCode {
    authferry_runner::name_job(env::of_the_job);
    // While secrets are in memory: no core dump, no debugger of the same user. A program
    // that is started from here gets its own setting back when it is loaded.
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable).ok();
    let args = args::Args::parse();
    let (ending, report) = match ReportFile::open(&args.global) {
        Ok(report) => {
            let run = || commands::run(args.command, &args.global);
            (ending::whatever_panics(run), report)
        }
        Err(ending) => (Err(ending), None),
    };
    ending
        .unwrap_or_else(|ending| *ending)
        .tell(&args.global, report)
}
