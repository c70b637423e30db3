//! The command line program: it makes a plan from arguments and environment, executes the plan, and
//! reports what happened to the login.

mod args;
mod commands;
mod copies;
mod env;
pub mod exit;
mod github;
mod messages;
mod outcome;
mod own_files;
#[cfg(feature = "ping")]
mod ping;
mod plan;
#[cfg(test)]
mod reference;
mod report;
mod seal;
mod stores;
mod trust;

use std::process::ExitCode;

use clap::Parser;

use report::ReportFile;

/// Runs the command line that this process was started with, and returns its exit code.
///
/// # Examples
///
/// ```no_run
/// use std::process::ExitCode;
///
/// fn main() -> ExitCode {
///     authferry::main()
/// }
/// ```
#[must_use]
pub fn main() -> ExitCode {
    authferry_runner::name_job(env::job_variable);
    // No core dump and no debugger of the same user while secrets are in memory. The setting is
    // reset in each program that this process starts, by exec.
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable).ok();
    let args = args::Args::parse();
    let (ending, report) = match ReportFile::open(&args.global) {
        Ok(report) => {
            let run = || commands::run(args.command, &args.global);
            (outcome::catch_panics(run), report)
        }
        Err(ending) => (Err(ending), None),
    };
    ending
        .unwrap_or_else(|ending| *ending)
        .publish(&args.global, report)
}
