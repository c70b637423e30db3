//! `seed`: puts a login into a store.

use std::{ffi::OsString, fs, io, io::Read, os::unix::ffi::OsStringExt, path::Path};

use authferry_codex::MAX_LEN;
use authferry_core::Secret;
use authferry_runner::rescue::Rescue;
use authferry_runner::{Job, NotSeeded, RefusalNote, Replace, SeedError, Seeded};
use tokio::time::timeout;

use crate::args::{Global, SeedArgs};
use crate::commands::block_on;
use crate::outcome::{Ending, Result};
use crate::plan::Plan;
use crate::{exit, messages};

pub(crate) fn seed(args: &SeedArgs, global: &Global) -> Result<Ending> {
    let plan = Plan::new(global)?;
    let rescue = plan.rescue(global)?;
    let secret = read(&args.file).map_err(|error| {
        let problem = format!("{} cannot be read", args.file.display());
        Ending::refused(exit::FAILED, problem).caused_by(&error)
    })?;
    let replace = match (args.replace, args.allow_older) {
        (false, _) => Replace::Nothing,
        (true, false) => Replace::NotNewer,
        (true, true) => Replace::Anything,
    };
    let store_timeout = args.common.store_timeout;
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
            store_timeout,
        })
        .await?;
        // No job can have noted a refusal of a login that is new in the store.
        let note = if seeded.unchanged {
            let note = RefusalNote::read(seeded.generation.fingerprint, store);
            timeout(store_timeout, note).await.ok().flatten()
        } else {
            None
        };
        Ok((seeded, note))
    };
    let seeded = block_on(&plan, seeding)?;
    let (seeded, note) = seeded.map_err(|error| failed(&plan, &rescue, &error))?;
    let mut ending = succeeded(&plan, &seeded);
    if let Some(note) = note {
        let why = messages::refused_login(&note);
        ending.warnings.push(format!("this login is {why}"));
        ending = ending.hint(LOG_IN);
    }
    Ok(ending)
}

/// Seeds an empty store from an environment variable, and returns a note about it.
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
        store_timeout: job.store_timeout,
    };
    let error = match authferry_runner::seed(&seed).await {
        Ok(seeded) => {
            let fingerprint = seeded.generation.fingerprint;
            return Ok(format!(
                "{} was empty: authferry seeded it with login {fingerprint} from {variable}",
                plan.store
            ));
        }
        Err(error) => error,
    };
    match error.why {
        // The round trip starts with the login of the other writer.
        SeedError::NotEmpty => Ok(format!(
            "another writer seeded {} at the same moment",
            plan.store
        )),
        SeedError::AuthFileError(why) => {
            let problem = format!("the value of {variable} is unusable: {why}");
            Err(Ending::refused(exit::FAILED, problem).hint(LOG_IN).into())
        }
        SeedError::Older(_)
        | SeedError::Spent(_)
        | SeedError::NotKept(_)
        | SeedError::LeaseHeld { .. }
        | SeedError::System(_)
        | SeedError::TimedOut
        | SeedError::Store(_) => Err(failed(plan, job.rescue, &error).into()),
    }
}

const LOG_IN: &str = "log in again, in a new home: \
    `export CODEX_HOME=$(mktemp -d)`, `codex login`, `authferry seed $CODEX_HOME/auth.json`";

/// Reads one byte more than a login may have: enough to detect one that is too long.
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

pub(crate) fn succeeded(plan: &Plan, seeded: &Seeded) -> Ending {
    let fingerprint = seeded.generation.fingerprint;
    let mut ending = if seeded.unchanged {
        Ending::good(
            "unchanged",
            format!("login {fingerprint} was already in {}", plan.store),
        )
    } else {
        let message = format!(
            "login {fingerprint} is now in {}, version {}",
            plan.store, seeded.version
        );
        Ending::good("seeded", message)
            .hint("delete the file: the login belongs to the store now; do not log out, because that revokes it")
    };
    if let Some(why) = &seeded.not_in_second_store {
        ending
            .warnings
            .push(format!("the second store did not accept the copy: {why}"));
    }
    if let Some(location) = &seeded.rescued {
        let replaced = seeded
            .replaced
            .map_or_else(|| "an unusable value".to_owned(), |f| format!("login {f}"));
        ending.notes.push(format!(
            "{replaced} was replaced, and is saved in {location}"
        ));
    }
    ending
        .fact("store", plan.store.to_string())
        .fact("account", seeded.generation.identity.to_string())
        .fact("fingerprint", fingerprint.to_string())
        .fact("version", seeded.version.to_string())
        .fact("replaced", seeded.replaced.map(|f| f.to_string()))
        .fact("rescued", messages::places(&seeded.rescued))
}

pub(crate) fn failed(plan: &Plan, rescue: &Rescue, error: &NotSeeded) -> Ending {
    let store = &plan.store;
    let mut ending = match &error.why {
        SeedError::Store(error) => messages::store(error),
        SeedError::AuthFileError(_) => Ending::refused(exit::FAILED, &error.why).hint(LOG_IN),
        SeedError::NotEmpty => Ending::refused(exit::FAILED, format!("{store} is not empty"))
            .hint("show the store's login: `authferry status`")
            .hint("if that login is dead, overwrite it with `--replace`"),
        SeedError::Older(theirs) => {
            let problem =
                format!("{store} holds login {theirs} of the same account, which was issued later");
            Ending::refused(exit::FAILED, problem).hint(LOG_IN).hint(
                "if the later login is dead and this one is not, add `--allow-older`",
            )
        }
        SeedError::Spent(theirs) => {
            let problem = format!("the login was spent: login {theirs} in {store} replaced it");
            Ending::refused(exit::FAILED, problem).hint(
                "if the later login is dead and this one is not, add `--allow-older`",
            )
        }
        SeedError::TimedOut => messages::out_of_time(store),
        SeedError::NotKept(error) => {
            let problem = format!(
                "the login in {store} cannot be saved in {} first",
                rescue.folder().display()
            );
            Ending::refused(exit::FAILED, problem)
                .caused_by(error)
                .hint("use a writable folder with `--rescue-dir DIR`")
        }
        SeedError::LeaseHeld { .. } => Ending::refused(exit::FAILED, &error.why).hint(
            "try again when the holder is done; if it has died, wait for the expiry with `--store-timeout 2m`",
        ),
        SeedError::System(cause) => Ending::refused(exit::FAILED, &error.why).caused_by(cause),
    };
    if error.may_have_landed {
        let why = ending.reason();
        ending.message = format!("the login may be in {store}: {why}");
        ending
            .hints
            .insert(0, "show the store's login: `authferry status`".to_owned());
    }
    if let Some(location) = &error.rescued {
        ending.notes.push(format!(
            "a copy of the login in {store} is saved in {location}"
        ));
    }
    ending.fact("rescued", messages::places(&error.rescued))
}
