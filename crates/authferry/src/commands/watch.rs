//! `watch`: the write-through alone, while others run Codex.

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

use crate::args::{Global, Watch};
use crate::commands::{block_on, trips};
use crate::ending::{Ending, Result};
use crate::plan::{self, JobTerms, Plan};
use crate::{exit, report, telling};

pub(crate) fn watch(args: &Watch, global: &Global) -> Result<Ending> {
    let plan = Plan::new(global)?;
    let home = plan.home_as_left(global)?;
    let receipt = trips::receipt(&plan, &home)?;
    if receipt.access_only {
        let message = "the login has no refresh token: there is nothing to watch";
        return Ok(Ending {
            midway: true,
            ..Ending::good("unchanged", message)
        });
    }
    if let (Some(log), false) = (&args.detach, args.detached) {
        report::check(log, "--detach", global)?;
        // It has no say in the step that starts it, once that is over.
        let arguments = std::env::args_os()
            .skip(1)
            .filter(|argument| argument != "--github");
        let process = detach(log, arguments.collect(), &[])?;
        return Ok(telling::watching(process, home.dir()));
    }
    if args.detached {
        // It fails for the leader of a group, who is apart already.
        rustix::process::setsid().ok();
    }
    let terms = JobTerms::from(&args.persisting);
    let rescue = plan.rescue(global)?;
    let job = plan.job(&home, &rescue, &terms);
    let began = || {
        if args.detached {
            // Whoever started us may be gone.
            io::stdout().write_all(BEGAN).ok();
        }
    };
    let report = block_on(&plan, async {
        let mut signals = trips::install()?;
        trips::begun(authferry_runner::watch(&job, &receipt, &mut signals, began).await)
    })??;
    Ok(telling::watched(&job, &report))
}

/// What the one in the background says when nothing can be missed any more.
const BEGAN: &[u8] = b"watching\n";

/// Leaves a watch behind that says what there is to say to a file in the home; returns its process.
///
/// It gets none of the variables in `withheld`.
pub(crate) fn leave(
    global: &Global,
    home: &Home,
    patience: Duration,
    withheld: &[&str],
) -> Result<u32> {
    let log = home.dir().join(WATCH_LOG);
    // What an earlier one has said is of an earlier job.
    fs::remove_file(&log).ok();
    let mut arguments = options(global);
    arguments.push("--codex-home".into());
    arguments.push(home.dir().into());
    arguments.push("watch".into());
    arguments.push("--patience".into());
    arguments.push(humantime::format_duration(patience).to_string().into());
    arguments.push("--detach".into());
    arguments.push(log.clone().into());
    detach(&log, arguments, withheld)
}

/// The global options of this command, for another one on the same home.
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

/// Starts this program again in a new session, waits until its watch has begun, and returns its
/// process id.
///
/// It inherits none of our streams: a CI system waits until they are closed.
fn detach(log: &Path, arguments: Vec<OsString>, withheld: &[&str]) -> Result<u32> {
    let failed = |what: &str, error: &io::Error| {
        Box::new(Ending::refused(exit::FAILED, what).caused_by(error))
    };
    let file = File::options()
        .create(true)
        .append(true)
        .mode(0o600)
        // A pipe that nobody reads is refused: the job must not wait for a reader.
        .custom_flags(report::NEVER_WAIT)
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
    let mut said = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        let most = u64::try_from(BEGAN.len()).unwrap_or(u64::MAX);
        stdout.take(most).read_to_end(&mut said).ok();
    }
    if said == BEGAN {
        return Ok(child.id());
    }
    let end = child
        .wait()
        .map_err(|error| failed("the watch is lost", &error))?;
    let code = end.code().and_then(|code| u8::try_from(code).ok());
    let what = format!("the watch did not begin: {} tells why", log.display());
    Err(Ending::refused(code.unwrap_or(exit::FAILED), what).into())
}
