//! `refresh`: rotates a login that is due soon.

use authferry_codex::SettingSources;
use authferry_runner::rotate;

use crate::args::{Global, RefreshArgs};
use crate::commands::{block_on, read_second_store, round_trips};
use crate::messages;
use crate::outcome::{Ending, Result};
use crate::plan::{self, JobTerms, Plan};

#[cfg(feature = "ping")]
pub(crate) fn refresh(args: &RefreshArgs, global: &Global) -> Result<Ending> {
    let report = |ending| crate::ping::report(args.ping.as_deref(), ending);
    match rotate_login(args, global) {
        Ok(ending) => Ok(report(ending)),
        Err(ending) => Err(report(*ending).into()),
    }
}

#[cfg(not(feature = "ping"))]
pub(crate) fn refresh(args: &RefreshArgs, global: &Global) -> Result<Ending> {
    rotate_login(args, global)
}

fn rotate_login(args: &RefreshArgs, global: &Global) -> Result<Ending> {
    let plan = Plan::new(global)?;
    let rescue = plan.usable_rescue(global)?;
    let codex = plan.codex(global, None)?;
    let sources = SettingSources::of_refresh();
    let terms = JobTerms {
        settings: Some(&sources),
        policy: plan::policy(args.on_conflict),
        store_timeout: args.common.store_timeout,
        ..JobTerms::default()
    };
    let rotating = plan.rotating(&codex, &rescue, &args.rotating, args.within, &terms);
    let rotated = block_on(&plan, async {
        let mut signals = round_trips::install_signals()?;
        read_second_store(&rescue, terms.store_timeout).await?;
        round_trips::check_start(rotate(&rotating, &mut signals).await)
    })??;
    Ok(match rotated {
        Ok(rotated) => messages::rotation(&rotating, &rotated),
        Err(report) => messages::unsettled(&rotating, &report),
    })
}
