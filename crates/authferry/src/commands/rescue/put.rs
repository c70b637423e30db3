//! `rescue put`: puts a rescued login back into the store.

use std::{io, path::Path, time::Duration};

use authferry_runner::rescue::{Rescue, Rescued};
use authferry_runner::{NotSeeded, RefusalNote, Replace, Seed, SeedError};
use tokio::time::timeout;

use super::find::{FoundLogin, Source, find};
use super::{list_rescued, read, subject};
use crate::args::{Global, RescuePutArgs};
use crate::commands::{block_on, read_second_store, seed};
use crate::copies;
use crate::messages::pasted;
use crate::outcome::{Ending, Result};
use crate::plan::Plan;
use crate::{exit, messages};

/// Puts a rescued login back into the store, and removes the copy.
pub(super) fn put(args: &RescuePutArgs, global: &Global) -> Result<Ending> {
    let plan = Plan::new(global)?;
    let rescue = plan.rescue(global)?;
    let replace = match (args.replace, args.allow_older) {
        (false, _) => Replace::Nothing,
        (true, false) => Replace::NotNewer,
        (true, true) => Replace::Anything,
    };
    block_on(&plan, async {
        let (store, store_timeout) = (&*plan.store, args.common.store_timeout);
        // An unusable folder is reported before a request to a store.
        list_rescued(&rescue)?;
        let is_file = args
            .login
            .as_ref()
            .is_some_and(|it| Path::new(it).is_file());
        // A file can be put back although the second store cannot be read.
        match read_second_store(&rescue, store_timeout).await {
            Err(ending) if !is_file => return Err(ending),
            Ok(()) | Err(_) => {}
        }
        let mut found = find(&plan, &rescue, args)?;
        // The other address may be an alias of this store: the store's login shows whether it is.
        if found.other_store.is_some() {
            let stored = read(&plan, &args.common).await?;
            let judged = copies::judge(&plan, &rescue, stored.as_ref(), store_timeout).await;
            let mut judged = judged
                .map_err(|error| messages::rescue_folder(rescue.folder(), &error))?
                .into_iter();
            if judged.any(|copy| copy.location == found.location) {
                found.other_store = None;
            }
        }
        if let Some(other) = &found.other_store
            && !args.replace
        {
            return Err(of_another_store(&plan, &rescue, &found, other).into());
        }
        let refused = timeout(store_timeout, RefusalNote::refused_generations(store)).await;
        let seed = Seed {
            store,
            secret: &found.secret,
            origins: found.origins.clone(),
            replace,
            refused: refused.unwrap_or_default(),
            writer: &plan.writer,
            rescue: &rescue,
            store_timeout,
        };
        let seeded = authferry_runner::seed(&seed).await;
        let seeded = seeded.map_err(|error| not_put(&plan, &rescue, args, &found, &error))?;
        let mut ending = seed::succeeded(&plan, &seeded);
        let removed = match &found.source {
            // The copy also belongs to another store.
            Source::Rescue(_) | Source::Encrypted if found.other_store.is_some() => {
                let other = found.other_store.as_deref().unwrap_or_default();
                let copy = subject(&found.location);
                Ok(Some(format!(
                    "{copy} is not removed: it belongs to {other}"
                )))
            }
            Source::Rescue(kept) => forget(kept, &rescue, store_timeout).await,
            Source::Encrypted => rescue.remove_encrypted(&found.location).map(|()| None),
            Source::Rotation(rotation) => {
                rotation.sweep();
                Ok(None)
            }
            // The file belongs to the user.
            Source::File => return Ok(ending),
        };
        ending.hints.clear();
        match removed {
            Ok(note) => ending.notes.extend(note),
            Err(error) => {
                let copy = subject(&found.location);
                ending
                    .warnings
                    .push(format!("{copy} cannot be removed: {error}"));
            }
        }
        Ok(ending)
    })?
}

/// Removes the copy of a login that is in the store now. Returns a note if the copy stays.
async fn forget(
    kept: &Rescued,
    rescue: &Rescue,
    store_timeout: Duration,
) -> io::Result<Option<String>> {
    let copy = subject(&kept.location);
    let forgotten = rescue.remove(kept, store_timeout).await?;
    Ok((!forgotten).then(|| {
        format!("{copy} is not removed: a job has saved the login again at the same time")
    }))
}

/// Refuses to put a login into a store to which it does not belong.
fn of_another_store(plan: &Plan, rescue: &Rescue, found: &FoundLogin, other: &str) -> Ending {
    let copy = subject(&found.location);
    let problem = format!("{copy} belongs to {other}, not to {}", plan.store);
    let put =
        |store: &str, options| messages::put(store, rescue.folder(), options, &found.location);
    let here = put(&plan.store.to_string(), " --replace");
    Ending::refused(exit::REFUSED, problem)
        .hint(format!("put it into its store: {}", put(other, "")))
        .hint(format!("to put it into {} as well: {here}", plan.store))
}

/// Explains why a rescued login was not put into the store.
fn not_put(
    plan: &Plan,
    rescue: &Rescue,
    args: &RescuePutArgs,
    found: &FoundLogin,
    error: &NotSeeded,
) -> Ending {
    let (why, option) = match &error.why {
        SeedError::NotEmpty => (
            "it is not known to be later than the store's login",
            " --replace",
        ),
        SeedError::Spent(_) => (
            "it was spent for the store's login, or is earlier",
            " --replace --allow-older",
        ),
        SeedError::Older(_) => (
            "the store's login was issued later",
            " --replace --allow-older",
        ),
        SeedError::AuthFileError(_)
        | SeedError::NotKept(_)
        | SeedError::LeaseHeld { .. }
        | SeedError::System(_)
        | SeedError::TimedOut
        | SeedError::Store(_) => return seed::failed(plan, rescue, error),
    };
    let (copy, folder) = (subject(&found.location), rescue.folder());
    let put = match &args.identity {
        None => messages::put(&plan.store, folder, option, &found.location),
        Some(key) => {
            let options = format!("{option} --identity {}", pasted::path(key));
            pasted::rescue_put(&plan.store, folder, &options, &found.location.argument())
        }
    };
    let problem = format!("{copy} was not put into {}: {why}", plan.store);
    Ending::refused(exit::FAILED, problem)
        .hint("compare both: `authferry status`")
        .hint(format!(
            "if the store's login is dead and this one is not: {put}"
        ))
}
