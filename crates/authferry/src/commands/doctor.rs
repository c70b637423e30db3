//! `doctor`: whether a job would begin here, and what the store is worth.

mod check;
mod claim;
mod promises;
mod rounds;

use authferry_core::SecretStore;

use crate::args::{Doctor, Global};
use crate::ending::{Ending, Result};
use crate::plan::Plan;

use check::{Check, State};
use rounds::Found;

pub(crate) fn doctor(args: &Doctor, global: &Global) -> Result<Ending> {
    let plan = Plan::new(global)?;
    let found = rounds::make(&plan, args, global)?;
    Ok(told(&*plan.store, found, global.quiet))
}

fn told(store: &dyn SecretStore, found: Found, quiet: bool) -> Ending {
    let Found {
        checks,
        facts,
        account_plan,
        history,
    } = found;
    let shown = checks.iter().filter(|check| !quiet || check.is_wrong());
    let mut ending = verdict(&checks);
    ending.lines = shown.flat_map(Check::lines).collect();
    if !quiet {
        ending.lines.push(String::new());
        ending.lines.extend(promises::lines(store, history));
        ending.lines.push(String::new());
        ending
            .lines
            .push(promises::instead(account_plan.as_deref()));
    }
    let checks: Vec<_> = checks.iter().map(Check::json).collect();
    ending.facts = facts;
    ending
        .fact("store", store.to_string())
        .fact("checks", checks)
        .fact("guarantees", promises::json(store, history))
        .fact("store_notes", store.notes())
        .fact("plan", account_plan)
}

/// The first check that failed decides, as it would for a job.
fn verdict(checks: &[Check]) -> Ending {
    let count = |state| checks.iter().filter(|check| check.state == state).count();
    let failed = checks.iter().find(|check| check.state == State::Failed);
    let Some(first) = failed else {
        let message = match count(State::Warning) {
            0 => "this runner is ready".to_owned(),
            1 => "this runner is ready, with 1 warning".to_owned(),
            warnings => format!("this runner is ready, with {warnings} warnings"),
        };
        return Ending::good("ready", message);
    };
    let more = match count(State::Failed) - 1 {
        0 => String::new(),
        1 => "; 1 more check failed".to_owned(),
        others => format!("; {others} more checks failed"),
    };
    let message = format!("this runner is not ready: {}{more}", first.message);
    Ending::bad(first.code, "not-ready", message)
}
