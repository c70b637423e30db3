//! `rescue`: what this machine keeps of logins that the store does not hold.

use std::{
    io,
    path::{Path, PathBuf},
};

use authferry_codex::Unusable;
use authferry_core::copies::Origins;
use authferry_core::{Fingerprint, Secret, Stored};
use authferry_runner::rescue::{self, NotALogin, Rescued};
use authferry_runner::{FoundCopy, Mark, NotSeeded, Replace, Seed, SeedError};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::args::{Common, Global, Rescue, RescueCommand, RescueDrop, RescuePut};
use crate::commands::{block_on, seed};
use crate::copies::{self, Judged};
use crate::ending::{Ending, Result};
use crate::plan::Plan;
use crate::telling::pasted;
use crate::telling::time::at;
use crate::{exit, telling};

pub(crate) fn rescue(args: &Rescue, global: &Global) -> Result<Ending> {
    match &args.command {
        Some(RescueCommand::Put(args)) => put(args, global),
        Some(RescueCommand::Drop(args)) => drop_one(args, global),
        Some(RescueCommand::List(common)) => list(common, global),
        None => list(&args.common, global),
    }
}

/// Shows whose each kept login is, why, when and by which job it was kept, and what it is
/// worth now.
fn list(common: &Common, global: &Global) -> Result<Ending> {
    let plan = Plan::new(global)?;
    let folder = plan.rescue_dir(global)?;
    let kept = kept(&folder)?;
    let judged = block_on(&*plan.store, async {
        let stored = read(&plan, common).await?;
        let patience = common.patience;
        let judged = copies::judged(&plan, &folder, stored.as_ref(), patience).await;
        Result::Ok(judged.map_err(|error| telling::rescue_folder(&folder, &error))?)
    })??;
    let mut ending = Ending::good("listed", "");
    for copy in &judged {
        ending.lines.extend(lines(copy));
    }
    let others: Vec<&Rescued> = kept
        .iter()
        .filter(|kept| judged.iter().all(|copy| copy.path != kept.path))
        .collect();
    for other in &others {
        ending
            .lines
            .push(format!("{}  {}", name(other), foreign(other)));
        ending
            .lines
            .push(format!("  file   {}", other.path.display()));
    }
    if ending.lines.is_empty() {
        ending.message = format!("nothing is kept in {}", folder.display());
    }
    let others: Vec<Value> = others
        .iter()
        .map(|other| {
            json!({
                "file": other.path.display().to_string(),
                "fingerprint": other.login.as_ref().ok().map(|it| it.fingerprint.to_string()),
                "store": other.record.as_ref().map(|record| record.store.clone()),
            })
        })
        .collect();
    Ok(ending
        .fact("store", plan.store.to_string())
        .fact("copies", copies::for_programs(&judged))
        .fact("others", others))
}

/// Puts a kept login back into the store, and removes it from where it was kept.
fn put(args: &RescuePut, global: &Global) -> Result<Ending> {
    let plan = Plan::new(global)?;
    let folder = plan.rescue_dir(global)?;
    let found = find(&plan, &folder, args.login.as_deref())?;
    if let Place::Folder(kept) = &found.place
        && let Some(other) = other_store(kept, &plan)
        && !args.replace
    {
        return Err(of_another_store(&plan, &folder, kept, &other).into());
    }
    let replace = match (args.replace, args.allow_older) {
        (false, _) => Replace::Nothing,
        (true, false) => Replace::NotNewer,
        (true, true) => Replace::Anything,
    };
    let seeding = async {
        let store = &*plan.store;
        let refused = timeout(args.common.patience, Mark::refused(store)).await;
        let seed = Seed {
            store,
            secret: &found.secret,
            origins: found.origins.clone(),
            replace,
            refused: refused.unwrap_or_default(),
            writer: &plan.writer,
            rescue: &folder,
            patience: args.common.patience,
        };
        authferry_runner::seed(&seed).await
    };
    let seeded = block_on(&*plan.store, seeding)?;
    let seeded = seeded.map_err(|not| not_put(&plan, &folder, &found, &not))?;
    let mut ending = seed::told(&plan, &seeded);
    match &found.place {
        Place::Folder(kept) => {
            ending.hints.clear();
            match forget(kept, &plan) {
                Ok(note) => ending.notes.extend(note),
                Err(error) => ending.warnings.push(format!(
                    "{} cannot be removed: {error}",
                    found.path.display()
                )),
            }
        }
        Place::Rotation(rotation) => {
            ending.hints.clear();
            rotation.sweep();
        }
        // The file is the person's own.
        Place::Elsewhere => {}
    }
    Ok(ending)
}

/// Removes a login that is in the store now, unless it is kept for another store, too; returns
/// what to say if it stays.
fn forget(kept: &Rescued, plan: &Plan) -> io::Result<Option<String>> {
    let file = kept.path.display();
    if let Some(other) = other_store(kept, plan) {
        return Ok(Some(format!("{file} stays: it is kept for {other}")));
    }
    let forgotten = rescue::forget(kept)?;
    Ok((!forgotten).then(|| format!("{file} stays: a job has kept the login anew meanwhile")))
}

/// The other store to which a kept login belongs, if it does.
fn other_store(kept: &Rescued, plan: &Plan) -> Option<String> {
    let record = kept.record.as_ref()?;
    (record.store != plan.store.to_string()).then(|| record.store.clone())
}

/// Refuses to put a login into a store from which no job would read it.
fn of_another_store(plan: &Plan, folder: &Path, kept: &Rescued, other: &str) -> Ending {
    let file = kept.path.display();
    let what = format!("{file} belongs to {other}, not to {}", plan.store);
    let put = |store: &str, options| pasted::rescue_put(store, folder, options, &file);
    let here = put(&plan.store.to_string(), " --replace");
    Ending::refused(exit::REFUSED, what)
        .hint(format!("put it there: {}", put(other, "")))
        .hint(format!(
            "if it is to be the login of {} as well: {here}",
            plan.store
        ))
}

/// Explains why a kept login was not put into the store.
fn not_put(plan: &Plan, folder: &Path, found: &Found, not: &NotSeeded) -> Ending {
    let file = found.path.display();
    let (what, option) = match &not.why {
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
        | SeedError::System(_)
        | SeedError::OutOfTime
        | SeedError::Store(_) => return seed::failed(plan, folder, not),
    };
    let what = format!("{file} was not put into {}: {what}", plan.store);
    Ending::refused(exit::FAILED, what)
        .hint("see what both are worth: `authferry status`")
        .hint(format!(
            "if the login in the store is dead and this one is not: {}",
            pasted::rescue_put(&plan.store, folder, option, &file)
        ))
}

/// Removes a kept login.
fn drop_one(args: &RescueDrop, global: &Global) -> Result<Ending> {
    let plan = Plan::new(global)?;
    let folder = plan.rescue_dir(global)?;
    let kept = kept(&folder)?;
    let Some(found) = kept.iter().find(|kept| is_meant(kept, &args.login)) else {
        return Err(unknown(&args.login, &folder).into());
    };
    let what = || format!("{} cannot be removed", found.path.display());
    let forgotten = rescue::forget(found)
        .map_err(|error| Ending::refused(exit::FAILED, what()).caused_by(&error))?;
    if !forgotten {
        let what = format!("{}: a job has kept the login anew meanwhile", what());
        return Err(Ending::refused(exit::FAILED, what).into());
    }
    let message = format!("{} was removed", found.path.display());
    Ok(Ending::good("dropped", message))
}

/// What is to be put into the store.
struct Found {
    path: PathBuf,
    secret: Secret,
    origins: Option<Origins>,
    place: Place,
}

/// Where it was found.
enum Place {
    /// In the rescue folder.
    Folder(Box<Rescued>),
    /// In the private home of an unfinished rotation, which is locked for as long as this lives.
    Rotation(Box<FoundCopy>),
    /// In a file that was named.
    Elsewhere,
}

/// Finds the login that is meant: by its fingerprint or its file; without either the only one
/// of this store.
fn find(plan: &Plan, folder: &Path, login: Option<&str>) -> Result<Found> {
    let store = plan.store.to_string();
    let mut kept = kept(folder)?;
    let of_store = authferry_runner::find(&store, folder, Some(&plan.rotations));
    let mut of_store = of_store.map_err(|error| telling::rescue_folder(folder, &error))?;
    of_store.retain(|copy| {
        // One that was kept for another address is put there by its name alone.
        if copy.elsewhere.is_some() && login.is_none() {
            return false;
        }
        copy.fingerprint().is_some_and(|fingerprint| {
            login.is_none_or(|login| names(login, Some(fingerprint), &copy.path))
        })
    });
    if login.is_none() && of_store.len() > 1 {
        let what = format!(
            "{} logins of {store} are kept on this machine",
            of_store.len()
        );
        let each = of_store.iter().map(|copy| copy.path.display());
        return Err(each
            .fold(Ending::refused(exit::FAILED, what), |ending, file| {
                let put = pasted::rescue_put(&store, folder, "", &file);
                ending.hint(format!("name one of them: {put}"))
            })
            .hint("see what each is worth: `authferry rescue list`")
            .into());
    }
    if !of_store.is_empty() {
        let copy = of_store.remove(0);
        let (path, origins) = (copy.path.clone(), copy.copy.origins.clone());
        let kept = kept
            .iter()
            .position(|it| it.path == path)
            .map(|at| kept.swap_remove(at));
        let kept = kept.map(|kept| Place::Folder(Box::new(kept)));
        if let Some(secret) = copy.secret() {
            return Ok(Found {
                path,
                secret: secret.duplicate(),
                origins,
                place: kept.unwrap_or_else(|| Place::Rotation(Box::new(copy))),
            });
        }
    }
    let Some(login) = login else {
        let what = format!("no login of {store} is kept in {}", folder.display());
        return Err(Ending::refused(exit::FAILED, what)
            .hint("see what is kept: `authferry rescue list`")
            .into());
    };
    // Another store's, or of no known store: it begins a new family in this one.
    if let Some(found) = kept.into_iter().find(|kept| is_meant(kept, login)) {
        return Ok(Found {
            path: found.path.clone(),
            secret: found.secret.duplicate(),
            origins: None,
            place: Place::Folder(Box::new(found)),
        });
    }
    let file = Path::new(login);
    if !file.is_file() {
        return Err(unknown(login, folder).into());
    }
    let secret = seed::read(file).map_err(|error| {
        let what = format!("{} cannot be read", file.display());
        Ending::refused(exit::FAILED, what).caused_by(&error)
    })?;
    Ok(Found {
        path: file.to_owned(),
        secret,
        origins: None,
        place: Place::Elsewhere,
    })
}

fn is_meant(kept: &Rescued, login: &str) -> bool {
    let fingerprint = kept.login.as_ref().ok().map(|it| it.fingerprint);
    names(login, fingerprint, &kept.path)
}

/// Whether what was typed names a login by its fingerprint or its file.
fn names(typed: &str, fingerprint: Option<Fingerprint>, path: &Path) -> bool {
    let by_name = fingerprint.is_some_and(|it| it.to_string() == typed);
    let file = Path::new(typed);
    by_name || path == file || std::path::absolute(file).is_ok_and(|file| file == path)
}

fn unknown(login: &str, folder: &Path) -> Ending {
    let what = format!(
        "{login} is no login that is kept in {}, and no file",
        folder.display()
    );
    Ending::refused(exit::FAILED, what).hint("see what is kept: `authferry rescue list`")
}

fn kept(folder: &Path) -> Result<Vec<Rescued>> {
    Ok(rescue::list(folder).map_err(|error| telling::rescue_folder(folder, &error))?)
}

async fn read(plan: &Plan, common: &Common) -> Result<Option<Stored>> {
    let read = timeout(common.patience, plan.store.read()).await;
    let read = read.map_err(|_| telling::out_of_time(&plan.store))?;
    Ok(read.map_err(|error| telling::store(&error))?)
}

fn lines(copy: &Judged) -> Vec<String> {
    let mut lines = vec![format!("{}  {}", copy.fingerprint, copy.worth())];
    if let Some(record) = &copy.record {
        lines.push(format!("  kept   {}, by {}", at(record.time), record.job));
        lines.push(format!("  why    {}", record.reason.text()));
    } else {
        lines.push("  why    a rotation did not come to its end".to_owned());
    }
    lines.push(format!("  file   {}", copy.path.display()));
    lines
}

fn name(kept: &Rescued) -> String {
    match &kept.login {
        Ok(login) => login.fingerprint.to_string(),
        Err(NotALogin::Unusable(Unusable::Empty)) => "empty".to_owned(),
        Err(NotALogin::Unreadable(_)) => "unreadable".to_owned(),
        Err(_) => "unusable".to_owned(),
    }
}

fn foreign(kept: &Rescued) -> String {
    match (&kept.login, &kept.record) {
        (Err(why), _) => format!("no login: {why}"),
        (Ok(_), Some(record)) => format!("belongs to {}", record.store),
        (Ok(_), None) => "has no record: it belongs to no store that is known".to_owned(),
    }
}
