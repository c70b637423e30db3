//! `rescue put`: the way back into the store.

use std::{io, path::Path, time::Duration};

use authferry_runner::rescue::{Rescue, Rescued};
use authferry_runner::{Mark, NotSeeded, Replace, Seed, SeedError};
use tokio::time::timeout;

use super::find::{Found, Place, find};
use super::{kept, read, what};
use crate::args::{Global, RescuePut};
use crate::commands::{block_on, look_into_second_store, seed};
use crate::copies;
use crate::ending::{Ending, Result};
use crate::plan::Plan;
use crate::telling::pasted;
use crate::{exit, telling};

/// Puts a kept login back into the store, and removes it from where it was kept.
pub(super) fn put(args: &RescuePut, global: &Global) -> Result<Ending> {
    let plan = Plan::new(global)?;
    let rescue = plan.rescue(global)?;
    let replace = match (args.replace, args.allow_older) {
        (false, _) => Replace::Nothing,
        (true, false) => Replace::NotNewer,
        (true, true) => Replace::Anything,
    };
    block_on(&plan, async {
        let (store, patience) = (&*plan.store, args.common.patience);
        // A folder that cannot be used is reported before any store is asked.
        kept(&rescue)?;
        let is_file = args
            .login
            .as_ref()
            .is_some_and(|it| Path::new(it).is_file());
        // A file can be put back although the second store cannot be read.
        match look_into_second_store(&rescue, patience).await {
            Err(ending) if !is_file => return Err(ending),
            Ok(()) | Err(_) => {}
        }
        let mut found = find(&plan, &rescue, args)?;
        // Under another address of this store it belongs here, as far as the store's login tells.
        if found.other_store.is_some() {
            let stored = read(&plan, &args.common).await?;
            let judged = copies::judged(&plan, &rescue, stored.as_ref(), patience).await;
            let mut judged = judged
                .map_err(|error| telling::rescue_folder(rescue.folder(), &error))?
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
        let refused = timeout(patience, Mark::refused(store)).await;
        let seed = Seed {
            store,
            secret: &found.secret,
            origins: found.origins.clone(),
            replace,
            refused: refused.unwrap_or_default(),
            writer: &plan.writer,
            rescue: &rescue,
            patience,
        };
        let seeded = authferry_runner::seed(&seed).await;
        let seeded = seeded.map_err(|not| not_put(&plan, &rescue, args, &found, &not))?;
        let mut ending = seed::told(&plan, &seeded);
        let removed = match &found.place {
            // It is kept for another store, too.
            Place::Rescue(_) | Place::Encrypted if found.other_store.is_some() => {
                let other = found.other_store.as_deref().unwrap_or_default();
                let what = what(&found.location);
                Ok(Some(format!("{what} stays: it is kept for {other}")))
            }
            Place::Rescue(kept) => forget(kept, &rescue, patience).await,
            Place::Encrypted => rescue.forget_encrypted(&found.location).map(|()| None),
            Place::Rotation(rotation) => {
                rotation.sweep();
                Ok(None)
            }
            // The file is the person's own.
            Place::Elsewhere => return Ok(ending),
        };
        ending.hints.clear();
        match removed {
            Ok(note) => ending.notes.extend(note),
            Err(error) => {
                let what = what(&found.location);
                ending
                    .warnings
                    .push(format!("{what} cannot be removed: {error}"));
            }
        }
        Ok(ending)
    })?
}

/// Removes a login that is in the store now; returns what to say if it stays.
async fn forget(kept: &Rescued, rescue: &Rescue, patience: Duration) -> io::Result<Option<String>> {
    let what = what(&kept.location);
    let forgotten = rescue.forget(kept, patience).await?;
    Ok((!forgotten).then(|| format!("{what} stays: a job has kept the login anew meanwhile")))
}

/// Refuses to put a login into a store from which no job would read it.
fn of_another_store(plan: &Plan, rescue: &Rescue, found: &Found, other: &str) -> Ending {
    let what = what(&found.location);
    let what = format!("{what} belongs to {other}, not to {}", plan.store);
    let put = |store: &str, options| telling::put(store, rescue.folder(), options, &found.location);
    let here = put(&plan.store.to_string(), " --replace");
    Ending::refused(exit::REFUSED, what)
        .hint(format!("put it there: {}", put(other, "")))
        .hint(format!(
            "if it is to be the login of {} as well: {here}",
            plan.store
        ))
}

/// Explains why a kept login was not put into the store.
fn not_put(
    plan: &Plan,
    rescue: &Rescue,
    args: &RescuePut,
    found: &Found,
    not: &NotSeeded,
) -> Ending {
    let (why, option) = match &not.why {
        SeedError::Filled => (
            "it is not known to be later than the login in the store",
            " --replace",
        ),
        SeedError::Spent(_) => (
            "it was spent for the login in the store, or is earlier",
            " --replace --allow-older",
        ),
        SeedError::Older(_) => (
            "the login in the store was issued later",
            " --replace --allow-older",
        ),
        SeedError::Unusable(_)
        | SeedError::NotKept(_)
        | SeedError::LeaseHeld { .. }
        | SeedError::System(_)
        | SeedError::OutOfTime
        | SeedError::Store(_) => return seed::failed(plan, rescue, not),
    };
    let (what, folder) = (what(&found.location), rescue.folder());
    let put = match &args.identity {
        None => telling::put(&plan.store, folder, option, &found.location),
        Some(key) => {
            let options = format!("{option} --identity {}", pasted::path(key));
            pasted::rescue_put(&plan.store, folder, &options, &found.location.argument())
        }
    };
    let what = format!("{what} was not put into {}: {why}", plan.store);
    Ending::refused(exit::FAILED, what)
        .hint("see what both are worth: `authferry status`")
        .hint(format!(
            "if the login in the store is dead and this one is not: {put}"
        ))
}
