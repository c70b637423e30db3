//! `rescue`: lists, puts back and drops rescued logins.

mod find;
mod put;

use std::io;

use authferry_codex::AuthFileError;
use authferry_core::Stored;
use authferry_runner::rescue::{self, Location, NotALogin, Rescue, Rescued};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::args::{self, CommonArgs, Global, RescueCommand, RescueDropArgs};
use crate::commands::{block_on, read_second_store};
use crate::copies::{self, JudgedCopy};
use crate::messages::time::at;
use crate::outcome::{Ending, Result};
use crate::plan::Plan;
use crate::{exit, messages};

pub(crate) fn rescue(args: &args::RescueArgs, global: &Global) -> Result<Ending> {
    match &args.command {
        Some(RescueCommand::Put(args)) => put::put(args, global),
        Some(RescueCommand::Drop(args)) => drop_one(args, global),
        Some(RescueCommand::List(common)) => list(common, global),
        None => list(&args.common, global),
    }
}

/// Lists each rescued login: its store, why, when and by which job it was saved, and its verdict.
fn list(common: &CommonArgs, global: &Global) -> Result<Ending> {
    let plan = Plan::new(global)?;
    let rescue = plan.rescue(global)?;
    // An unusable folder is reported before a request to a store.
    list_rescued(&rescue)?;
    let judged = block_on(&plan, async {
        read_second_store(&rescue, common.store_timeout).await?;
        let stored = read(&plan, common).await?;
        let store_timeout = common.store_timeout;
        let judged = copies::judge(&plan, &rescue, stored.as_ref(), store_timeout).await;
        Result::Ok(judged.map_err(|error| messages::rescue_folder(rescue.folder(), &error))?)
    })??;
    let (kept, encrypted) = (list_rescued(&rescue)?, encrypted(&rescue)?);
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
            "{name}  encrypted: `rescue put --identity KEY` decrypts it"
        ));
        ending.lines.push(place(location));
    }
    if ending.lines.is_empty() {
        let second = plan.second_store.iter();
        let second = second.map(|store| format!(" or in the second store {store}"));
        ending.message = format!(
            "no login is saved in {}{}",
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
        .fact("copies", copies::to_json(&judged))
        .fact("encrypted", messages::places(&encrypted))
        .fact("others", others))
}

/// Removes a rescued login.
fn drop_one(args: &RescueDropArgs, global: &Global) -> Result<Ending> {
    let plan = Plan::new(global)?;
    let rescue = plan.rescue(global)?;
    let dropping = async {
        let store_timeout = args.common.store_timeout;
        // An unusable folder is reported before a request to the second store.
        list_rescued(&rescue)?;
        read_second_store(&rescue, store_timeout).await?;
        let kept = list_rescued(&rescue)?;
        if let Some(found) = kept
            .iter()
            .find(|kept| find::is_named_by(kept, &args.login))
        {
            let forgotten = rescue.remove(found, store_timeout).await;
            return removed(&found.location, forgotten);
        }
        let encrypted = encrypted(&rescue)?;
        let is_named = |it: &&Location| find::names(&args.login, None, it);
        let Some(location) = encrypted.iter().find(is_named) else {
            return Err(find::unknown(&args.login, &rescue).into());
        };
        removed(location, rescue.remove_encrypted(location).map(|()| true))
    };
    block_on(&plan, dropping)?
}

fn removed(location: &Location, forgotten: io::Result<bool>) -> Result<Ending> {
    let copy = subject(location);
    let failed = format!("{copy} cannot be removed");
    match forgotten {
        Ok(true) => Ok(Ending::good("dropped", format!("{copy} was removed"))),
        Ok(false) => {
            let why = format!("{failed}: a job has saved the login again at the same time");
            Err(Ending::refused(exit::FAILED, why).into())
        }
        Err(error) => Err(Ending::refused(exit::FAILED, failed)
            .caused_by(&error)
            .into()),
    }
}

/// A copy as the subject of a sentence.
fn subject(location: &Location) -> String {
    match location {
        Location::File(_) | Location::EncryptedFile(_) => location.place(),
        Location::SecondStore { address, name } => format!("login {name} in {address}"),
    }
}

/// The rescued logins in the folder and in the second store.
fn list_rescued(rescue: &Rescue) -> Result<Vec<Rescued>> {
    let folder = rescue.folder();
    let mut kept = rescue::list(folder).map_err(|error| messages::rescue_folder(folder, &error))?;
    kept.extend(rescue.in_second_store());
    Ok(kept)
}

fn encrypted(rescue: &Rescue) -> Result<Vec<Location>> {
    let folder = rescue.folder();
    let encrypted = rescue.encrypted();
    Ok(encrypted.map_err(|error| messages::rescue_folder(folder, &error))?)
}

async fn read(plan: &Plan, common: &CommonArgs) -> Result<Option<Stored>> {
    let read = timeout(common.store_timeout, plan.store.read()).await;
    let read = read.map_err(|_| messages::out_of_time(&plan.store))?;
    Ok(read.map_err(|error| messages::store(&error))?)
}

fn lines(copy: &JudgedCopy) -> Vec<String> {
    let mut lines = vec![format!("{}  {}", copy.fingerprint, copy.description())];
    if let Some(record) = &copy.record {
        lines.push(format!("  saved  {}, by {}", at(record.time), record.job));
        lines.push(format!("  why    {}", record.reason.text()));
    } else {
        lines.push("  why    a rotation did not finish".to_owned());
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
        Err(NotALogin::AuthFileError(AuthFileError::Empty)) => "empty".to_owned(),
        Err(NotALogin::Unreadable(_)) => "unreadable".to_owned(),
        Err(_) => "unusable".to_owned(),
    }
}

fn foreign(kept: &Rescued) -> String {
    match (&kept.login, &kept.record) {
        (Err(why), _) => format!("not a login: {why}"),
        (Ok(_), Some(record)) => format!("belongs to {}", record.store),
        (Ok(_), None) => "has no record: its store is unknown".to_owned(),
    }
}
