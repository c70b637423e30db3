//! `seed`: a login's way into a store.

use std::{ffi::OsString, fs, io, io::Read, os::unix::ffi::OsStringExt, path::Path};

use authferry_codex::MAX_LEN;
use authferry_core::Secret;
use authferry_runner::{SeedError, Seeded};

use crate::args::{Global, Seed};
use crate::commands::block_on;
use crate::ending::{Ending, Result};
use crate::plan::{JobTerms, Plan};
use crate::{exit, telling};

pub(crate) fn seed(args: &Seed, global: &Global) -> Result<Ending> {
    let plan = Plan::new(global)?;
    let secret = read(&args.file).map_err(|error| {
        let what = format!("{} cannot be read: {error}", args.file.display());
        Ending::refused(exit::FAILED, what)
    })?;
    let seeding = authferry_runner::seed(
        &*plan.store,
        &secret,
        args.replace,
        &plan.writer,
        &plan.rescue,
        args.common.patience,
    );
    let seeded = block_on(seeding)?.map_err(|error| failed(&plan, &error))?;
    Ok(told(&plan, &seeded))
}

/// Fills an empty store from an environment variable's value.
pub(crate) async fn from_env(
    plan: &Plan,
    terms: &JobTerms,
    variable: &str,
    value: OsString,
) -> Result<()> {
    let secret = Secret::new(value.into_vec());
    let seeding = authferry_runner::seed(
        &*plan.store,
        &secret,
        false,
        &plan.writer,
        &plan.rescue,
        terms.patience,
    );
    match seeding.await {
        // Somebody else was faster: what they put there is what the trip begins with.
        Ok(_) | Err(SeedError::Filled | SeedError::Moved) => Ok(()),
        Err(SeedError::Unusable(why)) => {
            let what = format!("what {variable} holds is unusable: {why}");
            Err(Ending::refused(exit::FAILED, what).hint(FRESH).into())
        }
        Err(error) => Err(failed(plan, &error).into()),
    }
}

const FRESH: &str =
    "log in afresh: `CODEX_HOME=$(mktemp -d) codex login`, and seed the auth.json in there";

/// Reads no further than a login can be long: one byte more shows that it is too long.
fn read(file: &Path) -> io::Result<Secret> {
    let limit = MAX_LEN as u64 + 1;
    let mut bytes = Vec::new();
    if file == Path::new("-") {
        io::stdin().lock().take(limit).read_to_end(&mut bytes)?;
    } else {
        fs::File::open(file)?.take(limit).read_to_end(&mut bytes)?;
    }
    Ok(Secret::new(bytes))
}

fn told(plan: &Plan, seeded: &Seeded) -> Ending {
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
    if let (Some(replaced), Some(file)) = (seeded.replaced, &seeded.rescued) {
        ending.warnings.push(format!(
            "login {replaced} was replaced; it is kept in {}",
            file.display()
        ));
    }
    ending
        .fact("store", plan.store.to_string())
        .fact("account", seeded.generation.account.to_string())
        .fact("fingerprint", fingerprint.to_string())
        .fact("version", seeded.version.to_string())
        .fact("replaced", seeded.replaced.map(|f| f.to_string()))
}

fn failed(plan: &Plan, error: &SeedError) -> Ending {
    let store = &plan.store;
    match error {
        SeedError::Store(error) => telling::store(error),
        SeedError::Unusable(_) => Ending::refused(exit::FAILED, error).hint(FRESH),
        SeedError::Filled => Ending::refused(exit::FAILED, format!("{store} is not empty"))
            .hint("look at what it holds with `authferry status`")
            .hint("if that is dead, put this over it with `--replace`"),
        SeedError::Older(theirs) => {
            let what =
                format!("{store} holds login {theirs} of the same account, which was issued later");
            Ending::refused(exit::FAILED, what).hint(FRESH)
        }
        SeedError::Moved => {
            let what = format!("somebody else wrote to {store} at the same moment");
            Ending::refused(exit::FAILED, what)
                .hint("look at what it holds now with `authferry status`")
        }
        SeedError::NotKept(_) | SeedError::System(_) => {
            Ending::refused(exit::FAILED, error).because(error)
        }
    }
}
