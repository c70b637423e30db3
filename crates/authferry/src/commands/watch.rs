//! `watch`: persists each login that Codex writes, while other commands run Codex.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use authferry_codex::Home;
use authferry_runner::WATCH_LOG;

use crate::args::{Global, WatchArgs};
use crate::commands::{block_on, round_trips};
use crate::outcome::{Ending, Result};
use crate::plan::{self, JobTerms, Plan};
use crate::{exit, messages, report};

pub(crate) fn watch(args: &WatchArgs, global: &Global) -> Result<Ending> {
    let plan = Plan::new(global)?;
    let home = plan.home_as_left(global)?;
    let receipt = round_trips::receipt(&plan, &home)?;
    if receipt.access_only {
        let message = "the login has no refresh token: there is nothing to watch";
        return Ok(Ending {
            midway: true,
            ..Ending::good("unchanged", message)
        });
    }
    if let (Some(log), false) = (&args.detach, args.detached) {
        report::check(log, "--detach", global)?;
        // The watch outlives the step that starts it: it must not write for GitHub's runner.
        let arguments = std::env::args_os()
            .skip(1)
            .filter(|argument| argument != "--github");
        let process = detach(log, arguments.collect(), &[])?;
        return Ok(messages::watching(process, home.dir()));
    }
    if args.detached {
        // `setsid` fails only for a process group leader, and our parent does not make us one.
        rustix::process::setsid().ok();
    }
    let terms = JobTerms::from(&args.persisting);
    let rescue = plan.rescue(global)?;
    let job = plan.job(&home, &rescue, &terms);
    let on_start = || {
        if args.detached {
            // The parent may have ended.
            io::stdout().write_all(STARTED).ok();
        }
    };
    let report = block_on(&plan, async {
        let mut signals = round_trips::install_signals()?;
        round_trips::check_start(
            authferry_runner::watch(&job, &receipt, &mut signals, on_start).await,
        )
    })??;
    Ok(messages::watched(&job, &report))
}

/// The output of the background process once the watch is active.
const STARTED: &[u8] = b"watching\n";

/// Starts a watch in the background that logs to a file in the home. Returns its process ID.
///
/// The watch does not get the environment variables in `withheld`.
pub(crate) fn start(
    global: &Global,
    home: &Home,
    store_timeout: Duration,
    withheld: &[&str],
) -> Result<u32> {
    let log = home.dir().join(WATCH_LOG);
    // The log of an earlier watch belongs to an earlier job.
    fs::remove_file(&log).ok();
    let mut arguments = options(global);
    arguments.push("--codex-home".into());
    arguments.push(home.dir().into());
    arguments.push("watch".into());
    arguments.push("--store-timeout".into());
    arguments.push(humantime::format_duration(store_timeout).to_string().into());
    arguments.push("--detach".into());
    arguments.push(log.clone().into());
    detach(&log, arguments, withheld)
}

/// The global options of this command, for another command with the same home.
fn options(global: &Global) -> Vec<OsString> {
    let mut options: Vec<OsString> = Vec::new();
    let mut add = |name: &str, value: OsString| options.extend([name.into(), value]);
    if let Some(store) = &global.store {
        add("--store", store.into());
    }
    if let Some(folder) = &global.rescue_dir {
        add("--rescue-dir", folder.into());
    }
    if let Some(store) = &global.rescue_store {
        add("--rescue-store", store.into());
    }
    for recipient in &global.rescue_recipient {
        add("--rescue-recipient", recipient.into());
    }
    options
}

/// Starts this program again in the background, waits until its watch is active, and returns its
/// process ID.
///
/// The child inherits no stream of this process: a CI system waits until they are closed.
fn detach(log: &Path, arguments: Vec<OsString>, withheld: &[&str]) -> Result<u32> {
    let failed = |problem: &str, error: &io::Error| {
        Box::new(Ending::refused(exit::FAILED, problem).caused_by(error))
    };
    let file = File::options()
        .create(true)
        .append(true)
        .mode(0o600)
        // Refuses a pipe without a reader: the job must not block.
        .custom_flags(report::NONBLOCKING)
        .open(log)
        .map_err(|error| failed(&format!("cannot write to {}", log.display()), &error))?;
    let program = plan::this_program().unwrap_or_else(|| "authferry".into());
    let mut command = Command::new(program);
    for variable in withheld {
        command.env_remove(variable);
    }
    let mut child = command
        .args(arguments)
        .arg("--detached")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(file)
        .spawn()
        .map_err(|error| failed("cannot start the watch", &error))?;
    let mut output = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        let limit = u64::try_from(STARTED.len()).unwrap_or(u64::MAX);
        stdout.take(limit).read_to_end(&mut output).ok();
    }
    if output == STARTED {
        return Ok(child.id());
    }
    let end = child
        .wait()
        .map_err(|error| failed("cannot wait for the watch", &error))?;
    let code = end.code().and_then(|code| u8::try_from(code).ok());
    let problem = format!("the watch did not start: see {}", log.display());
    Err(Ending::refused(code.unwrap_or(exit::FAILED), problem).into())
}
