//! `refresh`: rotates a login that is due before long, and nothing else.

use authferry_runner::rotate;

use crate::args::{Global, Refresh};
use crate::commands::{block_on, look_into_second_store, trips};
use crate::ending::{Ending, Result};
use crate::plan::{self, JobTerms, Plan};
use crate::telling;

pub(crate) fn refresh(args: &Refresh, global: &Global) -> Result<Ending> {
    let plan = Plan::new(global)?;
    let rescue = plan.usable_rescue(global)?;
    let codex = plan.codex(global, None)?;
    let terms = JobTerms {
        policy: plan::policy(args.on_conflict),
        patience: args.common.patience,
        ..JobTerms::default()
    };
    let rotating = plan.rotating(&codex, &rescue, &args.rotating, args.within, &terms);
    let rotated = block_on(&plan, async {
        let mut signals = trips::install()?;
        look_into_second_store(&rescue, terms.patience).await?;
        trips::begun(rotate(&rotating, &mut signals).await)
    })??;
    Ok(match rotated {
        Ok(rotated) => telling::rotation(&rotating, &rotated),
        Err(report) => telling::unsettled(&rotating, &report),
    })
}
