//! `refresh`: rotates a login that is due before long, and nothing else.

use authferry_runner::{Rotating, rotate};

use crate::args::{Global, Refresh};
use crate::commands::{block_on, from_now, trips};
use crate::ending::{Ending, Result};
use crate::plan::{self, Plan};
use crate::telling;

pub(crate) fn refresh(args: &Refresh, global: &Global) -> Result<Ending> {
    let plan = Plan::new(global)?;
    let rescue = plan.rescue_dir(global)?;
    let codex = plan.codex(global, &[])?;
    let rotating = Rotating {
        store: &*plan.store,
        codex: &codex,
        temp: &plan.env.temp,
        rescue: &rescue,
        policy: plan::policy(args.on_conflict),
        writer: &plan.writer,
        due_by: from_now(args.within),
        patience: args.common.patience,
        wait: args.rotating.wait,
        shield: args.rotating.shield,
    };
    let rotated = block_on(&*plan.store, async {
        let mut signals = trips::install()?;
        trips::begun(rotate(&rotating, &mut signals).await)
    })??;
    Ok(telling::rotation(&rotating, &rotated))
}
