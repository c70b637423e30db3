//! `run`, `restore`, `persist`: the round trip, in one process or in two.

use std::{cell::Cell, ffi::OsString, process, time::Duration};

use authferry_codex::Home;
use authferry_core::{Outcome, Refusal, Stored};
use authferry_runner::{Admitted, Codex, Job, NotBegun, Receipt, Report, Rotating, Signals};
use tokio::time::timeout;

use crate::args::{Ahead, Global, Lease, Persist, Restore, Restoring, Run};
use crate::commands::ahead::{self, Begin};
use crate::commands::{block_on, look_into_second_store, seed, watch};
use crate::ending::{Ending, Result};
use crate::github::Masks;
use crate::plan::{JobTerms, Plan};
use crate::{env, exit, telling};

pub(crate) fn run(args: &Run, global: &Global) -> Result<Ending> {
    let plan = Plan::new(global)?;
    plan.trust(args.restoring.allow_untrusted, global)?;
    let home = plan.home(global)?;
    let masks = Masks::new(global);
    let terms = JobTerms {
        replace: args.restoring.replace,
        access_only: args.ahead.access_only,
        linger: args.linger,
        cancel_grace: plan.cancel_grace(args.ahead.rotating.cancel_grace),
        masks: masks.as_ref(),
        ..JobTerms::from(&args.persisting)
    };
    let rescue = plan.usable_rescue(global)?;
    let job = plan.job(&home, &rescue, &terms);
    let (codex, horizon) = ahead(&plan, global, &args.restoring, &args.ahead)?;
    let rotating = Rotating {
        sparing: true,
        ..plan.rotating(&codex, &rescue, &args.ahead.rotating, horizon, &terms)
    };
    let program = args.command.first().cloned().unwrap_or_default();
    let nested = Cell::new(false);
    let ended: Result<Result<_>> = block_on(&plan, async {
        let mut signals = install()?;
        look_into_second_store(&rescue, terms.patience).await?;
        let trip = async |signals: &mut Signals| {
            let (job, admitted) = admitted(&job, &args.ahead, &nested).await?;
            let mut begin =
                begin(&args.ahead, &rotating, &job, admitted, args.lease, signals).await?;
            let mut lease = match args.lease {
                Lease::Rotation => None,
                Lease::Job => Some(ahead::claim(&rotating, &mut begin, signals).await?),
            };
            let known = begin.known.take();
            let command = command(&args.command, &args.restoring, &plan, &home);
            let run = authferry_runner::run(&job, command, known, lease.as_mut(), signals);
            let report = Box::pin(run).await;
            if let Some(lease) = lease {
                begin.warnings.extend(ahead::lost(&lease));
                lease.release().await;
            }
            let report = begun(report)?;
            ahead::look_after(&job, &report, &mut begin).await;
            ahead::look_at_what_was_lent(&job, &report, &mut begin);
            Ok((report, begin))
        };
        let first = trip(&mut signals).await;
        let (made, note) = match first_seed(&plan, &job, &args.restoring, first).await? {
            First::Made(made) => (*made, None),
            First::Filled(note) => (trip(&mut signals).await?, Some(note)),
        };
        let (report, begin) = made;
        if args.retry_reused && begin.spent {
            let second = trip(&mut signals).await;
            return Ok((once_more(&job, (report, begin), second), note));
        }
        Ok(((report, begin), note))
    });
    // The watch of the job has made way, whatever came of this.
    let watch = nested.get().then(|| leave_watch(args, global, &home));
    let ((report, begin), note) = ended??;
    let ending = telling::trip(&job, &report, Some(&program));
    let stays = report.in_use.is_some() || report.left_running > 0;
    let watch = match watch {
        // A job that was refused leaves everything as it is.
        None if report.command.is_some() && stays => Some(leave_watch(args, global, &home)),
        watch => watch,
    };
    Ok(ending.with_watch(watch).after(begin).note(note))
}

/// Looks whether the job may begin in its home, and how.
async fn admitted<'a>(
    job: &Job<'a>,
    ahead: &Ahead,
    nested: &Cell<bool>,
) -> Result<(Job<'a>, Admitted)> {
    let admitted = begun(authferry_runner::admit(job, ahead.rotating.wait).await)?;
    if admitted.nested {
        nested.set(true);
    }
    let job = Job {
        nested: nested.get(),
        ..*job
    };
    Ok((job, admitted))
}

pub(crate) fn restore(args: &Restore, global: &Global) -> Result<Ending> {
    let plan = Plan::new(global)?;
    plan.trust(args.restoring.allow_untrusted, global)?;
    let home = plan.home(global)?;
    let masks = Masks::new(global);
    let terms = JobTerms {
        replace: args.restoring.replace,
        access_only: args.ahead.access_only,
        masks: masks.as_ref(),
        patience: args.common.patience,
        linger: args.linger,
        ..JobTerms::default()
    };
    let rescue = plan.usable_rescue(global)?;
    let job = plan.job(&home, &rescue, &terms);
    let (codex, horizon) = ahead(&plan, global, &args.restoring, &args.ahead)?;
    let rotating = Rotating {
        sparing: true,
        ..plan.rotating(&codex, &rescue, &args.ahead.rotating, horizon, &terms)
    };
    let nested = Cell::new(false);
    let ended: Result<Result<_>> = block_on(&plan, async {
        let mut signals = install()?;
        look_into_second_store(&rescue, terms.patience).await?;
        let trip = async |signals: &mut Signals| {
            let (job, admitted) = admitted(&job, &args.ahead, &nested).await?;
            let lease = Lease::Rotation;
            let mut begin = begin(&args.ahead, &rotating, &job, admitted, lease, signals).await?;
            let known = begin.known.take();
            let report = begun(authferry_runner::restore(&job, known, signals).await)?;
            ahead::look_at_what_was_lent(&job, &report, &mut begin);
            Ok((report, begin))
        };
        let first = trip(&mut signals).await;
        match first_seed(&plan, &job, &args.restoring, first).await? {
            First::Made(made) => Ok((*made, None)),
            First::Filled(note) => Ok((trip(&mut signals).await?, Some(note))),
        }
    });
    let restored = matches!(
        &ended,
        Ok(Ok(((report, _), _)))
            if report.outcome == Outcome::Restored && report.receipt_error.is_none()
    );
    let wanted = restored && !args.no_watch && !args.ahead.access_only;
    // The watch of the job has made way, whatever came of this.
    let watch = (wanted || nested.get()).then(|| {
        let withheld = args.restoring.seed_from_env.as_deref();
        watch::leave(global, &home, args.common.patience, withheld.as_slice())
    });
    let ((report, begin), note) = ended??;
    let ending = telling::trip(&job, &report, None).with_watch(watch);
    let mut ending = ending.after(begin).note(note);
    ending.midway = !ending.failed;
    Ok(ending)
}

pub(crate) fn persist(args: &Persist, global: &Global) -> Result<Ending> {
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
        linger: args.linger,
        ..JobTerms::from(&args.persisting)
    };
    let rescue = plan.rescue(global)?;
    let job = plan.job(&home, &rescue, &terms);
    let report = block_on(&plan, async {
        let mut signals = install()?;
        is_of_this_store(&plan, &receipt, terms.patience).await?;
        match authferry_runner::persist(&job, &receipt, &mut signals).await {
            // What another job has restored is not for the net of this one.
            Err(NotBegun::InUse(home, _)) if args.if_restored => {
                begun(Err(NotBegun::NothingLeft(home)))
            }
            persisted => begun(persisted),
        }
    })??;
    let is_left = report.in_use.is_some();
    let watch = is_left.then(|| watch::leave(global, &home, terms.patience, &[]));
    Ok(telling::trip(&job, &report, None).with_watch(watch))
}

/// Starts a watch for the rest of the same job, or for a Codex that is still running.
fn leave_watch(args: &Run, global: &Global, home: &Home) -> Result<u32> {
    let withheld = args.restoring.seed_from_env.as_deref();
    let patience = args.persisting.common.patience;
    watch::leave(global, home, patience, withheld.as_slice())
}

/// The command as it was typed, with the home that was made ready for it and without the
/// variables that hold a login, or a key to the store.
fn command(
    typed: &[OsString],
    restoring: &Restoring,
    plan: &Plan,
    home: &Home,
) -> process::Command {
    let mut words = typed.iter();
    let mut command = process::Command::new(words.next().map_or("".as_ref(), OsString::as_os_str));
    command.args(words).env("CODEX_HOME", home.dir());
    for variable in restoring.seed_from_env.iter().chain(&plan.credentials) {
        command.env_remove(variable);
    }
    command
}

/// Who would rotate the login ahead of the job, and what within which time.
fn ahead(
    plan: &Plan,
    global: &Global,
    restoring: &Restoring,
    ahead: &Ahead,
) -> Result<(Codex, Duration)> {
    let codex = plan.codex(global, restoring.seed_from_env.as_deref())?;
    Ok((codex, ahead::horizon(ahead.horizon, plan)))
}

/// Rotates the login first, unless that was not wanted.
async fn begin(
    ahead: &Ahead,
    rotating: &Rotating<'_>,
    job: &Job<'_>,
    admitted: Admitted,
    lease: Lease,
    signals: &mut Signals,
) -> Result<Begin> {
    let ended = admitted.ended.as_ref();
    let warnings: Vec<_> = ended
        .map(|ended| telling::ended(job, ended))
        .into_iter()
        .collect();
    if ahead.no_rotate_first {
        return Ok(Begin {
            warnings,
            ..Begin::default()
        });
    }
    if let Some(codex) = admitted.codex {
        let home = job.home.dir().display();
        let note = format!("the login is not rotated first: {codex} is at work in {home}");
        return Ok(Begin {
            notes: vec![note],
            warnings,
            ..Begin::default()
        });
    }
    let mut begin = ahead::rotate(rotating, job, lease, signals).await?;
    begin.warnings.splice(0..0, warnings);
    Ok(begin)
}

/// What became of the first attempt at a trip.
enum First {
    /// It was made.
    Made(Box<(Report, Begin)>),
    /// The store was empty and was filled, as the note says: it is to be made again.
    Filled(String),
}

/// Tells of a second trip, unless it came to nothing: what became of the first one's login and
/// command is what counts then.
fn once_more(
    job: &Job<'_>,
    (first, mut begin): (Report, Begin),
    second: Result<(Report, Begin)>,
) -> (Report, Begin) {
    let why = match second {
        Ok((report, mut again)) if !matches!(report.outcome, Outcome::Refused(_)) => {
            again.notes.splice(0..0, begin.notes);
            again.notes.push("the command was run once more".to_owned());
            return (report, again);
        }
        Ok((report, _)) => telling::trip(job, &report, None).message,
        Err(ending) => ending.message,
    };
    begin
        .notes
        .push(format!("the command was not run once more: {why}"));
    (first, begin)
}

/// Fills an empty store from the environment if that was asked for.
async fn first_seed(
    plan: &Plan,
    job: &Job<'_>,
    restoring: &Restoring,
    made: Result<(Report, Begin)>,
) -> Result<First> {
    let made = made?;
    let empty = made.0.outcome == Outcome::Refused(Refusal::NothingStored);
    let (true, Some(variable)) = (empty, &restoring.seed_from_env) else {
        return Ok(First::Made(Box::new(made)));
    };
    let Some(value) = env::named(variable) else {
        let what = format!(
            "{} holds no login yet, and {variable} is not set",
            plan.store
        );
        let hint = format!(
            "give the job the secret {variable}, or seed the store by hand with `authferry seed FILE`"
        );
        return Err(Ending::refused(exit::FAILED, what).hint(hint).into());
    };
    let note = seed::from_env(plan, job, variable, value).await?;
    Ok(First::Filled(note))
}

pub(crate) fn receipt(plan: &Plan, home: &Home) -> Result<Receipt> {
    let receipt = receipt_of_any_store(plan, home)?;
    if receipt.store == plan.store.to_string() {
        Ok(receipt)
    } else {
        Err(of_another_store(plan, &receipt).into())
    }
}

/// Refuses a receipt that names another address, unless that is another spelling of this one: its
/// base is what the store holds, by version and fingerprint.
async fn is_of_this_store(plan: &Plan, receipt: &Receipt, patience: Duration) -> Result<()> {
    if receipt.store == plan.store.to_string() {
        return Ok(());
    }
    let read = timeout(patience, plan.store.read()).await;
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
    let what = format!(
        "the login was restored from {}, not from {}",
        receipt.store, plan.store
    );
    let hint = format!("use `--store '{}'`", receipt.store);
    Ending::refused(exit::REFUSED, what).hint(hint)
}

fn receipt_of_any_store(plan: &Plan, home: &Home) -> Result<Receipt> {
    let receipt = Receipt::read(home).map_err(|error| {
        let what = format!(
            "the receipt in {} cannot be read: {error}",
            home.dir().display()
        );
        adoptable(plan, home, what)
    })?;
    let Some(receipt) = receipt else {
        let what = format!(
            "{} holds no receipt of `authferry restore`",
            home.dir().display()
        );
        return Err(adoptable(plan, home, what).into());
    };
    Ok(receipt)
}

/// Refuses to persist a file of which nothing tells where it came from.
fn adoptable(plan: &Plan, home: &Home, what: String) -> Ending {
    let ending = Ending::refused(exit::REFUSED, what);
    if !home.auth_file().exists() {
        return ending;
    }
    let seed = telling::pasted::seed(&plan.store, home.auth_file());
    ending.hint(format!("if the login there is to be used: {seed}"))
}

/// From here on no signal ends this process by itself.
pub(crate) fn install() -> Result<Signals> {
    let installed = Signals::install().map_err(|error| {
        Ending::refused(exit::FAILED, "the system gives no signals").caused_by(&error)
    });
    Ok(installed?)
}

pub(crate) fn begun<T>(report: std::result::Result<T, NotBegun>) -> Result<T> {
    Ok(report.map_err(|error| telling::not_begun(&error))?)
}
