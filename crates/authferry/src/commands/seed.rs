//! `seed`: a login's way into a store.

use std::{ffi::OsString, fs, io, io::Read, os::unix::ffi::OsStringExt, path::Path};

use authferry_codex::MAX_LEN;
use authferry_core::Secret;
use authferry_runner::rescue::Rescue;
use authferry_runner::{Job, Mark, NotSeeded, Replace, SeedError, Seeded};
use tokio::time::timeout;

use crate::args::{Global, Seed};
use crate::commands::block_on;
use crate::ending::{Ending, Result};
use crate::plan::Plan;
use crate::{exit, telling};

pub(crate) fn seed(args: &Seed, global: &Global) -> Result<Ending> {
    let plan = Plan::new(global)?;
    let rescue = plan.rescue(global)?;
    let secret = read(&args.file).map_err(|error| {
        let what = format!("{} cannot be read", args.file.display());
        Ending::refused(exit::FAILED, what).caused_by(&error)
    })?;
    let replace = match (args.replace, args.allow_older) {
        (false, _) => Replace::Nothing,
        (true, false) => Replace::NotNewer,
        (true, true) => Replace::Anything,
    };
    let patience = args.common.patience;
    let seeding = async {
        let store = &*plan.store;
        let seeded = authferry_runner::seed(&authferry_runner::Seed {
            store,
            secret: &secret,
            origins: None,
            replace,
            refused: Vec::new(),
            writer: &plan.writer,
            rescue: &rescue,
            patience,
        })
        .await?;
        // What is new in the store nobody can have found dead.
        let mark = if seeded.unchanged {
            let mark = Mark::of(seeded.generation.fingerprint, store);
            timeout(patience, mark).await.ok().flatten()
        } else {
            None
        };
        Ok((seeded, mark))
    };
    let seeded = block_on(&plan, seeding)?;
    let (seeded, mark) = seeded.map_err(|not| failed(&plan, &rescue, &not))?;
    let mut ending = told(&plan, &seeded);
    if let Some(mark) = mark {
        let mark = telling::of_mark(&mark);
        ending.warnings.push(format!("this login is {mark}"));
        ending = ending.hint(FRESH);
    }
    Ok(ending)
}

/// Fills an empty store from an environment variable's value, and returns what to say of it.
pub(crate) async fn from_env(
    plan: &Plan,
    job: &Job<'_>,
    variable: &str,
    value: OsString,
) -> Result<String> {
    let secret = Secret::new(value.into_vec());
    let seed = authferry_runner::Seed {
        store: job.store,
        secret: &secret,
        origins: None,
        replace: Replace::Nothing,
        refused: Vec::new(),
        writer: job.writer,
        rescue: job.rescue,
        patience: job.patience,
    };
    let not = match authferry_runner::seed(&seed).await {
        Ok(seeded) => {
            let fingerprint = seeded.generation.fingerprint;
            return Ok(format!(
                "{} was empty: login {fingerprint} was put there from {variable}",
                plan.store
            ));
        }
        Err(not) => not,
    };
    match not.why {
        // What they put there is what the trip begins with.
        SeedError::Filled => Ok(format!(
            "{} was filled by somebody else at the same moment",
            plan.store
        )),
        SeedError::Unusable(why) => {
            let what = format!("what {variable} holds is unusable: {why}");
            Err(Ending::refused(exit::FAILED, what).hint(FRESH).into())
        }
        SeedError::Older(_)
        | SeedError::Spent(_)
        | SeedError::NotKept(_)
        | SeedError::LeaseHeld { .. }
        | SeedError::System(_)
        | SeedError::OutOfTime
        | SeedError::Store(_) => Err(failed(plan, job.rescue, &not).into()),
    }
}

const FRESH: &str = "log in afresh to a home of its own: \
    `export CODEX_HOME=$(mktemp -d)`, `codex login`, `authferry seed $CODEX_HOME/auth.json`";

/// Reads no further than a login can be long: one byte more shows that it is too long.
pub(crate) fn read(file: &Path) -> io::Result<Secret> {
    let limit = MAX_LEN as u64 + 1;
    let mut bytes = Vec::new();
    if file == Path::new("-") {
        io::stdin().lock().take(limit).read_to_end(&mut bytes)?;
    } else {
        fs::File::open(file)?.take(limit).read_to_end(&mut bytes)?;
    }
    Ok(Secret::new(bytes))
}

pub(crate) fn told(plan: &Plan, seeded: &Seeded) -> Ending {
    let fingerprint = seeded.generation.fingerprint;
    let mut ending = if seeded.unchanged {
        Ending::good(
            "unchanged",
            format!("login {fingerprint} was in {} already", plan.store),
        )
    } else {
        let message = format!(
            "login {fingerprint} is now in {}, version {}",
            plan.store, seeded.version
        );
        Ending::good("seeded", message)
            .hint("from here on it belongs to the store: delete the file, and do not log out, for that would end it")
    };
    if let Some(why) = &seeded.not_in_second_store {
        ending
            .warnings
            .push(format!("the second store did not take the copy: {why}"));
    }
    if let Some(location) = &seeded.rescued {
        let what = seeded
            .replaced
            .map_or_else(|| "something".to_owned(), |f| format!("login {f}"));
        ending
            .notes
            .push(format!("{what} was replaced, and is kept in {location}"));
    }
    ending
        .fact("store", plan.store.to_string())
        .fact("account", seeded.generation.identity.to_string())
        .fact("fingerprint", fingerprint.to_string())
        .fact("version", seeded.version.to_string())
        .fact("replaced", seeded.replaced.map(|f| f.to_string()))
        .fact("rescued", telling::places(&seeded.rescued))
}

pub(crate) fn failed(plan: &Plan, rescue: &Rescue, not: &NotSeeded) -> Ending {
    let store = &plan.store;
    let mut ending = match &not.why {
        SeedError::Store(error) => telling::store(error),
        SeedError::Unusable(_) => Ending::refused(exit::FAILED, &not.why).hint(FRESH),
        SeedError::Filled => Ending::refused(exit::FAILED, format!("{store} is not empty"))
            .hint("look at what it holds with `authferry status`")
            .hint("if that is dead, put this over it with `--replace`"),
        SeedError::Older(theirs) => {
            let what =
                format!("{store} holds login {theirs} of the same account, which was issued later");
            Ending::refused(exit::FAILED, what).hint(FRESH).hint(
                "if you know that the later one is dead and this one is not, add `--allow-older`",
            )
        }
        SeedError::Spent(theirs) => {
            let what = format!("the login was spent for login {theirs}, which is in {store}");
            Ending::refused(exit::FAILED, what).hint(
                "if you know that the later one is dead and this one is not, add `--allow-older`",
            )
        }
        SeedError::OutOfTime => telling::out_of_time(store),
        SeedError::NotKept(error) => {
            let what = format!(
                "what {store} holds cannot be kept in {} first",
                rescue.folder().display()
            );
            Ending::refused(exit::FAILED, what)
                .caused_by(error)
                .hint("name a folder that can be written with `--rescue-dir DIR`")
        }
        SeedError::LeaseHeld { .. } => Ending::refused(exit::FAILED, &not.why).hint(
            "seed again when it is done; a holder that died is waited for with `--patience 2m`",
        ),
        SeedError::System(error) => Ending::refused(exit::FAILED, &not.why).caused_by(error),
    };
    if not.doubtful {
        let why = ending.reason();
        ending.message = format!("whether the login is in {store} is not known: {why}");
        ending.hints.insert(
            0,
            "look at what it holds with `authferry status`".to_owned(),
        );
    }
    if let Some(location) = &not.rescued {
        ending
            .notes
            .push(format!("a copy of what {store} holds is in {location}"));
    }
    ending.fact("rescued", telling::places(&not.rescued))
}
