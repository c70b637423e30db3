//! `rescue`: what is kept of logins that the store does not hold.

mod find;
mod put;

use std::io;

use authferry_codex::Unusable;
use authferry_core::Stored;
use authferry_runner::rescue::{self, Location, NotALogin, Rescue, Rescued};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::args::{self, Common, Global, RescueCommand, RescueDrop};
use crate::commands::{block_on, look_into_second_store};
use crate::copies::{self, Judged};
use crate::ending::{Ending, Result};
use crate::plan::Plan;
use crate::telling::time::at;
use crate::{exit, telling};

pub(crate) fn rescue(args: &args::Rescue, global: &Global) -> Result<Ending> {
    match &args.command {
        Some(RescueCommand::Put(args)) => put::put(args, global),
        Some(RescueCommand::Drop(args)) => drop_one(args, global),
        Some(RescueCommand::List(common)) => list(common, global),
        None => list(&args.common, global),
    }
}

/// Shows whose each kept login is, why, when and by which job it was kept, and what it is
/// worth now.
fn list(common: &Common, global: &Global) -> Result<Ending> {
    let plan = Plan::new(global)?;
    let rescue = plan.rescue(global)?;
    // A folder that cannot be used is reported before any store is asked.
    kept(&rescue)?;
    let judged = block_on(&plan, async {
        look_into_second_store(&rescue, common.patience).await?;
        let stored = read(&plan, common).await?;
        let patience = common.patience;
        let judged = copies::judged(&plan, &rescue, stored.as_ref(), patience).await;
        Result::Ok(judged.map_err(|error| telling::rescue_folder(rescue.folder(), &error))?)
    })??;
    let (kept, encrypted) = (kept(&rescue)?, encrypted(&rescue)?);
    let mut ending = Ending::good("listed", "");
    for copy in &judged {
        ending.lines.extend(lines(copy));
    }
    let is_judged = |kept: &Rescued| {
        let mut copies = judged.iter();
        copies.any(|copy| copy.location == kept.location && copy.record == kept.record)
    };
    let others: Vec<&Rescued> = kept.iter().filter(|kept| !is_judged(kept)).collect();
    for other in &others {
        let name = name(other);
        ending.lines.push(format!("{name}  {}", foreign(other)));
        ending.lines.push(place(&other.location));
    }
    for location in &encrypted {
        let name = location.name();
        ending.lines.push(format!(
            "{name}  encrypted: `rescue put --identity KEY` tells what it is worth"
        ));
        ending.lines.push(place(location));
    }
    if ending.lines.is_empty() {
        let second = plan.second_store.iter();
        let second = second.map(|store| format!(" or in the second store {store}"));
        ending.message = format!(
            "nothing is kept in {}{}",
            rescue.folder().display(),
            second.collect::<String>()
        );
    }
    let others: Vec<Value> = others
        .iter()
        .map(|other| {
            json!({
                "file": other.location.place(),
                "fingerprint": other.login.as_ref().ok().map(|it| it.fingerprint.to_string()),
                "store": other.record.as_ref().map(|record| record.store.clone()),
            })
        })
        .collect();
    Ok(ending
        .fact("store", plan.store.to_string())
        .fact("copies", copies::for_programs(&judged))
        .fact("encrypted", telling::places(&encrypted))
        .fact("others", others))
}

/// Removes a kept login.
fn drop_one(args: &RescueDrop, global: &Global) -> Result<Ending> {
    let plan = Plan::new(global)?;
    let rescue = plan.rescue(global)?;
    let dropping = async {
        let patience = args.common.patience;
        // A folder that cannot be used is reported before the second store is asked.
        kept(&rescue)?;
        look_into_second_store(&rescue, patience).await?;
        let kept = kept(&rescue)?;
        if let Some(found) = kept.iter().find(|kept| find::is_meant(kept, &args.login)) {
            let forgotten = rescue.forget(found, patience).await;
            return removed(&found.location, forgotten);
        }
        let encrypted = encrypted(&rescue)?;
        let is_meant = |it: &&Location| find::names(&args.login, None, it);
        let Some(location) = encrypted.iter().find(is_meant) else {
            return Err(find::unknown(&args.login, &rescue).into());
        };
        removed(location, rescue.forget_encrypted(location).map(|()| true))
    };
    block_on(&plan, dropping)?
}

fn removed(location: &Location, forgotten: io::Result<bool>) -> Result<Ending> {
    let what = what(location);
    let failed = format!("{what} cannot be removed");
    match forgotten {
        Ok(true) => Ok(Ending::good("dropped", format!("{what} was removed"))),
        Ok(false) => {
            let why = format!("{failed}: a job has kept the login anew meanwhile");
            Err(Ending::refused(exit::FAILED, why).into())
        }
        Err(error) => Err(Ending::refused(exit::FAILED, failed)
            .caused_by(&error)
            .into()),
    }
}

/// A copy as the subject of a sentence.
fn what(location: &Location) -> String {
    match location {
        Location::File(_) | Location::EncryptedFile(_) => location.place(),
        Location::SecondStore { address, name } => format!("login {name} in {address}"),
    }
}

/// What is kept in the folder and in the second store.
fn kept(rescue: &Rescue) -> Result<Vec<Rescued>> {
    let folder = rescue.folder();
    let mut kept = rescue::list(folder).map_err(|error| telling::rescue_folder(folder, &error))?;
    kept.extend(rescue.in_second_store());
    Ok(kept)
}

fn encrypted(rescue: &Rescue) -> Result<Vec<Location>> {
    let folder = rescue.folder();
    let encrypted = rescue.encrypted();
    Ok(encrypted.map_err(|error| telling::rescue_folder(folder, &error))?)
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
    lines.push(place(&copy.location));
    lines
}

fn place(location: &Location) -> String {
    let name = match location {
        Location::File(_) | Location::EncryptedFile(_) => "file ",
        Location::SecondStore { .. } => "store",
    };
    format!("  {name}  {}", location.place())
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
