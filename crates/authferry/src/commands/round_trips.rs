//! `run`, `restore`, `persist`: the round trip, in one process or in two.

use std::{cell::Cell, ffi::OsString, process, time::Duration};

use authferry_codex::{EffectiveSettings, Home};
use authferry_core::{Outcome, Refusal, Stored};
use authferry_runner::{
    Admitted, Codex, Job, LeaseKeeper, Receipt, Report, Rotating, Signals, StartError,
};
use tokio::time::timeout;

use crate::args::{
    Global, LeaseScope, PersistArgs, RestoreArgs, RestoringArgs, RotateFirstArgs, RunArgs,
};
use crate::commands::open_home::{close_home, closed};
use crate::commands::rotate_first::{self, JobStart};
use crate::commands::{block_on, read_second_store, seed, watch};
use crate::github::Masks;
use crate::outcome::{Ending, Result};
use crate::plan::{self, JobTerms, Plan};
use crate::{env, exit, messages};

pub(crate) fn run(args: &RunArgs, global: &Global) -> Result<Ending> {
    let plan = Plan::new(global)?;
    plan.trust(args.restoring.allow_untrusted, global)?;
    let home = plan.home(global)?;
    let sources = plan::setting_sources(&home, &args.command);
    let settings = plan::settings(&sources)?;
    let masks = Masks::new(global);
    let terms = JobTerms {
        settings: Some(&sources),
        replace: args.restoring.replace,
        access_only: args.rotate_first.access_only,
        exit_grace: args.exit_grace,
        cancel_grace: plan.cancel_grace(args.rotate_first.rotating.cancel_grace),
        masks: masks.as_ref(),
        ..JobTerms::from(&args.persisting)
    };
    let rescue = plan.usable_rescue(global)?;
    let job = plan.job(&home, &rescue, &terms);
    let (codex, rotate_within) = rotator(&plan, global, &args.restoring, &args.rotate_first)?;
    let rotating = Rotating {
        only_after_half_life: true,
        ..plan.rotating(
            &codex,
            &rescue,
            &args.rotate_first.rotating,
            rotate_within,
            &terms,
        )
    };
    let program = args.command.first().cloned().unwrap_or_default();
    let nested = Cell::new(false);
    let open_mode = Cell::new(None);
    let made: Result<Result<_>> = block_on(&plan, async {
        let mut signals = install_signals()?;
        read_second_store(&rescue, terms.store_timeout).await?;
        let round_trip = async |signals: &mut Signals| {
            check_workspace(&plan, &settings, terms.store_timeout).await?;
            close_home(&plan, &home, &open_mode)?;
            let (job, admitted) = admit(&job, &args.rotate_first, &nested).await?;
            let mut start = start(
                &args.rotate_first,
                &rotating,
                &job,
                admitted,
                args.lease,
                signals,
            )
            .await?;
            let mut lease = match args.lease {
                LeaseScope::Rotation => None,
                LeaseScope::Job => {
                    Some(rotate_first::acquire_lease(&rotating, &mut start, signals).await?)
                }
            };
            let known = start.known.take();
            let refusal = lease.as_ref().and_then(LeaseKeeper::refusal);
            let command = command(&args.command, &args.restoring, &plan, &home);
            let run = authferry_runner::run(&job, command, known, lease.as_mut(), signals);
            let report = Box::pin(run).await;
            if let Some(lease) = lease {
                start.warnings.extend(rotate_first::lost_lease(&lease));
                lease.release().await;
            }
            let report = check_start(report)?;
            rotate_first::check_if_spent(&job, &report, &mut start).await;
            rotate_first::warn_of_refusal(&job, &report, refusal.as_ref(), &mut start);
            rotate_first::warn_of_expired_access_token(&job, &report, &mut start);
            Ok((report, start))
        };
        let first = round_trip(&mut signals).await;
        let (made, note) = match seed_if_empty(&plan, &job, &args.restoring, first).await? {
            FirstAttempt::Made(made) => (*made, None),
            FirstAttempt::Seeded(note) => (round_trip(&mut signals).await?, Some(note)),
        };
        let (report, start) = made;
        if args.retry_reused && start.spent {
            let second = round_trip(&mut signals).await;
            return Ok((choose_attempt(&job, (report, start), second), note));
        }
        Ok(((report, start), note))
    });
    // The watch of the enclosing job has handed over: start another one after any outcome.
    let watch = nested.get().then(|| start_watch(args, global, &home));
    let ((mut report, start), note) = made??;
    report.unfinished_rotation |= start.unfinished_rotation;
    let ending = messages::round_trip(&job, &report, Some(&program));
    let stays = report.in_use.is_some() || report.left_running > 0;
    let watch = match watch {
        // A refused job ran no command and changed nothing, so it starts no watch.
        None if report.command.is_some() && stays => Some(start_watch(args, global, &home)),
        watch => watch,
    };
    let ending = ending.with_watch(watch).with_start(start).note(note);
    Ok(ending.note(closed(&home, open_mode.get())))
}

/// Refuses a store's login that the settings exclude by its workspace, before it is rotated or
/// placed. Reads the store only if there are such settings.
async fn check_workspace(
    plan: &Plan,
    settings: &EffectiveSettings,
    store_timeout: Duration,
) -> Result<()> {
    if !settings.restricts_workspaces() {
        return Ok(());
    }
    // The round trip reports a store that cannot be read.
    let Ok(Ok(Some(stored))) = timeout(store_timeout, plan.store.read()).await else {
        return Ok(());
    };
    let Ok(login) = authferry_codex::parse(&stored.secret) else {
        return Ok(());
    };
    let checked = settings.check_workspace(&login.identity);
    Ok(checked.map_err(|error| messages::home_error(&error))?)
}

/// Checks whether and how the job may start in its home.
async fn admit<'a>(
    job: &Job<'a>,
    rotate_first: &RotateFirstArgs,
    nested: &Cell<bool>,
) -> Result<(Job<'a>, Admitted)> {
    let admitted =
        check_start(authferry_runner::admit(job, rotate_first.rotating.lease_timeout).await)?;
    if admitted.nested {
        nested.set(true);
    }
    let job = Job {
        nested: nested.get(),
        ..*job
    };
    Ok((job, admitted))
}

pub(crate) fn restore(args: &RestoreArgs, global: &Global) -> Result<Ending> {
    let plan = Plan::new(global)?;
    plan.trust(args.restoring.allow_untrusted, global)?;
    let home = plan.home(global)?;
    let sources = plan::setting_sources(&home, &[]);
    let settings = plan::settings(&sources)?;
    let masks = Masks::new(global);
    let terms = JobTerms {
        settings: Some(&sources),
        replace: args.restoring.replace,
        access_only: args.rotate_first.access_only,
        masks: masks.as_ref(),
        store_timeout: args.common.store_timeout,
        exit_grace: args.exit_grace,
        ..JobTerms::default()
    };
    let rescue = plan.usable_rescue(global)?;
    let job = plan.job(&home, &rescue, &terms);
    let (codex, rotate_within) = rotator(&plan, global, &args.restoring, &args.rotate_first)?;
    let rotating = Rotating {
        only_after_half_life: true,
        ..plan.rotating(
            &codex,
            &rescue,
            &args.rotate_first.rotating,
            rotate_within,
            &terms,
        )
    };
    let nested = Cell::new(false);
    let open_mode = Cell::new(None);
    let made: Result<Result<_>> = block_on(&plan, async {
        let mut signals = install_signals()?;
        read_second_store(&rescue, terms.store_timeout).await?;
        let round_trip = async |signals: &mut Signals| {
            check_workspace(&plan, &settings, terms.store_timeout).await?;
            close_home(&plan, &home, &open_mode)?;
            let (job, admitted) = admit(&job, &args.rotate_first, &nested).await?;
            let lease = LeaseScope::Rotation;
            let mut start = start(
                &args.rotate_first,
                &rotating,
                &job,
                admitted,
                lease,
                signals,
            )
            .await?;
            let known = start.known.take();
            let report = check_start(authferry_runner::restore(&job, known, signals).await)?;
            rotate_first::warn_of_expired_access_token(&job, &report, &mut start);
            Ok((report, start))
        };
        let first = round_trip(&mut signals).await;
        match seed_if_empty(&plan, &job, &args.restoring, first).await? {
            FirstAttempt::Made(made) => Ok((*made, None)),
            FirstAttempt::Seeded(note) => Ok((round_trip(&mut signals).await?, Some(note))),
        }
    });
    let restored = matches!(
        &made,
        Ok(Ok(((report, _), _)))
            if report.outcome == Outcome::Restored && report.receipt_error.is_none()
    );
    let wants_watch = restored && !args.no_watch && !args.rotate_first.access_only;
    // The watch of the enclosing job has handed over: start another one after any outcome.
    let watch = (wants_watch || nested.get()).then(|| {
        let withheld = args.restoring.seed_from_env.as_deref();
        watch::start(
            global,
            &home,
            args.common.store_timeout,
            withheld.as_slice(),
        )
    });
    let ((mut report, start), note) = made??;
    report.unfinished_rotation |= start.unfinished_rotation;
    let ending = messages::round_trip(&job, &report, None).with_watch(watch);
    let mut ending = ending.with_start(start).note(note);
    ending = ending.note(closed(&home, open_mode.get()));
    ending.midway = !ending.failed;
    Ok(ending)
}

pub(crate) fn persist(args: &PersistArgs, global: &Global) -> Result<Ending> {
    let plan = Plan::new(global)?;
    let home = plan.home_as_left(global)?;
    if args.if_restored && matches!(Receipt::read(&home), Ok(None)) {
        let message = format!("nothing is left to do in {}", home.dir().display());
        return Ok(Ending {
            midway: true,
            ..Ending::good("nothing", message)
        });
    }
    let receipt = receipt_of_any_store(&plan, &home)?;
    let masks = Masks::new(global);
    let terms = JobTerms {
        masks: masks.as_ref(),
        exit_grace: args.exit_grace,
        ..JobTerms::from(&args.persisting)
    };
    let rescue = plan.rescue(global)?;
    let job = plan.job(&home, &rescue, &terms);
    let report = block_on(&plan, async {
        let mut signals = install_signals()?;
        check_store(&plan, &receipt, terms.store_timeout).await?;
        match authferry_runner::persist(&job, &receipt, &mut signals).await {
            // With `--if-restored`, a home in use by another job is no error: the login is not ours.
            Err(StartError::InUse(home, _)) if args.if_restored => {
                check_start(Err(StartError::AlreadyPersisted(home)))
            }
            persisted => check_start(persisted),
        }
    })??;
    let is_left = report.in_use.is_some();
    let watch = is_left.then(|| watch::start(global, &home, terms.store_timeout, &[]));
    Ok(messages::round_trip(&job, &report, None).with_watch(watch))
}

/// Starts a watch for the rest of the job, or for a Codex that is still running.
fn start_watch(args: &RunArgs, global: &Global, home: &Home) -> Result<u32> {
    let withheld = args.restoring.seed_from_env.as_deref();
    let store_timeout = args.persisting.common.store_timeout;
    watch::start(global, home, store_timeout, withheld.as_slice())
}

/// The command of `run`, with `CODEX_HOME`, and without the variables that hold a login or
/// credentials of a store.
fn command(
    typed: &[OsString],
    restoring: &RestoringArgs,
    plan: &Plan,
    home: &Home,
) -> process::Command {
    let mut arguments = typed.iter();
    let program = arguments.next().map_or("".as_ref(), OsString::as_os_str);
    let mut command = process::Command::new(program);
    command.args(arguments).env("CODEX_HOME", home.dir());
    for variable in restoring.seed_from_env.iter().chain(&plan.credentials) {
        command.env_remove(variable);
    }
    command
}

/// The Codex that rotates the login first, and the time within which it must be due.
fn rotator(
    plan: &Plan,
    global: &Global,
    restoring: &RestoringArgs,
    args: &RotateFirstArgs,
) -> Result<(Codex, Duration)> {
    let codex = plan.codex(global, restoring.seed_from_env.as_deref())?;
    Ok((codex, rotate_first::rotate_within(args.rotate_within, plan)))
}

/// Rotates the login first, unless `--no-rotate-first` is given.
async fn start(
    args: &RotateFirstArgs,
    rotating: &Rotating<'_>,
    job: &Job<'_>,
    admitted: Admitted,
    lease: LeaseScope,
    signals: &mut Signals,
) -> Result<JobStart> {
    let ended = admitted.ended.as_ref();
    let warnings: Vec<_> = ended
        .map(|ended| messages::terminated(job, ended))
        .into_iter()
        .collect();
    if args.no_rotate_first {
        return Ok(JobStart {
            warnings,
            ..JobStart::default()
        });
    }
    if let Some(codex) = admitted.codex {
        let home = job.home.dir().display();
        let note = format!("the login was not rotated first: {codex} is running in {home}");
        return Ok(JobStart {
            notes: vec![note],
            warnings,
            ..JobStart::default()
        });
    }
    let mut start = rotate_first::rotate(rotating, job, lease, signals).await?;
    start.warnings.splice(0..0, warnings);
    Ok(start)
}

/// The result of the first attempt at a round trip.
enum FirstAttempt {
    /// The round trip was made.
    Made(Box<(Report, JobStart)>),
    /// The store was empty and was seeded, as the note says: the round trip is made again.
    Seeded(String),
}

/// Returns the second attempt, or the first one if the second did not start: then the first one's
/// login and command count.
fn choose_attempt(
    job: &Job<'_>,
    (first, mut start): (Report, JobStart),
    second: Result<(Report, JobStart)>,
) -> (Report, JobStart) {
    let why = match second {
        Ok((report, mut retry)) if !matches!(report.outcome, Outcome::Refused(_)) => {
            retry.notes.splice(0..0, start.notes);
            retry.notes.push("the command was retried".to_owned());
            return (report, retry);
        }
        Ok((report, _)) => messages::round_trip(job, &report, None).message,
        Err(ending) => ending.message,
    };
    start
        .notes
        .push(format!("the command was not retried: {why}"));
    (first, start)
}

/// Seeds an empty store from the environment if `--seed-from-env` is given.
async fn seed_if_empty(
    plan: &Plan,
    job: &Job<'_>,
    restoring: &RestoringArgs,
    made: Result<(Report, JobStart)>,
) -> Result<FirstAttempt> {
    let made = made?;
    let empty = made.0.outcome == Outcome::Refused(Refusal::NothingStored);
    let (true, Some(variable)) = (empty, &restoring.seed_from_env) else {
        return Ok(FirstAttempt::Made(Box::new(made)));
    };
    let Some(value) = env::user_variable(variable) else {
        let problem = format!(
            "{} holds no login yet, and {variable} is not set",
            plan.store
        );
        let hint = format!(
            "give the job the secret {variable}, or seed the store with `authferry seed FILE`"
        );
        return Err(Ending::refused(exit::FAILED, problem).hint(hint).into());
    };
    let note = seed::from_env(plan, job, variable, value).await?;
    Ok(FirstAttempt::Seeded(note))
}

pub(crate) fn receipt(plan: &Plan, home: &Home) -> Result<Receipt> {
    let receipt = receipt_of_any_store(plan, home)?;
    if receipt.store == plan.store.to_string() {
        Ok(receipt)
    } else {
        Err(of_another_store(plan, &receipt).into())
    }
}

/// Refuses a receipt of another address, unless that is an alias of this one: the store holds the
/// receipt's base, by version and fingerprint.
async fn check_store(plan: &Plan, receipt: &Receipt, store_timeout: Duration) -> Result<()> {
    if receipt.store == plan.store.to_string() {
        return Ok(());
    }
    let read = timeout(store_timeout, plan.store.read()).await;
    let is_base = |stored: &Stored| {
        stored.version == receipt.base.version
            && authferry_codex::parse(&stored.secret)
                .is_ok_and(|login| login.fingerprint == receipt.base.generation.fingerprint)
    };
    match read {
        Ok(Ok(Some(stored))) if is_base(&stored) => Ok(()),
        Ok(Ok(_) | Err(_)) | Err(_) => Err(of_another_store(plan, receipt).into()),
    }
}

fn of_another_store(plan: &Plan, receipt: &Receipt) -> Ending {
    let problem = format!(
        "the login was restored from {}, not from {}",
        receipt.store, plan.store
    );
    let hint = format!("use `--store '{}'`", receipt.store);
    Ending::refused(exit::REFUSED, problem).hint(hint)
}

fn receipt_of_any_store(plan: &Plan, home: &Home) -> Result<Receipt> {
    let receipt = Receipt::read(home).map_err(|error| {
        let problem = format!(
            "the receipt in {} cannot be read: {error}",
            home.dir().display()
        );
        no_receipt(plan, home, problem)
    })?;
    let Some(receipt) = receipt else {
        let problem = format!(
            "{} holds no receipt of `authferry restore`",
            home.dir().display()
        );
        return Err(no_receipt(plan, home, problem).into());
    };
    Ok(receipt)
}

/// Refuses to persist an auth file without a receipt.
fn no_receipt(plan: &Plan, home: &Home, problem: String) -> Ending {
    let ending = Ending::refused(exit::REFUSED, problem);
    if !home.auth_file().exists() {
        return ending;
    }
    let seed = messages::pasted::seed(&plan.store, home.auth_file());
    ending.hint(format!("to use the login there: {seed}"))
}

/// Installs the signal handlers: from here on, no signal terminates this process.
pub(crate) fn install_signals() -> Result<Signals> {
    let installed = Signals::install().map_err(|error| {
        Ending::refused(exit::FAILED, "the system provides no signals").caused_by(&error)
    });
    Ok(installed?)
}

pub(crate) fn check_start<T>(report: std::result::Result<T, StartError>) -> Result<T> {
    Ok(report.map_err(|error| messages::start_error(&error))?)
}
