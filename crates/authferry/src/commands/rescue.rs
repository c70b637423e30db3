//! `rescue`: what this machine keeps of logins that the store does not hold.

use std::path::{Path, PathBuf};

use authferry_codex::Unusable;
use authferry_core::copies::Origins;
use authferry_core::{Secret, Stored};
use authferry_runner::rescue::{self, Rescued};
use authferry_runner::{Mark, Replace, Seed};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::args::{Common, Global, Rescue, RescueCommand, RescueDrop, RescuePut};
use crate::commands::{block_on, seed};
use crate::copies::{self, Judged};
use crate::ending::{Ending, Result};
use crate::plan::Plan;
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
    let stored = block_on(&*plan.store, read(&plan, common))??;
    let judged = copies::judged(&plan, &folder, stored.as_ref());
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
    let copies: Vec<Value> = judged.iter().map(Judged::for_programs).collect();
    let others: Vec<Value> = others
        .iter()
        .map(|other| {
            json!({
                "file": other.path.display().to_string(),
                "store": other.record.as_ref().map(|record| record.store.clone()),
            })
        })
        .collect();
    Ok(ending
        .fact("store", plan.store.to_string())
        .fact("copies", copies)
        .fact("others", others))
}

/// Puts a kept login back into the store, and removes it from the folder.
fn put(args: &RescuePut, global: &Global) -> Result<Ending> {
    let plan = Plan::new(global)?;
    let folder = plan.rescue_dir(global)?;
    let found = find(&plan, &folder, args.login.as_deref())?;
    let replace = match (args.replace, args.allow_older) {
        (false, _) => Replace::Nothing,
        (true, false) => Replace::NotNewer,
        (true, true) => Replace::Anything,
    };
    let seeding = async {
        let store = &*plan.store;
        // A mark is all that is asked of it here; without one nothing is known to be refused.
        let mark = async {
            let stored = store.read().await.ok()??;
            let login = authferry_codex::parse(&stored.secret).ok()?;
            Mark::of(login.fingerprint, store).await
        };
        let mark = timeout(args.common.patience, mark).await.ok().flatten();
        let seed = Seed {
            store,
            secret: &found.secret,
            origins: found.origins.clone(),
            replace,
            refused: mark.into_iter().map(|mark| mark.fingerprint).collect(),
            writer: &plan.writer,
            rescue: &folder,
            patience: args.common.patience,
        };
        authferry_runner::seed(&seed).await
    };
    let seeded = block_on(&*plan.store, seeding)?;
    let seeded = seeded.map_err(|not| seed::failed(&plan, &folder, &not))?;
    let mut ending = seed::told(&plan, &seeded);
    ending.hints.clear();
    if found.in_folder
        && let Err(error) = rescue::forget(&found.path)
    {
        ending.warnings.push(format!(
            "{} cannot be removed: {error}",
            found.path.display()
        ));
    }
    Ok(ending)
}

/// Removes a kept login.
fn drop_one(args: &RescueDrop, global: &Global) -> Result<Ending> {
    let plan = Plan::new(global)?;
    let folder = plan.rescue_dir(global)?;
    let kept = kept(&folder)?;
    let Some(found) = kept.iter().find(|kept| is_meant(kept, &args.login)) else {
        return Err(unknown(&args.login, &folder).into());
    };
    rescue::forget(&found.path).map_err(|error| {
        let what = format!("{} cannot be removed", found.path.display());
        Ending::refused(exit::FAILED, what).caused_by(&error)
    })?;
    let message = format!("{} was removed", found.path.display());
    Ok(Ending::good("dropped", message))
}

/// What is to be put into the store.
struct Found {
    path: PathBuf,
    secret: Secret,
    origins: Option<Origins>,
    in_folder: bool,
}

/// Finds the login that is meant: by its fingerprint or its file; without either the only one
/// of this store.
fn find(plan: &Plan, folder: &Path, login: Option<&str>) -> Result<Found> {
    let kept = kept(folder)?;
    let store = plan.store.to_string();
    let mut of_store: Vec<Rescued> = kept
        .into_iter()
        .filter(|kept| match login {
            Some(login) => is_meant(kept, login),
            None => kept.login.is_ok() && kept.record.as_ref().is_some_and(|it| it.store == store),
        })
        .collect();
    if login.is_none() && of_store.len() > 1 {
        let what = format!(
            "{} logins of {store} are kept in {}",
            of_store.len(),
            folder.display()
        );
        return Err(Ending::refused(exit::FAILED, what)
            .hint("name one by its fingerprint: `authferry rescue list` shows them")
            .into());
    }
    let file = login.map(Path::new);
    match (of_store.pop(), login, file) {
        (Some(found), _, _) => {
            let record = found.record.filter(|record| record.store == store);
            Ok(Found {
                origins: record.and_then(|record| {
                    Some(Origins {
                        base: record.base?,
                        seen: record.seen,
                        by_name: true,
                        hints_count: false,
                    })
                }),
                path: found.path,
                secret: found.secret,
                in_folder: true,
            })
        }
        (None, Some(_), Some(file)) if file.is_file() => Ok(Found {
            secret: seed::read(file).map_err(|error| {
                let what = format!("{} cannot be read", file.display());
                Ending::refused(exit::FAILED, what).caused_by(&error)
            })?,
            path: file.to_owned(),
            origins: None,
            in_folder: false,
        }),
        (None, Some(login), _) => Err(unknown(login, folder).into()),
        (None, None, _) => {
            let what = format!("no login of {store} is kept in {}", folder.display());
            Err(Ending::refused(exit::FAILED, what).into())
        }
    }
}

fn is_meant(kept: &Rescued, login: &str) -> bool {
    let file = Path::new(login);
    let by_name = kept
        .login
        .as_ref()
        .is_ok_and(|it| it.fingerprint.to_string() == login);
    by_name || kept.path == file || std::path::absolute(file).is_ok_and(|file| file == kept.path)
}

fn unknown(login: &str, folder: &Path) -> Ending {
    let what = format!(
        "{login} is no login that is kept in {}, and no file",
        folder.display()
    );
    Ending::refused(exit::FAILED, what).hint("see what is kept: `authferry rescue list`")
}

fn kept(folder: &Path) -> Result<Vec<Rescued>> {
    Ok(rescue::list(folder).map_err(|error| {
        let what = format!(
            "the rescue folder {} cannot be used: {error}",
            folder.display()
        );
        Ending::refused(exit::REFUSED, what).hint(format!(
            "close it to others with `chmod 700 {}`",
            folder.display()
        ))
    })?)
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
        Err(Unusable::Empty) => "empty".to_owned(),
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
